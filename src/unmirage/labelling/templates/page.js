(function () {
  "use strict";
  var typing = function (element) { return element && element.tagName === "TEXTAREA"; };
  var find = function (selector) { return document.querySelector(selector); };
  var press = function (id) {
    var button = document.getElementById(id);
    if (button && !button.disabled) { button.click(); }
  };
  var mark = function (key) {
    var input = find('[data-key="' + key + '"]');
    if (input) { input.checked = true; input.focus(); }
  };
  var actions = {
    b: function () { press("back"); },
    s: function () { press("skip"); },
    p: function () { press("show-picture"); },
    w: function () { var note = find("textarea"); if (note) { note.focus(); } }
  };

  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) { return; }
    if (typing(document.activeElement)) {
      if (event.key === "Escape") { document.activeElement.blur(); }
      return;
    }
    var key = event.key.toLowerCase();
    if (/^[1-5ync]$/.test(key)) {
      mark(key);
    } else if (actions[key]) {
      actions[key]();
    } else if (key === "enter" && event.target.tagName !== "BUTTON") {
      press("save");
    } else {
      return;
    }
    event.preventDefault();
  });

  // A double click must not answer for the next item as well.
  document.addEventListener("submit", function () {
    window.setTimeout(function () {
      Array.prototype.forEach.call(document.querySelectorAll("button"), function (button) { button.disabled = true; });
    }, 0);
  });
})();
