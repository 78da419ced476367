// The selective scan of Mamba (arXiv:2312.00752, section 3.2 and algorithm 2), forward.
//
//   Delta_t = softplus(delta_t + bias)
//   h_t[n]  = exp(Delta_t A[n]) h_{t-1}[n] + Delta_t u_t B_t[n]        h_{-1} = 0
//   y_t     = sum_n C_t[n] h_t[n] + D u_t
//   out_t   = y_t silu(z_t)                                            or y_t without a gate
//
// A lane is a channel; the state of a group of channels stays in registers.  The state at the start
// of each chunk of positions is kept for the backward pass, `selective_scan_backward.hpp`.

#pragma once

#include "lanes.hpp"
#include "memory.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

inline std::int64_t scan_chunks(std::int64_t length) {
  return (length + scan_chunk - 1) / scan_chunk;
}

inline std::int64_t scan_groups(const Scan& p) { return (p.channels + lanes - 1) / lanes; }

// A group of at most `lanes` channels of one sequence.
struct ScanGroup {
  const Scan& p;
  std::int64_t sequence, channel;
  int count;

  ScanGroup(const Scan& of, std::int64_t sequence, std::int64_t channel)
      : p(of), sequence(sequence), channel(channel), count(filled(of.channels - channel)) {}

  Lanes at(const float* of, std::int64_t row, std::int64_t stride) const {
    return load(of + row * stride + channel, count);
  }
  void put(float* to, std::int64_t row, Lanes x) const {
    store(to + row * p.channels + channel, x, count);
  }
  // Asks for what at() will load, or for what put() will write over.  Inline, or GCC would take a call
  // that only does this for one that does nothing.
  template <bool write = false>
  RECALL_INLINE void fetch(const float* of, std::int64_t row, std::int64_t stride) const {
    if (of) __builtin_prefetch(of + row * stride + channel, write, 2);
  }
  Lanes u(std::int64_t row) const { return at(p.u, row, p.u_stride); }
  // A in units of 1 / log2(e), so that exp(Delta A) is a power of two.
  Lanes A(int n) const { return at(p.A, n, p.channels) * log2_e; }
  // The states of a tensor (rows, state, channels).
  void load_states(const float* of, std::int64_t row, Lanes* h) const {
    for (int n = 0; n < p.state; ++n) h[n] = at(of, row * p.state + n, p.channels);
  }
  void store_states(float* to, std::int64_t row, const Lanes* h) const {
    for (int n = 0; n < p.state; ++n) put(to, row * p.state + n, h[n]);
  }
};

// A chunk of positions of one sequence.
struct ScanChunk {
  const Scan& p;
  std::int64_t sequence, index, first;  // which of the sequence's chunks; the first position's row
  int steps;

  ScanChunk(const Scan& of, std::int64_t sequence, std::int64_t index)
      : p(of), sequence(sequence), index(index), first(sequence * of.length + index * scan_chunk) {
    const std::int64_t left = p.length - index * scan_chunk;
    steps = left < scan_chunk ? static_cast<int>(left) : scan_chunk;
  }

  bool read() const { return !p.last || index + 1 == scan_chunks(p.length); }  // any position
  bool read(int step) const { return !p.last || index * scan_chunk + step + 1 == p.length; }

  // The row of `out`, `z` and their gradients that belongs to a position which is read.
  std::int64_t read_row(int step) const { return p.last ? first / p.length : first + step; }

  // Which of the tensor `states`, counted in (batch, chunks) or in (batch, chunks, state).
  std::int64_t kept() const { return sequence * scan_chunks(p.length) + index; }
  std::int64_t kept(int n) const { return kept() * p.state + n; }

  // Delta of all positions, and its slope where there is room for it.  All of them first, for they
  // do not wait for one another.
  void time_steps(const ScanGroup& group, Lanes* delta, Lanes* slope = nullptr) const {
    const Lanes bias = group.at(p.delta_bias, 0, 0);
    for (int step = 0; step < steps; ++step) {
      const Softplus both = softplus(group.at(p.delta, first + step, p.delta_stride) + bias);
      delta[step] = both.value;
      if (slope) slope[step] = both.slope;
    }
  }
};

// Asks for what a group reads at a chunk's positions, and for what it writes there.
RECALL_INLINE inline void fetch_forward(const ScanGroup& group, const ScanChunk& chunk) {
  const Scan& p = group.p;
  for (int step = 0; step < chunk.steps; ++step) {
    const std::int64_t row = chunk.first + step;
    group.fetch(p.u, row, p.u_stride), group.fetch(p.delta, row, p.delta_stride);
    if (!chunk.read(step)) continue;
    group.fetch(p.z, chunk.read_row(step), p.z_stride);
    group.fetch<true>(p.out, chunk.read_row(step), p.channels);
  }
  for (int n = 0; n < p.state; ++n) group.fetch<true>(p.states, chunk.kept(n), p.channels);
}

// The state size known at compile time lets the compiler keep h in registers; 0 means any.
template <int Fixed>
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

  // In two parts, for each addition waits for the one before it.
  static Lanes readout(const Scan& p, std::int64_t row, const Lanes* h) {
    const float* C = p.C + row * p.C_stride;
    Lanes y[2] = {};
    each_state(p, [&](int n) RECALL_INLINE { y[n % 2] += h[n] * C[n]; });
    return y[0] + y[1];
  }

  static void advance(const ScanGroup& group, const ScanChunk& chunk, const Lanes* A, Lanes* h) {
    const Scan& p = group.p;
    Lanes delta[scan_chunk], y[scan_chunk];
    chunk.time_steps(group, delta);
    for (int step = 0; step < chunk.steps; ++step) {
      const std::int64_t row = chunk.first + step;
      const Lanes dt = delta[step], drive = dt * group.u(row);
      const float* B = p.B + row * p.B_stride;
      each_state(p, [&](int n) RECALL_INLINE {
        h[n] = power_of_two(dt * A[n]) * h[n] + drive * B[n];
      });
      if (chunk.read(step)) y[step] = readout(p, row, h);
    }
    const Lanes D = group.at(p.D, 0, 0);
    for (int step = 0; step < chunk.steps; ++step) {
      if (!chunk.read(step)) continue;
      const std::int64_t read = chunk.read_row(step);
      Lanes out = y[step] + D * group.u(chunk.first + step);
      if (p.z) {
        const Lanes z = group.at(p.z, read, p.z_stride);
        out *= z * sigmoid(z);
      }
      group.put(p.out, read, out);
    }
  }

  // A chunk of the group's sequence, or of the next one where `index` is beyond its end.
  RECALL_INLINE static void fetch(const ScanGroup& group, std::int64_t index) {
    const Scan& p = group.p;
    const std::int64_t chunks = scan_chunks(p.length), sequence = group.sequence + index / chunks;
    if (sequence < p.batch) fetch_forward(group, {p, sequence, index % chunks});
  }

  static void work(const ScanGroup& group, Tensors tensors) {
    const Scan& p = group.p;
    const std::int64_t chunks = scan_chunks(p.length);
    Lanes A[capacity], h[capacity];
    for (int n = 0; n < p.state; ++n) A[n] = group.A(n), h[n] = Lanes{};
    if (p.initial) group.load_states(p.initial, group.sequence, h);
    for (std::int64_t index = 0; index < chunks; ++index) {
      if (tensors == Tensors::elsewhere) fetch(group, index + ahead);
      const ScanChunk chunk(p, group.sequence, index);
      if (p.states) group.store_states(p.states, chunk.kept(), h);
      advance(group, chunk, A, h);
    }
    if (p.final) group.store_states(p.final, group.sequence, h);
  }
};

template <Tensors tensors = Tensors::in_cache>
inline void scan_forward(const Scan& p, std::int64_t begin, std::int64_t end) {
  const auto work = p.state == 16 ? ScanForward<16>::work : ScanForward<0>::work;
  // The rows of a lone group follow one another, and that the processor foresees.
  const Tensors where = p.channels > lanes ? tensors : Tensors::in_cache;
  for (std::int64_t sequence = begin; sequence < end; ++sequence)
    for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
      work({p, sequence, channel}, where);
}

}  // namespace recall::RECALL_ISA
