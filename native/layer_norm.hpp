// Layer normalisation of rows (arXiv:1607.06450, eq. 4), forward and backward.  Without a bias it is RMS
// normalisation (arXiv:1910.07467, eq. 4): zero stands for mean(x) and, backward, for mean(s).
//
//   n_i = (x_i - mean(x)) r          r = 1 / sqrt(variance(x) + epsilon)
//   y_i = n_i weight_i + bias_i
//
//   s_i  = dy_i weight_i             dweight_i = sum over rows of dy_i n_i
//   dx_i = r (s_i - mean(s) - n_i mean(s n))          dbias_i = sum over rows of dy_i
//
// As many rows as there are lanes are taken together, so that their sums stand in one vector.

#pragma once

#include "lanes.hpp"
#include "math.hpp"
#include "matrix.hpp"
#include "arena.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

struct NormKernel {
  const Norm& p;
  std::int64_t width;
  float *y, *dy;        // (rows, width)
  float *mean, *scale;  // (rows,): mean(x), r

  NormKernel(const Norm& of, std::int64_t width, std::int64_t rows, Arena& arena)
      : p(of), width(width) {
    for (float** buffer : {&y, &dy}) *buffer = arena.take(rows * width);
    for (float** buffer : {&mean, &scale}) *buffer = arena.take(rows);
  }

  // Of weight and bias, and so of their gradients in a shard.
  std::int64_t numbers() const { return p.weight ? p.bias ? 2 * width : width : 0; }

  // Lane i: the mean over row i of what term(i, w, count) gives for the `count` numbers from w on.
  template <class Term>
  Lanes means(int rows, const Term& term) const {
    Lanes total[lanes] = {};
    for (int i = 0; i < rows; ++i)
      for (std::int64_t w = 0; w < width; w += lanes) total[i] += term(i, w, filled(width - w));
    return sums(total) * (1.0f / static_cast<float>(width));
  }

  // body(first, rows) for all rows, as many at a time as there are lanes.
  template <class Body>
  static void each_rows(std::int64_t rows, const Body& body) {
    for (std::int64_t first = 0; first < rows; first += lanes) body(first, filled(rows - first));
  }

  // y of all rows; x itself where there is no norm.
  ConstRows forward(std::int64_t rows, ConstRows x) const {
    if (!p.weight) return x;
    each_rows(rows, [&](std::int64_t first, int count) { forward(first, count, x); });
    return {y, width};
  }

  void forward(std::int64_t first, int rows, ConstRows x) const {
    const auto term = [&](int i, std::int64_t w, int count) RECALL_INLINE { return load(x[first + i] + w, count); };
    store(mean + first, p.bias ? means(rows, term) : Lanes{});
    const Lanes variance = means(rows, [&](int i, std::int64_t w, int count) RECALL_INLINE {
      const Lanes apart = first_of(load(x[first + i] + w, count) - mean[first + i], count);
      return apart * apart;
    });
    store(scale + first, 1.0f / sqrt(variance + static_cast<float>(p.epsilon)));
    for (std::int64_t w = 0; w < width; w += lanes) {
      const int count = filled(width - w);
      const Lanes weight = load(p.weight + w, count), bias = p.bias ? load(p.bias + w, count) : Lanes{};
      for (std::int64_t row = first; row < first + rows; ++row)
        store(y + row * width + w, normal(x, row, w, count) * weight + bias, count);
    }
  }

  Lanes normal(ConstRows x, std::int64_t row, std::int64_t w, int count) const {
    return (load(x[row] + w, count) - mean[row]) * scale[row];
  }

  // After `forward`, from dy: dx; adds to dweight and, `width` numbers behind it, to dbias.
  void backward(std::int64_t rows, ConstRows x, Rows dx, float* dweight) const {
    each_rows(rows, [&](std::int64_t first, int count) { backward(first, count, x, dx, dweight); });
  }

  void backward(std::int64_t first, int rows, ConstRows x, Rows dx, float* dweight) const {
    const auto slope = [&](std::int64_t row, std::int64_t w, int count) RECALL_INLINE {
      return load(dy + row * width + w, count) * load(p.weight + w, count);
    };
    float of_slope[lanes], of_product[lanes];
    const auto term = [&](int i, std::int64_t w, int count) RECALL_INLINE { return slope(first + i, w, count); };
    store(of_slope, p.bias ? means(rows, term) : Lanes{});
    store(of_product, means(rows, [&](int i, std::int64_t w, int count) RECALL_INLINE {
      return slope(first + i, w, count) * normal(x, first + i, w, count);
    }));
    for (std::int64_t w = 0; w < width; w += lanes) {
      const int count = filled(width - w);
      Lanes for_weight = load(dweight + w, count), for_bias = p.bias ? load(dweight + width + w, count) : Lanes{};
      for (int i = 0; i < rows; ++i) {
        const std::int64_t row = first + i;
        const Lanes arriving = load(dy + row * width + w, count), n = normal(x, row, w, count);
        for_weight += arriving * n;
        for_bias += arriving;
        store(dx[row] + w, scale[row] * (slope(row, w, count) - of_slope[i] - n * of_product[i]), count);
      }
      store(dweight + w, for_weight, count);
      if (p.bias) store(dweight + width + w, for_bias, count);
    }
  }
};

}  // namespace recall::RECALL_ISA
