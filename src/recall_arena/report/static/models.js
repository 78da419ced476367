"use strict";

/* A trained model's forward pass, as src/recall_arena/model.py, mixers/ and kernels/ define it.

   Numbers are float64; a sequence is an array with a Float64Array for each position.  Names are
   those of the model's state in PyTorch, and Mamba's those of its paper (arXiv:2312.00752). */

const RecallModels = (() => {
  const silu = (x) => x / (1 + Math.exp(-x));
  const softplus = (x) => (x > 20 ? x : Math.log1p(Math.exp(x)));
  const sum = (row) => row.reduce((all, x) => all + x, 0);
  const mean = (row) => sum(row) / row.length;
  const added = (a, b) => a.map((x, i) => x + b[i]);

  /** a . (b[at], b[at + 1], ...) */
  function dot(a, b, at = 0) {
    let all = 0;
    for (let i = 0; i < a.length; i++) all += a[i] * b[at + i];
    return all;
  }

  /** A model from the page's JSON, with `tensors` by name. */
  function unpacked(model) {
    const bytes = Uint8Array.from(atob(model.weights), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const tensors = {};
    let at = 0;
    for (const [name, shape] of model.tensors) {
      const data = new Float64Array(shape.reduce((a, b) => a * b, 1));
      for (let i = 0; i < data.length; i++, at += 4) data[i] = view.getFloat32(at, true);
      tensors[name] = { shape, data };
    }
    return { ...model, tensors };
  }

  /** The tensors whose names begin so, by the rest of their names. */
  function part(tensors, prefix) {
    const own = Object.entries(tensors).filter(([name]) => name.startsWith(prefix));
    return Object.fromEntries(own.map(([name, tensor]) => [name.slice(prefix.length), tensor]));
  }

  /** Row i of a matrix. */
  function row({ shape, data }, i) {
    return data.subarray(i * shape[1], (i + 1) * shape[1]);
  }

  /** x W^T + bias, if there is one. */
  function linear(x, weight, bias) {
    const [rows, columns] = weight.shape;
    return x.map((given) => {
      const out = new Float64Array(rows);
      for (let o = 0; o < rows; o++) {
        out[o] = dot(given, weight.data, o * columns) + (bias ? bias.data[o] : 0);
      }
      return out;
    });
  }

  /** LayerNorm or RMSNorm of each position. */
  function norm(x, kind, weight, bias) {
    return x.map((given) => {
      const centre = kind === "layer" ? mean(given) : 0;
      const scale = 1 / Math.sqrt(mean(given.map((v) => (v - centre) ** 2)) + 1e-5);
      return given.map((v, i) => (v - centre) * scale * weight.data[i] + (bias ? bias.data[i] : 0));
    });
  }

  /** silu of a causal convolution, a filter for each channel; without one silu alone. */
  function convolved(x, weight, bias) {
    if (!weight) return x.map((given) => given.map(silu));
    const window = weight.shape[2];
    return x.map((given, t) =>
      given.map((_, c) => {
        let all = bias ? bias.data[c] : 0;
        for (let k = Math.max(0, window - 1 - t); k < window; k++) {
          all += weight.data[c * window + k] * x[t + k - window + 1][c];
        }
        return silu(all);
      }),
    );
  }

  /** Mamba's mixer (figure 3); shown is Delta, the mean over channels. */
  function mamba(x, w) {
    const [channels, state] = w.A_log.shape;
    const A = w.A_log.data.map((a) => -Math.exp(a));
    const both = linear(x, w["in_proj.weight"], w["in_proj.bias"]);
    const u = convolved(
      both.map((given) => given.subarray(0, channels)),
      w["conv1d.weight"],
      w["conv1d.bias"],
    );
    const selected = linear(u, w["x_proj.weight"]);
    const rank = w["dt_proj.weight"].shape[1];
    const low = selected.map((given) => given.subarray(0, rank));
    const Delta = linear(low, w["dt_proj.weight"], w["dt_proj.bias"]).map((d) => d.map(softplus));
    const h = new Float64Array(channels * state);
    const y = x.map((_, t) => {
      const B = selected[t].subarray(rank, rank + state);
      const C = selected[t].subarray(rank + state);
      const out = new Float64Array(channels);
      for (let c = 0; c < channels; c++) {
        const [step, drive] = [Delta[t][c], Delta[t][c] * u[t][c]];
        let read = w.D.data[c] * u[t][c];
        for (let n = 0, i = c * state; n < state; n++, i++) {
          h[i] = Math.exp(step * A[i]) * h[i] + drive * B[n];
          read += C[n] * h[i];
        }
        out[c] = read * silu(both[t][channels + c]);
      }
      return out;
    });
    const out = linear(y, w["out_proj.weight"], w["out_proj.bias"]);
    return { out, shown: Delta.map(mean) };
  }

  /** RoPE (arXiv:2104.09864): numbers i and i + half of a head turned by position * base^(-i / half). */
  function rotated(x, position, base) {
    const half = x.length / 2;
    return x.map((v, i) => {
      const angle = position * base ** (-(i % half) / half);
      const other = i < half ? -x[i + half] : x[i - half];
      return v * Math.cos(angle) + other * Math.sin(angle);
    });
  }

  /** Numbers above 0 that add up to 1. */
  function softmax(scores) {
    let [most, all] = [-Infinity, 0];
    for (const score of scores) most = Math.max(most, score);
    const powers = new Float64Array(scores.length);
    for (let i = 0; i < powers.length; i++) all += powers[i] = Math.exp(scores[i] - most);
    return powers.map((power) => power / all);
  }

  /** Causal attention; shown is what the last position attends to, the mean over heads. */
  function attention(x, w, { heads, base }) {
    const width = x[0].length;
    const size = width / heads;
    const projected = linear(x, w["in_proj.weight"], w["in_proj.bias"]);
    const mixed = x.map(() => new Float64Array(width));
    const shown = new Float64Array(x.length);
    for (let head = 0; head < heads; head++) {
      const cut = (which) =>
        projected.map((p) => p.subarray(which * width + head * size).subarray(0, size));
      const placed = (rows) => (base === null ? rows : rows.map((r, t) => rotated(r, t, base)));
      const [q, k, v] = [placed(cut(0)), placed(cut(1)), cut(2)];
      q.forEach((query, t) => {
        const scores = new Float64Array(t + 1);
        for (let s = 0; s <= t; s++) scores[s] = dot(query, k[s]) / Math.sqrt(size);
        const weights = softmax(scores);
        for (let s = 0; s <= t; s++) {
          for (let i = 0; i < size; i++) mixed[t][head * size + i] += weights[s] * v[s][i];
        }
        if (t === x.length - 1) weights.forEach((weight, s) => (shown[s] += weight / heads));
      });
    }
    return { out: linear(mixed, w["out_proj.weight"], w["out_proj.bias"]), shown };
  }

  /** The logits after the last token, and of each layer what is shown of it, by position. */
  function forward(model, tokens) {
    const { tensors } = model;
    const learned = tensors["positions.weight"];
    if (learned && tokens.length > learned.shape[0]) {
      throw new RangeError(`learned positions reach ${learned.shape[0]} tokens`);
    }
    let x = tokens.map((token, t) => {
      const embedded = row(tensors["embedding.weight"], token);
      return learned ? added(embedded, row(learned, t)) : embedded;
    });
    const layers = model.layers.map((layer, i) => {
      const { "norm.weight": weight, "norm.bias": bias } = part(tensors, `layers.${i}.`);
      const mixer = { mamba, attention }[layer.kind];
      const normed = norm(x, model.norm, weight, bias);
      const { out, ...rest } = mixer(normed, part(tensors, `layers.${i}.mixer.`), layer);
      x = x.map((before, t) => added(before, out[t]));
      return { kind: layer.kind, ...rest };
    });
    const last = norm(x.slice(-1), model.norm, tensors["norm_f.weight"], tensors["norm_f.bias"]);
    const logits = linear(last, tensors["lm_head.weight"])[0];
    return { logits, layers };
  }

  return { unpacked, forward, softmax };
})();
