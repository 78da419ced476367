// The selective scan of Mamba (arXiv:2312.00752, section 3.2 and algorithm 2), forward.
//
//   Delta_t = softplus(delta_t + bias)
//   h_t[n]  = exp(Delta_t A[n]) h_{t-1}[n] + Delta_t u_t B_t[n]        h_{-1} = 0
//   y_t     = sum_n C_t[n] h_t[n] + D u_t
//   out_t   = y_t silu(z_t)                                            or y_t without a gate
//
// A lane is a channel; the state of a group of channels stays in registers.  The gradient is in
// `selective_scan_backward.hpp`.

#pragma once

#include "lanes.hpp"
#include "matrix.hpp"
#include "arena.hpp"
#include "operations.hpp"
#include "scan_chunks.hpp"

namespace recall::RECALL_ISA {

// Asks for what a group reads at a chunk's positions, and for what it writes there.
RECALL_INLINE inline void fetch_forward(const ScanGroup& group, const ScanChunk& chunk) {
  const Scan& p = group.p;
  for (int step = 0; step < chunk.steps; ++step) {
    const std::int64_t row = chunk.first + step;
    group.fetch(p.u, row, p.u_stride), group.fetch(p.delta, row, p.delta_stride);
    if (step < chunk.from) continue;
    group.fetch(p.z, chunk.read_row(step), p.z_stride);
    group.fetch<true>(p.out, chunk.read_row(step), p.channels);
  }
  for (int n = 0; n < p.state; ++n) group.fetch<true>(p.states, chunk.kept(n), p.channels);
}

// `Fixed` is the state size where it is known at compile time, which lets the compiler keep h in registers; 0
// means any.  `grows` where some A is positive, so that the decay may overflow.
template <int Fixed, bool grows>
struct ScanForward {
  static constexpr int capacity = Fixed ? Fixed : largest_state;
  static constexpr int ahead = 2;  // chunks

  // body(n) for every state, written out where the size is known: then h stays in registers.
  template <class Body>
  static void each_state(const Scan& p, const Body& body) {
    if constexpr (Fixed) {
      each<Fixed>(body);
    } else {
      for (int n = 0; n < p.state; ++n) body(n);
    }
  }

  // In two sums, for each addition waits for the one before it.
  static Lanes readout(const Scan& p, const float* C, const Lanes* h) {
    Lanes y[2] = {};
    each_state(p, [&](int n) RECALL_INLINE { y[n % 2] += h[n] * C[n]; });
    return y[0] + y[1];
  }

  static void advance(const ScanGroup& group, const ScanChunk& chunk, const Lanes* A, Lanes* h) {
    const Scan& p = group.p;
    const int steps = chunk.steps, from = chunk.from;
    const auto u = chunk.every(group, p.u, p.u_stride);
    const ConstRows B{p.B + chunk.first * p.B_stride, p.B_stride}, C{p.C + chunk.first * p.C_stride, p.C_stride};
    Lanes delta[scan_chunk], y[scan_chunk];
    chunk.time_steps(group, delta);
    for (int step = 0; step < steps; ++step) {
      const Lanes dt = delta[step], drive = dt * u[step];
      const float* row = B[step];
      each_state(p, [&](int n) RECALL_INLINE {
        h[n] = exp2_of<grows>(dt * A[n]) * h[n] + drive * row[n];
      });
      if (step >= from) y[step] = readout(p, C[step], h);
    }
    const Lanes D = group.at(p.D, 0, 0);
    const auto out = chunk.where_read(group, p.out, p.channels);
    const auto z = chunk.where_read(group, p.z, p.z_stride);
    const bool gated = p.z;
    for (int step = from; step < steps; ++step) {
      const Lanes ungated = y[step] + D * u[step];
      out.put(step, gated ? ungated * (z[step] * sigmoid(z[step])) : ungated);
    }
  }

  // A chunk of the group's sequence, or of a later one where `index` is beyond its end.
  RECALL_INLINE static void fetch(const ScanGroup& group, std::int64_t index) {
    const Scan& p = group.p;
    const std::int64_t chunks = scan_chunks(p.length), sequence = group.sequence + index / chunks;
    if (sequence < p.batch) fetch_forward(group, {p, sequence, index % chunks});
  }

  static void work(const ScanGroup& group, Data data) {
    const Scan& p = group.p;
    const std::int64_t chunks = scan_chunks(p.length);
    Lanes A[capacity], h[capacity];
    for (int n = 0; n < p.state; ++n) A[n] = group.A(n), h[n] = Lanes{};
    if (p.initial) group.load_states(p.initial, group.sequence, h);
    for (std::int64_t index = 0; index < chunks; ++index) {
      if (data == Data::cold) fetch(group, index + ahead);
      const ScanChunk chunk(p, group.sequence, index);
      if (p.states) group.store_states(p.states, chunk.kept(), h);
      advance(group, chunk, A, h);
    }
    if (p.final) group.store_states(p.final, group.sequence, h);
  }
};

template <Data data = Data::hot>
inline void scan_forward(const Scan& p, std::int64_t begin, std::int64_t end) {
  const auto work = grows(p) ? ScanForward<0, true>::work
                    : p.state == 16 ? ScanForward<16, false>::work : ScanForward<0, false>::work;
  // The rows of a lone group follow one another, and forward the processor foresees that.
  const Data where = p.channels > lanes ? data : Data::hot;
  for (std::int64_t sequence = begin; sequence < end; ++sequence)
    for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
      work({p, sequence, channel}, where);
}

}  // namespace recall::RECALL_ISA
