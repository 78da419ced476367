// The gradient of the selective scan (`selective_scan.hpp`): what there is once for each channel.
//
// With g_t[n] what arrives at h_t[n] from position t and from all later ones:
//
//   dy_t     = dout_t silu(z_t)             dz_t = dout_t y_t silu'(z_t)
//   g_t[n]   = C_t[n] dy_t + a_{t+1}[n] g_{t+1}[n]                      a_t[n] = exp(Delta_t A[n])
//   q_t[n]   = g_t[n] a_t[n] h_{t-1}[n]     the gradient of the exponent Delta_t A[n]
//   dDelta_t = sum_n q_t[n] A[n] + u_t sum_n g_t[n] B_t[n]
//   du_t     = D dy_t + Delta_t sum_n g_t[n] B_t[n]
//
// The chunks are walked from the last to the first, which no processor foresees.  Where only the last position is read, dy_t is zero at
// all others.

#pragma once

#include "selective_scan_passes.hpp"

namespace recall::RECALL_ISA {

template <int Fixed, bool grows>  // as in `selective_scan.hpp`
struct ScanBackward {
  using Positions = typename ScanPasses<Fixed, grows>::Positions;

  const Scan& p;
  const ScanPasses<Fixed, grows> passes;

  ScanBackward(const Scan& of, Arena& arena) : p(of), passes(of, arena) {}

  void prepare(const ScanGroup& group, const ScanChunk& chunk, Positions& at) const {
    const int steps = chunk.steps, from = chunk.from;
    const auto u = chunk.every(group, p.u, p.u_stride);
    const auto dout = chunk.where_read(group, p.grad_out, p.grad_out_stride);
    const auto z = chunk.where_read(group, p.z, p.z_stride);
    const bool gated = p.z;
    chunk.time_steps(group, at.delta, at.slope);
    for (int step = 0; step < steps; ++step) {
      at.drive[step] = at.delta[step] * u[step];
      at.dy[step] = at.y[step] = at.ddrive[step] = at.dexponent[step] = Lanes{};
      if (step < from) continue;
      at.dy[step] = dout[step];
      if (!gated) continue;
      at.gate[step] = sigmoid(z[step]);
      at.dy[step] *= z[step] * at.gate[step];
    }
  }

  // dz, and the output again where there is a buffer for it.
  void through_gate(const ScanGroup& group, const ScanChunk& chunk, const Positions& at) const {
    const Lanes D = group.at(p.D, 0, 0);
    const auto u = chunk.every(group, p.u, p.u_stride);
    const auto z = chunk.where_read(group, p.z, p.z_stride);
    const auto dout = chunk.where_read(group, p.grad_out, p.grad_out_stride);
    const auto dz = chunk.where_read(group, p.grad_z, p.channels);
    const auto again = chunk.where_read(group, p.recomputed, p.channels);
    const bool kept = p.recomputed;
    for (int step = chunk.from, steps = chunk.steps; step < steps; ++step) {
      const Lanes gate = at.gate[step], x = z[step], y = at.y[step] + D * u[step];
      if (kept) again.put(step, y * (x * gate));
      dz.put(step, dout[step] * y * gate * (1.0f + x * (1.0f - gate)));
    }
  }

  void store_gradients(const ScanGroup& group, const ScanChunk& chunk, const Positions& at) const {
    Lanes *kept = passes.carried(group) + 2 * p.state, dD = kept[0], dbias = kept[1];
    const Lanes D = group.at(p.D, 0, 0);
    const auto u = chunk.every(group, p.u, p.u_stride);
    const auto du = chunk.every(group, p.grad_u, p.channels);
    const auto draw = chunk.every(group, p.grad_delta, p.channels);
    for (int step = 0, steps = chunk.steps; step < steps; ++step) {
      const Lanes x = u[step], dy = at.dy[step], ddrive = at.ddrive[step];
      const Lanes d = (at.dexponent[step] * (1.0f / log2_e) + ddrive * x) * at.slope[step];
      du.put(step, D * dy + at.delta[step] * ddrive);
      draw.put(step, d);
      dD += dy * x;
      dbias += d;
    }
    kept[0] = dD, kept[1] = dbias;
  }

  // Asks for what a group reads in a chunk.
  RECALL_INLINE void fetch_inputs(const ScanGroup& group, const ScanChunk& chunk) const {
    for (int step = 0; step < chunk.steps; ++step) {
      const std::int64_t row = chunk.first + step;
      group.fetch(p.u, row, p.u_stride), group.fetch(p.delta, row, p.delta_stride);
      if (step < chunk.from) continue;
      group.fetch(p.grad_out, chunk.read_row(step), p.grad_out_stride);
      group.fetch(p.z, chunk.read_row(step), p.z_stride);
    }
    for (int n = 0; n < p.state; ++n) group.fetch(p.states, chunk.kept(n), p.channels);
  }

  // Asks for what it writes there.
  RECALL_INLINE void fetch_outputs(const ScanGroup& group, const ScanChunk& chunk) const {
    for (int step = 0; step < chunk.steps; ++step) {
      group.fetch<true>(p.grad_u, chunk.first + step, p.channels);
      group.fetch<true>(p.grad_delta, chunk.first + step, p.channels);
      if (step >= chunk.from) group.fetch<true>(p.grad_z, chunk.read_row(step), p.channels);
    }
  }

  void work(const ScanGroup& group, const ScanChunk& chunk, Data data) const {
    const bool done = chunk.index == 0;  // with the sequence
    const ScanChunk next(p, chunk.sequence + done, (done ? scan_chunks(p.length) : chunk.index) - 1);
    const bool fetches = data == Data::cold && next.sequence < p.batch;
    if (fetches) fetch_inputs(group, next);
    Positions at;
    prepare(group, chunk, at);
    passes.work(group, chunk, at);
    if (fetches) fetch_outputs(group, next);
    if (p.z) through_gate(group, chunk, at);
    store_gradients(group, chunk, at);
  }

  void work(std::int64_t sequence, Data data) const {
    passes.begin();
    for (std::int64_t index = scan_chunks(p.length) - 1; index >= 0; --index) {
      const ScanChunk chunk(p, sequence, index);
      passes.begin(chunk);
      for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
        work({p, sequence, channel}, chunk, data);
      passes.end(chunk);
    }
    store_shares(sequence);
  }

  void store_shares(std::int64_t sequence) const {
    for (std::int64_t channel = 0; channel < p.channels; channel += lanes) {
      const ScanGroup group(p, sequence, channel);
      const Lanes* dA = passes.carried(group) + p.state;
      const std::int64_t offset = sequence * (p.state + 2);
      for (int n = 0; n < p.state; ++n) group.put(p.grad_A, offset + n, dA[n]);
      group.put(p.grad_D, offset, dA[p.state]);
      group.put(p.grad_bias, offset, dA[p.state + 1]);
    }
  }
};

template <int Fixed, bool grows>
inline void scan_backward(const Scan& p, std::int64_t begin, std::int64_t end, float* scratch, Data data) {
  Arena arena(scratch);
  const ScanBackward<Fixed, grows> kernel(p, arena);
  for (std::int64_t sequence = begin; sequence < end; ++sequence) kernel.work(sequence, data);
}

template <Data data = Data::hot>
inline void scan_backward(const Scan& p, std::int64_t begin, std::int64_t end, float* scratch) {
  grows(p) ? scan_backward<0, true>(p, begin, end, scratch, data)
  : p.state == 16 ? scan_backward<16, false>(p, begin, end, scratch, data)
                  : scan_backward<0, false>(p, begin, end, scratch, data);
}

inline std::int64_t scan_scratch(const Scan& p) {
  Arena arena(nullptr);
  ScanBackward<0, false>(p, arena);
  return arena.used();
}

}  // namespace recall::RECALL_ISA
