// The core of self-attention: queries, keys and values from one input, several heads, RoPE if there are angles.
//
//   rows = attention(q, k, v)              streams: q; (k, v)
//
// Each of the three may go through a convolution first (arXiv:2407.05591).  Their gradients, in the order of a
// shard: those of q, k and v, (window, width).

#pragma once

#include "arena.hpp"
#include "block.hpp"
#include "causal_attention.hpp"
#include "causal_conv.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

class AttentionCore {
 public:
  using Operation = SelfAttention;
  static constexpr Kind kind = Kind::attention;
  static constexpr int streams = 2;
  static constexpr bool adds_by_sequence = true;  // the published runs were trained in this order of additions

  AttentionCore(const SelfAttention& of, std::int64_t most, bool trained, Arena& saved, Arena& scratch)
      : p(of),
        queries_(p.block.last ? 1 : p.block.length),
        inner_(sizes()),
        attention_(inner_, trained ? most * p.heads : 0, saved),
        short_{{p.q_conv, p.q_window}, {p.k_conv, p.k_window}, {p.v_conv, p.v_window}} {
    mixed_ = saved.take(most * queries_ * width());
    softmax_ = saved.take(most * p.heads * 2 * queries_);
    for (Short& conv : short_) {
      const std::int64_t floats = conv.window ? most * p.block.length * width() : 0;
      conv.taps = saved.take(conv.window * width());
      conv.out = saved.take(floats), conv.dout = scratch.take(floats);
      conv.partial = scratch.take(conv.window ? most * (conv.window + 1) * width() : 0);
      if (saved && conv.window) transpose(conv.weight, width(), conv.window, conv.taps);
    }
  }

  Stream stream(int i) const {
    return i == 0 ? Stream{width(), p.q_window > 0, p.q} : Stream{2 * width(), true, p.kv};
  }
  std::int64_t width() const { return p.block.width; }
  std::int64_t numbers() const { return (p.q_window + p.k_window + p.v_window) * width(); }
  Rows rows(const Tile& t) const { return {saved_or(p.mixed, t.first_read * width(), mixed_), width()}; }
  void prepare_forward() const {}
  void prefetch(const Tile&, const Rows*) const {}

  void forward(const Tile& t, const Rows* streams) {
    set_inputs(t, streams);
    inner_.out = heads(rows(t), queries_, queries_);
    for (std::int64_t item = 0; item < t.sequences * p.heads; ++item) attention_.forward(item);
  }

  void backward(const Tile& t, const Rows* streams, Rows drows, const Rows* dstreams, float* shard) {
    set_inputs(t, streams);
    inner_.grad_out = heads(drows, queries_, queries_);
    Heads* const gradients[] = {&inner_.grad_q, &inner_.grad_k, &inner_.grad_v};
    for (int i = 0; i < 3; ++i)
      *gradients[i] = heads_of(i, short_[i].window ? Rows{short_[i].dout, width()} : before(i, dstreams));
    if (p.q_window && p.block.last) std::memset(short_[0].dout, 0, sizeof(float) * t.rows * width());
    for (std::int64_t item = 0; item < t.sequences * p.heads; ++item) attention_.backward(item);
    for (int i = 0; i < 3; ++i) {
      backward_conv(t, short_[i], before(i, streams), before(i, dstreams), shard);
      shard += short_[i].window * width();
    }
  }

 private:
  Attention sizes() const {
    Attention a{};
    a.heads = p.heads, a.length = p.block.length, a.queries = queries_, a.width = width() / p.heads;
    a.cosines = p.cosines, a.sines = p.sines;
    return a;
  }

  // A convolution of queries, keys or values; window 0: none.
  struct Short {
    const float* weight;  // (width, window)
    std::int64_t window;
    float *taps, *out, *dout, *partial;  // (window, width); of one tile
  };

  // The heads of the last `read` of each sequence's `positions` rows.
  Heads heads(Rows rows, std::int64_t positions, std::int64_t read) const {
    return {rows[positions - read], positions * rows.stride, inner_.width, rows.stride};
  }

  // Those of queries (i = 0), keys or values.
  Heads heads_of(int i, Rows rows) const {
    const std::int64_t positions = i > 0 || short_[0].window ? p.block.length : queries_;
    return heads(rows, positions, i > 0 ? p.block.length : queries_);
  }

  // Queries, keys or values among the streams.
  Rows before(int i, const Rows* streams) const {
    return i < 2 ? streams[i] : Rows{streams[1].first + width(), streams[1].stride};
  }

  Conv conv(const Tile& t, const Short& of, ConstRows x) const {
    Conv c{};
    c.batch = t.sequences, c.length = p.block.length, c.channels = width(), c.window = of.window, c.linear = 1;
    c.x = x.first, c.x_stride = x.stride, c.weight = of.taps, c.out = of.out;
    return c;
  }

  void backward_conv(const Tile& t, const Short& of, ConstRows x, Rows dx, float* shard) const {
    if (!of.window) return;
    Conv c = conv(t, of, x);
    c.grad_out = of.dout, c.grad_out_stride = width();
    c.grad_x = dx.first, c.grad_x_stride = dx.stride;
    c.grad_weight = of.partial, c.grad_bias = of.partial + of.window * width();
    conv_backward(c, 0, t.sequences);
    add_sum_of_rows(t.sequences, of.window * width(), {of.partial, (of.window + 1) * width()}, shard);
  }

  void set_inputs(const Tile& t, const Rows* streams) {
    inner_.batch = t.sequences;
    Heads* const inputs[] = {&inner_.q, &inner_.k, &inner_.v};
    for (int i = 0; i < 3; ++i) {
      const Rows x = before(i, streams);
      if (short_[i].window) conv_forward(conv(t, short_[i], x), 0, t.sequences);
      *inputs[i] = heads_of(i, short_[i].window ? Rows{short_[i].out, width()} : x);
    }
    inner_.softmax = saved_or(p.softmax, t.first * p.heads * 2 * queries_, softmax_);
  }

  const SelfAttention& p;
  const std::int64_t queries_;
  Attention inner_;  // of one tile
  AttentionKernel attention_;
  Short short_[3];  // of queries, keys, values
  float *mixed_, *softmax_;
};

}  // namespace recall::RECALL_ISA
