// The projection of rows of which many are the same, as those of embedded tokens are: each distinct row
// is normalised and projected once and looked up, and what arrives at equal rows is added up first.
//
//   y_t = P[token_t]         P  = in_proj norm(x)            x (distinct, width)
//
//   dP[i] = sum of dy_t over the positions whose token is i
//   din_proj = dP^T norm(x)                dnorm(x) = dP in_proj

#pragma once

#include "layer_norm.hpp"
#include "matrix.hpp"
#include "memory.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

// The distinct rows of some positions that follow one another at equal distance.
struct Positions {
  const std::int64_t* rows;
  std::int64_t step;

  std::int64_t operator[](std::int64_t i) const { return rows[i * step]; }
};

struct Lookup {
  std::int64_t distinct, columns;
  float *projected, *arriving;  // (distinct, columns): P and dP

  Lookup(std::int64_t distinct, std::int64_t columns, Memory& memory)
      : distinct(distinct), columns(columns) {
    for (float** part : {&projected, &arriving}) *part = memory.take(distinct * columns);
    if (memory) clear();
  }
  explicit operator bool() const { return distinct; }

  void clear() const { std::memset(arriving, 0, sizeof(float) * distinct * columns); }

  // `into` is in_proj turned over: (width, columns).
  void project(const NormKernel& norm, Given x, Given into) const {
    product(distinct, columns, norm.width, as_it_is(norm.forward(distinct, x)), into, {projected, columns});
  }

  // The `width` numbers from `column` on of each position's row of P.
  void look_up(std::int64_t count, Positions at, std::int64_t column, std::int64_t width, Rows to) const {
    for (std::int64_t i = 0; i < count; ++i)
      std::memcpy(to[i], projected + at[i] * columns + column, sizeof(float) * width);
  }

  // Adds each position's row of x.
  void add_x(std::int64_t count, Positions at, Given x, std::int64_t width, Rows to) const {
    for (std::int64_t i = 0; i < count; ++i)
      add_rows(1, width, {x[at[i]], width}, {to[i], width});
  }

  // Adds gradients of such numbers to dP.
  void add(std::int64_t count, Positions at, std::int64_t column, std::int64_t width, Given from) const {
    for (std::int64_t i = 0; i < count; ++i)
      add_rows(1, width, {from[i], width}, {arriving + at[i] * columns + column, width});
  }

  // Adds to the gradients of in_proj (columns, width) and of the norm what has arrived since the last time.
  void finish(const NormKernel& norm, Given x, const float* in_proj, float* din_proj, float* dnorm) const {
    const std::int64_t width = norm.width;
    const Given normed = norm.forward(distinct, x), back{arriving, columns};
    add_product(columns, width, distinct, turned(back), normed, {din_proj, width});
    product(distinct, width, columns, as_it_is(back), {in_proj, width}, {norm.dy, width});
    norm.backward(distinct, x, {norm.y, width}, dnorm);
    clear();
  }
};

}  // namespace recall::RECALL_ISA
