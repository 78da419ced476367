// The root-mean-square norm of rows (arXiv:1910.07467, eq. 4) with a gate beside it, forward and backward.
//
//   n   = x r            r = 1 / sqrt(mean(x^2) + epsilon)
//   out = n weight f(z)  f is SiLU or the sigmoid, or 1 where there is no gate
//
//   dz  = dout n weight f'(z)        dn = dout weight f(z)
//   dx  = r (dn - n mean(dn n))      dweight = sum over rows of dout n f(z)
//
// As many rows as there are lanes are taken together, so that their sums stand in one vector.

#pragma once

#include "lanes.hpp"
#include "layer_norm.hpp"
#include "math.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

struct GatedNorm {
  const float* weight;  // (width,)
  std::int64_t width;
  float epsilon;
  OutputGate gate;

  // x, z, out and their gradients are (rows, width).
  void forward(std::int64_t rows, const float* x, const float* z, float* out) const {
    NormKernel::each_rows(rows, [&](std::int64_t first, int count) {
      float r[lanes];
      scales(first, count, x, r);
      each_vector(first, count, [&](std::int64_t at, std::int64_t w, int i, int filled_lanes) RECALL_INLINE {
        const Lanes normed = load(x + at, filled_lanes) * r[i] * load(weight + w, filled_lanes);
        store(out + at, normed * gated(z, at, filled_lanes).value, filled_lanes);
      });
    });
  }

  // Writes the output once more; adds to dweight.
  void backward(std::int64_t rows, const float* x, const float* z, const float* dout, float* out, float* dx,
                float* dz, float* dweight) const {
    NormKernel::each_rows(rows, [&](std::int64_t first, int count) {
      float r[lanes], mean[lanes];
      scales(first, count, x, r);
      Lanes along[lanes] = {};
      each_vector(first, count, [&](std::int64_t at, std::int64_t w, int i, int filled_lanes) RECALL_INLINE {
        const Gated f = gated(z, at, filled_lanes);
        const Lanes n = load(x + at, filled_lanes) * r[i], scale = load(weight + w, filled_lanes);
        const Lanes arriving = load(dout + at, filled_lanes), for_weight = arriving * n;
        store(dweight + w, load(dweight + w, filled_lanes) + for_weight * f.value, filled_lanes);
        store(out + at, n * scale * f.value, filled_lanes);
        if (gate != OutputGate::none) store(dz + at, for_weight * scale * f.slope, filled_lanes);
        const Lanes dn = arriving * scale * f.value;
        store(dx + at, dn, filled_lanes);
        along[i] += first_of(dn * n, filled_lanes);
      });
      store(mean, sums(along) * (1.0f / static_cast<float>(width)));
      each_vector(first, count, [&](std::int64_t at, std::int64_t, int i, int filled_lanes) RECALL_INLINE {
        const Lanes n = load(x + at, filled_lanes) * r[i];
        store(dx + at, r[i] * (load(dx + at, filled_lanes) - n * mean[i]), filled_lanes);
      });
    });
  }

 private:
  struct Gated {
    Lanes value, slope;  // f(z), f'(z)
  };

  Gated gated(const float* z, std::int64_t at, int count) const {
    if (gate == OutputGate::none) return {splat(1.0f), Lanes{}};
    const Lanes x = load(z + at, count), s = sigmoid(x);
    if (gate == OutputGate::sigmoid) return {s, s * (1.0f - s)};
    return {x * s, s * (1.0f + x * (1.0f - s))};
  }

  // body(place, column, row of the group, lanes filled) for all vectors of `count` rows.
  template <class Body>
  void each_vector(std::int64_t first, int count, const Body& body) const {
    for (int i = 0; i < count; ++i)
      for (std::int64_t w = 0; w < width; w += lanes) body((first + i) * width + w, w, i, filled(width - w));
  }

  void scales(std::int64_t first, int count, const float* x, float* r) const {
    Lanes squares[lanes] = {};
    each_vector(first, count, [&](std::int64_t at, std::int64_t, int i, int filled_lanes) RECALL_INLINE {
      const Lanes number = load(x + at, filled_lanes);
      squares[i] += number * number;
    });
    store(r, 1.0f / sqrt(sums(squares) * (1.0f / static_cast<float>(width)) + epsilon));
  }
};

}  // namespace recall::RECALL_ISA
