// The gated delta rule (arXiv:2406.06484, 2412.06464), forward, for one head:
//
//   S'_t = diag(exp(g_t)) S_{t-1}         (key width, value width); S_{-1} is given, or 0
//   e_t  = v_t - S'_t^T k_t               what the state has wrong about the key
//   S_t  = S'_t + beta_t k_t e_t^T
//   o_t  = S_t^T q_t = S'_t^T q_t + beta_t (q_t . k_t) e_t
//
// g_t is one number for each channel of the keys (KDA), one for the head (Gated DeltaNet) or none (DeltaNet).
// A lane is a column of the state, so queries, keys and decays are numbers that all lanes have in common.  One
// pass over the state adds what the position before has written, decays, and reads for key and query at once.
// The gradient is in `gated_delta_backward.hpp`.  Wide keys go through products instead (`gated_delta_chunked.hpp`).

#pragma once

#include "gated_delta_chunked.hpp"

namespace recall::RECALL_ISA {

template <Decay decay>
class DeltaForward {
 public:
  DeltaForward(const Delta& of, Arena& arena) : p(of), chunk_(of, arena) {
    state_ = reinterpret_cast<Lanes*>(arena.take(chunk_.rows * round_up(p.value_width, lanes)));
    nothing_ = arena.take(chunk_.rows);
    if (arena) std::memset(nothing_, 0, sizeof(float) * chunk_.rows);
  }

  void work(std::int64_t item) {
    for (std::int64_t index = 0, chunks = chunks_of(p.length, scan_chunk); index < chunks; ++index) {
      chunk_.prepare(item, index);
      each_block<4>(p.value_width, [&](auto block) {
        Lanes* S = state_ + block.first / lanes * chunk_.rows;
        if (index == 0) chunk_.load_state(p.initial ? p.initial + chunk_.end() : nullptr, block, S);
        if (p.states) chunk_.store_state(p.states + chunk_.kept(), block, S);
        advance(block, S);
        if (p.final && index + 1 == chunks) chunk_.store_state(p.final + chunk_.end(), block, S);
      });
    }
  }

 private:
  template <class Block>
  void advance(Block block, Lanes* S) const {
    constexpr int vectors = Block::vectors;
    const float* written = nothing_;  // the key with which u was written
    Lanes u[vectors] = {};
    for (int step = 0, steps = chunk_.steps; step < steps; ++step) {
      Lanes predicted[vectors], o[vectors];
      const bool read = step >= chunk_.from;
      read ? pass<true>(block, S, written, u, step, predicted, o) : pass<false>(block, S, written, u, step, predicted, o);
      const float* v = p.v + (chunk_.first + step) * p.v_stride + chunk_.head * p.value_width;
      each<vectors>([&](int c) RECALL_INLINE {
        const Lanes error = block.load_at(v, c) - predicted[c];
        if (p.errors) block.store_at(p.errors + chunk_.value(step), c, error);
        u[c] = error * chunk_.beta[step];
        if (read) block.store_at(p.out + chunk_.read(step), c, o[c] + u[c] * chunk_.q_dot_k[step]);
      });
      written = chunk_.k + step * chunk_.stride;
    }
    for (std::int64_t row = 0; row < chunk_.rows; ++row)
      each<vectors>([&](int c) RECALL_INLINE { S[row * vectors + c] += u[c] * written[row]; });
  }

  // From S_{t-2} and u_{t-1} to S'_t; and what this holds for the key and, if it is read, for the query.
  template <bool read, class Block>
  void pass(Block, Lanes* S, const float* written, const Lanes* u, int step, Lanes* predicted, Lanes* o) const {
    constexpr int vectors = Block::vectors, unroll = Block::unroll;
    const std::int64_t rows = chunk_.rows, before = step * chunk_.stride;
    const float *q = chunk_.q + before, *k = chunk_.k + before, *a = chunk_.a + before;
    const float whole = chunk_.decay[step];
    Lanes for_k[unroll][vectors] = {}, for_q[unroll][vectors] = {};
    for (std::int64_t first = 0; first < rows; first += unroll)
      each<unroll>([&](int i) RECALL_INLINE {
        const std::int64_t row = first + i;
        each<vectors>([&](int c) RECALL_INLINE {
          Lanes s = S[row * vectors + c] + u[c] * written[row];
          if (decay == Decay::by_head) s *= whole;
          if (decay == Decay::by_channel) s *= a[row];
          S[row * vectors + c] = s;
          for_k[i][c] += s * k[row];
          if (read) for_q[i][c] += s * q[row];
        });
      });
    each<vectors>([&](int c) RECALL_INLINE {
      predicted[c] = for_k[0][c], o[c] = for_q[0][c];
      for (int i = 1; i < unroll; ++i) predicted[c] += for_k[i][c], o[c] += for_q[i][c];
    });
  }

  const Delta& p;
  DeltaChunk<scan_chunk> chunk_;
  Lanes* state_;    // block after block, (rows, vectors)
  float* nothing_;  // a key of zeros
};

// Items are heads of sequences.
inline void delta_forward(const Delta& p, std::int64_t begin, std::int64_t end, float* scratch) {
  Arena arena(scratch);
  const auto all = [&](auto&& kernel) {
    for (std::int64_t item = begin; item < end; ++item) kernel.work(item);
  };
  if (by_products(p)) return all(ChunkedDeltaForward(p, arena));
  with_decay(p, [&](auto decay) { all(DeltaForward<decay()>(p, arena)); });
}

inline std::int64_t delta_forward_scratch(const Delta& p) {
  Arena arena(nullptr);
  if (by_products(p))
    ChunkedDeltaForward(p, arena);
  else
    DeltaForward<Decay::by_channel>(p, arena);
  return arena.used();
}

}  // namespace recall::RECALL_ISA
