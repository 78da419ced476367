// What causal attention works in: one head of one sequence, packed as whole vectors, RoPE applied on the way in
// and undone on the way out (arXiv:2104.09864, eq. 34).
//
// Queries are padded with zeros in front, where they see the fewest keys; keys and a head's numbers at the end.

#pragma once

#include "arena.hpp"
#include "lanes.hpp"
#include "matrix.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

constexpr int tile = 8;  // results that are added up at once, enough to hide an addition's latency

struct AttentionBuffers {
  const Attention& p;
  std::int64_t padding, padded, keys, wide;
  float *k, *v;                  // (keys, wide)
  float *q_columns, *d_columns;  // (wide, padded): queries, scaled for powers of two; dout
  float *q_rows, *d_rows;        // (padded, wide): queries; dout
  float *weights, *slopes;       // (keys, padded): p and ds
  float *columns;                // (wide, padded): out, then dq
  float *rows;                   // (keys, wide): dv, then dk
  float *pairs;                  // (padded / 2, lanes): two queries' numbers side by side
  float *largest, *inverse;      // (padded,): max_j s_ij, 1 / sum_j exp(s_ij)
  float *cosines, *sines;        // (length, lanes): of heads that fit into a vector, for all their numbers
  Bits partner;                  // the number that RoPE pairs each of such a head's numbers with

  AttentionBuffers(const Attention& of, Arena& arena)
      : p(of),
        padding(round_up(p.queries, lanes) - p.queries),
        padded(p.queries + padding),
        keys(round_up(p.length, tile)),
        wide(round_up(p.width, lanes > tile ? lanes : tile)) {
    float* const begin = arena.take(0);
    const std::int64_t before = arena.used();
    for (float** buffer : {&k, &v, &rows}) *buffer = arena.take(keys * wide);
    for (float** buffer : {&q_columns, &d_columns, &columns, &q_rows, &d_rows}) *buffer = arena.take(wide * padded);
    for (float** buffer : {&weights, &slopes}) *buffer = arena.take(keys * padded);
    for (float** buffer : {&largest, &inverse}) *buffer = arena.take(padded);
    pairs = arena.take(2 * p.width <= lanes ? padded / 2 * lanes : 0);
    for (float** buffer : {&cosines, &sines}) *buffer = arena.take(in_a_vector() ? p.length * lanes : 0);
    if (!arena) return;
    std::memset(begin, 0, sizeof(float) * (arena.used() - before));  // padding is never written but with zeros
    if (in_a_vector()) spread_angles();
  }

  bool in_a_vector() const { return p.cosines && p.width <= lanes; }

  // The cosines and sines of a position beside one another for both halves of a head, so that
  // rotated x = x cosines + (partners of x) sines.
  void spread_angles() {
    const std::int64_t half = p.width / 2;
    partner = Bits{};
    for (std::int64_t w = 0; w < p.width; ++w) partner[w] = static_cast<int>((w + half) % p.width);
    for (std::int64_t t = 0; t < p.length; ++t)
      for (std::int64_t w = 0; w < p.width; ++w) {
        cosines[t * lanes + w] = p.cosines[t * half + w % half];
        sines[t * lanes + w] = (w < half ? -1.0f : 1.0f) * p.sines[t * half + w % half];
      }
  }

  // The rows of one head of one sequence.
  Rows rows_of(const Heads& of, std::int64_t item) const {
    return {of.data + item / p.heads * of.batch + item % p.heads * of.head, of.row};
  }

  // Rows are packed as whole vectors, padded with zeros: a load that spans several earlier stores must wait
  // until they have reached the cache.
  enum class To { pack, caller };

  template <To place>
  void copy(const float* from, float* to) const {
    for (std::int64_t w = 0; w < p.width; w += lanes) {
      const int count = filled(p.width - w);
      store(to + w, load(from + w, count), place == To::pack ? lanes : count);
    }
  }

  // Copies one row, rotated forward (+1) or back (-1) by its position's angles where there are any.
  template <To place>
  RECALL_INLINE void rotate(const float* from, std::int64_t position, float way, float* to) const {
    if (!p.cosines) return copy<place>(from, to);
    if (in_a_vector()) {
      const int count = static_cast<int>(p.width);
      const Lanes x = load(from, count), sine = way * load(sines + position * lanes);
      const Lanes rotated = x * load(cosines + position * lanes) + permuted(x, partner) * sine;
      return store(to, rotated, place == To::pack ? lanes : count);
    }
    const std::int64_t half = p.width / 2;
    for (std::int64_t i = 0; i < half; i += lanes) {
      const int count = filled(half - i);
      const Lanes left = load(from + i, count), right = load(from + half + i, count);
      const Lanes cosine = load(p.cosines + position * half + i, count);
      const Lanes sine = way * load(p.sines + position * half + i, count);
      store(to + i, left * cosine - right * sine, count);
      store(to + half + i, right * cosine + left * sine, count);
    }
  }

  std::int64_t position(std::int64_t query) const { return p.length - p.queries + query; }

  // `scale` is that of the scores.
  void pack(std::int64_t item, float scale) const {
    const Rows q = rows_of(p.q, item), key = rows_of(p.k, item), value = rows_of(p.v, item);
    for (std::int64_t j = 0; j < p.length; ++j) {
      rotate<To::pack>(key[j], j, 1.0f, k + j * wide);
      copy<To::pack>(value[j], v + j * wide);
    }
    for (std::int64_t i = 0; i < p.queries; ++i)
      rotate<To::pack>(q[i], position(i), 1.0f, q_rows + (padding + i) * wide);
    transpose_rows(q_rows, scale, q_columns);
  }

  void unpack_output(std::int64_t item) const {
    transpose_columns(columns, q_rows);
    const Rows out = rows_of(p.out, item);
    for (std::int64_t i = 0; i < p.queries; ++i) copy<To::caller>(q_rows + (padding + i) * wide, out[i]);
    std::memset(q_rows, 0, sizeof(float) * padding * wide);
    const std::size_t bytes = sizeof(float) * p.queries;
    std::memcpy(p.softmax + 2 * item * p.queries, largest + padding, bytes);
    std::memcpy(p.softmax + (2 * item + 1) * p.queries, inverse + padding, bytes);
  }

  void pack_gradient(std::int64_t item) const {
    const Rows dout = rows_of(p.grad_out, item);
    for (std::int64_t i = 0; i < p.queries; ++i) copy<To::pack>(dout[i], d_rows + (padding + i) * wide);
    transpose_rows(d_rows, 1.0f, d_columns);
    const float* softmax = p.softmax + 2 * item * p.queries;
    for (float* of : {largest, inverse}) {
      std::memset(of, 0, sizeof(float) * padding);
      std::memcpy(of + padding, softmax, sizeof(float) * p.queries);
      softmax += p.queries;
    }
  }

  void unpack_values(std::int64_t item) const {
    const Rows dv = rows_of(p.grad_v, item);
    for (std::int64_t j = 0; j < p.length; ++j) copy<To::caller>(rows + j * wide, dv[j]);
  }

  void unpack_keys(std::int64_t item) const {
    const Rows dk = rows_of(p.grad_k, item);
    for (std::int64_t j = 0; j < p.length; ++j) rotate<To::caller>(rows + j * wide, j, -1.0f, dk[j]);
  }

  void unpack_queries(std::int64_t item) const {
    const Rows dq = rows_of(p.grad_q, item);
    transpose_columns(columns, d_rows);
    for (std::int64_t i = 0; i < p.queries; ++i)
      rotate<To::caller>(d_rows + (padding + i) * wide, position(i), -1.0f, dq[i]);
    std::memset(d_rows, 0, sizeof(float) * padding * wide);
  }

  // Whether no number of `columns` is infinite or NaN.
  bool finite_columns() const {
    Lanes zero{};
    for (std::int64_t w = 0; w < p.width; ++w)
      for (std::int64_t i = 0; i < padded; i += lanes) zero += load(columns + w * padded + i) * 0.0f;
    return sum(zero) == 0.0f;
  }

  // (padded, wide) to (wide, padded), times a factor.
  void transpose_rows(const float* from, float times, float* to) const {
    for (std::int64_t i = 0; i < padded; i += lanes)
      for (std::int64_t w = 0; w < p.width; w += lanes)
        transpose_square(from + i * wide + w, wide, times, to + w * padded + i, padded);
  }

  void transpose_columns(const float* from, float* to) const {
    for (std::int64_t i = 0; i < padded; i += lanes)
      for (std::int64_t w = 0; w < p.width; w += lanes)
        transpose_square(from + w * padded + i, padded, 1.0f, to + i * wide + w, wide);
  }

  static void transpose_square(const float* from, std::int64_t row, float times, float* to,
                               std::int64_t column) {
    Lanes square[lanes];
    for (int r = 0; r < lanes; ++r) square[r] = load(from + r * row);
    transpose(square);
    for (int r = 0; r < lanes; ++r) store(to + r * column, square[r] * times);
  }
};

}  // namespace recall::RECALL_ISA
