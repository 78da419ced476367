// A depthwise causal convolution, with or without a SiLU behind it, forward and backward.
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
#include "math.hpp"
#include "arena.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

template <int Fixed, bool linear>  // the window, where it is known at compile time
struct ConvKernel {
  static constexpr int capacity = Fixed ? Fixed : largest_window;
  static constexpr int block = Fixed ? 4 : 1;  // positions side by side
  static constexpr int ahead = 16;             // positions

  const Conv& p;
  std::int64_t first, channel;  // row of the sequence; a group of channels, a lane each
  int count, window;
  Lanes bias, weight[capacity];

  RECALL_INLINE ConvKernel(const Conv& of, std::int64_t sequence, std::int64_t channel)
      : p(of),
        first(sequence * of.length),
        channel(channel),
        count(filled(of.channels - channel)),
        window(Fixed ? Fixed : static_cast<int>(of.window)),
        bias(of.bias ? load(of.bias + channel, count) : Lanes{}) {
    for (int k = 0; k < window; ++k) weight[k] = load(p.weight + k * p.channels + channel, count);
  }

  // Vectors of a few positions, and before them those of the window - 1 positions that came earlier.
  struct Window {
    Lanes x[capacity - 1 + block] = {};

    template <int positions>
    RECALL_INLINE void forget(int window) {
      for (int k = 0; k + 1 < window; ++k) x[k] = x[k + positions];
    }
  };

  // Asks for the group's numbers some positions after t, if need be in the next sequence.
  template <bool write = false>
  RECALL_INLINE void fetch(const float* of, std::int64_t t, std::int64_t stride) const {
    const std::int64_t row = first + t + ahead;
    if (row < p.batch * p.length) __builtin_prefetch(of + row * stride + channel, write, 2);
  }

  // The i-th output of a window's positions, before its SiLU.
  RECALL_INLINE Lanes sum(const Window& seen, int i) const {
    Lanes s = bias;
    for (int k = 0; k < window; ++k) s += weight[k] * seen.x[i + k];
    return s;
  }

  template <int positions>
  RECALL_INLINE void look(std::int64_t t, Data data, Window& seen) const {
    each<positions>([&](int i) RECALL_INLINE {
      if (data == Data::cold) fetch(p.x, t + i, p.x_stride);
      seen.x[window - 1 + i] = load(p.x + (first + t + i) * p.x_stride + channel, count);
    });
  }

  template <int positions>
  RECALL_INLINE void forward(std::int64_t t, Data data, Window& seen) const {
    look<positions>(t, data, seen);
    each<positions>([&](int i) RECALL_INLINE {
      if (data == Data::cold) fetch<true>(p.out, t + i, p.channels);
      const Lanes s = sum(seen, i);
      store(p.out + (first + t + i) * p.channels + channel, linear ? s : s * sigmoid(s), count);
    });
    seen.template forget<positions>(window);
  }

  RECALL_INLINE void forward(Data data) const {
    Window seen;
    std::int64_t t = 0;
    for (; t + block <= p.length; t += block) forward<block>(t, data, seen);
    for (; t < p.length; ++t) forward<1>(t, data, seen);
  }

  // What the backward pass adds up over the positions.
  struct Sums {
    Lanes weight[capacity] = {}, bias{};
  };

  template <int positions>
  RECALL_INLINE void backward(std::int64_t t, Data data, Window& seen, Window& ds, Sums& sums) const {
    look<positions>(t, data, seen);
    each<positions>([&](int i) RECALL_INLINE {
      if (data == Data::cold) fetch(p.grad_out, t + i, p.grad_out_stride);
      Lanes d = load(p.grad_out + (first + t + i) * p.grad_out_stride + channel, count);
      if constexpr (!linear) {
        const Lanes s = sum(seen, i), gate = sigmoid(s);
        d = d * gate * (1.0f + s * (1.0f - gate));
      }
      for (int k = 0; k < window; ++k) sums.weight[k] += d * seen.x[i + k];
      sums.bias += d;
      ds.x[window - 1 + i] = d;
    });
    seen.template forget<positions>(window);
    gradients<positions>(t, data, ds);
  }

  // dx of the positions whose last reader is one of those from t on.
  template <int positions>
  RECALL_INLINE void gradients(std::int64_t t, Data data, Window& ds) const {
    each<positions>([&](int i) RECALL_INLINE {
      const std::int64_t at = t + i - (window - 1);
      if (at < 0) return;
      if (data == Data::cold) fetch<true>(p.grad_x, at, p.grad_x_stride);
      Lanes dx{};
      for (int k = window - 1; k >= 0; --k) dx += weight[k] * ds.x[i + window - 1 - k];
      store(p.grad_x + (first + at) * p.grad_x_stride + channel, dx, count);
    });
    ds.template forget<positions>(window);
  }

  RECALL_INLINE void backward(std::int64_t sequence, Data data) const {
    Window seen, ds;
    Sums sums;
    std::int64_t t = 0;
    for (; t + block <= p.length; t += block) backward<block>(t, data, seen, ds, sums);
    for (; t < p.length; ++t) backward<1>(t, data, seen, ds, sums);
    for (; t < p.length + window - 1; ++t) {
      ds.x[window - 1] = Lanes{};
      gradients<1>(t, data, ds);
    }
    const std::int64_t offset = sequence * (window + 1) * p.channels + channel;
    for (int k = 0; k < window; ++k) store(p.grad_weight + offset + k * p.channels, sums.weight[k], count);
    store(p.grad_bias + offset, sums.bias, count);
  }

  static void forward(const Conv& p, std::int64_t begin, std::int64_t end, Data data) {
    for (std::int64_t sequence = begin; sequence < end; ++sequence)
      for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
        ConvKernel(p, sequence, channel).forward(data);
  }

  static void backward(const Conv& p, std::int64_t begin, std::int64_t end, Data data) {
    for (std::int64_t sequence = begin; sequence < end; ++sequence)
      for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
        ConvKernel(p, sequence, channel).backward(sequence, data);
  }
};

// work(kernel) with a kernel of the type that serves this operation.
template <class Work>
inline void with_conv_kernel(const Conv& p, const Work& work) {
  const auto of_window = [&](auto window) {
    if (p.linear)
      work(static_cast<ConvKernel<decltype(window)::value, true>*>(nullptr));
    else
      work(static_cast<ConvKernel<decltype(window)::value, false>*>(nullptr));
  };
  p.window == 4 ? of_window(std::integral_constant<int, 4>()) : of_window(std::integral_constant<int, 0>());
}

template <Data data = Data::hot>
inline void conv_forward(const Conv& p, std::int64_t begin, std::int64_t end) {
  with_conv_kernel(p, [&](auto* kernel) { kernel->forward(p, begin, end, data); });
}

template <Data data = Data::hot>
inline void conv_backward(const Conv& p, std::int64_t begin, std::int64_t end) {
  with_conv_kernel(p, [&](auto* kernel) { kernel->backward(p, begin, end, data); });
}

}  // namespace recall::RECALL_ISA
