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
// The chunks are walked from the last to the first.  In a chunk two states after another two go through
// all positions, there to compute a and h again and back for the gradients, so that both stay close by.  Where only the last position is read, dy_t is zero at all others.

#pragma once

#include "selective_scan.hpp"

namespace recall::RECALL_ISA {

// Asks for what a group reads at a chunk's positions, and for what it writes there.
RECALL_INLINE inline void fetch_backward(const ScanGroup& group, const ScanChunk& chunk) {
  const Scan& p = group.p;
  for (int step = 0; step < chunk.steps; ++step) {
    const std::int64_t row = chunk.first + step;
    group.fetch(p.u, row, p.u_stride), group.fetch(p.delta, row, p.delta_stride);
    group.fetch<true>(p.grad_u, row, p.channels), group.fetch<true>(p.grad_delta, row, p.channels);
    if (!chunk.read(step)) continue;
    const std::int64_t read = chunk.read_row(step);
    group.fetch(p.grad_out, read, p.grad_out_stride), group.fetch(p.z, read, p.z_stride);
    group.fetch<true>(p.grad_z, read, p.channels);
  }
  for (int n = 0; n < p.state; ++n) group.fetch(p.states, chunk.kept(n), p.channels);
}

template <int Fixed>  // the state size, where it is known at compile time
struct ScanBackward {
  const Scan& p;
  Lanes *dB, *dC;  // of a chunk, (steps, state): shares lane by lane, filled up to whole vectors of cells
  Lanes* carry;    // for every group of channels, what passes from chunk to chunk: g, dA, dD, dbias
  float *B, *C;    // of a chunk, (steps, state)

  ScanBackward(const Scan& of, Memory& memory) : p(of) {
    dB = reinterpret_cast<Lanes*>(memory.take(lanes * cells(p)));
    dC = reinterpret_cast<Lanes*>(memory.take(lanes * cells(p)));
    carry = reinterpret_cast<Lanes*>(memory.take(lanes * scan_groups(p) * carried(p)));
    B = memory.take(cells(p)), C = memory.take(cells(p));
  }

  int state() const { return Fixed ? Fixed : static_cast<int>(p.state); }
  static std::int64_t cells(const Scan& p) { return round_up(scan_chunk * p.state, lanes); }
  static std::int64_t carried(const Scan& p) { return 2 * p.state + 2; }
  Lanes* carried(const ScanGroup& group) const { return carry + group.channel / lanes * carried(p); }

  // What all states share at a chunk's positions: read by them, or added up over them.
  struct Positions {
    Lanes delta[scan_chunk], slope[scan_chunk], drive[scan_chunk], gate[scan_chunk], dy[scan_chunk];
    Lanes y[scan_chunk], ddrive[scan_chunk], dexponent[scan_chunk];
  };

  void prepare(const ScanGroup& group, const ScanChunk& chunk, Positions& at) const {
    chunk.time_steps(group, at.delta, at.slope);
    for (int step = 0; step < chunk.steps; ++step) {
      at.drive[step] = at.delta[step] * group.u(chunk.first + step);
      at.dy[step] = at.y[step] = at.ddrive[step] = at.dexponent[step] = Lanes{};
      if (!chunk.read(step)) continue;
      const std::int64_t read = chunk.read_row(step);
      at.dy[step] = group.at(p.grad_out, read, p.grad_out_stride);
      if (!p.z) continue;
      const Lanes z = group.at(p.z, read, p.z_stride);
      at.gate[step] = sigmoid(z);
      at.dy[step] *= z * at.gate[step];
    }
  }

  // body(0), body(1), ... for `known` steps, or for any number of them if that is 0.
  template <int known, class Body>
  RECALL_INLINE static void each_step(const ScanChunk& chunk, const Body& body) {
    if constexpr (known) {
      each<known>(body);
    } else {
      for (int step = 0; step < chunk.steps; ++step) body(step);
    }
  }

  // A few states, from n on, that go through a chunk side by side: in each, a step waits for the one before.
  template <int count>
  struct States {
    int n;
    Lanes A[count], a[count][scan_chunk], h[count][scan_chunk + 1];
  };

  template <int known, bool read, int count>
  RECALL_INLINE void there(const ScanChunk& chunk, States<count>& of, Positions& at) const {
    each_step<known>(chunk, [&](int step) RECALL_INLINE {
      const int cell = step * state() + of.n;
      Lanes y = at.y[step];
      each<count>([&](int i) RECALL_INLINE {
        of.a[i][step] = power_of_two(at.delta[step] * of.A[i]);
        of.h[i][step + 1] = of.a[i][step] * of.h[i][step] + at.drive[step] * B[cell + i];
        if (read) y += of.h[i][step + 1] * C[cell + i];
      });
      if (read) at.y[step] = y;
    });
  }

  template <int known, bool read, bool fresh, int count>
  RECALL_INLINE void back(const ScanChunk& chunk, const States<count>& of, Positions& at, Lanes* g,
                          Lanes* dA) const {
    const auto add = [](Lanes& to, Lanes x) RECALL_INLINE { to = fresh ? x : to + x; };
    each_step<known>(chunk, [&](int from_last) RECALL_INLINE {
      const int step = (known ? known : chunk.steps) - 1 - from_last, cell = step * state() + of.n;
      Lanes ddrive = at.ddrive[step], dexponent = at.dexponent[step];
      each<count>([&](int i) RECALL_INLINE {
        if (read) {
          g[i] += at.dy[step] * C[cell + i];
          add(dC[cell + i], at.dy[step] * of.h[i][step + 1]);
        }
        add(dB[cell + i], g[i] * at.drive[step]);
        ddrive += g[i] * B[cell + i];
        g[i] *= of.a[i][step];
        const Lanes q = g[i] * of.h[i][step];
        dexponent += q * of.A[i];
        dA[i] += q * at.delta[step];
      });
      at.ddrive[step] = ddrive, at.dexponent[step] = dexponent;
    });
  }

  // `read` where any of the chunk's positions is, `fresh` where no other group has left its share of dB
  // and dC.
  template <int known, bool read, bool fresh, int count>
  RECALL_INLINE void pass(const ScanGroup& group, const ScanChunk& chunk, int n, Positions& at) const {
    States<count> of;
    of.n = n;
    Lanes g[count], dA[count], *kept = carried(group) + n;
    each<count>([&](int i) RECALL_INLINE {
      of.A[i] = group.A(n + i);
      of.h[i][0] = group.at(p.states, chunk.kept(n + i), p.channels);
      g[i] = kept[i], dA[i] = kept[state() + i];
    });
    there<known, read>(chunk, of, at);
    back<known, read, fresh>(chunk, of, at, g, dA);
    each<count>([&](int i) RECALL_INLINE { kept[i] = g[i], kept[state() + i] = dA[i]; });
  }

  template <int known, bool read, bool fresh>
  void pass_all(const ScanGroup& group, const ScanChunk& chunk, Positions& at) const {
    int n = 0;
    for (; n + 2 <= state(); n += 2) pass<known, read, fresh, 2>(group, chunk, n, at);
    if (n < state()) pass<known, read, fresh, 1>(group, chunk, n, at);
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

  // The chunk that comes after this one.
  RECALL_INLINE void fetch(const ScanGroup& group, const ScanChunk& chunk) const {
    if (chunk.index > 0) return fetch_backward(group, {p, chunk.sequence, chunk.index - 1});
    const std::int64_t next = chunk.sequence + 1;
    if (next < p.batch) fetch_backward(group, {p, next, scan_chunks(p.length) - 1});
  }

  void work(const ScanGroup& group, const ScanChunk& chunk, Tensors tensors) const {
    if (tensors == Tensors::elsewhere) fetch(group, chunk);
    Positions at;
    prepare(group, chunk, at);
    chunk.read() ? pass_all<true>(group, chunk, at) : pass_all<false>(group, chunk, at);
    Lanes &dD = carried(group)[2 * p.state], &dbias = carried(group)[2 * p.state + 1];
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

  // Beside one another, so that their places are known at compile time where the state size is.
  void copy_selection(const ScanChunk& chunk) const {
    for (int step = 0; step < chunk.steps; ++step) {
      const std::int64_t row = chunk.first + step;
      std::memcpy(B + step * p.state, p.B + row * p.B_stride, sizeof(float) * p.state);
      std::memcpy(C + step * p.state, p.C + row * p.C_stride, sizeof(float) * p.state);
    }
  }

  void work(std::int64_t sequence, Tensors tensors) const {
    std::memset(carry, 0, sizeof(Lanes) * scan_groups(p) * carried(p));
    for (std::int64_t index = scan_chunks(p.length) - 1; index >= 0; --index) {
      const ScanChunk chunk(p, sequence, index);
      copy_selection(chunk);
      for (std::int64_t channel = 0; channel < p.channels; channel += lanes)
        work({p, sequence, channel}, chunk, tensors);
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
      const Lanes* dA = carried(group) + p.state;
      const std::int64_t share = sequence * (p.state + 2);
      for (int n = 0; n < p.state; ++n) group.put(p.grad_A, share + n, dA[n]);
      group.put(p.grad_D, share, dA[p.state]);
      group.put(p.grad_bias, share, dA[p.state + 1]);
    }
  }
};

template <int Fixed>
inline void scan_backward(const Scan& p, std::int64_t begin, std::int64_t end, float* scratch, Tensors tensors) {
  Memory memory(scratch);
  const ScanBackward<Fixed> kernel(p, memory);
  for (std::int64_t sequence = begin; sequence < end; ++sequence) kernel.work(sequence, tensors);
}

template <Tensors tensors = Tensors::in_cache>
inline void scan_backward(const Scan& p, std::int64_t begin, std::int64_t end, float* scratch) {
  p.state == 16 ? scan_backward<16>(p, begin, end, scratch, tensors)
                : scan_backward<0>(p, begin, end, scratch, tensors);
}

inline std::int64_t scan_scratch(const Scan& p) {
  Memory memory(nullptr);
  ScanBackward<0>(p, memory);
  return memory.used();
}

}  // namespace recall::RECALL_ISA
