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
constexpr int tile_rows = lanes == 16 ? 12 : 5;
constexpr int tile_vectors = 2;

enum class Result { written, added };

// One tile of the result: `rows` rows, `vectors` vectors of columns, `count` lanes in the last one.
template <int rows, int vectors, Result result, bool whole>
inline void product_tile(std::int64_t terms, int count, Scalars a, ConstRows b, Rows c) {
  const auto width = [&](int v) RECALL_INLINE { return whole || v + 1 < vectors ? lanes : count; };
  Lanes sum[rows][vectors] = {};
  for (std::int64_t k = 0; k < terms; ++k) {
    Lanes x[vectors];
    each<vectors>([&](int v) RECALL_INLINE { x[v] = load(b[k] + v * lanes, width(v)); });
    each<rows>([&](int r) RECALL_INLINE {
      const Lanes scalar = splat(a.first[r * a.row + k * a.column]);
      each<vectors>([&](int v) RECALL_INLINE { sum[r][v] += x[v] * scalar; });
    });
  }
  each<rows>([&](int r) RECALL_INLINE {
    each<vectors>([&](int v) RECALL_INLINE {
      float* to = c[r] + v * lanes;
      if (result == Result::added) sum[r][v] += load(to, width(v));
      store(to, sum[r][v], width(v));
    });
  });
}

// Rows that are left over when the tiles of `rows` rows are done: tiles of half as many.
template <int vectors, Result result, bool whole, int rows = tile_rows>
inline void product_rows(std::int64_t height, std::int64_t terms, int count, Scalars a, ConstRows b,
                         Rows c) {
  std::int64_t m = 0;
  for (; m + rows <= height; m += rows)
    product_tile<rows, vectors, result, whole>(terms, count, a.below(m), b, {c[m], c.stride});
  if constexpr (rows > 1)
    product_rows<vectors, result, whole, rows / 2>(height - m, terms, count, a.below(m), b,
                                                   {c[m], c.stride});
}

// c (height, width) from a (height, terms) and b (terms, width).
template <Result result = Result::written>
inline void product(std::int64_t height, std::int64_t width, std::int64_t terms, Scalars a, ConstRows b,
                    Rows c) {
  constexpr int tile_width = tile_vectors * lanes;
  const auto from = [](auto x, std::int64_t n) { return decltype(x){x.first + n, x.stride}; };
  std::int64_t n = 0;
  for (; n + tile_width <= width; n += tile_width)
    product_rows<tile_vectors, result, true>(height, terms, lanes, a, from(b, n), from(c, n));
  for (; n + lanes <= width; n += lanes)
    product_rows<1, result, true>(height, terms, lanes, a, from(b, n), from(c, n));
  if (n < width)
    product_rows<1, result, false>(height, terms, filled(width - n), a, from(b, n), from(c, n));
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

}  // namespace recall::RECALL_ISA
