// The input projection of embedded tokens.  A batch has few distinct rows, so each is normalised and
// projected once and gathered by token id; gradients are scattered to the tokens before they are multiplied.
//
//   y_t = P[token_t]         P  = in_proj norm(x)            x (distinct, width)
//
//   dP[i] = sum of dy_t over the positions whose token is i
//   din_proj = dP^T norm(x)                dnorm(x) = dP in_proj

#pragma once

#include "arena.hpp"
#include "layer_norm.hpp"
#include "matrix.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

// Token ids at equal distance: of every position, or of each sequence's last one.
struct TokenIds {
  const std::int64_t* first;
  std::int64_t stride;

  std::int64_t operator[](std::int64_t i) const { return first[i * stride]; }
};

struct Gather {
  std::int64_t distinct, columns;
  float *projected, *arriving;  // (distinct, columns): P and dP

  Gather(std::int64_t distinct, std::int64_t columns, Arena& arena) : distinct(distinct), columns(columns) {
    for (float** table : {&projected, &arriving}) *table = arena.take(distinct * columns);
    if (arena) clear();
  }
  explicit operator bool() const { return distinct; }

  void clear() const { std::memset(arriving, 0, sizeof(float) * distinct * columns); }

  // `in_proj` comes transposed: (width, columns).  There may be no bias.
  void project(const NormKernel& norm, ConstRows x, ConstRows in_proj, const float* bias) const {
    product(distinct, columns, norm.width, scalars(norm.forward(distinct, x)), in_proj, {projected, columns});
    if (bias) add_to_rows(distinct, columns, bias, {projected, columns});
  }

  // The `width` numbers from `column` on of each token's row of P.
  void gather(std::int64_t count, TokenIds ids, std::int64_t column, std::int64_t width, Rows to) const {
    for (std::int64_t i = 0; i < count; ++i)
      std::memcpy(to[i], projected + ids[i] * columns + column, sizeof(float) * width);
  }

  // Adds gradients of these numbers to dP.
  void scatter(std::int64_t count, TokenIds ids, std::int64_t column, std::int64_t width, ConstRows from) const {
    for (std::int64_t i = 0; i < count; ++i)
      add_rows(1, width, {from[i], width}, {arriving + ids[i] * columns + column, width});
  }

  // Adds to the gradients of in_proj (columns, width), of its bias where there is one, and of the norm what has
  // arrived since the last time.
  void finish(const NormKernel& norm, ConstRows x, const float* in_proj, float* din_proj, float* dbias,
              float* dnorm) const {
    const std::int64_t width = norm.width;
    const ConstRows normed = norm.forward(distinct, x), gradient{arriving, columns};
    add_product(columns, width, distinct, transposed(gradient), normed, {din_proj, width});
    if (dbias) add_sum_of_rows(distinct, columns, gradient, dbias);
    product(distinct, width, columns, scalars(gradient), {in_proj, width}, {norm.dy, width});
    norm.backward(distinct, x, {norm.y, width}, dnorm);
    clear();
  }
};

// Adds each token's row of x.
inline void add_gathered(std::int64_t count, TokenIds ids, ConstRows x, std::int64_t width, Rows to) {
  for (std::int64_t i = 0; i < count; ++i) add_rows(1, width, {x[ids[i]], width}, {to[i], width});
}

}  // namespace recall::RECALL_ISA
