// What causal attention works in, for one head of one sequence at a time: rotated rows, transposes, and a weight
// for each pair of a key and a query.
//
// In the transposes queries are padded in front to whole vectors, where they see the fewest keys.

#pragma once

#include "arena.hpp"
#include "lanes.hpp"
#include "matrix.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

struct AttentionBuffers {
  const Attention& p;
  const std::int64_t padding, padded, items;
  float *q, *k;                  // (queries, width), (length, width): rotated, where there are angles
  float *q_columns, *d_columns;  // (width, padded): queries, scaled; dout
  float *weights, *slopes;       // (items, length, padded): exp(s - max s), then p; (length, padded): dp, then ds
  float *columns;                // (width, padded): out, then dq
  float *pairs, *sums;           // of heads that leave half of a vector unused: (padded / 2, lanes), (length, lanes)
  float *largest, *inverse;      // (padded,): max_j s_ij; 1 / sum_j exp(s_ij)
  float *cosines, *sines;        // (length, lanes): of heads that fit into a vector, for all their numbers
  Bits partner;                  // the number that RoPE pairs each of such a head's numbers with

  // `kept`: of how many items the weights last from the forward pass to the backward pass.
  AttentionBuffers(const Attention& of, std::int64_t kept, Arena& arena)
      : p(of),
        padding(round_up(p.queries, lanes) - p.queries),
        padded(p.queries + padding),
        items(kept) {
    q = arena.take(p.cosines ? p.queries * p.width : 0), k = arena.take(p.cosines ? p.length * p.width : 0);
    for (float** buffer : {&q_columns, &d_columns, &columns}) *buffer = arena.take(p.width * padded);
    weights = arena.take(larger(kept, 1) * p.length * padded), slopes = arena.take(p.length * padded);
    pairs = arena.take(in_half() ? padded / 2 * lanes : 0), sums = arena.take(in_half() ? p.length * lanes : 0);
    for (float** buffer : {&largest, &inverse}) *buffer = arena.take(padded);
    for (float** buffer : {&cosines, &sines}) *buffer = arena.take(in_a_vector() ? p.length * lanes : 0);
    if (arena && in_a_vector()) spread_angles();
  }

  bool in_half() const { return 2 * p.width <= lanes; }
  bool in_a_vector() const { return p.cosines && p.width <= lanes; }

  // The cosines and sines of a position beside one another for both halves of a head, so that
  // rotated x = x cosines + (partners of x) sines.
  void spread_angles() {
    const std::int64_t half = p.width / 2;
    partner = Bits{};
    for (float* table : {cosines, sines}) std::memset(table, 0, sizeof(float) * p.length * lanes);
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

  float* weights_of(std::int64_t item) const { return weights + (items ? item * p.length * padded : 0); }

  // Copies rows, rotated forward (+1) or back (-1) by the angles of the positions from `position` on
  // (arXiv:2104.09864, eq. 34).  `to` may be where they are.
  void rotate(ConstRows from, std::int64_t count, std::int64_t position, float way, Rows to) const {
    for (std::int64_t i = 0; i < count; ++i)
      in_a_vector() ? rotate_vector(from[i], position + i, way, to[i])
                    : rotate_row(from[i], position + i, way, to[i]);
  }

  void rotate_vector(const float* from, std::int64_t position, float way, float* to) const {
    const int count = static_cast<int>(p.width);
    const Lanes x = load(from, count), sine = way * load(sines + position * lanes);
    store(to, x * load(cosines + position * lanes) + permuted(x, partner) * sine, count);
  }

  void rotate_row(const float* from, std::int64_t position, float way, float* to) const {
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

  // A head's queries and keys as the scores want them.
  ConstRows queries(std::int64_t item) const {
    const Rows given = rows_of(p.q, item);
    if (!p.cosines) return given;
    rotate(given, p.queries, p.length - p.queries, 1.0f, {q, p.width});
    return Rows{q, p.width};
  }

  ConstRows keys(std::int64_t item) const {
    const Rows given = rows_of(p.k, item);
    if (!p.cosines) return given;
    rotate(given, p.length, 0, 1.0f, {k, p.width});
    return Rows{k, p.width};
  }

  // Of gradients of rotated rows, in place: those of the rows.
  void rotate_back(Rows rows, std::int64_t count) const {
    if (p.cosines) rotate(rows, count, p.length - count, -1.0f, rows);
  }
};

// `count` rows of `width` numbers, after `padding` rows of zeros, to columns (width, padding + count), times a
// factor.  Columns are whole vectors.
inline void rows_to_columns(ConstRows from, std::int64_t count, std::int64_t padding, std::int64_t width, float times,
                            float* to) {
  const std::int64_t padded = round_up(padding + count, lanes);
  for (std::int64_t i = 0; i < padded; i += lanes)
    for (std::int64_t w = 0; w < width; w += lanes) {
      const int numbers = filled(width - w);
      Lanes square[lanes];
      for (int r = 0; r < lanes; ++r) {
        const std::int64_t row = i + r - padding;
        square[r] = row < 0 || row >= count ? Lanes{} : load(from[row] + w, numbers);
      }
      transpose(square);
      for (int r = 0; r < numbers; ++r) store(to + (w + r) * padded + i, square[r] * times);
    }
}

// The way back: the `count` rows that follow `padding`; times(i) are the factors of a vector of columns.
template <class Times>
inline void columns_to_rows(const float* from, std::int64_t count, std::int64_t padding, std::int64_t width,
                            const Times& times, Rows to) {
  const std::int64_t padded = padding + count;
  for (std::int64_t i = 0; i < padded; i += lanes)
    for (std::int64_t w = 0; w < width; w += lanes) {
      const int numbers = filled(width - w);
      Lanes square[lanes];
      for (int r = 0; r < lanes; ++r)
        square[r] = r < numbers ? load(from + (w + r) * padded + i) * times(i) : Lanes{};
      transpose(square);
      for (int r = i < padding ? static_cast<int>(padding - i) : 0; r < lanes; ++r)
        store(to[i + r - padding] + w, square[r], numbers);
    }
}

}  // namespace recall::RECALL_ISA
