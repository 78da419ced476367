// The core of the gated delta rule's mixer (DeltaNet, arXiv:2406.06484; Gated DeltaNet, arXiv:2412.06464; KDA,
// arXiv:2510.26692).
//
//   q, k, v = silu(convolution of before)            streams: before (q, k, v); gates (b, a); z
//   beta    = beta_scale sigmoid(b)                  g = -exp(A_log) softplus(a + dt_bias)
//   o       = gated delta rule of q, k, v, g, beta   rows = norm(o) f(z)
//
// Backward, the same path in reverse:
//
//   do, dz, do_norm     from the norm                db = dbeta beta (1 - sigmoid(b))
//   dq, dk, dv, dg, dbeta from the rule              da = -dg exp(A_log) softplus'    dA_log = sum of dg g
//   dbefore, dconvolution from the convolution       ddt_bias = sum of da
//
// Its weights' gradients, in the order of a shard: convolution (window, channels), A_log, dt_bias, o_norm.
// Gates by head lie head after head while they are worked on, so that a vector has one head's positions.

#pragma once

#include <cmath>

#include "arena.hpp"
#include "block.hpp"
#include "causal_conv.hpp"
#include "gated_delta.hpp"
#include "gated_delta_backward.hpp"
#include "gated_norm.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

class GatedDeltaCore {
 public:
  using Operation = GatedDelta;
  static constexpr Kind kind = Kind::gated_delta;
  static constexpr int streams = 3;
  static constexpr bool adds_by_sequence = false;

  GatedDeltaCore(const GatedDelta& of, std::int64_t most, bool trained, Arena& saved, Arena& scratch)
      : p(of),
        length_(p.block.length),
        keys_(p.heads * p.key_width),
        channels_(2 * keys_ + width()),
        window_(p.window ? p.window : 1),
        norm_{p.o_norm, p.value_width, static_cast<float>(p.epsilon), p.gate} {
    const std::int64_t rows = most * length_, read = most * (p.block.last ? 1 : length_);
    weight_ = saved.take(window_ * channels_);
    A_ = saved.take(p.decays);
    qkv_ = saved.take(rows * channels_), o_ = saved.take(read * width());
    beta_ = saved.take(rows * p.heads), g_ = saved.take(rows * p.decays);
    states_ = trained ? saved.take(most * p.heads * delta_chunks(sizes(1)) * p.key_width * p.value_width) : nullptr;
    errors_ = trained ? saved.take(rows * width()) : nullptr;
    rows_ = saved.take(read * width());
    do_ = scratch.take(read * width()), dqkv_ = scratch.take(rows * channels_);
    dbeta_ = scratch.take(rows * p.heads), dg_ = scratch.take(rows * p.decays);
    of_channels_ = scratch.take(p.decays);
    partial_ = scratch.take(most * (window_ + 1) * channels_);
    delta_scratch_ = scratch.take(delta_scratch(sizes(most)));
    if (saved) prepare();
  }

  Stream stream(int i) const {
    if (i == 0) return {channels_, true, p.before};
    if (i == 1) return {p.heads + p.decays, true, p.gates};
    return {p.gate == OutputGate::none ? 0 : width(), false, p.z};
  }
  std::int64_t width() const { return p.heads * p.value_width; }
  std::int64_t numbers() const { return p.window * channels_ + (p.decays ? p.heads : 0) + p.decays + p.value_width; }
  Rows rows(const Tile&) const { return {rows_, width()}; }
  void prepare_forward() const {}
  void prefetch(const Tile&, const Rows*) const {}

  void forward(const Tile& t, const Rows* streams) const {
    Conv c = conv(t, streams[0]);
    c.out = qkv_of(t);
    conv_forward(c, 0, t.sequences);
    gates(t, streams[1]);
    Delta d = delta(t);
    d.out = o_of(t);
    delta_forward(d, 0, t.sequences * p.heads, delta_scratch_);
    norm_.forward(t.read * p.heads, o_of(t), streams[2].first, rows_);
  }

  void backward(const Tile& t, const Rows* streams, Rows drows, const Rows* dstreams, float* shard) const {
    float* const of_A_log = shard + p.window * channels_;
    float* const of_dt_bias = of_A_log + (p.decays ? p.heads : 0);
    norm_.backward(t.read * p.heads, o_of(t), streams[2].first, drows.first, rows_, do_, dstreams[2].first,
                   of_dt_bias + p.decays);
    gates(t, streams[1]);
    Delta d = delta(t);
    d.grad_out = do_;
    d.grad_q = dqkv_, d.grad_k = dqkv_ + keys_, d.grad_v = dqkv_ + 2 * keys_;
    d.grad_key_stride = d.grad_v_stride = channels_;
    d.grad_g = dg_, d.grad_beta = dbeta_;
    delta_backward(d, 0, t.sequences * p.heads, delta_scratch_);
    backward_gates(t, streams[1], dstreams[1], of_A_log, of_dt_bias);
    backward_conv(t, streams[0], dstreams[0], shard);
  }

 private:
  bool by_channel() const { return p.decays && p.decays != p.heads; }

  void prepare() const {
    if (p.window) transpose(p.conv_weight, channels_, window_, weight_);
    for (std::int64_t i = 0; !p.window && i < channels_; ++i) weight_[i] = 1.0f;
    const std::int64_t each = p.decays / p.heads;  // numbers of a that have the same A
    for (std::int64_t i = 0; i < p.decays; ++i) A_[i] = -exp(splat(p.A_log[i / each]))[0];
  }

  float* qkv_of(const Tile& t) const { return saved_or(p.qkv, t.first_row * channels_, qkv_); }
  float* o_of(const Tile& t) const { return saved_or(p.o, t.first_read * width(), o_); }

  Conv conv(const Tile& t, ConstRows from) const {
    Conv c{};
    c.batch = t.sequences, c.length = length_, c.channels = channels_, c.window = window_;
    c.x = from.first, c.x_stride = c.grad_out_stride = c.grad_x_stride = channels_;
    c.weight = weight_;
    return c;
  }

  Delta sizes(std::int64_t sequences) const {
    Delta d{};
    d.batch = sequences, d.length = length_, d.heads = p.heads;
    d.key_width = p.key_width, d.value_width = p.value_width;
    d.g = p.decays ? g_ : nullptr, d.g_by_channel = by_channel(), d.normalised = 1;
    d.scale = 1 / std::sqrt(static_cast<double>(p.key_width));
    d.last = p.block.last;
    return d;
  }

  Delta delta(const Tile& t) const {
    Delta d = sizes(t.sequences);
    d.q = qkv_of(t), d.k = d.q + keys_, d.v = d.k + keys_;
    d.q_stride = d.k_stride = d.v_stride = channels_;
    d.beta = beta_, d.beta_stride = 1, d.beta_head = t.rows;
    d.g_stride = by_channel() ? p.decays : 1, d.g_head = by_channel() ? p.key_width : t.rows;
    d.states = saved_or(p.states, t.first * p.heads * delta_chunks(d) * p.key_width * p.value_width, states_);
    d.errors = saved_or(p.errors, t.first_row * width(), errors_);
    return d;
  }

  // One head's b (or, from p.heads on, one head's a) at all positions, one after another.
  static void gather(std::int64_t rows, ConstRows from, std::int64_t column, float* to) {
    for (std::int64_t row = 0; row < rows; ++row) to[row] = from[row][column];
  }

  // beta and g of a tile.
  void gates(const Tile& t, ConstRows from) const {
    const float scale = static_cast<float>(p.beta_scale);
    for (std::int64_t head = 0; head < p.heads; ++head) gather(t.rows, from, head, beta_ + head * t.rows);
    each_vector(t.rows * p.heads, [&](std::int64_t i, int count) RECALL_INLINE {
      store(beta_ + i, scale * sigmoid(load(beta_ + i, count)), count);
    });
    each_decay(t, from, [&](float* g, const float*, Lanes A, Lanes raw, std::int64_t, int count) RECALL_INLINE {
      store(g, A * softplus(raw).value, count);
    });
  }

  template <class Body>
  static void each_vector(std::int64_t numbers, const Body& body) {
    for (std::int64_t i = 0; i < numbers; i += lanes) body(i, filled(numbers - i));
  }

  // body(g, dg, A, a + dt_bias, the first number of a, lanes filled) for all vectors of a tile's decays: those
  // of one position's channels, or those of one head's positions.
  template <class Body>
  void each_decay(const Tile& t, ConstRows from, const Body& body) const {
    for (std::int64_t row = 0; by_channel() && row < t.rows; ++row)
      each_vector(p.decays, [&](std::int64_t i, int count) RECALL_INLINE {
        const Lanes raw = load(from[row] + p.heads + i, count) + load(p.dt_bias + i, count);
        body(g_ + row * p.decays + i, dg_ + row * p.decays + i, load(A_ + i, count), raw, i, count);
      });
    for (std::int64_t head = 0; !by_channel() && head < p.decays; ++head) {
      float *g = g_ + head * t.rows, *dg = dg_ + head * t.rows;
      gather(t.rows, from, p.heads + head, g);
      each_vector(t.rows, [&](std::int64_t i, int count) RECALL_INLINE {
        body(g + i, dg + i, splat(A_[head]), load(g + i, count) + p.dt_bias[head], head, count);
      });
    }
  }

  void backward_gates(const Tile& t, ConstRows from, Rows dgates, float* of_A_log, float* of_dt_bias) const {
    const float scale = static_cast<float>(p.beta_scale);
    each_vector(t.rows * p.heads, [&](std::int64_t i, int count) RECALL_INLINE {
      const Lanes beta = load(beta_ + i, count);
      store(dbeta_ + i, load(dbeta_ + i, count) * beta * (1.0f - beta * (1.0f / scale)), count);
    });
    for (std::int64_t row = 0; row < t.rows; ++row)
      for (std::int64_t head = 0; head < p.heads; ++head) dgates[row][head] = dbeta_[head * t.rows + row];
    std::memset(of_channels_, 0, sizeof(float) * p.decays);
    each_decay(t, from, [&](float* g, const float* dg, Lanes A, Lanes raw, std::int64_t i, int count) RECALL_INLINE {
      const Softplus both = softplus(raw);
      const Lanes arriving = load(dg, count) * A, da = arriving * both.slope, dA_log = arriving * both.value;
      if (by_channel()) {
        store(of_dt_bias + i, load(of_dt_bias + i, count) + da, count);
        store(of_channels_ + i, load(of_channels_ + i, count) + dA_log, count);
      } else {
        of_A_log[i] += sum(dA_log), of_dt_bias[i] += sum(da);
      }
      store(g, da, count);  // in the place of g, which is read no more
    });
    for (std::int64_t i = 0; by_channel() && i < p.decays; ++i) of_A_log[i / p.key_width] += of_channels_[i];
    for (std::int64_t row = 0; row < t.rows; ++row)
      for (std::int64_t i = 0; i < p.decays; ++i)
        dgates[row][p.heads + i] = by_channel() ? g_[row * p.decays + i] : g_[i * t.rows + row];
  }

  void backward_conv(const Tile& t, ConstRows before, Rows dbefore, float* of_conv) const {
    Conv c = conv(t, before);
    c.grad_out = dqkv_, c.grad_x = dbefore.first;
    c.grad_weight = partial_, c.grad_bias = partial_ + window_ * channels_;
    conv_backward(c, 0, t.sequences);
    add_sum_of_rows(t.sequences, p.window * channels_, {partial_, (window_ + 1) * channels_}, of_conv);
  }

  const GatedDelta& p;
  const std::int64_t length_, keys_, channels_, window_;  // positions; numbers of all keys; of q, k and v
  const GatedNorm norm_;
  float *weight_, *A_;                      // the convolution's weights, (window, channels); -exp(A_log), (decays,)
  float *qkv_, *o_, *rows_;                 // of one tile
  float *beta_, *g_, *dbeta_, *dg_;         // by head (heads, rows), by channel (rows, decays)
  float *states_, *errors_, *do_, *dqkv_;
  float* of_channels_;                      // gradients of A_log, of each of the channels that have it in common
  float *partial_, *delta_scratch_;         // the convolution's gradients, of each sequence of a tile
};

}  // namespace recall::RECALL_ISA
