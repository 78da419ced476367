// How the gated delta rule is cut up: values into blocks of columns, a lane each; positions into chunks, at
// whose start the states are kept for the backward pass.
//
// Of a chunk's positions one head's queries and keys lie here as the recurrence reads them:
//
//   q_t <- scale q_t r(q_t)      k_t <- k_t r(k_t)      r(x) = 1 / sqrt(x . x + 1e-6), or 1 if not normalised

#pragma once

#include "arena.hpp"
#include "lanes.hpp"
#include "math.hpp"
#include "matrix.hpp"
#include "operations.hpp"
#include "scan_chunks.hpp"

namespace recall::RECALL_ISA {

enum class Decay { none, by_head, by_channel };

inline Decay decay_of(const Delta& p) {
  return !p.g ? Decay::none : p.g_by_channel ? Decay::by_channel : Decay::by_head;
}

inline std::int64_t chunks_of(std::int64_t length, int most) { return (length + most - 1) / most; }

// Whether chunks go through matrix products (`gated_delta_triangle.hpp`).  A decay by channel has no such form that
// cannot overflow.  Narrow states are faster step by step, and more exact: as many keys as a chunk has may erase nearly
// all of them, and what is left would be a small difference of large numbers.
inline bool by_products(const Delta& p) { return !p.g_by_channel && p.key_width >= delta_by_products; }

// Chunks for whose start a state is kept.
inline std::int64_t delta_chunks(const Delta& p) { return chunks_of(p.length, by_products(p) ? delta_chunk : scan_chunk); }

// work(the decay as a constant).
template <class Work>
inline void with_decay(const Delta& p, const Work& work) {
  switch (decay_of(p)) {
    case Decay::none: return work(std::integral_constant<Decay, Decay::none>());
    case Decay::by_head: return work(std::integral_constant<Decay, Decay::by_head>());
    case Decay::by_channel: return work(std::integral_constant<Decay, Decay::by_channel>());
  }
}

// A few vectors of columns of a state, which go through a chunk side by side.
template <int count>
struct Columns {
  static constexpr int vectors = count;
  static constexpr int unroll = 4 / count;  // rows at a time, so that no sum waits for the one before
  std::int64_t first, width;                // the first column, and how many there are in all

  int filled_lanes(int v) const { return filled(width - first - v * lanes); }
  Lanes load_at(const float* row, int v) const { return load(row + first + v * lanes, filled_lanes(v)); }
  void store_at(float* row, int v, Lanes x) const { store(row + first + v * lanes, x, filled_lanes(v)); }
};

// body(block) for all columns, at most `most` vectors at a time.
template <int most, class Body>
inline void each_block(std::int64_t width, const Body& body) {
  std::int64_t column = 0;
  const auto while_wide = [&](auto block) {
    constexpr int vectors = decltype(block)::vectors;
    if constexpr (vectors <= most)
      for (; column + (vectors - 1) * lanes < width; column += vectors * lanes) body(Columns<vectors>{column, width});
  };
  while_wide(Columns<4>{}), while_wide(Columns<2>{}), while_wide(Columns<1>{});
}

// One head of one sequence, at a chunk of at most `most` positions.
template <int most>
class DeltaChunk {
 public:
  float *q, *k, *a;         // (most, stride): queries, keys, and with a decay by channel exp(g)
  float *decay, *beta;      // (most,): exp(g) by head, 1 without it
  float *r, *q_dot_k;       // r of the queries, then of the keys; their products as they are read
  std::int64_t rows;        // of a state: the keys' width, and zeros up to a multiple of four
  std::int64_t stride;
  std::int64_t item, head, index, first;  // head of a sequence; which chunk; its first position's row
  int steps, from;                  // positions, of which those from `from` on are read

  DeltaChunk(const Delta& of, Arena& arena)
      : rows(round_up(of.key_width, 4)), stride(round_up(of.key_width, lanes)), p(of) {
    for (float** buffer : {&q, &k, &a}) *buffer = arena.take(most * stride);
    for (float** buffer : {&decay, &beta}) *buffer = arena.take(numbers(1));
    r = arena.take(numbers(2)), q_dot_k = arena.take(numbers(1));
  }

  void prepare(std::int64_t of, std::int64_t chunk) {
    item = of, head = item % p.heads, index = chunk;
    const std::int64_t left = p.length - index * most;
    first = item / p.heads * p.length + index * most;
    steps = left < most ? static_cast<int>(left) : most;
    from = !p.last ? 0 : left > most ? steps : steps - 1;
    prepare_keys();
    prepare_gates();
  }

  std::int64_t key_column() const { return head * p.key_width; }
  std::int64_t g_place(int step) const { return (first + step) * p.g_stride + head * p.g_head; }
  std::int64_t beta_place(int step) const { return (first + step) * p.beta_stride + head * p.beta_head; }

  // This head's numbers of values and errors at a position, and of outputs where they are read.
  std::int64_t value(int step) const { return ((first + step) * p.heads + head) * p.value_width; }
  std::int64_t read(int step) const { return p.last ? item * p.value_width : value(step); }

  // Where this chunk's state is kept, and where those before the first and after the last one are.
  std::int64_t kept() const { return (item * chunks_of(p.length, most) + index) * p.key_width * p.value_width; }
  std::int64_t end() const { return item * p.key_width * p.value_width; }

  // The gradients of the queries and keys that were given, from those of q and k; rows are filled up with zeros.
  void store_gradients(int step, const float* dq, const float* dk) const {
    const std::int64_t place = (first + step) * p.grad_key_stride + key_column(), width = p.key_width;
    const float scale = static_cast<float>(p.scale), r_of_q = r[step], r_of_k = r[most + step];
    const float *const unit_k = k + step * stride, *const raw_q = given(p.q, p.q_stride)[step];
    float *const to_q = p.grad_q + place, *const to_k = p.grad_k + place;
    const bool normalised = p.normalised;
    Lanes along_q{}, along_k{};
    for (std::int64_t i = 0; normalised && i < width; i += lanes) {
      const int count = filled(width - i);
      along_q += r_of_q * load(raw_q + i, count) * (scale * load(dq + i, count));
      along_k += load(unit_k + i, count) * load(dk + i, count);
    }
    const float q_dot = sum(along_q), k_dot = sum(along_k);
    for (std::int64_t i = 0; i < width; i += lanes) {
      const int count = filled(width - i);
      Lanes of_q = scale * load(dq + i, count), of_k = load(dk + i, count);
      if (normalised) {
        of_q = r_of_q * (of_q - r_of_q * q_dot * load(raw_q + i, count));
        of_k = r_of_k * (of_k - k_dot * load(unit_k + i, count));
      }
      store(to_q + i, of_q, count), store(to_k + i, of_k, count);
    }
  }

  template <class Block>
  void load_state(const float* from, Block block, Lanes* S) const {
    for (std::int64_t row = 0; row < rows; ++row)
      for (int v = 0; v < Block::vectors; ++v)
        S[row * Block::vectors + v] =
            from && row < p.key_width ? block.load_at(from + row * p.value_width, v) : Lanes{};
  }
  template <class Block>
  void store_state(float* to, Block block, const Lanes* S) const {
    for (std::int64_t row = 0; row < p.key_width; ++row)
      for (int v = 0; v < Block::vectors; ++v)
        block.store_at(to + row * p.value_width, v, S[row * Block::vectors + v]);
  }

 private:
  static constexpr std::int64_t numbers(int of) { return round_up_(of * most); }
  static constexpr std::int64_t round_up_(std::int64_t x) { return (x + lanes - 1) / lanes * lanes; }

  void prepare_keys() {
    constexpr int sums_of = 3 * most;
    Lanes partial[round_up_(sums_of)] = {};
    float total[round_up_(sums_of)];
    const ConstRows q_of = given(p.q, p.q_stride), k_of = given(p.k, p.k_stride);
    const std::int64_t width = p.key_width;
    for (int step = 0, end = steps; step < end; ++step) {
      Lanes of_q{}, of_k{}, of_both{};
      for (std::int64_t i = 0; i < width; i += lanes) {
        const Lanes x = load(q_of[step] + i, filled(width - i)), y = load(k_of[step] + i, filled(width - i));
        of_q += x * x, of_k += y * y, of_both += x * y;
      }
      partial[step] = of_q, partial[most + step] = of_k, partial[2 * most + step] = of_both;
    }
    for (int i = 0; i < sums_of; i += lanes) store(total + i, sums(partial + i));
    for (int i = 0; i < 2 * most; i += lanes)
      store(r + i, p.normalised ? 1.0f / sqrt(load(total + i) + 1e-6f) : splat(1.0f));
    const float scale = static_cast<float>(p.scale);
    for (int step = 0, end = steps; step < end; ++step) {
      const float of_q = scale * r[step], of_k = r[most + step];
      q_dot_k[step] = total[2 * most + step] * of_q * of_k;
      float *const to_q = q + step * stride, *const to_k = k + step * stride;
      for (std::int64_t i = 0; i < width; i += lanes) {
        store(to_q + i, load(q_of[step] + i, filled(width - i)) * of_q);
        store(to_k + i, load(k_of[step] + i, filled(width - i)) * of_k);
      }
    }
  }

  void prepare_gates() {
    for (int step = 0; step < most; ++step) {
      beta[step] = step < steps ? p.beta[beta_place(step)] : 0.0f;
      decay[step] = step < steps && p.g && !p.g_by_channel ? p.g[g_place(step)] : 0.0f;
    }
    for (int step = 0; step < most; step += lanes)
      store(decay + step, exp(load(decay + step, filled(most - step))));
    for (int step = 0; p.g_by_channel && step < steps; ++step)
      for (std::int64_t i = 0; i < p.key_width; i += lanes)
        store(a + step * stride + i, exp(load(p.g + g_place(step) + i, filled(p.key_width - i))));
  }

  // This head's queries or keys at the chunk's positions, as they were given.
  ConstRows given(const float* of, std::int64_t of_stride) const {
    return {of + first * of_stride + key_column(), of_stride};
  }

  const Delta& p;
};

}  // namespace recall::RECALL_ISA
