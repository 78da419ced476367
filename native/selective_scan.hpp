// The selective scan of Mamba (arXiv:2312.00752, section 3.2 and algorithm 2), forward and backward.
//
//   Delta_t = softplus(delta_t + bias)
//   h_t[n]  = exp(Delta_t A[n]) h_{t-1}[n] + Delta_t u_t B_t[n]        h_{-1} = 0
//   y_t     = sum_n C_t[n] h_t[n] + D u_t
//   out_t   = y_t silu(z_t)                                            or y_t without a gate
//
// A lane is a channel; the state of a group of channels stays in registers.
//
// Backward, with g_t[n] the gradient that arrives at h_t[n] from position t and from all later ones:
//
//   dy_t     = dout_t silu(z_t)             dz_t = dout_t y_t silu'(z_t)
//   g_t[n]   = C_t[n] dy_t + a_{t+1}[n] g_{t+1}[n]                      a_t[n] = exp(Delta_t A[n])
//   dC_t[n]  = sum over channels of dy_t h_t[n]
//   dB_t[n]  = sum over channels of g_t[n] Delta_t u_t
//   q_t[n]   = g_t[n] a_t[n] h_{t-1}[n]     the gradient of the exponent Delta_t A[n]
//   dA[n]    = sum_t q_t[n] Delta_t
//   dDelta_t = sum_n q_t[n] A[n] + u_t sum_n g_t[n] B_t[n]
//   du_t     = D dy_t + Delta_t sum_n g_t[n] B_t[n]
//
// The forward pass keeps the state at the start of each chunk; the backward pass walks the chunks
// from the last to the first and computes the states inside a chunk again.

#pragma once

#include "lanes.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

// The state size known at compile time lets the compiler keep h in registers; 0 means any.
template <int Fixed>
struct ScanKernel {
  static constexpr int capacity = Fixed ? Fixed : largest_state;

  static int state_of(const Scan& p) { return Fixed ? Fixed : static_cast<int>(p.state); }

  static void forward_group(const Scan& p, std::int64_t sequence, std::int64_t channel, int count) {
    const int state = state_of(p);
    const std::int64_t first = sequence * p.length;
    const Lanes D = load(p.D + channel, count), bias = load(p.delta_bias + channel, count);
    Lanes A[capacity], h[capacity];
    for (int n = 0; n < state; ++n) {
      A[n] = load(p.A + n * p.channels + channel, count);
      h[n] = Lanes{};
    }
    float* saved = p.states;
    if (saved) saved += sequence * chunks(p) * state * p.channels + channel;

    for (std::int64_t t = 0; t < p.length; ++t) {
      if (saved && t % scan_chunk == 0) {
        for (int n = 0; n < state; ++n, saved += p.channels) store(saved, h[n], count);
      }
      const std::int64_t row = first + t;
      const Lanes u = load(p.u + row * p.u_stride + channel, count);
      const Lanes delta = softplus(load(p.delta + row * p.delta_stride + channel, count) + bias);
      const Lanes drive = delta * u;
      const float *B = p.B + row * p.B_stride, *C = p.C + row * p.C_stride;
      Lanes y = D * u;
      for (int n = 0; n < state; ++n) {
        h[n] = exponential(delta * A[n]) * h[n] + drive * B[n];
        y += h[n] * C[n];
      }
      if (p.z) {
        const Lanes z = load(p.z + row * p.z_stride + channel, count);
        y *= z * sigmoid(z);
      }
      store(p.out + row * p.channels + channel, y, count);
    }
  }

  static std::int64_t chunks(const Scan& p) { return (p.length + scan_chunk - 1) / scan_chunk; }

  static std::int64_t groups(const Scan& p) { return (p.channels + lanes - 1) / lanes; }

  // The scratch of one thread: what a chunk computes again, the shares of dB and dC lane by lane,
  // and for every group of channels the running sums that pass from chunk to chunk.
  struct Scratch {
    Lanes *delta, *a, *h, *dB, *dC, *carry;

    Scratch(const Scan& p, float* memory) {
      const int state = state_of(p), cells = scan_chunk * state;
      delta = reinterpret_cast<Lanes*>(memory);
      a = delta + scan_chunk;
      h = a + cells;
      dB = h + cells + state;
      dC = dB + cells;
      carry = dC + cells;
    }

    static std::int64_t floats(const Scan& p) {
      const std::int64_t cells = scan_chunk * p.state;
      return lanes * (scan_chunk + 4 * cells + p.state + groups(p) * (2 * p.state + 2));
    }
  };

  static void recompute(const Scan& p, const Scratch& s, std::int64_t sequence, std::int64_t chunk,
                        std::int64_t channel, int count, int steps) {
    const int state = state_of(p);
    const Lanes bias = load(p.delta_bias + channel, count);
    Lanes A[capacity], h[capacity];
    const float* saved = p.states + (sequence * chunks(p) + chunk) * state * p.channels + channel;
    for (int n = 0; n < state; ++n) {
      A[n] = load(p.A + n * p.channels + channel, count);
      s.h[n] = h[n] = load(saved + n * p.channels, count);
    }
    for (int step = 0; step < steps; ++step) {
      const std::int64_t row = sequence * p.length + chunk * scan_chunk + step;
      const Lanes u = load(p.u + row * p.u_stride + channel, count);
      const Lanes delta = softplus(load(p.delta + row * p.delta_stride + channel, count) + bias);
      const Lanes drive = delta * u;
      const float* B = p.B + row * p.B_stride;
      s.delta[step] = delta;
      Lanes *a = s.a + step * state, *after = s.h + (step + 1) * state;
      for (int n = 0; n < state; ++n) {
        a[n] = exponential(delta * A[n]);
        after[n] = h[n] = a[n] * h[n] + drive * B[n];
      }
    }
  }

  static void backward_group(const Scan& p, const Scratch& s, std::int64_t sequence,
                             std::int64_t chunk, std::int64_t channel, int count, int steps) {
    const int state = state_of(p);
    Lanes* carry = s.carry + channel / lanes * (2 * state + 2);
    Lanes *dA = carry + state, *dD = carry + 2 * state, *dbias = dD + 1;
    const Lanes D = load(p.D + channel, count);
    Lanes A[capacity], g[capacity];
    for (int n = 0; n < state; ++n) {
      A[n] = load(p.A + n * p.channels + channel, count);
      g[n] = carry[n];
    }
    for (int step = steps - 1; step >= 0; --step) {
      const std::int64_t row = sequence * p.length + chunk * scan_chunk + step;
      const float *B = p.B + row * p.B_stride, *C = p.C + row * p.C_stride;
      const Lanes *a = s.a + step * state, *before = s.h + step * state, *h = before + state;
      const Lanes u = load(p.u + row * p.u_stride + channel, count), delta = s.delta[step];
      const Lanes drive = delta * u;

      Lanes dy = load(p.grad_out + row * p.grad_out_stride + channel, count);
      if (p.z) {
        const Lanes z = load(p.z + row * p.z_stride + channel, count), gate = sigmoid(z);
        Lanes y = D * u;
        for (int n = 0; n < state; ++n) y += h[n] * C[n];
        store(p.grad_z + row * p.channels + channel, dy * y * gate * (1.0f + z * (1.0f - gate)), count);
        dy *= z * gate;
      }
      Lanes ddrive{}, ddelta{};
      Lanes *dB = s.dB + step * state, *dC = s.dC + step * state;
      for (int n = 0; n < state; ++n) {
        g[n] += dy * C[n];
        dC[n] += dy * h[n];
        dB[n] += g[n] * drive;
        ddrive += g[n] * B[n];
        g[n] *= a[n];
        const Lanes q = g[n] * before[n];
        ddelta += q * A[n];
        dA[n] += q * delta;
      }
      ddelta += ddrive * u;
      // d softplus(x) / dx = sigmoid(x) = 1 - exp(-softplus(x)); for small values the difference
      // would cancel, so the sigmoid is computed from x itself.
      const Lanes raw = load(p.delta + row * p.delta_stride + channel, count) +
                        load(p.delta_bias + channel, count);
      const Lanes draw = ddelta * sigmoid(raw);
      store(p.grad_u + row * p.channels + channel, D * dy + delta * ddrive, count);
      store(p.grad_delta + row * p.channels + channel, draw, count);
      *dD += dy * u;
      *dbias += draw;
    }
    for (int n = 0; n < state; ++n) carry[n] = g[n];
  }

  static void forward(const Scan& p, std::int64_t begin, std::int64_t end) {
    for (std::int64_t sequence = begin; sequence < end; ++sequence)
      for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
        forward_group(p, sequence, channel, width(p, channel));
  }

  static void backward(const Scan& p, std::int64_t begin, std::int64_t end, float* memory) {
    const int state = state_of(p);
    const Scratch s(p, memory);
    for (std::int64_t sequence = begin; sequence < end; ++sequence) {
      for (std::int64_t i = 0; i < groups(p) * (2 * state + 2); ++i) s.carry[i] = Lanes{};
      for (std::int64_t chunk = chunks(p) - 1; chunk >= 0; --chunk) {
        const std::int64_t start = chunk * scan_chunk, left = p.length - start;
        const int steps = left < scan_chunk ? static_cast<int>(left) : scan_chunk;
        for (int cell = 0; cell < steps * state; ++cell) s.dB[cell] = s.dC[cell] = Lanes{};
        for (std::int64_t channel = 0; channel < p.channels; channel += lanes) {
          recompute(p, s, sequence, chunk, channel, width(p, channel), steps);
          backward_group(p, s, sequence, chunk, channel, width(p, channel), steps);
        }
        const std::int64_t cells = (sequence * p.length + start) * state;
        for (int cell = 0; cell < steps * state; ++cell) {
          p.grad_B[cells + cell] = sum(s.dB[cell]);
          p.grad_C[cells + cell] = sum(s.dC[cell]);
        }
      }
      store_shares(p, s, sequence);
    }
  }

  static void store_shares(const Scan& p, const Scratch& s, std::int64_t sequence) {
    const int state = state_of(p);
    const std::int64_t share = sequence * (state + 2) * p.channels;
    for (std::int64_t channel = 0; channel < p.channels; channel += lanes) {
      const Lanes* dA = s.carry + channel / lanes * (2 * state + 2) + state;
      const int count = width(p, channel);
      for (int n = 0; n < state; ++n)
        store(p.grad_A + share + n * p.channels + channel, dA[n], count);
      store(p.grad_D + share + channel, dA[state], count);
      store(p.grad_bias + share + channel, dA[state + 1], count);
    }
  }

  static int width(const Scan& p, std::int64_t channel) {
    return p.channels - channel < lanes ? static_cast<int>(p.channels - channel) : lanes;
  }
};

inline void scan_forward(const Scan& p, std::int64_t begin, std::int64_t end) {
  p.state == 16 ? ScanKernel<16>::forward(p, begin, end) : ScanKernel<0>::forward(p, begin, end);
}

inline void scan_backward(const Scan& p, std::int64_t begin, std::int64_t end, float* scratch) {
  p.state == 16 ? ScanKernel<16>::backward(p, begin, end, scratch)
                : ScanKernel<0>::backward(p, begin, end, scratch);
}

inline std::int64_t scan_scratch(const Scan& p) { return ScanKernel<0>::Scratch::floats(p); }

}  // namespace recall::RECALL_ISA
