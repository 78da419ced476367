// The product of two matrices, as small as those of one sequence: one of them stays in the cache
// closest to the core, so nothing is copied or packed before.
//
//   c[m, n] (+)= sum_k a(m, k) b[k, n]
//
// A lane is a column n.  The rows of `a` may lie either way, so that the same code does y = x W^T
// (with W transposed), dx = dy W, and dW = dy^T x.

#pragma once

#include "lanes.hpp"

namespace recall::RECALL_ISA {

// Rows of numbers; within a row they follow one another.
template <class Number>
struct Matrix {
  Number* first;
  std::int64_t stride;

  Number* operator[](std::int64_t row) const { return first + row * stride; }
  operator Matrix<const Number>() const { return {first, stride}; }
};

using Rows = Matrix<float>;
using ConstRows = Matrix<const float>;

// The number (m, k) lies at first[m * row + k * column].
struct Scalars {
  const float* first;
  std::int64_t row, column;

  Scalars below(std::int64_t m) const { return {first + m * row, row, column}; }
};

inline Scalars scalars(ConstRows x) { return {x.first, x.stride, 1}; }
inline Scalars transposed(ConstRows x) { return {x.first, 1, x.stride}; }

// As many results as the registers hold beside what they are made of.
template <int vectors>
constexpr int tile_rows = lanes == 16 || vectors == 1 ? 12 : 6;
constexpr int tile_vectors = 2;

// Sums start at zero and are written; are added to what was there, or to a share `kept` of it; or go on from what
// was there, which gives the bits of one sum over the terms of both.
enum class Result { written, added, faded, continued };

// Each of `a` is a number, or a pair of numbers that follow one another, for pairs of columns.
enum class Scalar { single, pair };

// One tile of the result: `rows` rows, `vectors` vectors of columns, `count` lanes in the last one.
template <int rows, int vectors, Result result, Scalar scalar, bool whole>
inline void product_tile(std::int64_t terms, int count, Scalars a, ConstRows b, Rows c, float kept) {
  const auto width = [&](int v) RECALL_INLINE { return whole || v + 1 < vectors ? lanes : count; };
  Lanes sum[rows][vectors] = {};
  if (result == Result::continued)
    each<rows>([&](int r) RECALL_INLINE {
      each<vectors>([&](int v) RECALL_INLINE { sum[r][v] = load(c[r] + v * lanes, width(v)); });
    });
  for (std::int64_t k = 0; k < terms; ++k) {
    Lanes x[vectors];
    each<vectors>([&](int v) RECALL_INLINE { x[v] = load(b[k] + v * lanes, width(v)); });
    each<rows>([&](int r) RECALL_INLINE {
      const float* from = a.first + r * a.row + k * a.column;
      const Lanes y = scalar == Scalar::pair ? splat_pair(from) : splat(*from);
      each<vectors>([&](int v) RECALL_INLINE { sum[r][v] += x[v] * y; });
    });
  }
  each<rows>([&](int r) RECALL_INLINE {
    each<vectors>([&](int v) RECALL_INLINE {
      float* to = c[r] + v * lanes;
      if (result == Result::added) sum[r][v] += load(to, width(v));
      if (result == Result::faded) sum[r][v] += kept * load(to, width(v));
      store(to, sum[r][v], width(v));
    });
  });
}

// `tiles` tiles of `wanted` <= `rows` rows each.
template <int vectors, Result result, Scalar scalar, bool whole, int rows = tile_rows<vectors>>
inline void product_tiles(std::int64_t wanted, std::int64_t tiles, std::int64_t terms, int count, Scalars a,
                          ConstRows b, Rows c, float kept) {
  if constexpr (rows > 1)
    if (wanted < rows)
      return product_tiles<vectors, result, scalar, whole, rows - 1>(wanted, tiles, terms, count, a, b, c, kept);
  for (std::int64_t m = 0; m < tiles * rows; m += rows)
    product_tile<rows, vectors, result, scalar, whole>(terms, count, a.below(m), b, {c[m], c.stride}, kept);
}

// All rows, in as few tiles as will do, of nearly equal heights: low tiles wait for their own sums.
template <int vectors, Result result, Scalar scalar, bool whole>
inline void product_rows(std::int64_t height, std::int64_t terms, int count, Scalars a, ConstRows b, Rows c,
                         float kept = 1.0f) {
  const std::int64_t tiles = (height + tile_rows<vectors> - 1) / tile_rows<vectors>, low = height / tiles;
  const std::int64_t high_tiles = height % tiles, rows = high_tiles * (low + 1);
  if (high_tiles) product_tiles<vectors, result, scalar, whole>(low + 1, high_tiles, terms, count, a, b, c, kept);
  product_tiles<vectors, result, scalar, whole>(low, tiles - high_tiles, terms, count, a.below(rows), b,
                                                {c[rows], c.stride}, kept);
}

// c (height, width) from a (height, terms) and b (terms, width).
template <Result result = Result::written>
inline void product(std::int64_t height, std::int64_t width, std::int64_t terms, Scalars a, ConstRows b,
                    Rows c, float kept = 1.0f) {
  constexpr int tile_width = tile_vectors * lanes;
  constexpr Scalar scalar = Scalar::single;
  const auto from = [](auto x, std::int64_t n) { return decltype(x){x.first + n, x.stride}; };
  if (height == 0) return;
  std::int64_t n = 0;
  for (; n + tile_width <= width; n += tile_width)
    product_rows<tile_vectors, result, scalar, true>(height, terms, lanes, a, from(b, n), from(c, n), kept);
  for (; n + lanes <= width; n += lanes)
    product_rows<1, result, scalar, true>(height, terms, lanes, a, from(b, n), from(c, n), kept);
  if (n < width)
    product_rows<1, result, scalar, false>(height, terms, filled(width - n), a, from(b, n), from(c, n), kept);
}

// For one vector of columns, more terms of the sums that are in c.
inline void continue_product(std::int64_t height, std::int64_t terms, Scalars a, ConstRows b, Rows c) {
  product_rows<1, Result::continued, Scalar::single, true>(height, terms, lanes, a, b, c);
}

// For one vector of columns, of which each pair has a pair of numbers of `a`.
inline void pair_product(std::int64_t height, std::int64_t terms, Scalars a, ConstRows b, Rows c) {
  if (height) product_rows<1, Result::written, Scalar::pair, true>(height, terms, lanes, a, b, c);
}

inline void add_product(std::int64_t height, std::int64_t width, std::int64_t terms, Scalars a,
                        ConstRows b, Rows c) {
  product<Result::added>(height, width, terms, a, b, c);
}

inline void add_rows(std::int64_t height, std::int64_t width, ConstRows from, Rows to) {
  for (std::int64_t row = 0; row < height; ++row)
    for (std::int64_t w = 0; w < width; w += lanes) {
      const int count = filled(width - w);
      store(to[row] + w, load(to[row] + w, count) + load(from[row] + w, count), count);
    }
}

// Adds one row to each of `to`.
inline void add_to_rows(std::int64_t height, std::int64_t width, const float* row, Rows to) {
  add_rows(height, width, {row, 0}, to);
}

// Adds all rows to one, in their order.
inline void add_sum_of_rows(std::int64_t height, std::int64_t width, ConstRows from, float* to) {
  add_rows(height, width, from, {to, 0});
}

inline void scale_rows(std::int64_t height, std::int64_t width, float times, Rows x) {
  for (std::int64_t row = 0; row < height; ++row)
    for (std::int64_t w = 0; w < width; w += lanes) {
      const int count = filled(width - w);
      store(x[row] + w, load(x[row] + w, count) * times, count);
    }
}

inline bool all_finite(ConstRows x, std::int64_t height, std::int64_t width) {
  Lanes zero{};
  for (std::int64_t row = 0; row < height; ++row)
    for (std::int64_t w = 0; w < width; w += lanes) zero += load(x[row] + w, filled(width - w)) * 0.0f;
  return sum(zero) == 0.0f;
}

}  // namespace recall::RECALL_ISA
