// The gradient of the gated delta rule (`gated_delta.hpp`), for one head.  With G_t what arrives at S_t from
// later positions, u_t = beta_t e_t and a_t = exp(g_t):
//
//   G_t   += q_t do_t^T
//   dq_t   = S_t do_t = S'_t do_t + (u_t . do_t) k_t
//   du_t   = G_t^T k_t            dbeta_t = du_t . e_t        de_t = dv_t = beta_t du_t
//   dS'_t  = G_t - k_t de_t^T     dk_t    = G_t u_t - S'_t de_t
//   dg_t   = the sum of dS'_t S'_t, over columns, and with one decay for the head over rows too
//   G_{t-1} = diag(a_t) dS'_t
//
// and through the norm of q (and of k), with x = q r(q) and d = scale dq:   dq <- r (d - x (x . d))
//
// Chunks are walked from the last to the first; in each the states S'_t are computed again from the one before
// it and from the errors e_t, which the forward pass has kept.  What is summed over lanes, for each row of a
// state, is collected at each position and added all at once.

#pragma once

#include "gated_delta_chunked_backward.hpp"

namespace recall::RECALL_ISA {

template <Decay decay>
class DeltaBackward {
 public:
  DeltaBackward(const Delta& of, Arena& arena)
      : p(of), chunk_(of, arena), rows_(chunk_.rows), sums_(round_up((decay == Decay::none ? 2 : 3) * rows_ + 3, lanes)) {
    gradient_ = reinterpret_cast<Lanes*>(arena.take(rows_ * round_up(p.value_width, lanes)));
    states_ = reinterpret_cast<Lanes*>(arena.take(scan_chunk * rows_ * most * lanes));
    partial_ = reinterpret_cast<Lanes*>(arena.take(sums_ * lanes));
    total_ = arena.take(scan_chunk * sums_);
  }

  void work(std::int64_t item) {
    const std::int64_t chunks = chunks_of(p.length, scan_chunk);
    for (std::int64_t index = chunks - 1; index >= 0; --index) {
      chunk_.prepare(item, index);
      each_block<most>(p.value_width, [&](auto block) {
        Lanes* G = gradient_ + block.first / lanes * rows_;
        if (index + 1 == chunks) chunk_.load_state(p.grad_final ? p.grad_final + chunk_.end() : nullptr, block, G);
        walk(block, G);
        if (p.grad_initial && index == 0) chunk_.store_state(p.grad_initial + chunk_.end(), block, G);
      });
      for (int step = 0; step < chunk_.steps; ++step) store_gradients(step);
    }
  }

 private:
  static constexpr int most = 2;  // vectors of columns, so that a chunk's states stay close by

  // Rows of the sums over lanes: those for keys, for queries, for decays by channel; then three numbers.
  std::int64_t for_q() const { return rows_; }
  std::int64_t for_g() const { return 2 * rows_; }
  std::int64_t of_u_do() const { return (decay == Decay::by_channel ? 3 : 2) * rows_; }
  std::int64_t of_beta() const { return of_u_do() + 1; }
  std::int64_t of_decay() const { return of_u_do() + 2; }

  // A block's vectors at all positions of a chunk.
  template <int vectors>
  struct Positions {
    Lanes error[scan_chunk][vectors], u[scan_chunk][vectors];
  };

  template <class Block>
  void walk(Block block, Lanes* G) const {
    constexpr int vectors = Block::vectors;
    Positions<vectors> at;
    for (int step = 0, steps = chunk_.steps; step < steps; ++step)
      each<vectors>([&](int c) RECALL_INLINE {
        at.error[step][c] = block.load_at(p.errors + chunk_.value(step), c);
        at.u[step][c] = at.error[step][c] * chunk_.beta[step];
      });
    compute_states(block, at);
    for (int step = chunk_.steps - 1; step >= 0; --step) {
      step >= chunk_.from ? back<true>(block, at, step, G) : back<false>(block, at, step, G);
      float* total = total_ + step * sums_;
      for (std::int64_t i = 0; i < sums_; i += lanes)
        store(total + i, block.first ? load(total + i) + sums(partial_ + i) : sums(partial_ + i));
    }
  }

  template <class Block, class Positions>
  void compute_states(Block block, const Positions& at) const {
    constexpr int vectors = Block::vectors;
    Lanes* const first = states_;
    chunk_.load_state(p.states + chunk_.kept(), block, first);
    for (std::int64_t row = 0; row < rows_; ++row) {
      Lanes s[vectors];
      each<vectors>([&](int c) RECALL_INLINE { s[c] = first[row * vectors + c]; });
      for (int step = 0, steps = chunk_.steps; step < steps; ++step) {
        const float k = chunk_.k[step * chunk_.stride + row], a = decay_at(step, row);
        each<vectors>([&](int c) RECALL_INLINE {
          if (decay != Decay::none) s[c] *= a;
          first[(step * rows_ + row) * vectors + c] = s[c];
          s[c] += at.u[step][c] * k;
        });
      }
    }
  }

  float decay_at(int step, std::int64_t row) const {
    return decay == Decay::by_channel ? chunk_.a[step * chunk_.stride + row] : chunk_.decay[step];
  }

  template <bool read, class Block, class Positions>
  void back(Block block, const Positions& at, int step, Lanes* G) const {
    constexpr int vectors = Block::vectors;
    Lanes dout[vectors] = {}, du[vectors], de[vectors], u_do{}, of_beta_{};
    if (read) each<vectors>([&](int c) RECALL_INLINE { dout[c] = block.load_at(p.grad_out + chunk_.read(step), c); });
    arrive<read>(block, at.u[step], dout, step, G, du);
    float* const dv = p.grad_v + (chunk_.first + step) * p.grad_v_stride + chunk_.head * p.value_width;
    each<vectors>([&](int c) RECALL_INLINE {
      de[c] = du[c] * chunk_.beta[step];
      block.store_at(dv, c, de[c]);
      u_do += at.u[step][c] * dout[c];
      of_beta_ += at.error[step][c] * du[c];
    });
    partial_[of_u_do()] = u_do, partial_[of_beta()] = of_beta_;
    partial_[of_decay()] = leave<read>(block, dout, de, step, G);
  }

  // What arrives at S_t: G_t and du_t, and the first half of dk_t.
  template <bool read, class Block>
  void arrive(Block, const Lanes* u, const Lanes* dout, int step, Lanes* G, Lanes* du) const {
    constexpr int vectors = Block::vectors, unroll = Block::unroll;
    const float *q = chunk_.q + step * chunk_.stride, *k = chunk_.k + step * chunk_.stride;
    Lanes sum[unroll][vectors] = {};
    for (std::int64_t first = 0; first < rows_; first += unroll)
      each<unroll>([&](int i) RECALL_INLINE {
        const std::int64_t row = first + i;
        Lanes dk{};
        each<vectors>([&](int c) RECALL_INLINE {
          Lanes g = G[row * vectors + c];
          if (read) g += dout[c] * q[row];
          G[row * vectors + c] = g;
          sum[i][c] += g * k[row];
          dk += g * u[c];
        });
        partial_[row] = dk;
      });
    each<vectors>([&](int c) RECALL_INLINE {
      du[c] = sum[0][c];
      for (int i = 1; i < unroll; ++i) du[c] += sum[i][c];
    });
  }

  // From G_t to G_{t-1}: the other half of dk_t, dq_t, and the gradients of decays; returns that of the head's.
  template <bool read, class Block>
  Lanes leave(Block, const Lanes* dout, const Lanes* de, int step, Lanes* G) const {
    constexpr int vectors = Block::vectors, unroll = Block::unroll;
    const float* k = chunk_.k + step * chunk_.stride;
    const Lanes* S = states_ + step * rows_ * vectors;
    Lanes of_head[unroll] = {};
    for (std::int64_t first = 0; first < rows_; first += unroll)
      each<unroll>([&](int i) RECALL_INLINE {
        const std::int64_t row = first + i;
        const float a = decay_at(step, row);
        Lanes dk = partial_[row], dq{}, dg{};
        each<vectors>([&](int c) RECALL_INLINE {
          const Lanes s = S[row * vectors + c];
          Lanes ds = G[row * vectors + c] - de[c] * k[row];
          dk -= s * de[c];
          if (read) dq += s * dout[c];
          if (decay == Decay::by_head) of_head[i] += ds * s;
          if (decay == Decay::by_channel) dg += ds * s;
          if (decay != Decay::none) ds *= a;
          G[row * vectors + c] = ds;
        });
        partial_[row] = dk, partial_[for_q() + row] = dq;
        if (decay == Decay::by_channel) partial_[for_g() + row] = dg;
      });
    for (int i = 1; i < unroll; ++i) of_head[0] += of_head[i];
    return of_head[0];
  }

  void store_gradients(int step) const {
    float* const total = total_ + step * sums_;
    const float* const k = chunk_.k + step * chunk_.stride;
    for (std::int64_t i = 0; i < p.key_width; i += lanes) {
      const int count = filled(p.key_width - i);
      store(total + for_q() + i, load(total + for_q() + i, count) + total[of_u_do()] * load(k + i, count), count);
      if (decay == Decay::by_channel)
        store(p.grad_g + chunk_.g_place(step) + i, load(total + for_g() + i, count), count);
    }
    chunk_.store_gradients(step, total + for_q(), total);
    p.grad_beta[chunk_.beta_place(step)] = total[of_beta()];
    if (decay == Decay::by_head) p.grad_g[chunk_.g_place(step)] = total[of_decay()];
  }

  const Delta& p;
  DeltaChunk<scan_chunk> chunk_;
  const std::int64_t rows_, sums_;  // of a state; sums over lanes that a position has
  Lanes* gradient_;                 // G, block after block, (rows, vectors)
  Lanes* states_;                   // of a chunk's positions, (scan_chunk, rows, vectors)
  Lanes* partial_;                  // of one position, (sums,)
  float* total_;                    // of a chunk's positions, (scan_chunk, sums)
};

inline void delta_backward(const Delta& p, std::int64_t begin, std::int64_t end, float* scratch) {
  Arena arena(scratch);
  const auto all = [&](auto&& kernel) {
    for (std::int64_t item = begin; item < end; ++item) kernel.work(item);
  };
  if (by_products(p)) return all(ChunkedDeltaBackward(p, arena));
  with_decay(p, [&](auto decay) { all(DeltaBackward<decay()>(p, arena)); });
}

inline std::int64_t delta_scratch(const Delta& p) {
  Arena arena(nullptr);
  if (by_products(p))
    ChunkedDeltaBackward(p, arena);
  else
    DeltaBackward<Decay::by_channel>(p, arena);
  return arena.used() + delta_forward_scratch(p);
}

}  // namespace recall::RECALL_ISA
