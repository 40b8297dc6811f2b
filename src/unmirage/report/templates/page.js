(function () {
  "use strict";
  var root = document.documentElement;
  var each = function (selector, action) {
    Array.prototype.forEach.call(document.querySelectorAll(selector), action);
  };

  each(".needs-script", function (element) { element.hidden = false; });

  var dark = function () {
    return root.dataset.theme
      ? root.dataset.theme === "dark"
      : window.matchMedia("(prefers-color-scheme: dark)").matches;
  };
  var theme = document.getElementById("theme");
  var label = function () { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.addEventListener("click", function () {
    root.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  label();

  var wanted = { kind: "all", split: "all" };
  var show = function () {
    var shown = 0;
    each(".example", function (example) {
      var fits = Object.keys(wanted).every(function (name) {
        return wanted[name] === "all" || example.dataset[name] === wanted[name];
      });
      example.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    each("#none-fits", function (note) { note.hidden = shown > 0; });
  };
  each("[data-filter]", function (button) {
    button.addEventListener("click", function () {
      wanted[button.dataset.filter] = button.value;
      each('[data-filter="' + button.dataset.filter + '"]', function (other) {
        other.setAttribute("aria-pressed", String(other === button));
      });
      show();
    });
  });
})();
