// The core of Mamba's mixer (arXiv:2312.00752, figure 3).
//
//   u             = silu(convolution of before)              streams: before; z
//   (delta, B, C) = x_proj u
//   rows          = scan of u with dt_weight delta, A = -exp(A_log), B, C, D, gated by z
//
// Backward, the same path in reverse:
//
//   du, dstep, dB, dC, dz, dA, dD, dbias      from the scan; dA_log = A dA
//   ddelta = dt_weight^T dstep                ddt_weight = dstep^T delta
//   du    += x_proj^T (ddelta, dB, dC)        dx_proj = (ddelta, dB, dC)^T u
//   dbefore, dconvolution                     from the convolution
//
// Without a convolution (window 0), u = silu(before).
//
// Its weights' gradients, in the order of a shard: convolution (window, channels), its bias, x_proj
// (rank + 2 state, channels), dt_weight (rank, channels), A_log (state, channels), D, dt_bias.

#pragma once

#include "arena.hpp"
#include "block.hpp"
#include "causal_conv.hpp"
#include "math.hpp"
#include "matrix.hpp"
#include "operations.hpp"
#include "selective_scan.hpp"
#include "selective_scan_backward.hpp"

namespace recall::RECALL_ISA {

class MambaCore {
 public:
  using Operation = Mamba;
  static constexpr Kind kind = Kind::mamba;
  static constexpr int streams = 2;
  static constexpr bool adds_by_sequence = false;

  MambaCore(const Mamba& of, std::int64_t most, bool trained, Arena& saved, Arena& scratch)
      : p(of),
        length_(p.block.length),
        selected_(p.rank + 2 * p.state),
        window_(p.window ? p.window : 1),
        conv_numbers_((p.window + (p.conv_bias ? 1 : 0)) * p.channels) {
    const std::int64_t rows = most * length_, inner = rows * p.channels;
    x_proj_ = saved.take(selected_ * p.channels);
    dt_weight_ = saved.take(p.rank * p.channels);
    conv_weight_ = saved.take(window_ * p.channels);
    A_ = saved.take(p.state * p.channels);
    u_ = saved.take(inner);
    selection_ = saved.take(rows * selected_);
    states_ = trained ? saved.take(most * scan_chunks(length_) * p.state * p.channels) : nullptr;
    for (float** buffer : {&steps_, &y_, &du_, &dsteps_}) *buffer = scratch.take(inner);
    for (float** buffer : {&dB_, &dC_}) *buffer = scratch.take(rows * p.state);
    dlow_ = scratch.take(rows * p.rank);
    partial_ = scratch.take(most * (p.state + 2 + window_ + 1) * p.channels);
    scan_scratch_ = scratch.take(scan_scratch(scan(most)));
    if (saved) prepare();
  }

  Stream stream(int i) const { return i == 0 ? Stream{p.channels, true, p.before} : Stream{p.channels, false, p.z}; }
  std::int64_t width() const { return p.channels; }
  std::int64_t numbers() const { return conv_numbers_ + (selected_ + p.rank + p.state + 2) * p.channels; }
  Rows rows(const Tile&) const { return {y_, p.channels}; }
  void prepare_forward() const { transpose(p.x_proj, selected_, p.channels, x_proj_); }

  void forward(const Tile& t, const Rows* streams) const {
    Conv c = conv(t, streams[0]);
    c.out = u_of(t);
    conv_forward(c, 0, t.sequences);
    product(t.rows, selected_, p.channels, scalars({c.out, p.channels}), {x_proj_, selected_},
            {selection_of(t), selected_});
    time_steps(t);
    Scan s = scan(t, streams[1]);
    s.out = y_;
    scan_forward(s, 0, t.sequences);
  }

  void prefetch(const Tile& t, const Rows* streams) const {
    RECALL_ISA::prefetch(u_of(t), t.rows * p.channels);
    RECALL_ISA::prefetch(streams[1].first, t.read * p.channels);
    RECALL_ISA::prefetch(states_of(t), t.sequences * scan_chunks(length_) * p.state * p.channels);
  }

  void backward(const Tile& t, const Rows* streams, Rows drows, const Rows* dstreams, float* gradients) const {
    float* const of_conv = gradients;
    float* const of_x_proj = of_conv + conv_numbers_;
    float* const of_dt_weight = of_x_proj + selected_ * p.channels;
    float* const of_A_log = of_dt_weight + p.rank * p.channels;
    backward_scan(t, streams[1], drows, dstreams[1], of_A_log);
    backward_selection(t, of_x_proj, of_dt_weight);
    backward_conv(t, streams[0], dstreams[0], of_conv);
  }

 private:
  void prepare() const {
    transpose(p.dt_weight, p.channels, p.rank, dt_weight_);
    if (p.window) transpose(p.conv_weight, p.channels, p.window, conv_weight_);
    for (std::int64_t i = 0; !p.window && i < p.channels; ++i) conv_weight_[i] = 1.0f;
    transpose(p.A_log, p.channels, p.state, A_);
    const std::int64_t numbers = p.state * p.channels;
    for (std::int64_t i = 0; i < numbers; i += lanes)
      store(A_ + i, -exp(load(A_ + i, filled(numbers - i))), filled(numbers - i));
  }

  float* u_of(const Tile& t) const { return saved_or(p.u, t.first_row * p.channels, u_); }
  float* selection_of(const Tile& t) const { return saved_or(p.selection, t.first_row * selected_, selection_); }
  float* states_of(const Tile& t) const {
    return saved_or(p.states, t.first * scan_chunks(length_) * p.state * p.channels, states_);
  }

  Conv conv(const Tile& t, ConstRows from) const {
    Conv c{};
    c.batch = t.sequences, c.length = length_, c.channels = p.channels, c.window = window_;
    c.x = from.first, c.x_stride = c.grad_out_stride = c.grad_x_stride = p.channels;
    c.weight = conv_weight_, c.bias = p.conv_bias;
    return c;
  }

  Scan scan(std::int64_t sequences) const {
    Scan s{};
    s.batch = sequences, s.length = length_, s.channels = p.channels, s.state = p.state;
    s.u_stride = s.delta_stride = s.z_stride = s.grad_out_stride = p.channels;
    s.B_stride = s.C_stride = selected_;
    s.delta = steps_, s.A = A_, s.D = p.D, s.delta_bias = p.dt_bias;
    s.last = p.block.last;
    return s;
  }

  Scan scan(const Tile& t, ConstRows z) const {
    Scan s = scan(t.sequences);
    s.u = u_of(t), s.z = z.first;
    s.B = selection_of(t) + p.rank, s.C = s.B + p.state;
    s.states = states_of(t);
    return s;
  }

  void time_steps(const Tile& t) const {
    product(t.rows, p.channels, p.rank, scalars({selection_of(t), selected_}), {dt_weight_, p.channels},
            {steps_, p.channels});
  }

  void backward_scan(const Tile& t, ConstRows z, ConstRows drows, Rows dz, float* of_A_log) const {
    time_steps(t);
    Scan s = scan(t, z);
    s.recomputed = y_, s.grad_out = drows.first;
    s.grad_u = du_, s.grad_delta = dsteps_, s.grad_z = dz.first, s.grad_B = dB_, s.grad_C = dC_;
    s.grad_A = partial_, s.grad_D = s.grad_A + p.state * p.channels, s.grad_bias = s.grad_D + p.channels;
    scan_backward(s, 0, t.sequences, scan_scratch_);
    const std::int64_t numbers = (p.state + 2) * p.channels;
    for (std::int64_t sequence = 0; sequence < t.sequences; ++sequence)
      for (std::int64_t i = 0; i < p.state * p.channels; ++i) partial_[sequence * numbers + i] *= A_[i];
    add_sum_of_rows(t.sequences, numbers, {partial_, numbers}, of_A_log);
  }

  void backward_selection(const Tile& t, float* of_x_proj, float* of_dt_weight) const {
    const std::int64_t inner = p.channels, state = p.state, rank = p.rank;
    const float* low = selection_of(t);
    product(t.rows, rank, inner, scalars({dsteps_, inner}), {p.dt_weight, rank}, {dlow_, rank});
    add_product(rank, inner, t.rows, transposed({low, selected_}), {dsteps_, inner}, {of_dt_weight, inner});
    const ConstRows u{u_of(t), inner};
    std::int64_t row = 0;
    for (const ConstRows& from : {ConstRows{dlow_, rank}, ConstRows{dB_, state}, ConstRows{dC_, state}}) {
      const std::int64_t width = from.stride;
      add_product(t.rows, inner, width, scalars(from), {p.x_proj + row * inner, inner}, {du_, inner});
      add_product(width, inner, t.rows, transposed(from), u, {of_x_proj + row * inner, inner});
      row += width;
    }
  }

  void backward_conv(const Tile& t, ConstRows before, Rows dbefore, float* of_conv) const {
    Conv c = conv(t, before);
    c.grad_out = du_, c.grad_x = dbefore.first;
    c.grad_weight = partial_, c.grad_bias = partial_ + window_ * p.channels;
    conv_backward(c, 0, t.sequences);
    add_sum_of_rows(t.sequences, conv_numbers_, {partial_, (window_ + 1) * p.channels}, of_conv);
  }

  const Mamba& p;
  const std::int64_t length_, selected_;            // positions; numbers of a row of x_proj u
  const std::int64_t window_, conv_numbers_;        // 1 without a convolution; its gradients, none then
  float *x_proj_, *dt_weight_, *conv_weight_, *A_;  // weights, transposed; A (state, channels)
  float *u_, *selection_, *states_;                 // of one tile, where the caller keeps none
  float *steps_, *y_, *du_, *dsteps_, *dB_, *dC_, *dlow_;
  float *partial_, *scan_scratch_;                  // gradients of each sequence of a tile
};

}  // namespace recall::RECALL_ISA
