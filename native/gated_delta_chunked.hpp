// The gated delta rule forward, by chunks (`gated_delta_triangle.hpp`), for one head.  A lane is a column of values.

#pragma once

#include "gated_delta_triangle.hpp"

namespace recall::RECALL_ISA {

// Rows as wide as values, a little further apart: at a power of two they would compete for a few places of the cache.
inline std::int64_t values_stride(const Delta& p) { return round_up(p.value_width, lanes) + 16; }

class ChunkedDeltaForward {
 public:
  ChunkedDeltaForward(const Delta& of, Arena& arena) : p(of), chunk_(of, arena) {
    const std::int64_t stride = values_stride(p);
    state_ = {arena.take(p.key_width * stride), stride};
    for (Rows* rows : {&e_, &o_, &u_}) *rows = {arena.take(delta_chunk * stride), stride};
  }

  void work(std::int64_t item) {
    const std::int64_t chunks = chunks_of(p.length, delta_chunk), keys = p.key_width, values = p.value_width;
    for (std::int64_t index = 0; index < chunks; ++index) {
      chunk_.prepare(item, index);
      if (index == 0 && p.initial) copy_rows(keys, values, {p.initial + chunk_.end(), values}, state_);
      if (chunk_.starts_empty()) clear_rows(keys, values, state_);
      if (p.states && !chunk_.starts_empty()) copy_rows(keys, values, state_, {p.states + chunk_.kept(), values});
      read_state();
      each_block<4>(round_up(values, lanes), [&](auto block) { solve(block); });
      if (p.errors) copy_rows(chunk_.steps, values, e_, chunk_.every(p.errors, p.heads * values));
      copy_rows(chunk_.read_steps(), values, below(o_, chunk_.from), chunk_.where_read(p.out));
      const bool ends = index + 1 == chunks;
      if (!ends || p.final)
        product<Result::faded>(keys, values, chunk_.steps, transposed(chunk_.k_to_end), u_, state_, chunk_.whole());
      if (ends && p.final) copy_rows(keys, values, state_, {p.final + chunk_.end(), values});
    }
  }

 private:
  // What the state alone would give: v_t - c_t S^T k_t, and c_t S^T q_t where it is read.
  void read_state() const {
    const std::int64_t steps = chunk_.steps, from = chunk_.from, read = chunk_.read_steps(), values = p.value_width;
    if (chunk_.starts_empty()) {
      clear_rows(steps, values, e_), clear_rows(read, values, below(o_, from));
    } else {
      product(steps, values, p.key_width, scalars(chunk_.keys()), state_, e_);
      product(read, values, p.key_width, scalars(below(chunk_.queries(), from)), state_, below(o_, from));
    }
    const ConstRows v = chunk_.every(p.v, p.v_stride);
    const Rows e = e_, o = o_;
    for (std::int64_t step = 0; step < steps; ++step) {
      const float c = chunk_.c[step];
      for (std::int64_t i = 0; i < values; i += lanes) {
        const int count = filled(values - i);
        store(e[step] + i, load(v[step] + i, count) - c * load(e[step] + i, count));
        if (step >= from) store(o[step] + i, c * load(o[step] + i, count));
      }
    }
  }

  // Adds what the chunk's own positions have written.
  template <class Block>
  void solve(Block block) const {
    for (int step = 0; step < chunk_.from; ++step) solve_at<false>(block, step);
    for (int step = chunk_.from; step < chunk_.steps; ++step) solve_at<true>(block, step);
  }

  template <bool read, class Block>
  void solve_at(Block block, int step) const {
    constexpr int vectors = Block::vectors;
    const float *A = chunk_.A[step], *B = chunk_.B[step], beta = chunk_.beta[step], *before = u_.first + block.first;
    float *to_e = e_[step] + block.first, *to_o = o_[step] + block.first, *to_u = u_[step] + block.first;
    const std::int64_t stride = u_.stride;
    Lanes e[vectors], o[vectors], u[vectors];
    each<vectors>([&](int n) RECALL_INLINE {
      e[n] = load(to_e + n * lanes);
      if (read) o[n] = load(to_o + n * lanes);
    });
    for (int j = 0; j < step; ++j, before += stride)
      each<vectors>([&](int n) RECALL_INLINE {
        u[n] = load(before + n * lanes);
        e[n] -= u[n] * A[j];
        if (read) o[n] += u[n] * B[j];
      });
    each<vectors>([&](int n) RECALL_INLINE {
      u[n] = e[n] * beta;
      store(to_e + n * lanes, e[n]), store(to_u + n * lanes, u[n]);
      if (read) store(to_o + n * lanes, o[n] + u[n] * B[step]);
    });
  }

  const Delta& p;
  DeltaTriangle chunk_;
  Rows state_;        // (key_width, values)
  Rows e_, o_, u_;    // (delta_chunk, values)
};

}  // namespace recall::RECALL_ISA
