(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("data").textContent);
  var SVG = "http://www.w3.org/2000/svg", LEFT = 56, RIGHT = 1080, TOP = 16, BOTTOM = 410, MOST_ROWS = 300;
  var picture = document.getElementById("picture"), body = document.querySelector("#cues tbody");
  var detail = document.getElementById("detail"), search = document.getElementById("search");
  var wanted = { show: "shortcut", position: "all" }, chosen = null;

  var make = function (name, attributes, text) {
    var element = document.createElementNS(SVG, name);
    Object.keys(attributes).forEach(function (key) { element.setAttribute(key, attributes[key]); });
    if (text !== undefined) { element.textContent = text; }
    return element;
  };
  var html = function (name, text, kind) {
    var element = document.createElement(name);
    if (text !== undefined) { element.textContent = text; }
    if (kind) { element.className = kind; }
    return element;
  };
  var percent = function (value) { return (100 * value).toFixed(1) + "%"; };
  var signed = function (value) { return value === null ? "" : (value > 0 ? "+" : "") + value.toFixed(1); };
  var small = function (value) { return value === 0 ? "0" : value < 0.001 ? value.toExponential(1) : value.toFixed(3); };

  var fits = function (cue) {
    var text = search.value.trim().toLowerCase();
    var shown = wanted.show === "all" || (wanted.show === "shortcut" && cue.shortcut) ||
      (wanted.show === "content" && cue.legitimate) || (wanted.show === "significant" && cue.q < 0.05);
    return (text ? cue.cue.toLowerCase().indexOf(text) >= 0 : shown) &&
      (wanted.position === "all" || cue.position === wanted.position);
  };

  var draw = function (cues) {
    picture.textContent = "";
    var largest = Math.max.apply(null, data.cues.map(function (cue) { return cue.n; }).concat([20]));
    var smallest = Math.min.apply(null, data.cues.map(function (cue) { return cue.n; }).concat([10]));
    var low = Math.log10(smallest) - 0.05, high = Math.log10(largest) + 0.05;
    var x = function (n) { return LEFT + (RIGHT - LEFT) * (Math.log10(n) - low) / (high - low); };
    var y = function (rate) { return BOTTOM - (BOTTOM - TOP) * rate; };
    [0, 0.25, 0.5, 0.75, 1].forEach(function (rate) {
      picture.appendChild(make("line", { "class": "grid", x1: LEFT, x2: RIGHT, y1: y(rate), y2: y(rate) }));
      picture.appendChild(make("text", { x: LEFT - 8, y: y(rate) + 4, "text-anchor": "end" }, percent(rate)));
    });
    for (var ten = Math.ceil(low); ten <= high; ten += 1) {
      picture.appendChild(make("line", { "class": "grid", x1: x(Math.pow(10, ten)), x2: x(Math.pow(10, ten)), y1: TOP, y2: BOTTOM }));
      picture.appendChild(make("text", { x: x(Math.pow(10, ten)), y: BOTTOM + 18, "text-anchor": "middle" }, String(Math.pow(10, ten))));
    }
    picture.appendChild(make("text", { x: (LEFT + RIGHT) / 2, y: 450, "text-anchor": "middle" }, "questions that have the cue (log scale); upright: share of " + data.directions[0]));
    picture.appendChild(make("line", { "class": "base", x1: LEFT, x2: RIGHT, y1: y(data.base), y2: y(data.base) }));
    [-1.96, 1.96].forEach(function (z) {
      var path = "";
      for (var i = 0; i <= 60; i += 1) {
        var n = Math.pow(10, low + (high - low) * i / 60);
        var rate = data.base + z * Math.sqrt(data.base * (1 - data.base) / (n * data.counted));
        path += (i ? "L" : "M") + x(n).toFixed(1) + " " + y(Math.min(1, Math.max(0, rate))).toFixed(1);
      }
      picture.appendChild(make("path", { "class": "funnel", d: path }));
    });
    var labelled = {}, taken = [];
    cues.slice(0, MOST_ROWS).forEach(function (cue, place) {
      // Only labels that hide no stronger one: a width of 6.6 a letter is near enough.
      var end = x(cue.n) > RIGHT - 120, wide = 6.6 * cue.cue.length;
      var left = end ? x(cue.n) - 9 - wide : x(cue.n) + 9;
      var free = taken.every(function (box) {
        return left > box[1] || left + wide < box[0] || Math.abs(y(cue.rate) - box[2]) > 12;
      });
      if (free) { labelled[place] = end; taken.push([left, left + wide, y(cue.rate)]); }
    });
    cues.slice(0, MOST_ROWS).map(function (cue, place) { return [cue, place]; }).reverse().forEach(function (pair) {
      var cue = pair[0], place = pair[1];
      var kind = "cue " + (cue.direction === data.directions[0] ? "more" : "fewer") +
        (cue.content_word ? " content" : "") + (cue.q < 0.05 ? "" : " dull") + (cue === chosen ? " chosen" : "");
      var group = make("g", { "class": kind, tabindex: "0" });
      group.appendChild(make("title", {}, cue.cue + " (" + cue.position + "): " + percent(cue.rate) + " of " + cue.n));
      group.appendChild(make("line", { "class": "whisker", x1: x(cue.n), x2: x(cue.n), y1: y(cue.low), y2: y(cue.high) }));
      group.appendChild(make("circle", { cx: x(cue.n), cy: y(cue.rate), r: 5 }));
      if (place in labelled) {
        var end = labelled[place];
        group.appendChild(make("text", { "class": "label", x: x(cue.n) + (end ? -9 : 9), y: y(cue.rate) + 4, "text-anchor": end ? "end" : "start" }, cue.cue));
      }
      group.addEventListener("click", function () { choose(cue); });
      group.addEventListener("keydown", function (event) { if (event.key === "Enter") { choose(cue); } });
      picture.appendChild(group);
    });
  };

  var list = function (cues) {
    body.textContent = "";
    cues.slice(0, MOST_ROWS).forEach(function (cue) {
      var row = html("tr", undefined, "cue-row" + (cue === chosen ? " chosen" : ""));
      row.tabIndex = 0;
      var name = html("th", cue.cue);
      name.dir = "auto";
      row.appendChild(name);
      row.appendChild(html("td", cue.position));
      row.appendChild(html("td", cue.kind));
      row.appendChild(html("td", cue.direction, cue.direction === data.directions[0] ? "more-text" : "fewer-text"));
      [String(cue.n), percent(cue.rate), percent(cue.low) + "–" + percent(cue.high), cue.lift.toFixed(2), signed(cue.z),
        signed(cue.z_given_content), small(cue.q), cue.mutual_information.toFixed(3)].forEach(function (text) {
        row.appendChild(html("td", text, "number"));
      });
      row.addEventListener("click", function () { choose(cue); });
      row.addEventListener("keydown", function (event) { if (event.key === "Enter") { choose(cue); } });
      body.appendChild(row);
    });
    document.getElementById("count").textContent = cues.length === 0 ? "No cue fits." :
      cues.length + (cues.length === 1 ? " cue" : " cues") + (cues.length > MOST_ROWS ? ", the first " + MOST_ROWS + " are shown" : "") + ".";
  };

  var show = function () {
    var cues = data.cues.filter(fits);
    draw(cues);
    list(cues);
  };
  var choose = function (cue) {
    chosen = chosen === cue ? null : cue;
    detail.textContent = "";
    detail.hidden = chosen === null;
    if (chosen !== null) {
      detail.appendChild(html("strong", cue.cue + " (" + cue.position + ")"));
      var items = html("ul");
      cue.examples.forEach(function (example) {
        var item = html("li");
        var text = html("span", example.question);
        text.dir = "auto";
        item.appendChild(html("span", data.directions[example.refused ? 0 : 1], example.refused ? "more-text" : "fewer-text"));
        item.appendChild(document.createTextNode(": "));
        item.appendChild(text);
        if (example.id) { item.appendChild(document.createTextNode(" (" + example.id + ")")); }
        items.appendChild(item);
      });
      detail.appendChild(items);
    }
    show();
  };
  ["show", "position"].forEach(function (name) {
    var buttons = document.querySelectorAll("[data-" + name + "]");
    Array.prototype.forEach.call(buttons, function (button) {
      button.addEventListener("click", function () {
        wanted[name] = button.dataset[name];
        Array.prototype.forEach.call(buttons, function (other) { other.setAttribute("aria-pressed", String(other === button)); });
        show();
      });
    });
  });
  search.addEventListener("input", show);
  if (!data.cues.some(fits)) { document.querySelector('[data-show="significant"]').click(); }
  show();
})();
