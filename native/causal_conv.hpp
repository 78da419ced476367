// The depthwise causal convolution before the scan, with its SiLU, forward and backward.
//
//   s_t = bias + sum_k weight[k] x_{t - window + 1 + k}                x is zero before the start
//   y_t = silu(s_t)
//
//   ds_t      = dy_t silu'(s_t)
//   dx_t      = sum_k weight[k] ds_{t + window - 1 - k}
//   dweight_k = sum_t ds_t x_{t - window + 1 + k}                      dbias = sum_t ds_t
//
// A lane is a channel.

#pragma once

#include "lanes.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

template <int Fixed>  // the window, where it is known at compile time
struct ConvKernel {
  static constexpr int capacity = Fixed ? Fixed : largest_window;

  static int window_of(const Conv& p) { return Fixed ? Fixed : static_cast<int>(p.window); }

  // The last `window` inputs, oldest first.
  struct Window {
    Lanes x[capacity];

    void push(Lanes next, int window) {
      for (int k = 0; k + 1 < window; ++k) x[k] = x[k + 1];
      x[window - 1] = next;
    }
  };

  static void load_weight(const Conv& p, std::int64_t channel, int count, Lanes* weight) {
    for (int k = 0; k < window_of(p); ++k) weight[k] = load(p.weight + k * p.channels + channel, count);
  }

  static void forward_group(const Conv& p, std::int64_t sequence, std::int64_t channel, int count) {
    const int window = window_of(p);
    const Lanes bias = load(p.bias + channel, count);
    Lanes weight[capacity];
    load_weight(p, channel, count, weight);
    Window seen{};
    for (std::int64_t t = 0; t < p.length; ++t) {
      const std::int64_t row = sequence * p.length + t;
      seen.push(load(p.x + row * p.x_stride + channel, count), window);
      Lanes s = bias;
      for (int k = 0; k < window; ++k) s += weight[k] * seen.x[k];
      store(p.out + row * p.channels + channel, s * sigmoid(s), count);
    }
  }

  static void backward_group(const Conv& p, std::int64_t sequence, std::int64_t channel, int count,
                             Lanes* ds) {
    const int window = window_of(p);
    const Lanes bias = load(p.bias + channel, count);
    Lanes weight[capacity], dweight[capacity] = {}, dbias{};
    load_weight(p, channel, count, weight);
    Window seen{};
    for (std::int64_t t = 0; t < p.length; ++t) {
      const std::int64_t row = sequence * p.length + t;
      seen.push(load(p.x + row * p.x_stride + channel, count), window);
      Lanes s = bias;
      for (int k = 0; k < window; ++k) s += weight[k] * seen.x[k];
      const Lanes gate = sigmoid(s);
      ds[t] = load(p.grad_out + row * p.grad_out_stride + channel, count) * gate *
              (1.0f + s * (1.0f - gate));
      for (int k = 0; k < window; ++k) dweight[k] += ds[t] * seen.x[k];
      dbias += ds[t];
    }
    for (std::int64_t t = 0; t < p.length; ++t) {
      Lanes dx{};
      for (int k = window - 1; k >= 0 && t + window - 1 - k < p.length; --k)
        dx += weight[k] * ds[t + window - 1 - k];
      store(p.grad_x + (sequence * p.length + t) * p.channels + channel, dx, count);
    }
    const std::int64_t share = sequence * (window + 1) * p.channels + channel;
    for (int k = 0; k < window; ++k) store(p.grad_weight + share + k * p.channels, dweight[k], count);
    store(p.grad_bias + share, dbias, count);
  }

  static void forward(const Conv& p, std::int64_t begin, std::int64_t end) {
    for (std::int64_t sequence = begin; sequence < end; ++sequence)
      for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
        forward_group(p, sequence, channel, filled(p.channels - channel));
  }

  static void backward(const Conv& p, std::int64_t begin, std::int64_t end, float* scratch) {
    for (std::int64_t sequence = begin; sequence < end; ++sequence)
      for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
        backward_group(p, sequence, channel, filled(p.channels - channel), reinterpret_cast<Lanes*>(scratch));
  }
};

inline void conv_forward(const Conv& p, std::int64_t begin, std::int64_t end) {
  p.window == 4 ? ConvKernel<4>::forward(p, begin, end) : ConvKernel<0>::forward(p, begin, end);
}

inline void conv_backward(const Conv& p, std::int64_t begin, std::int64_t end, float* scratch) {
  p.window == 4 ? ConvKernel<4>::backward(p, begin, end, scratch)
                : ConvKernel<0>::backward(p, begin, end, scratch);
}

inline std::int64_t conv_scratch(const Conv& p) { return p.length * lanes; }

}  // namespace recall::RECALL_ISA
