// Figures that answer: what is under the pointer, which curves are shown, what is found at a length.
// report/traced.py says how a figure tells its curves and their points.
"use strict";
(() => {
  const PERCENT = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 2 });
  const NUMBER = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 12 });
  const HINT = "Arrow keys move along a curve and to the next one.";
  const NEAR = 30;  // units of the figure, within which a pointer finds a point
  const GRACE = 2;  // by so much a run must be nearer than a median

  const percent = (share) => `${PERCENT.format(100 * share)} %`;

  function element(name, properties = {}, ...inside) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...inside);
    return made;
  }

  function drawn(name, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  // "2:192:1", from, to and step, or numbers one by one.
  function listed(text) {
    if (!text.includes(":")) return text.split(" ").map(Number);
    const [first, last, step] = text.split(":").map(Number);
    return Array.from({ length: Math.round((last - first) / step) + 1 }, (_, i) => first + i * step);
  }

  // The index of what is nearest in a sorted row of numbers.
  function nearest(sorted, wanted) {
    let low = 0, high = sorted.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < wanted) low = middle; else high = middle;
    }
    return Math.abs(sorted[low] - wanted) <= Math.abs(sorted[high] - wanted) ? low : high;
  }

  class Panel {
    constructor(group) {
      const [left, first, right, last, log] = group.dataset.scale.split(" ");
      const scaled = log ? Math.log : Number;
      this.group = group;
      this.title = group.dataset.title;
      this.box = group.querySelector("path").getBBox();
      this.at = listed(group.dataset.at);
      this.sidewards = (at) => +left + (right - left) * (scaled(at) - scaled(first)) / (scaled(last) - scaled(first));
      this.places = this.at.map(this.sidewards);
      this.curves = [...group.querySelectorAll(".curve")].map((curve) => new Curve(curve, this));
    }

    has({ x, y }) {
      const { box } = this;
      return x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height;
    }
  }

  class Curve {
    constructor(group, panel) {
      const { model, seed, variant = "", per, n } = group.dataset;
      Object.assign(this, { group, panel, model, seed, variant, per: +per, n });
      this.median = seed === undefined;
      this.name = variant ? `${model}, ${variant}` : model;
      this.known = new Map();
    }

    get shown() { return !this.group.classList.contains("off"); }

    // Its points in the figure, or those of v != q alone: x and y, at, share, count and n of each.
    points(apart) {
      if (!this.known.has(apart)) this.known.set(apart, this.read(apart));
      return this.known.get(apart);
    }

    read(apart) {
      const path = this.group.querySelector(apart ? "path.apart" : "path:not(.apart)");
      if (!path || (apart && !this.median)) return { x: [], y: [], at: [], share: [], n: [] };
      const [a, , , d, e, f] = path.getAttribute("transform").match(/-?[\d.]+(?:e-?\d+)?/g).map(Number);
      const per = apart ? +path.dataset.per : this.per;
      const counts = steps(path.getAttribute("d"));
      const x = counts.map(([right]) => a * right + e);
      const count = counts.map(([, up]) => up);
      return {
        x, count,
        y: count.map((up) => d * up + f),
        at: x.map((place) => this.panel.at[nearest(this.panel.places, place)]),
        share: count.map((up) => up / per),
        n: apart ? listed(path.dataset.n) : x.map(() => this.n),
      };
    }
  }

  // The points of a path of relative steps in whole numbers.
  function steps(data) {
    const words = data.match(/[Mlh]|-?\d+/g), found = [];
    let command, x = 0, y = 0;
    for (let i = 0; i < words.length;) {
      if (/[Mlh]/.test(words[i])) command = words[i++];
      x += +words[i++];
      if (command !== "h") y += +words[i++];
      found.push([x, y]);
    }
    return found;
  }

  class Figure {
    constructor(figure) {
      this.figure = figure;
      this.svg = figure.querySelector("svg");
      this.scroll = figure.querySelector(".scroll");
      this.panels = [...this.svg.querySelectorAll("[data-scale]")].map((group) => new Panel(group));
      this.curves = this.panels.flatMap((panel) => panel.curves);
      this.what = this.svg.dataset;
      this.hidden = new Set();
      this.seeds = true;
      this.apart = false;
      this.tip = element("div", { className: "tip", hidden: true });
      this.tip.setAttribute("role", "status");
      this.mark = drawn("circle", { class: "mark", r: 4 });
      figure.append(this.tip);
      this.addControls();
      this.listen();
    }

    visible(panel) {
      return panel.curves.filter((curve) => curve.shown && curve.points(this.apart).x.length);
    }

    addControls() {
      const buttons = element("div", { className: "toggles" });
      buttons.setAttribute("role", "group");
      buttons.setAttribute("aria-label", "Curves that are shown");
      for (const kind of ["model", "variant"]) {
        const names = [...new Set(this.curves.map((curve) => curve[kind]))];
        for (const name of names.length > 1 ? names : []) {
          buttons.append(this.toggle(name, kind === "model" && this.colour(name), true, (on) => {
            this.hidden[on ? "delete" : "add"](name);
          }));
        }
      }
      if (this.curves.some((curve) => !curve.median)) {
        buttons.append(this.toggle("each seed", null, true, (on) => { this.seeds = on; }));
      }
      const controls = element("div", { className: "controls" }, buttons);
      if (this.svg.querySelector(".apart")) {
        buttons.append(this.toggle("value is not the query (v ≠ q), medians only", null, false, (on) => {
          this.apart = on;
          this.svg.classList.toggle("apart-only", on);
        }));
        controls.append(this.slider());
      }
      this.scroll.before(controls);
    }

    colour(model) {
      const own = this.curves.find((curve) => curve.model === model && curve.median);
      return own?.group.querySelector("path")?.style.stroke;
    }

    toggle(name, colour, on, set) {
      const swatch = element("span", { className: "swatch" });
      swatch.style.background = colour;
      const button = element("button", { type: "button" }, ...(colour ? [swatch] : []), name);
      button.setAttribute("aria-pressed", on);
      button.addEventListener("click", () => {
        const pressed = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", pressed);
        set(pressed);
        this.refresh();
      });
      return button;
    }

    refresh() {
      for (const curve of this.curves) {
        const off = this.hidden.has(curve.model) || this.hidden.has(curve.variant)
          || (!curve.median && !this.seeds);
        curve.group.classList.toggle("off", off);
      }
      this.hide();
      if (this.length !== undefined) this.tabulate();
    }

    // A slider for the length: a line in each panel, and a table of what is found there.
    slider() {
      const lengths = [...new Set(this.panels.flatMap((panel) => panel.at))].sort((a, b) => a - b);
      const input = element("input", { type: "range", min: 0, max: lengths.length - 1, value: 0 });
      const told = element("output", {}, "–");
      const table = element("div", { className: "found", tabIndex: 0, hidden: true });
      this.rulers = this.panels.map((panel) => {
        const { y, height } = panel.box;
        const ruler = drawn("line", { class: "ruler", y1: y, y2: y + height, visibility: "hidden" });
        panel.group.append(ruler);
        return ruler;
      });
      this.table = table;
      input.addEventListener("input", () => {
        this.length = lengths[input.value];
        told.textContent = NUMBER.format(this.length);
        input.setAttribute("aria-valuetext", `${this.what.x} ${this.length}`);
        this.tabulate();
      });
      this.scroll.after(table);
      return element("label", {}, `${this.what.x} `, input, told);
    }

    tabulate() {
      this.panels.forEach((panel, i) => {
        const place = panel.sidewards(this.length);
        for (const end of ["x1", "x2"]) this.rulers[i].setAttribute(end, place);
        this.rulers[i].setAttribute("visibility", "visible");
      });
      const apart = this.panels.length > 1 && this.panels.some((panel) => panel.title !== panel.curves[0]?.model);
      const heads = [...(apart ? ["panel"] : []), "model", "median", ...(this.apart ? [] : ["range"]), "seeds", "n"];
      const rows = this.panels.flatMap((panel) => this.visible(panel).filter((curve) => curve.median)
        .map((curve) => [...(apart ? [panel.title] : []), curve.name, ...this.found(curve)]));
      this.table.hidden = false;
      this.table.replaceChildren(element("table", {},
        element("caption", {}, `${this.said()} at ${this.what.x} ${NUMBER.format(this.length)}`),
        element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
        element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell)))))));
    }

    said() { return this.apart ? `${this.what.y} where the value is not the query` : this.what.y; }

    // Of a median's curve at the slider's length: it, its runs' range, how many, sequences.
    found(curve) {
      const at = (one, apart) => {
        const points = one.points(apart), i = points.at.indexOf(this.length);
        return i < 0 ? null : { share: points.share[i], n: points.n[i] };
      };
      const middle = at(curve, this.apart);
      const runs = this.runs(curve).map((run) => at(run, false)?.share ?? null).filter((share) => share !== null);
      const [low, high] = [Math.min(...runs), Math.max(...runs)];
      const range = !runs.length ? "" : low === high ? percent(low) : `${PERCENT.format(100 * low)} to ${percent(high)}`;
      if (!middle) return ["not tested", ...(this.apart ? [] : [""]), "", ""];
      const n = middle.n === undefined ? "" : NUMBER.format(middle.n);
      return [percent(middle.share), ...(this.apart ? [] : [range]), String(runs.length), n];
    }

    runs(curve) {
      return curve.panel.curves.filter((one) => !one.median && one.name === curve.name);
    }

    listen() {
      const moved = (event) => {
        const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
        this.show(...this.under(place));
      };
      this.svg.addEventListener("pointermove", moved);
      this.svg.addEventListener("pointerdown", moved);
      this.svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") this.hide(); });
      document.addEventListener("pointerdown", (event) => { if (!this.svg.contains(event.target)) this.hide(); });
      this.scroll.addEventListener("scroll", () => { if (!this.byKey) this.hide(); });
      this.scroll.setAttribute("role", "group");
      this.scroll.setAttribute("aria-label", HINT);
      this.scroll.addEventListener("focus", () => { if (this.scroll.matches(":focus-visible")) this.hint(); });
      this.scroll.addEventListener("keydown", (event) => this.key(event));
      this.scroll.addEventListener("blur", () => this.hide());
    }

    // The curve whose point is nearest, the point's index, how many others have it too.
    under(place) {
      const panel = this.panels.find((one) => one.has(place));
      const near = (panel ? this.visible(panel) : []).map((curve) => {
        const { x, y } = curve.points(this.apart), i = nearest(x, place.x);
        return { curve, i, off: Math.hypot(x[i] - place.x, y[i] - place.y) - (curve.median ? GRACE : 0) };
      }).sort((one, other) => one.off - other.off);
      return near.length && near[0].off < NEAR ? [near[0].curve, near[0].i] : [];
    }

    show(curve, i) {
      if (!curve) return this.hide();
      const points = curve.points(this.apart), [x, y] = [points.x[i], points.y[i]];
      const same = this.visible(curve.panel).filter((one) => {
        const other = one.points(this.apart), j = nearest(other.x, x);
        return one !== curve && other.x[j] === x && Math.abs(other.y[j] - y) < 0.01;
      });
      this.hide();
      this.now = { curve, i };
      curve.group.classList.add("lit");
      for (const [key, value] of [["cx", x], ["cy", y]]) this.mark.setAttribute(key, value);
      curve.panel.group.append(this.mark);
      this.tip.replaceChildren(element("strong", {}, curve.name),
        ...this.lines(curve, points, i, same.length).map((line) => element("div", {}, line)));
      this.tip.hidden = false;
      this.place(x, y);
    }

    lines(curve, points, i, same) {
      const runs = new Set(this.runs(curve).map((run) => run.seed)).size, n = points.n[i];
      const counts = !curve.median && curve.n && curve.per === +curve.n;
      const right = counts ? ` (${NUMBER.format(points.count[i])} right)` : "";
      return [
        curve.median ? `median${runs ? ` of ${runs} seed${runs > 1 ? "s" : ""}` : ""}` : `seed ${curve.seed}`,
        `${this.what.x} ${NUMBER.format(points.at[i])}`,
        `${this.said()} ${percent(points.share[i])}${right}`,
        ...(n === undefined ? [] : [`n = ${NUMBER.format(n)} sequences`]),
        ...(same ? [`${same} more curve${same > 1 ? "s" : ""} here`] : []),
      ];
    }

    // The tip beside a point of the figure, within the figure's width.
    place(x, y) {
      const point = new DOMPoint(x, y).matrixTransform(this.svg.getScreenCTM());
      const around = this.figure.getBoundingClientRect(), { offsetWidth, offsetHeight } = this.tip;
      const left = point.x - around.left, top = point.y - around.top;
      const right = left + 12 + offsetWidth <= around.width ? left + 12 : left - 12 - offsetWidth;
      this.tip.style.left = `${Math.max(0, Math.min(right, around.width - offsetWidth))}px`;
      this.tip.style.top = `${point.y > offsetHeight + 12 ? top - offsetHeight - 12 : top + 12}px`;
    }

    hint() {
      this.tip.replaceChildren(HINT);
      this.tip.hidden = false;
      const { box } = this.panels[0];
      this.place(box.x, box.y);
    }

    hide() {
      this.now?.curve.group.classList.remove("lit");
      this.now = undefined;
      this.mark.remove();
      this.tip.hidden = true;
    }

    // Arrows: along the curve, and to the next curve.
    key(event) {
      if (event.key === "Escape") return this.hide();
      const along = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      const across = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      const curves = this.panels.flatMap((panel) => this.visible(panel));
      if ((along === undefined && across === undefined) || !curves.length) return;
      event.preventDefault();
      const { curve = curves.find((one) => one.median) ?? curves[0], i = 0 } = this.now ?? {};
      const next = this.now && across ? curves.at((curves.indexOf(curve) + across) % curves.length) : curve;
      const points = next.points(this.apart);
      const from = next === curve ? i : nearest(points.at, curve.points(this.apart).at[i]);
      const to = this.now && along ? Math.max(0, Math.min(from + along, points.x.length - 1)) : from;
      this.byKey = true;
      const place = new DOMPoint(points.x[to], 0).matrixTransform(this.svg.getScreenCTM()).x;
      const { left, width } = this.scroll.getBoundingClientRect();
      if (place < left || place > left + width) this.scroll.scrollLeft += place - left - width / 2;
      this.show(next, to);
      requestAnimationFrame(() => { this.byKey = false; });
    }
  }

  for (const figure of document.querySelectorAll("figure:has(svg .curve)")) new Figure(figure);
})();
