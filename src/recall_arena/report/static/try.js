"use strict";

/* The part of the page where readers edit a sequence; `models.js` computes what it shows. */

(() => {
  const told = JSON.parse(document.getElementById("try-data").textContent);
  const models = told.map(RecallModels.unpacked);
  const { task, context, lengths } = told[0];
  const $ = (id) => document.getElementById(id);
  const uniform = (below) => Math.floor(Math.random() * below);
  const NBSP = "\u00a0";
  const percent = (share) =>
    0 < share && share < 0.0005 ? `<${NBSP}0.1${NBSP}%` : `${(100 * share).toFixed(1)}${NBSP}%`;

  let tokens = []; // the last one is the query
  let selected = 0;
  let typed = { digits: "", when: 0 };

  /** A sequence as in training: see tasks/associative_recall.py. */
  function sample(length) {
    const [query, value] = [uniform(task.queries), uniform(task.vocabulary)];
    const first = uniform(length - task.delay);
    const body = Array.from({ length }, () => uniform(task.vocabulary - 1));
    const drawn = body.map((token) => token + (token >= query));
    drawn[first] = query;
    drawn[first + task.delay] = value;
    return [...drawn, query];
  }

  /** Where the query stands first, and its value; -1 where there is none before the query. */
  function pair() {
    const [length, query] = [tokens.length - 1, tokens.at(-1)];
    const first = tokens.slice(0, length).indexOf(query);
    const value = first < 0 || first + task.delay >= length ? -1 : first + task.delay;
    return { first, value };
  }

  /** What stands at a position, in a word; none for filler. */
  function roleOf(position) {
    const { first, value } = pair();
    if (position === tokens.length - 1) return "the final query";
    if (position === first) return "the query, for the first time";
    return position === value ? "the value" : "";
  }

  /** An element with attributes, a text, and children. */
  function made(name, attributes = {}, text = "", ...children) {
    const vector = ["svg", "path", "text", "rect", "line"].includes(name);
    const space = vector ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
    const element = document.createElementNS(space, name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.append(...(text === "" ? [] : [text]), ...children);
    return element;
  }

  /* The sequence. */

  function drawCells() {
    const cell = (_, i) =>
      made("span", {
        ...{ role: "spinbutton", "data-at": i, tabindex: -1 },
        ...{ "aria-valuemin": 0, "aria-valuemax": task.vocabulary - 1 },
      });
    $("try-cells").replaceChildren(...tokens.map(cell));
  }

  function showCells() {
    const { first, value } = pair();
    [...$("try-cells").children].forEach((cell, i) => {
      const role = roleOf(i);
      cell.textContent = tokens[i];
      cell.className = i === first || i === tokens.length - 1 ? "query" : i === value ? "value" : "";
      cell.classList.toggle("selected", i === selected);
      cell.tabIndex = i === selected ? 0 : -1;
      cell.setAttribute("aria-valuenow", tokens[i]);
      cell.setAttribute("aria-label", `position ${i + 1}${role && `, ${role}`}`);
    });
    const role = roleOf(selected);
    $("try-where").textContent = `Position ${selected + 1}${role && ` (${role})`}:`;
    [...$("try-values").children].forEach((button, token) =>
      button.setAttribute("aria-pressed", token === tokens[selected]),
    );
  }

  function select(position, focus) {
    selected = Math.min(Math.max(position, 0), tokens.length - 1);
    update();
    if (focus) $("try-cells").children[selected].focus();
  }

  function change(token) {
    tokens[selected] = (token + task.vocabulary) % task.vocabulary;
    update();
  }

  /** A digit; two in a row within a second are one number where there is such a token. */
  function type(digit) {
    const [before, now] = [typed, Date.now()];
    const both = before.digits + digit;
    const joined = before.at === selected && now - before.when < 1000 && both < task.vocabulary;
    typed = { at: selected, when: now, digits: joined ? both : digit };
    if (Number(typed.digits) < task.vocabulary) change(Number(typed.digits));
  }

  function press(event) {
    const moves = { ArrowLeft: selected - 1, ArrowRight: selected + 1, Home: 0, End: Infinity };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in moves) select(moves[event.key], true);
    else if (event.key === "ArrowUp") change(tokens[selected] + 1);
    else if (event.key === "ArrowDown") change(tokens[selected] - 1);
    else if (/^\d$/.test(event.key)) type(event.key);
    else return;
    event.preventDefault();
  }

  /* What the models make of it. */

  function answerOf(model) {
    try {
      const { logits, layers } = RecallModels.forward(model, tokens);
      const shares = RecallModels.softmax(logits);
      const best = [...shares.keys()].sort((a, b) => shares[b] - shares[a]);
      return { layers, shares, best };
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return { reason: error.message };
    }
  }

  function drawModel(model) {
    const { value } = pair();
    const { reason, layers, shares, best } = answerOf(model);
    const card = made("article", { "data-model": model.address }, "", made("h3", {}, model.name));
    const tested = model.tested.map(([at, share]) => `${percent(share)} at ${at}`).join(", ");
    const about =
      `${model.parameters.toLocaleString("en")} trained numbers, ${model.steps.toLocaleString("en")} ` +
      `iterations, seed ${model.seed}. Right in tests: ${tested} tokens. Run ${model.address}.`;
    if (reason) {
      card.append(made("p", {}, `No answer: ${reason}.`));
    } else {
      const right = value < 0 ? "" : best[0] === tokens[value] ? " ✓ right" : " ✗ wrong";
      const top = best.slice(0, 3).map((b) => `${b}:${NBSP}${percent(shares[b])}`);
      card.append(
        made("p", { class: "says" }, "Answers ", made("strong", {}, `${best[0]}${right}`)),
        made("p", { class: "soft" }, `Most probable: ${top.join(", ")}`),
        ...layers.map((layer, i) => plotted(layer, i, model.colour)),
      );
    }
    card.append(made("p", { class: "soft" }, about));
    return { card, says: reason ? "" : `${model.name} answers ${best[0]}.` };
  }

  const WHAT = { attention: "the query’s attention", mamba: "Mamba’s Δ" };

  /** A layer's bars, one a position, with axes; what stands at the selected one in words. */
  function plotted(layer, i, colour) {
    const { shown } = layer;
    const what = `Layer ${i + 1}: ${WHAT[layer.kind]}`;
    const here = `at ${selected + 1}: ${shown[selected].toFixed(3)}`;
    const line = made("p", { class: "what" }, "", made("span", {}, what), made("span", {}, here));
    const width = Math.max($("try-models").firstElementChild?.clientWidth ?? 320, 200) - 34;
    const figure = made("figure", {}, "", line, bars(layer, width, colour));
    const most = shown.indexOf(shown.reduce((a, b) => Math.max(a, b)));
    const peak = `largest at position ${most + 1}, ${shown[most].toFixed(3)}`;
    figure.lastChild.setAttribute("aria-label", `${what}: ${peak}`);
    return figure;
  }

  const HEIGHT = 64;
  const LEFT = 30;
  const RIGHT = 12;
  const TOP = 16;

  function bars({ kind, shown }, width, colour) {
    const largest = shown.reduce((a, b) => Math.max(a, b));
    const top = kind === "attention" ? 1 : rounded(largest);
    const step = (width - LEFT - RIGHT) / shown.length;
    const x = (position) => LEFT + position * step;
    const y = (value) => TOP + HEIGHT * (1 - value / top);
    const gap = step > 4 ? 1 : 0;
    const path = [...shown].map(
      (v, t) => `M${x(t).toFixed(2)},${y(0)}V${y(v).toFixed(2)}h${(step - gap).toFixed(2)}V${y(0)}z`,
    );
    const size = { width, height: HEIGHT + TOP + 20, viewBox: `0 0 ${width} ${HEIGHT + TOP + 20}` };
    const svg = made("svg", { ...size, role: "img" }, "", ...marks(x, step));
    svg.append(
      made("path", { d: path.join(""), fill: colour === "#000000" ? "currentColor" : colour }),
      made("path", { d: `M${LEFT},${TOP}V${y(0)}H${width - RIGHT}`, class: "axis" }),
      made("text", { x: LEFT - 4, y: y(top) + 4, "text-anchor": "end" }, String(top)),
      made("text", { x: LEFT - 4, y: y(0) + 4, "text-anchor": "end" }, "0"),
      ...ticks(shown.length).map((t) =>
        made("text", { x: x(t - 0.5), y: y(0) + 15, "text-anchor": "middle" }, String(t)),
      ),
    );
    svg.addEventListener("click", (event) => {
      const at = event.clientX - svg.getBoundingClientRect().left - LEFT;
      select(Math.floor(at / step), false);
    });
    return svg;
  }

  /** Bands behind the bars where the pair and the selected position stand. */
  function marks(x, step) {
    const { first, value } = pair();
    const band = (position, kind, letter) => {
      const [middle, size] = [x(position + 0.5), Math.max(step, 3)];
      const at = { x: middle - size / 2, width: size, y: TOP, height: HEIGHT, class: kind };
      return [made("rect", at), made("text", { x: middle, y: TOP - 4, class: kind }, letter)];
    };
    const near = step < 9 ? 5 : 0; // letters of neighbours stand apart
    const both = [];
    if (first >= 0) both.push(...band(first, "query", "q"));
    if (value >= 0) both.push(...band(value, "value", "v"));
    both.filter((each) => each.tagName === "text").forEach((letter, i, { length }) => {
      const aside = length < 2 || value - first > 1 ? 0 : i ? near : -near;
      letter.setAttribute("x", Number(letter.getAttribute("x")) + aside);
      letter.setAttribute("text-anchor", "middle");
    });
    const at = x(selected + 0.5);
    const pin = made("path", { d: `M${at},${TOP + HEIGHT}l-4,6h8z`, class: "pin" });
    return [...both, pin];
  }

  /** One or two digits, not below a number; 1 for none above 0. */
  function rounded(value) {
    if (!(value > 0)) return 1;
    const unit = 10 ** Math.floor(Math.log10(value));
    return Number((Math.ceil(value / unit) * unit).toPrecision(2));
  }

  /** About four positions, the first and the last among them. */
  function ticks(length) {
    const step = Math.max(1, Math.round((length - 1) / 4));
    const inner = [1, 2, 3].map((n) => n * step).filter((t) => t > 1 && t < length - step / 2);
    return [...new Set([1, ...inner, length])];
  }

  /** What the answer is, and what in the sequence no training sequence had. */
  function told_of() {
    const { first, value } = pair();
    const [length, query] = [tokens.length - 1, tokens.at(-1)];
    const after = task.delay === 1 ? "what followed" : `what stood ${task.delay} after`;
    const others = tokens.slice(0, length).filter((t, i) => t === query && i !== first && i !== value);
    const answer =
      value < 0
        ? first < 0
          ? `There is no right answer: ${query} does not stand before the final query.`
          : `There is no right answer: nothing stands where the value of ${query} should.`
        : `The right answer is ${tokens[value]}: ${after} ${query} at position ${first + 1}.`;
    const notes = [
      query >= task.queries ? `In training no sequence asked for ${query}.` : "",
      others.length ? `In training ${query} never stood anywhere else; the first one counts.` : "",
    ];
    return [answer, ...notes].filter(Boolean).join(" ");
  }

  function update() {
    showCells();
    const chosen = models.filter((model) => $(`try-${model.address}`).checked);
    const drawn = chosen.map(drawModel);
    $("try-answer").textContent = told_of();
    $("try-said").textContent = drawn.map(({ says }) => says).join(" ");
    $("try-models").replaceChildren(...drawn.map(({ card }) => card));
  }

  function restart() {
    tokens = sample(Number($("try-length").value));
    selected = pair().value;
    drawCells();
    update();
  }

  function start() {
    const option = (length) =>
      made("option", { value: length }, length === context ? `${length} (as in training)` : `${length}`);
    $("try-length").append(...lengths.map(option));
    $("try-length").value = context;
    const choice = ({ address, name }) =>
      made("label", {}, "", made("input", { type: "checkbox", id: `try-${address}`, checked: "" }), ` ${name}`);
    $("try-chosen").append(...models.map(choice));
    const value = (_, token) => made("button", { type: "button", value: token }, String(token));
    $("try-values").append(...Array.from({ length: task.vocabulary }, value));

    $("try-new").addEventListener("click", restart);
    $("try-length").addEventListener("change", restart);
    $("try-chosen").addEventListener("change", update);
    $("try-cells").addEventListener("keydown", press);
    $("try-cells").addEventListener("click", ({ target }) => {
      if (target.dataset.at) select(Number(target.dataset.at), true);
    });
    $("try-values").addEventListener("click", ({ target }) => {
      if (target.value) change(Number(target.value));
    });
    $("try-without").className = "on-paper";
    $("try-it").hidden = false;
    restart();
    let width = 0;
    new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width !== width) update();
      width = contentRect.width;
    }).observe($("try-models"));
  }

  start();
})();
