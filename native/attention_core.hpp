// The core of self-attention: queries, keys and values from one input, several heads, RoPE if there are angles.
//
//   rows = attention(q, k, v)              streams: q; (k, v)
//
// It has no weights of its own.

#pragma once

#include "arena.hpp"
#include "block.hpp"
#include "causal_attention.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

class AttentionCore {
 public:
  using Operation = SelfAttention;
  static constexpr Kind kind = Kind::attention;
  static constexpr int streams = 2;
  static constexpr bool adds_by_sequence = true;  // the published runs were trained in this order of additions

  AttentionCore(const SelfAttention& of, std::int64_t most, bool trained, Arena& saved, Arena&)
      : p(of),
        queries_(p.block.last ? 1 : p.block.length),
        inner_(sizes()),
        attention_(inner_, trained ? most * p.heads : 0, saved) {
    mixed_ = saved.take(most * queries_ * width());
    softmax_ = saved.take(most * p.heads * 2 * queries_);
  }

  Stream stream(int i) const { return i == 0 ? Stream{width(), false, p.q} : Stream{2 * width(), true, p.kv}; }
  std::int64_t width() const { return p.block.width; }
  std::int64_t numbers() const { return 0; }
  Rows rows(const Tile& t) const { return {saved_or(p.mixed, t.first_read * width(), mixed_), width()}; }
  void prepare_forward() const {}
  void prefetch(const Tile&, const Rows*) const {}

  void forward(const Tile& t, const Rows* streams) {
    set_inputs(t, streams);
    inner_.out = heads(rows(t), queries_);
    for (std::int64_t item = 0; item < t.sequences * p.heads; ++item) attention_.forward(item);
  }

  void backward(const Tile& t, const Rows* streams, Rows drows, const Rows* dstreams, float*) {
    set_inputs(t, streams);
    inner_.grad_out = heads(drows, queries_);
    inner_.grad_q = heads(dstreams[0], queries_);
    inner_.grad_k = heads(dstreams[1], p.block.length);
    inner_.grad_v = heads(dstreams[1], p.block.length, width());
    for (std::int64_t item = 0; item < t.sequences * p.heads; ++item) attention_.backward(item);
  }

 private:
  Attention sizes() const {
    Attention a{};
    a.heads = p.heads, a.length = p.block.length, a.queries = queries_, a.width = width() / p.heads;
    a.cosines = p.cosines, a.sines = p.sines;
    return a;
  }

  // The heads of rows, from column `from` on.
  Heads heads(Rows rows, std::int64_t positions, std::int64_t from = 0) const {
    return {rows.first + from, positions * rows.stride, inner_.width, rows.stride};
  }

  void set_inputs(const Tile& t, const Rows* streams) {
    inner_.batch = t.sequences;
    inner_.q = heads(streams[0], queries_);
    inner_.k = heads(streams[1], p.block.length), inner_.v = heads(streams[1], p.block.length, width());
    inner_.softmax = saved_or(p.softmax, t.first * p.heads * 2 * queries_, softmax_);
  }

  const SelfAttention& p;
  const std::int64_t queries_;
  Attention inner_;  // of one tile
  AttentionKernel attention_;
  float *mixed_, *softmax_;
};

}  // namespace recall::RECALL_ISA
