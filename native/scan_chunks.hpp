// How the selective scan is cut up: channels into groups, a lane each; positions into chunks, at whose start
// the states are saved for the backward pass.

#pragma once

#include "lanes.hpp"
#include "math.hpp"
#include "arena.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

inline std::int64_t scan_chunks(std::int64_t length) {
  return (length + scan_chunk - 1) / scan_chunk;
}

inline std::int64_t scan_groups(const Scan& p) { return (p.channels + lanes - 1) / lanes; }

// Whether some A is positive, as no model of the paper's has it: then exp(Delta A) may overflow.
inline bool grows(const Scan& p) {
  Lanes largest{};
  for (std::int64_t i = 0, numbers = p.state * p.channels; i < numbers; i += lanes) {
    const Lanes A = load(p.A + i, filled(numbers - i));
    largest = A > largest ? A : largest;
  }
  for (int lane = 0; lane < lanes; ++lane)
    if (largest[lane] > 0.0f) return true;
  return false;
}

template <bool grows>
RECALL_INLINE inline Lanes exp2_of(Lanes x) {
  return grows ? exp2(x) : exp2_bounded(x);
}

// A group's numbers at positions that follow one another.  Where they are stands here, not in the operation,
// of which a compiler must suppose that any store changes it.
template <class Number>
struct Column {
  Number* first;
  std::int64_t stride;
  int count;

  Lanes operator[](int step) const { return load(first + step * stride, count); }
  void put(int step, Lanes x) const { store(first + step * stride, x, count); }
};

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
  // Asks for what at() will load, or for what put() will write over.
  template <bool write = false>
  RECALL_INLINE void fetch(const float* of, std::int64_t row, std::int64_t stride) const {
    if (of) __builtin_prefetch(of + row * stride + channel, write, 2);
  }
  template <class Number>
  Column<Number> column(Number* of, std::int64_t row, std::int64_t stride) const {
    return {of ? of + row * stride + channel : of, stride, count};
  }
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
  int steps, from;                      // positions, of which those from `from` on are read

  ScanChunk(const Scan& of, std::int64_t sequence, std::int64_t index)
      : p(of), sequence(sequence), index(index), first(sequence * of.length + index * scan_chunk) {
    const std::int64_t left = p.length - index * scan_chunk;
    steps = left < scan_chunk ? static_cast<int>(left) : scan_chunk;
    from = !p.last ? 0 : left > scan_chunk ? steps : steps - 1;
  }

  bool read() const { return from < steps; }  // any position

  // The rows that a tensor has for every position.
  template <class Number>
  Column<Number> every(const ScanGroup& group, Number* of, std::int64_t stride) const {
    return group.column(of, first, stride);
  }

  // The rows that `out`, `z` and their gradients have for the positions which are read.
  std::int64_t read_row(int step) const { return p.last ? sequence : first + step; }
  template <class Number>
  Column<Number> where_read(const ScanGroup& group, Number* of, std::int64_t stride) const {
    Column<Number> column = group.column(of, read_row(0), stride);
    if (p.last) column.stride = 0;
    return column;
  }

  // Which of the tensor `states`, counted in (batch, chunks) or in (batch, chunks, state).
  std::int64_t kept() const { return sequence * scan_chunks(p.length) + index; }
  std::int64_t kept(int n) const { return kept() * p.state + n; }

  // Delta of all positions, and its slope where there is a buffer for it.  All of them first, for they
  // do not wait for one another.
  void time_steps(const ScanGroup& group, Lanes* delta, Lanes* slope = nullptr) const {
    const Lanes bias = group.at(p.delta_bias, 0, 0);
    const auto raw = every(group, p.delta, p.delta_stride);
    for (int step = 0, end = steps; step < end; ++step) {
      const Softplus both = softplus(raw[step] + bias);
      delta[step] = both.value;
      if (slope) slope[step] = both.slope;
    }
  }
};

}  // namespace recall::RECALL_ISA
