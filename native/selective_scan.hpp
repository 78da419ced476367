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
// from the last to the first and computes the states inside a chunk again.  Where only the last
// position is read, dy_t is zero at all others.

#pragma once

#include "lanes.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

// The state size known at compile time lets the compiler keep h in registers; 0 means any.
template <int Fixed>
struct ScanKernel {
  static constexpr int capacity = Fixed ? Fixed : largest_state;

  static int state_of(const Scan& p) { return Fixed ? Fixed : static_cast<int>(p.state); }

  // body(n) for every state, written out where the size is known: then h stays in registers.
  template <class Body>
  static void each_state(const Scan& p, const Body& body) {
    if constexpr (Fixed) {
      each<Fixed>(body);
    } else {
      for (int n = 0; n < state_of(p); ++n) body(n);
    }
  }
  static std::int64_t chunks(const Scan& p) { return (p.length + scan_chunk - 1) / scan_chunk; }

  static std::int64_t groups(const Scan& p) { return (p.channels + lanes - 1) / lanes; }

  static bool read_at(const Scan& p, std::int64_t t) { return !p.last || t + 1 == p.length; }

  // The row of `out`, `z` and their gradients that belongs to a position which is read.
  static std::int64_t read_row(const Scan& p, std::int64_t row) {
    return p.last ? row / p.length : row;
  }

  // A group of at most `lanes` channels of one sequence.
  struct Group {
    const Scan& p;
    std::int64_t sequence, channel;
    int count;

    Lanes at(const float* of, std::int64_t row, std::int64_t stride) const {
      return load(of + row * stride + channel, count);
    }
    void put(float* to, std::int64_t row, Lanes x) const {
      store(to + row * p.channels + channel, x, count);
    }
    Lanes u(std::int64_t row) const { return at(p.u, row, p.u_stride); }
    // A in units of 1 / log2(e), so that exp(Delta A) is a power of two.
    void load_A(Lanes* A) const {
      for (int n = 0; n < state_of(p); ++n) A[n] = at(p.A, n, p.channels) * log2_e;
    }
    // The states of a tensor (rows, state, channels).
    void load_states(const float* of, std::int64_t row, Lanes* h) const {
      for (int n = 0; n < state_of(p); ++n) h[n] = at(of, row * state_of(p) + n, p.channels);
    }
    void store_states(float* to, std::int64_t row, const Lanes* h) const {
      for (int n = 0; n < state_of(p); ++n) put(to, row * state_of(p) + n, h[n]);
    }
    // Delta of a chunk's positions, and its slope where there is room for it.  All of them first,
    // for they do not wait for one another.
    void time_steps(std::int64_t row, int steps, Lanes* delta, Lanes* slope = nullptr) const {
      const Lanes bias = at(p.delta_bias, 0, 0);
      for (int step = 0; step < steps; ++step) {
        const Softplus both = softplus(at(p.delta, row + step, p.delta_stride) + bias);
        delta[step] = both.value;
        if (slope) slope[step] = both.slope;
      }
    }
  };

  // A sum over the states, in several parts: each addition waits for the one before it.
  struct Sum {
    static constexpr int parts = 2;
    Lanes part[parts] = {};

    void add(int n, Lanes x, Lanes y) { part[n % parts] += x * y; }
    Lanes total() const { return part[0] + part[1]; }
  };

  static Lanes readout(const Scan& p, std::int64_t row, const Lanes* h) {
    const float* C = p.C + row * p.C_stride;
    Sum y;
    each_state(p, [&](int n) RECALL_INLINE { y.add(n, h[n], splat(C[n])); });
    return y.total();
  }

  static int steps_of(const Scan& p, std::int64_t chunk) {
    const std::int64_t left = p.length - chunk * scan_chunk;
    return left < scan_chunk ? static_cast<int>(left) : scan_chunk;
  }

  static void forward_chunk(const Group& group, std::int64_t chunk, const Lanes* A, Lanes* h) {
    const Scan& p = group.p;
    const std::int64_t first = group.sequence * p.length + chunk * scan_chunk;
    const int steps = steps_of(p, chunk);
    Lanes delta[scan_chunk], y[scan_chunk];
    group.time_steps(first, steps, delta);
    for (int step = 0; step < steps; ++step) {
      const Lanes dt = delta[step], drive = dt * group.u(first + step);
      const float* B = p.B + (first + step) * p.B_stride;
      each_state(p, [&](int n) RECALL_INLINE {
        h[n] = power_of_two(dt * A[n]) * h[n] + drive * B[n];
      });
      if (read_at(p, chunk * scan_chunk + step)) y[step] = readout(p, first + step, h);
    }
    const Lanes D = group.at(p.D, 0, 0);
    for (int step = 0; step < steps; ++step) {
      if (!read_at(p, chunk * scan_chunk + step)) continue;
      const std::int64_t read = read_row(p, first + step);
      Lanes out = y[step] + D * group.u(first + step);
      if (p.z) {
        const Lanes z = group.at(p.z, read, p.z_stride);
        out *= z * sigmoid(z);
      }
      group.put(p.out, read, out);
    }
  }

  static void forward_group(const Group& group) {
    const Scan& p = group.p;
    Lanes A[capacity], h[capacity];
    group.load_A(A);
    for (int n = 0; n < state_of(p); ++n) h[n] = Lanes{};
    if (p.initial) group.load_states(p.initial, group.sequence, h);
    for (std::int64_t chunk = 0; chunk < chunks(p); ++chunk) {
      if (p.states) group.store_states(p.states, group.sequence * chunks(p) + chunk, h);
      forward_chunk(group, chunk, A, h);
    }
    if (p.final) group.store_states(p.final, group.sequence, h);
  }

  // The scratch of one thread: what a chunk computes again, the shares of dB and dC lane by lane,
  // and for every group of channels the running sums that pass from chunk to chunk.
  struct Scratch {
    Lanes *delta, *slope, *a, *h, *dB, *dC, *carry;

    Scratch(const Scan& p, float* memory) {
      const int state = state_of(p);
      delta = reinterpret_cast<Lanes*>(memory);
      slope = delta + scan_chunk;
      a = slope + scan_chunk;
      h = a + scan_chunk * state;
      dB = h + (scan_chunk + 1) * state;
      dC = dB + cells(p);
      carry = dC + cells(p);
    }

    // A chunk's positions times states, filled up to whole vectors.
    static std::int64_t cells(const Scan& p) {
      return round_up(scan_chunk * p.state, lanes);
    }

    static std::int64_t floats(const Scan& p) {
      return lanes * (2 * scan_chunk + (2 * scan_chunk + 1) * p.state + 2 * cells(p) +
                      groups(p) * (2 * p.state + 2));
    }
  };

  static void recompute(const Group& group, const Scratch& s, std::int64_t chunk, const Lanes* A) {
    const Scan& p = group.p;
    const int state = state_of(p), steps = steps_of(p, chunk);
    const std::int64_t first = group.sequence * p.length + chunk * scan_chunk;
    Lanes h[capacity];
    group.load_states(p.states, group.sequence * chunks(p) + chunk, h);
    for (int n = 0; n < state; ++n) s.h[n] = h[n];
    group.time_steps(first, steps, s.delta, s.slope);
    for (int step = 0; step < steps; ++step) {
      const Lanes delta = s.delta[step], drive = delta * group.u(first + step);
      const float* B = p.B + (first + step) * p.B_stride;
      Lanes *a = s.a + step * state, *after = s.h + (step + 1) * state;
      each_state(p, [&](int n) RECALL_INLINE {
        a[n] = power_of_two(delta * A[n]);
        after[n] = h[n] = a[n] * h[n] + drive * B[n];
      });
    }
  }

  // dy of a chunk's positions, after the states are known; stores dz.
  static void arriving(const Group& group, const Scratch& s, std::int64_t chunk, Lanes D, Lanes* dy) {
    const Scan& p = group.p;
    const std::int64_t first = group.sequence * p.length + chunk * scan_chunk;
    for (int step = 0; step < steps_of(p, chunk); ++step) {
      dy[step] = Lanes{};
      if (!read_at(p, chunk * scan_chunk + step)) continue;
      const std::int64_t row = first + step, read = read_row(p, row);
      dy[step] = group.at(p.grad_out, read, p.grad_out_stride);
      if (!p.z) continue;
      const Lanes y = readout(p, row, s.h + (step + 1) * state_of(p)) + D * group.u(row);
      const Lanes z = group.at(p.z, read, p.z_stride), gate = sigmoid(z);
      if (p.again) group.put(p.again, read, y * (z * gate));
      group.put(p.grad_z, read, dy[step] * y * gate * (1.0f + z * (1.0f - gate)));
      dy[step] *= z * gate;
    }
  }

  static void backward_chunk(const Group& group, const Scratch& s, std::int64_t chunk) {
    const Scan& p = group.p;
    const int state = state_of(p);
    const std::int64_t first = group.sequence * p.length + chunk * scan_chunk;
    Lanes* carry = s.carry + group.channel / lanes * (2 * state + 2);
    Lanes *dA = carry + state, *dD = carry + 2 * state, *dbias = dD + 1;
    const Lanes D = group.at(p.D, 0, 0);
    Lanes A[capacity], g[capacity], dy[scan_chunk];
    group.load_A(A);
    recompute(group, s, chunk, A);
    arriving(group, s, chunk, D, dy);
    for (int n = 0; n < state; ++n) g[n] = carry[n];
    for (int step = steps_of(p, chunk) - 1; step >= 0; --step) {
      const std::int64_t row = first + step;
      const float *B = p.B + row * p.B_stride, *C = p.C + row * p.C_stride;
      const Lanes *a = s.a + step * state, *before = s.h + step * state, *h = before + state;
      const Lanes u = group.u(row), delta = s.delta[step], drive = delta * u;
      const bool read = read_at(p, chunk * scan_chunk + step);
      Sum ddrive_parts, dexponent_parts;
      Lanes *dB = s.dB + step * state, *dC = s.dC + step * state;
      const auto pass = [&](int n, bool from_here) RECALL_INLINE {
        if (from_here) {
          g[n] += dy[step] * C[n];
          dC[n] += dy[step] * h[n];
        }
        dB[n] += g[n] * drive;
        ddrive_parts.add(n, g[n], splat(B[n]));
        g[n] *= a[n];
        const Lanes q = g[n] * before[n];
        dexponent_parts.add(n, q, A[n]);
        dA[n] += q * delta;
      };
      if (read) {
        each_state(p, [&](int n) RECALL_INLINE { pass(n, true); });
      } else {
        each_state(p, [&](int n) RECALL_INLINE { pass(n, false); });
      }
      const Lanes ddrive = ddrive_parts.total();
      const Lanes ddelta = dexponent_parts.total() * (1.0f / log2_e) + ddrive * u;
      const Lanes draw = ddelta * s.slope[step];
      group.put(p.grad_u, row, D * dy[step] + delta * ddrive);
      group.put(p.grad_delta, row, draw);
      *dD += dy[step] * u;
      *dbias += draw;
    }
    for (int n = 0; n < state; ++n) carry[n] = g[n];
  }

  static void forward(const Scan& p, std::int64_t begin, std::int64_t end) {
    for (std::int64_t sequence = begin; sequence < end; ++sequence)
      for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
        forward_group({p, sequence, channel, filled(p.channels - channel)});
  }

  static void backward(const Scan& p, std::int64_t begin, std::int64_t end, float* memory) {
    const Scratch s(p, memory);
    for (std::int64_t sequence = begin; sequence < end; ++sequence) {
      for (std::int64_t i = 0; i < groups(p) * (2 * p.state + 2); ++i) s.carry[i] = Lanes{};
      for (std::int64_t chunk = chunks(p) - 1; chunk >= 0; --chunk) {
        for (std::int64_t cell = 0; cell < Scratch::cells(p); ++cell)
          s.dB[cell] = s.dC[cell] = Lanes{};
        for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
          backward_chunk({p, sequence, channel, filled(p.channels - channel)}, s, chunk);
        const std::int64_t first = (sequence * p.length + chunk * scan_chunk) * p.state;
        store_sums(p.grad_B + first, s.dB, steps_of(p, chunk) * p.state);
        store_sums(p.grad_C + first, s.dC, steps_of(p, chunk) * p.state);
      }
      store_shares(p, s, sequence);
    }
  }

  static void store_sums(float* to, const Lanes* rows, std::int64_t count) {
    for (std::int64_t row = 0; row < count; row += lanes)
      store(to + row, sums(rows + row), filled(count - row));
  }

  static void store_shares(const Scan& p, const Scratch& s, std::int64_t sequence) {
    const int state = state_of(p);
    for (std::int64_t channel = 0; channel < p.channels; channel += lanes) {
      const Group group{p, sequence, channel, filled(p.channels - channel)};
      const Lanes* dA = s.carry + channel / lanes * (2 * state + 2) + state;
      const std::int64_t share = sequence * (state + 2);
      for (int n = 0; n < state; ++n) group.put(p.grad_A, share + n, dA[n]);
      group.put(p.grad_D, share, dA[state]);
      group.put(p.grad_bias, share, dA[state + 1]);
    }
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
