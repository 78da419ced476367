// Self-attention between its projections, forward and backward, a few sequences at a time, so that
// what one step leaves is still in the cache when the next one reads it.
//
//   (q, k, v) = in_proj x             out = out_proj attention(q, k, v)
//
//   dmixed    = out_proj^T dout       dout_proj = dout^T mixed        mixed = attention(q, k, v)
//   dx        = in_proj^T (dq, dk, dv)            din_proj = (dq, dk, dv)^T x
//
// With a norm, x stands for norm(x) above, and x itself is added to `out`.  Where x has only a few
// distinct rows, the projections into the heads go by them (`lookup.hpp`).
//
// A portion of the batch adds up its own share of the weights' gradients: in_proj (3 width, width),
// out_proj (width, width), and those of the norm.

#pragma once

#include "causal_attention.hpp"
#include "layer_norm.hpp"
#include "lookup.hpp"
#include "matrix.hpp"
#include "memory.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

struct SelfAttentionKernel {
  const SelfAttention& p;
  std::int64_t most, kv_width;
  float *into_qkv, *into_width;  // the weights, turned over
  float *q, *kv, *mixed, *softmax;  // where the caller keeps none
  float *dmixed, *dq, *dkv;
  NormKernel norm;
  Lookup lookup;
  Attention inner;  // that of one part
  AttentionKernel attention;

  // What must last from the forward pass to the backward pass lies in `memory`, the rest in `passing`.
  SelfAttentionKernel(const SelfAttention& of, Memory& memory, Memory& passing)
      : p(of),
        most(at_once(p.length, p.width, p.batch)),
        kv_width(2 * p.width),
        norm(p.norm, p.width, larger(most * p.length, p.tokens.distinct), passing),
        lookup(p.tokens.distinct, 3 * p.width, memory),
        inner(sizes(of)),
        attention(inner, memory) {
    into_qkv = memory.take(3 * p.width * p.width);
    into_width = memory.take(p.width * p.width);
    for (float** part : {&q, &mixed}) *part = memory.take(most * p.queries * p.width);
    kv = memory.take(most * p.length * kv_width);
    for (float** part : {&dmixed, &dq}) *part = passing.take(most * p.queries * p.width);
    dkv = passing.take(most * p.length * kv_width);
    softmax = memory.take(most * p.heads * 2 * p.queries);
  }

  // What the forward pass alone reads.
  void turn_projections() const {
    turn_over(p.in_proj, 3 * p.width, p.width, into_qkv);
    turn_over(p.out_proj, p.width, p.width, into_width);
    if (lookup) lookup.project(norm, {p.x, p.width}, {into_qkv, 3 * p.width});
  }

  struct Part {
    std::int64_t first, sequences;
  };

  static float* kept(float* by_caller, float* otherwise, std::int64_t before) {
    return by_caller ? by_caller + before : otherwise;
  }
  Rows q_of(const Part& part) const {
    return {kept(p.q, q, part.first * p.queries * p.width), p.width};
  }
  Rows kv_of(const Part& part) const {
    return {kept(p.kv, kv, part.first * p.length * kv_width), kv_width};
  }
  Rows mixed_of(const Part& part) const {
    return {kept(p.mixed, mixed, part.first * p.queries * p.width), p.width};
  }
  Given x_of(const Part& part) const { return {p.x + part.first * p.length * p.width, p.width}; }

  // body(rows of x, rows of queries, how many) for all that ask: they follow one another where all
  // positions do, else those of each sequence do.
  template <class Body>
  void each_asking(const Part& part, const Body& body) const {
    if (p.queries == p.length) return body(0, 0, part.sequences * p.length);
    for (std::int64_t i = 0; i < part.sequences; ++i)
      body(i * p.length + p.length - p.queries, i * p.queries, p.queries);
  }

  // Heads of rows: `at` numbers into each.
  Heads heads(Rows rows, std::int64_t positions, std::int64_t at = 0) const {
    return {rows.first + at, positions * rows.stride, p.width / p.heads, rows.stride};
  }

  static Attention sizes(const SelfAttention& p) {
    Attention a{};
    a.heads = p.heads, a.length = p.length, a.queries = p.queries, a.width = p.width / p.heads;
    a.cosines = p.cosines, a.sines = p.sines;
    return a;
  }

  void point_to(const Part& part) {
    inner.batch = part.sequences;
    inner.q = heads(q_of(part), p.queries);
    inner.k = heads(kv_of(part), p.length), inner.v = heads(kv_of(part), p.length, p.width);
    inner.softmax = kept(p.softmax, softmax, part.first * p.heads * 2 * p.queries);
  }

  // The rows of x that positions have, from row `from` of a part on, where x is looked up.
  Positions positions_of(const Part& part, std::int64_t from = 0) const {
    return {p.tokens.rows + part.first * p.length + from, 1};
  }

  void project(const Part& part) const {
    const std::int64_t width = p.width, rows = part.sequences * p.length;
    const Rows q = q_of(part);
    if (lookup) {
      each_asking(part, [&](std::int64_t from, std::int64_t to, std::int64_t count) {
        lookup.look_up(count, positions_of(part, from), 0, width, {q[to], width});
      });
      return lookup.look_up(rows, positions_of(part), width, kv_width, kv_of(part));
    }
    const Given x = norm.forward(rows, x_of(part));
    each_asking(part, [&](std::int64_t from, std::int64_t to, std::int64_t count) {
      product(count, width, width, as_it_is({x[from], width}), {into_qkv, 3 * width}, {q[to], width});
    });
    product(rows, kv_width, width, as_it_is(x), {into_qkv + width, 3 * width}, kv_of(part));
  }

  void forward(const Part& part) {
    const std::int64_t width = p.width;
    const Rows mixed = mixed_of(part), out{p.out + part.first * p.queries * width, width};
    project(part);
    point_to(part);
    inner.out = heads(mixed, p.queries);
    for (std::int64_t item = 0; item < part.sequences * p.heads; ++item) attention.forward(item);
    product(part.sequences * p.queries, width, width, as_it_is(mixed), {into_width, width}, out);
    if (p.norm.weight) residual(part, out);
  }

  // Adds x to what the positions that ask give.
  void residual(const Part& part, Rows out) const {
    each_asking(part, [&](std::int64_t from, std::int64_t to, std::int64_t count) {
      const Rows asking{out[to], p.width};
      if (!lookup) return add_rows(count, p.width, {x_of(part)[from], p.width}, asking);
      lookup.add_x(count, positions_of(part, from), {p.x, p.width}, p.width, asking);
    });
  }

  void backward(const Part& part, float* share) {
    const std::int64_t width = p.width, asking = part.sequences * p.queries;
    const Given dout{p.grad_out + part.first * p.queries * width, width};
    product(asking, width, width, as_it_is(dout), {p.out_proj, width}, {dmixed, width});
    add_product(width, width, asking, turned(dout), mixed_of(part), {share + 3 * width * width, width});
    point_to(part);
    inner.grad_out = heads({dmixed, width}, p.queries), inner.grad_q = heads({dq, width}, p.queries);
    inner.grad_k = heads({dkv, kv_width}, p.length);
    inner.grad_v = heads({dkv, kv_width}, p.length, width);
    for (std::int64_t item = 0; item < part.sequences * p.heads; ++item) attention.backward(item);
    lookup ? backward_lookup(part) : backward_projection(part, share);
  }

  void backward_lookup(const Part& part) const {
    const std::int64_t width = p.width;
    each_asking(part, [&](std::int64_t to, std::int64_t from, std::int64_t count) {
      lookup.add(count, positions_of(part, to), 0, width, {dq + from * width, width});
    });
    lookup.add(part.sequences * p.length, positions_of(part), width, kv_width, {dkv, kv_width});
  }

  // At the end of a portion.
  void finish(float* share) const {
    if (lookup) lookup.finish(norm, {p.x, p.width}, p.in_proj, share, share + 4 * p.width * p.width);
  }

  void backward_projection(const Part& part, float* share) const {
    const std::int64_t width = p.width, rows = part.sequences * p.length;
    const Given x = norm.forward(rows, x_of(part));
    const Rows dx{p.grad_x + part.first * p.length * width, width};
    const Rows dnormed = p.norm.weight ? Rows{norm.dy, width} : dx;
    const Given for_kv{p.in_proj + width * width, width};
    product(rows, width, kv_width, as_it_is({dkv, kv_width}), for_kv, dnormed);
    add_product(kv_width, width, rows, turned({dkv, kv_width}), x, {share + width * width, width});
    each_asking(part, [&](std::int64_t to, std::int64_t from, std::int64_t count) {
      const Given arriving{dq + from * width, width};
      add_product(count, width, width, as_it_is(arriving), {p.in_proj, width}, {dnormed[to], width});
      add_product(width, width, count, turned(arriving), {x[to], width}, {share, width});
    });
    if (p.norm.weight) backward_norm(part, dx, share + 4 * width * width);
  }

  void backward_norm(const Part& part, Rows dx, float* share) const {
    const Given dout{p.grad_out + part.first * p.queries * p.width, p.width};
    norm.backward(part.sequences * p.length, x_of(part), dx, share);
    each_asking(part, [&](std::int64_t to, std::int64_t from, std::int64_t count) {
      add_rows(count, p.width, {dout[from], p.width}, {dx[to], p.width});
    });
  }
};

inline void self_attention_forward(const SelfAttention& p, std::int64_t begin, std::int64_t end,
                                   float* scratch) {
  Memory memory(scratch);
  SelfAttentionKernel kernel(p, memory, memory);
  kernel.turn_projections();
  each_part(begin, end, kernel.most, [&](std::int64_t first, std::int64_t count) {
    kernel.forward({first, count});
  });
}

inline void self_attention_backward(const SelfAttention& p, std::int64_t begin, std::int64_t end,
                                    float* scratch) {
  Memory memory(scratch);
  SelfAttentionKernel kernel(p, memory, memory);
  each_portion(
      p, begin, end, kernel.most,
      [&](std::int64_t first, std::int64_t count, float* share) { kernel.backward({first, count}, share); },
      [&](float* share) { kernel.finish(share); });
}

inline std::int64_t self_attention_scratch(const SelfAttention& p) {
  Memory memory(nullptr);
  SelfAttentionKernel(p, memory, memory);
  return memory.used();
}

}  // namespace recall::RECALL_ISA
