// The gradient of the gated delta rule by chunks (`gated_delta_triangle.hpp`), for one head.  With G what arrives at
// the state after the chunk, do_t at o_t, and u_t = beta_t e_t:
//
//   du_t = D_Tt G^T k_t + sum over i >= t of B_it do_i - sum over i > t of A_it x_i
//   x_t  = beta_t du_t = de_t = dv_t            dbeta_t = du_t . e_t
//   M_tj = D_tj do_t . u_j                      N_tj = D_tj x_t . u_j
//   dq_t = c_t S do_t + sum over j <= t of M_tj k_j
//   dk_t = D_Tt G u_t - c_t S x_t + sum over i >= t of M_it q_i - sum over i > t of N_it k_i - sum over j < t of N_tj k_j
//   the state's gradient before the chunk = c_T G + sum over t of c_t (q_t do_t^T - k_t x_t^T)
//
// The gradient of g_t is what passes from before t to t or later, each term once:
//
//   c_T G . S + sum over j < t of D_Tj k_j . G u_j + sum over i >= t of c_i (q_i . S do_i - k_i . S x_i)
//   + sum over j < t <= i of M_ij q_i . k_j - N_ij k_i . k_j
//
// No state is computed again.  What the sums over columns of values give lies with a lane for each position.

#pragma once

#include "gated_delta_chunked.hpp"

namespace recall::RECALL_ISA {

class ChunkedDeltaBackward {
 public:
  ChunkedDeltaBackward(const Delta& of, Arena& arena) : p(of), chunk_(of, arena) {
    const std::int64_t values = values_stride(p), keys = chunk_.stride;
    gradient_ = {arena.take(p.key_width * values), values};
    u_ = {arena.take(delta_chunk * values), values}, du_ = {arena.take(delta_chunk * values), values};
    x_ = {arena.take(2 * delta_chunk * values), values};
    keys_of_x_ = {arena.take(2 * delta_chunk * keys), keys};
    for (Rows* across : {&u_across_, &x_across_, &dout_across_})
      *across = {arena.take(p.value_width * delta_chunk), delta_chunk};
    for (Rows* across : {&S_dout_, &S_x_, &G_u_}) *across = {arena.take(p.key_width * delta_chunk), delta_chunk};
    for (Rows* square : {&M_, &N_, &W_}) *square = {arena.take(delta_chunk * delta_chunk), delta_chunk};
    for (Rows* rows : {&dq_, &dk_}) *rows = {arena.take(delta_chunk * keys), keys};
  }

  void work(std::int64_t item) {
    const std::int64_t chunks = chunks_of(p.length, delta_chunk), keys = p.key_width, values = p.value_width;
    for (std::int64_t index = chunks - 1; index >= 0; --index) {
      chunk_.prepare(item, index);
      if (p.g) turn(chunk_.queries(), 0, chunk_.steps, keys, delta_chunk, chunk_.q_across);
      const bool ends = index + 1 == chunks;
      arrives_ = !ends || p.grad_final;
      if (ends && p.grad_final) copy_rows(keys, values, {p.grad_final + chunk_.end(), values}, gradient_);
      if (ends && !p.grad_final) clear_rows(keys, values, gradient_);
      solve();
      across_values();
      if (p.g) store_decays();
      for_keys();
      if (index > 0 || p.grad_initial) leave();
      if (index == 0 && p.grad_initial) copy_rows(keys, values, gradient_, {p.grad_initial + chunk_.end(), values});
    }
  }

 private:
  // What arrives at the outputs, from row `from` on; behind the rows of x.
  Rows dout() const { return below(x_, chunk_.steps - chunk_.from); }

  ConstRows errors() const { return chunk_.every<const float>(p.errors, p.heads * p.value_width); }

  // dv, dbeta, and the rows of u, x and dout.
  void solve() const {
    const std::int64_t steps = chunk_.steps, from = chunk_.from, values = p.value_width;
    const ConstRows e = errors(), arriving = chunk_.where_read(p.grad_out);
    const Rows u = u_, du = du_, to = below(dout(), from);
    arrives_ ? product(steps, values, p.key_width, scalars(chunk_.k_to_end), gradient_, du) : clear_rows(steps, values, du);
    for (std::int64_t step = 0; step < steps; ++step) {
      const float beta = chunk_.beta[step];
      for (std::int64_t i = 0; i < values; i += lanes) {
        const int count = filled(values - i);
        store(u[step] + i, beta * load(e[step] + i, count)), store(du[step] + i, load(du[step] + i, count));
        if (step >= from) store(to[step - from] + i, load(arriving[step - from] + i, count));
      }
    }
    each_block<4>(round_up(values, lanes), [&](auto block) {
      for (int step = chunk_.steps - 1; step >= 0; --step) solve_at(block, step);
    });
    copy_rows(steps, values, x_, chunk_.every(p.grad_v, p.grad_v_stride));
    store_of_beta();
  }

  template <class Block>
  void solve_at(Block block, int step) const {
    constexpr int vectors = Block::vectors;
    const int steps = chunk_.steps, from = chunk_.from;
    const std::int64_t stride = x_.stride;
    const float beta = chunk_.beta[step], *A = chunk_.A.first + step, *B = chunk_.B.first + step;
    const float *const x = x_.first + block.first, *const arriving = dout().first + block.first;
    Lanes du[vectors], later[vectors] = {};
    each<vectors>([&](int n) RECALL_INLINE { du[n] = load(du_[step] + block.first + n * lanes); });
    for (int i = step > from ? step : from; i < steps; ++i)
      each<vectors>([&](int n) RECALL_INLINE { du[n] += load(arriving + i * stride + n * lanes) * B[i * delta_chunk]; });
    for (int i = steps - 1; i > step; --i)
      each<vectors>([&](int n) RECALL_INLINE { later[n] += load(x + i * stride + n * lanes) * A[i * delta_chunk]; });
    each<vectors>([&](int n) RECALL_INLINE {
      du[n] -= later[n];
      store(du_[step] + block.first + n * lanes, du[n]);
      store(x_[step] + block.first + n * lanes, du[n] * beta);
    });
  }

  void store_of_beta() const {
    const ConstRows e = errors(), du = du_;
    Lanes partial[delta_chunk] = {};
    float total[delta_chunk];
    for (int step = 0; step < chunk_.steps; ++step)
      for (std::int64_t i = 0; i < p.value_width; i += lanes)
        partial[step] += load(du[step] + i) * load(e[step] + i, filled(p.value_width - i));
    for (int i = 0; i < delta_chunk; i += lanes) store(total + i, sums(partial + i));
    for (int step = 0; step < chunk_.steps; ++step) p.grad_beta[chunk_.beta_place(step)] = total[step];
  }

  // The sums over columns of values: S do, S x, G u, M and N.
  void across_values() const {
    const int steps = chunk_.steps, from = chunk_.from, read = chunk_.read_steps();
    const std::int64_t keys = p.key_width, values = p.value_width;
    turn(u_, 0, steps, values, delta_chunk, u_across_);
    const auto sums_of = [&](bool wanted, ConstRows a, ConstRows b, Rows to) {
      wanted ? product(keys, delta_chunk, values, scalars(a), b, to) : clear_rows(keys, delta_chunk, to);
    };
    if (!chunk_.starts_empty()) {
      turn(x_, 0, steps, values, delta_chunk, x_across_);
      turn(dout(), from, steps, values, delta_chunk, dout_across_);
    }
    sums_of(!chunk_.starts_empty(), chunk_.kept_state(), x_across_, S_x_);
    sums_of(!chunk_.starts_empty() && read, chunk_.kept_state(), dout_across_, S_dout_);
    sums_of(arrives_, gradient_, u_across_, G_u_);
    product(read, delta_chunk, values, scalars(below(dout(), from)), u_across_, below(M_, from));
    product(steps, delta_chunk, values, scalars(x_), u_across_, N_);
    const Rows M = M_, N = N_, W = W_, A = chunk_.A, B = chunk_.B, D = chunk_.D;
    for (int step = 0; step < steps; ++step)
      for (int j = 0; j < delta_chunk; j += lanes) {
        const Lanes fading = load(D[step] + j), n = load(N[step] + j), m = step < from ? Lanes{} : load(M[step] + j);
        const Lanes passing = step < from ? Lanes{} : m * load(B[step] + j);
        store(W[step] + j, passing - n * load(A[step] + j));
        store(M[step] + j, m * fading), store(N[step] + j, n * fading);
      }
  }

  // dg, from what the equation on top adds up.
  void store_decays() const {
    const int steps = chunk_.steps;
    float from_start[delta_chunk], to_end[delta_chunk];
    for (int j = 0; j < delta_chunk; j += lanes) {
      Lanes start{}, end{};
      for (std::int64_t i = 0; i < p.key_width; ++i) {
        const Lanes k = load(chunk_.k_across[i] + j);
        start += load(chunk_.q_across[i] + j) * load(S_dout_[i] + j) - k * load(S_x_[i] + j);
        end += k * load(G_u_[i] + j);
      }
      store(from_start + j, start * load(chunk_.c + j)), store(to_end + j, end * load(chunk_.to_end() + j));
    }
    float total[delta_chunk], before = through();
    for (int step = 0; step < steps; ++step) total[step] = before, before += to_end[step];
    for (int i = 0; i < steps; ++i) {
      float passing = from_start[i];
      for (int step = 0; step <= i; ++step) total[step] += passing, passing += W_[i][step];
    }
    for (int step = 0; step < steps; ++step) p.grad_g[chunk_.g_place(step)] = total[step];
  }

  // c_T G . S
  float through() const {
    if (!arrives_ || chunk_.starts_empty()) return 0.0f;
    const std::int64_t values = p.value_width;
    Lanes sums_of[4] = {};
    each_block<4>(values, [&](auto block) {
      for (std::int64_t row = 0; row < p.key_width; ++row) {
        const float *G = gradient_[row], *S = p.states + chunk_.kept() + row * values;
        each<block.vectors>([&](int n) RECALL_INLINE { sums_of[n] += block.load_at(G, n) * block.load_at(S, n); });
      }
    });
    return chunk_.whole() * sum((sums_of[0] + sums_of[1]) + (sums_of[2] + sums_of[3]));
  }

  // dq and dk, with a lane for each position until the state's part is complete, then with one for each number.
  void for_keys() const {
    const Rows S_dout = S_dout_, S_x = S_x_, G_u = G_u_;
    for (int j = 0; j < delta_chunk; j += lanes) {
      const Lanes c = load(chunk_.c + j), D = load(chunk_.to_end() + j);
      for (std::int64_t i = 0, keys = p.key_width; i < keys; ++i) {
        store(G_u[i] + j, load(G_u[i] + j) * D - load(S_x[i] + j) * c);
        store(S_dout[i] + j, load(S_dout[i] + j) * c);
      }
    }
    turn(S_dout_, 0, p.key_width, delta_chunk, chunk_.stride, dq_);
    turn(G_u_, 0, p.key_width, delta_chunk, chunk_.stride, dk_);
    each_block<4>(chunk_.stride, [&](auto block) {
      for (int step = 0; step < chunk_.steps; ++step) for_keys_at(block, step);
    });
    for (int step = 0; step < chunk_.steps; ++step) chunk_.store_gradients(step, dq_[step], dk_[step]);
  }

  template <class Block>
  void for_keys_at(Block block, int step) const {
    constexpr int vectors = Block::vectors;
    const float *k = chunk_.k + block.first, *q = chunk_.q + block.first;
    const float *M = M_.first, *N = N_.first;
    float *to_q = dq_[step] + block.first, *to_k = dk_[step] + block.first;
    const std::int64_t stride = chunk_.stride;
    const int from = chunk_.from, steps = chunk_.steps;
    Lanes dq[vectors], dk[vectors], later[vectors] = {}, x[vectors];
    each<vectors>([&](int n) RECALL_INLINE { dq[n] = load(to_q + n * lanes), dk[n] = load(to_k + n * lanes); });
    for (int j = 0; j < step; ++j)
      each<vectors>([&](int n) RECALL_INLINE {
        x[n] = load(k + j * stride + n * lanes);
        dq[n] += x[n] * M[step * delta_chunk + j], dk[n] -= x[n] * N[step * delta_chunk + j];
      });
    each<vectors>([&](int n) RECALL_INLINE { dq[n] += load(k + step * stride + n * lanes) * M[step * delta_chunk + step]; });
    for (int i = step > from ? step : from; i < steps; ++i)
      each<vectors>([&](int n) RECALL_INLINE { later[n] += load(q + i * stride + n * lanes) * M[i * delta_chunk + step]; });
    for (int i = step + 1; i < steps; ++i)
      each<vectors>([&](int n) RECALL_INLINE { dk[n] -= load(k + i * stride + n * lanes) * N[i * delta_chunk + step]; });
    each<vectors>([&](int n) RECALL_INLINE {
      store(to_q + n * lanes, step < from ? Lanes{} : dq[n]), store(to_k + n * lanes, dk[n] + later[n]);
    });
  }

  // From the gradient of the state after the chunk to that before it.
  void leave() const {
    const int steps = chunk_.steps, from = chunk_.from;
    const Rows to = keys_of_x_;
    const ConstRows k = chunk_.keys(), q = chunk_.queries();
    for (int step = 0; step < steps; ++step) {
      const float c = chunk_.c[step];
      for (std::int64_t i = 0, stride = to.stride; i < stride; i += lanes) {
        store(to[step] + i, load(k[step] + i) * -c);
        if (step >= from) store(to[steps + step - from] + i, load(q[step] + i) * c);
      }
    }
    product<Result::faded>(p.key_width, p.value_width, steps + chunk_.read_steps(), transposed(keys_of_x_), x_,
                           gradient_, chunk_.whole());
  }

  const Delta& p;
  DeltaTriangle chunk_;
  bool arrives_ = false;                        // whether there is a gradient of the state after the chunk
  Rows gradient_;                               // G, (key_width, values)
  Rows u_, du_;                                 // (delta_chunk, values)
  Rows x_, keys_of_x_;                          // rows of x, then of dout; -c k and c q with which they leave
  Rows u_across_, x_across_, dout_across_;      // (value_width, delta_chunk)
  Rows S_dout_, S_x_, G_u_;                     // (key_width, delta_chunk)
  Rows M_, N_, W_;                              // (delta_chunk, delta_chunk); W_ij what passes from j to i
  Rows dq_, dk_;                                // (delta_chunk, stride)
};

}  // namespace recall::RECALL_ISA
