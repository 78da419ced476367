// The gradient of the selective scan, what there is once for each state of each channel.
//
// With g_t[n] and q_t[n] as in `selective_scan_backward.hpp`:
//
//   dC_t[n] = sum over channels of dy_t h_t[n]
//   dB_t[n] = sum over channels of g_t[n] Delta_t u_t
//   dA[n]   = sum_t q_t[n] Delta_t
//
// In a chunk two states after another two go through all positions, there to compute a and h again and back
// for the gradients, so that both stay close by.

#pragma once

#include "lanes.hpp"
#include "arena.hpp"
#include "operations.hpp"
#include "scan_chunks.hpp"

namespace recall::RECALL_ISA {

template <int Fixed, bool grows>  // as in `selective_scan.hpp`
struct ScanPasses {
  const Scan& p;
  Lanes *dB, *dC;  // of a chunk, (steps, state): shares lane by lane, filled up to whole vectors of cells
  Lanes* carry;    // for every group of channels, what passes from chunk to chunk: g, dA, dD, dbias
  float *B, *C;    // of a chunk, (steps, state)

  ScanPasses(const Scan& of, Arena& arena) : p(of) {
    dB = reinterpret_cast<Lanes*>(arena.take(lanes * cells(p)));
    dC = reinterpret_cast<Lanes*>(arena.take(lanes * cells(p)));
    carry = reinterpret_cast<Lanes*>(arena.take(lanes * scan_groups(p) * carried(p)));
    B = arena.take(cells(p)), C = arena.take(cells(p));
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

  // Before the first chunk of a sequence.
  void begin() const { std::memset(carry, 0, sizeof(Lanes) * scan_groups(p) * carried(p)); }

  // Before the first group of a chunk: its B and C beside one another, so that their places are known at
  // compile time where the state size is.
  void begin(const ScanChunk& chunk) const {
    for (int step = 0; step < chunk.steps; ++step) {
      const std::int64_t row = chunk.first + step;
      std::memcpy(B + step * p.state, p.B + row * p.B_stride, sizeof(float) * p.state);
      std::memcpy(C + step * p.state, p.C + row * p.C_stride, sizeof(float) * p.state);
    }
  }

  // After the last group of a chunk.
  void end(const ScanChunk& chunk) const {
    const std::int64_t first = chunk.first * p.state, count = chunk.steps * p.state;
    store_sums(p.grad_B + first, dB, count);
    if (chunk.read()) {
      store_sums(p.grad_C + first, dC, count);
    } else {
      std::memset(p.grad_C + first, 0, sizeof(float) * count);
    }
  }

  static void store_sums(float* to, const Lanes* rows, std::int64_t count) {
    for (std::int64_t row = 0; row < count; row += lanes)
      store(to + row, sums(rows + row), filled(count - row));
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
        of.a[i][step] = exp2_of<grows>(at.delta[step] * of.A[i]);
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

  // `read` where any of the chunk's positions is, `fresh` where no other group has left its sum of dB
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

  void work(const ScanGroup& group, const ScanChunk& chunk, Positions& at) const {
    chunk.read() ? pass_all<true>(group, chunk, at) : pass_all<false>(group, chunk, at);
  }
};

}  // namespace recall::RECALL_ISA
