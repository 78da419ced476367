// The gradient of the selective scan (`selective_scan.hpp`).
//
// With g_t[n] what arrives at h_t[n] from position t and from all later ones:
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
// The chunks are walked from the last to the first.  In a chunk one state after another goes through
// all positions, there to compute a and h again and back for the gradients, so that both stay in
// registers.  Where only the last position is read, dy_t is zero at all others.

#pragma once

#include "selective_scan.hpp"

namespace recall::RECALL_ISA {

struct ScanBackward {
  const Scan& p;
  Lanes *dB, *dC;  // of a chunk: shares lane by lane, each filled up to whole vectors of cells
  Lanes* carry;    // for every group of channels, what passes from chunk to chunk: g, dA, dD, dbias

  ScanBackward(const Scan& of, float* memory) : p(of) {
    dB = reinterpret_cast<Lanes*>(memory);
    dC = dB + cells(p);
    carry = dC + cells(p);
  }

  static std::int64_t cells(const Scan& p) { return round_up(scan_chunk * p.state, lanes); }
  static std::int64_t carried(const Scan& p) { return 2 * p.state + 2; }
  static std::int64_t floats(const Scan& p) {
    return lanes * (2 * cells(p) + scan_groups(p) * carried(p));
  }

  // What all states share at a chunk's positions: read by them, or added up over them.
  struct Positions {
    Lanes delta[scan_chunk], slope[scan_chunk], drive[scan_chunk], gate[scan_chunk], dy[scan_chunk];
    Lanes y[scan_chunk] = {}, ddrive[scan_chunk] = {}, dexponent[scan_chunk] = {};
  };

  void prepare(const ScanGroup& group, const ScanChunk& chunk, Positions& at) const {
    chunk.time_steps(group, at.delta, at.slope);
    for (int step = 0; step < chunk.steps; ++step) {
      at.drive[step] = at.delta[step] * group.u(chunk.first + step);
      at.dy[step] = Lanes{};
      if (!chunk.read(step)) continue;
      const std::int64_t read = chunk.read_row(step);
      at.dy[step] = group.at(p.grad_out, read, p.grad_out_stride);
      if (!p.z) continue;
      const Lanes z = group.at(p.z, read, p.z_stride);
      at.gate[step] = sigmoid(z);
      at.dy[step] *= z * at.gate[step];
    }
  }

  // One state through a chunk of `known` steps, of any number if that is 0; `read` where any of its
  // positions is, `fresh` where no other group has left its share of dB and dC.
  template <int known, bool read, bool fresh>
  void pass(const ScanGroup& group, const ScanChunk& chunk, int n, Positions& at) const {
    const Lanes A = group.A(n);
    const float *B = p.B + chunk.first * p.B_stride + n, *C = p.C + chunk.first * p.C_stride + n;
    const auto each_step = [&](const auto& body) RECALL_INLINE {
      if constexpr (known) {
        each<known>(body);
      } else {
        for (int step = 0; step < chunk.steps; ++step) body(step);
      }
    };
    const auto add = [](Lanes& to, Lanes x) RECALL_INLINE { to = fresh ? x : to + x; };

    Lanes a[scan_chunk], h[scan_chunk + 1];
    const std::int64_t kept = group.sequence * scan_chunks(p.length) + chunk.index;
    h[0] = group.at(p.states, kept * p.state + n, p.channels);
    each_step([&](int step) RECALL_INLINE {
      a[step] = power_of_two(at.delta[step] * A);
      h[step + 1] = a[step] * h[step] + at.drive[step] * B[step * p.B_stride];
      if (read) at.y[step] += h[step + 1] * C[step * p.C_stride];
    });

    Lanes* carried = carry + group.channel / lanes * ScanBackward::carried(p) + n;
    Lanes g = carried[0], dA = carried[p.state];
    each_step([&](int from_last) RECALL_INLINE {
      const int step = (known ? known : chunk.steps) - 1 - from_last;
      const std::int64_t cell = step * p.state + n;
      if (read) {
        g += at.dy[step] * C[step * p.C_stride];
        add(dC[cell], at.dy[step] * h[step + 1]);
      }
      add(dB[cell], g * at.drive[step]);
      at.ddrive[step] += g * B[step * p.B_stride];
      g *= a[step];
      const Lanes q = g * h[step];
      at.dexponent[step] += q * A;
      dA += q * at.delta[step];
    });
    carried[0] = g, carried[p.state] = dA;
  }

  template <int known, bool read, bool fresh>
  void pass_all(const ScanGroup& group, const ScanChunk& chunk, Positions& at) const {
    for (int n = 0; n < p.state; ++n) pass<known, read, fresh>(group, chunk, n, at);
  }

  template <bool read, bool fresh>
  void pass_all(const ScanGroup& group, const ScanChunk& chunk, Positions& at) const {
    chunk.steps == scan_chunk ? pass_all<scan_chunk, read, fresh>(group, chunk, at)
                              : pass_all<0, read, fresh>(group, chunk, at);
  }

  template <bool read>
  void pass_all(const ScanGroup& group, const ScanChunk& chunk, Positions& at) const {
    group.channel == 0 ? pass_all<read, true>(group, chunk, at)
                       : pass_all<read, false>(group, chunk, at);
  }

  void through_gate(const ScanGroup& group, const ScanChunk& chunk, int step, Lanes gate, Lanes y) const {
    const std::int64_t read = chunk.read_row(step);
    const Lanes z = group.at(p.z, read, p.z_stride);
    const Lanes dout = group.at(p.grad_out, read, p.grad_out_stride);
    if (p.again) group.put(p.again, read, y * (z * gate));
    group.put(p.grad_z, read, dout * y * gate * (1.0f + z * (1.0f - gate)));
  }

  void work(const ScanGroup& group, const ScanChunk& chunk) const {
    Positions at;
    prepare(group, chunk, at);
    chunk.read() ? pass_all<true>(group, chunk, at) : pass_all<false>(group, chunk, at);
    Lanes* carried = carry + group.channel / lanes * ScanBackward::carried(p);
    Lanes &dD = carried[2 * p.state], &dbias = carried[2 * p.state + 1];
    const Lanes D = group.at(p.D, 0, 0);
    for (int step = 0; step < chunk.steps; ++step) {
      const std::int64_t row = chunk.first + step;
      const Lanes u = group.u(row), dy = at.dy[step], ddrive = at.ddrive[step];
      if (p.z && chunk.read(step)) through_gate(group, chunk, step, at.gate[step], at.y[step] + D * u);
      const Lanes draw = (at.dexponent[step] * (1.0f / log2_e) + ddrive * u) * at.slope[step];
      group.put(p.grad_u, row, D * dy + at.delta[step] * ddrive);
      group.put(p.grad_delta, row, draw);
      dD += dy * u;
      dbias += draw;
    }
  }

  void work(std::int64_t sequence) const {
    std::memset(carry, 0, sizeof(Lanes) * scan_groups(p) * carried(p));
    for (std::int64_t index = scan_chunks(p.length) - 1; index >= 0; --index) {
      const ScanChunk chunk(p, sequence, index);
      for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
        work({p, sequence, channel}, chunk);
      const std::int64_t first = chunk.first * p.state, count = chunk.steps * p.state;
      store_sums(p.grad_B + first, dB, count);
      if (chunk.read()) {
        store_sums(p.grad_C + first, dC, count);
      } else {
        std::memset(p.grad_C + first, 0, sizeof(float) * count);
      }
    }
    store_shares(sequence);
  }

  static void store_sums(float* to, const Lanes* rows, std::int64_t count) {
    for (std::int64_t row = 0; row < count; row += lanes)
      store(to + row, sums(rows + row), filled(count - row));
  }

  void store_shares(std::int64_t sequence) const {
    for (std::int64_t channel = 0; channel < p.channels; channel += lanes) {
      const ScanGroup group(p, sequence, channel);
      const Lanes* dA = carry + channel / lanes * carried(p) + p.state;
      const std::int64_t share = sequence * (p.state + 2);
      for (int n = 0; n < p.state; ++n) group.put(p.grad_A, share + n, dA[n]);
      group.put(p.grad_D, share, dA[p.state]);
      group.put(p.grad_bias, share, dA[p.state + 1]);
    }
  }
};

inline void scan_backward(const Scan& p, std::int64_t begin, std::int64_t end, float* scratch) {
  const ScanBackward kernel(p, scratch);
  for (std::int64_t sequence = begin; sequence < end; ++sequence) kernel.work(sequence);
}

// The same for tensors that are not in the cache.
inline void cold_scan_backward(const Scan& p, std::int64_t begin, std::int64_t end, float* scratch) {
  if (scan_groups(p) == 1) return scan_backward(p, begin, end, scratch);
  const ScanBackward kernel(p, scratch);
  for (std::int64_t sequence = begin; sequence < end; ++sequence) {
    const std::int64_t first = sequence * p.length * p.channels, read = p.last ? 1 : p.length;
    const std::int64_t states = scan_chunks(p.length) * p.state;
    fetch_inputs(p, sequence);
    fetch_rows(p.grad_out + sequence * read * p.grad_out_stride, p.grad_out_stride, read, p.channels);
    fetch_rows(p.states + sequence * states * p.channels, p.channels, states, p.channels);
    for (float* to : {p.grad_u, p.grad_delta}) fetch_rows<1>(to + first, p.channels, p.length, p.channels);
    if (p.z) fetch_rows<1>(p.grad_z + sequence * read * p.channels, p.channels, read, p.channels);
    kernel.work(sequence);
  }
}

inline std::int64_t scan_scratch(const Scan& p) { return ScanBackward::floats(p); }

}  // namespace recall::RECALL_ISA
