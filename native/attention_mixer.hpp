// Self-attention between its projections, forward and backward, a few sequences at a time, so that
// what one step leaves is still in the cache when the next one reads it.
//
//   (q, k, v) = in_proj x             out = out_proj attention(q, k, v)
//
//   dmixed    = out_proj^T dout       dout_proj = dout^T mixed        mixed = attention(q, k, v)
//   dx        = in_proj^T (dq, dk, dv)            din_proj = (dq, dk, dv)^T x
//
// A portion of the batch adds up its own share of the weights' gradients: in_proj (3 width, width),
// out_proj (width, width).

#pragma once

#include "causal_attention.hpp"
#include "matrix.hpp"
#include "memory.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

struct SelfAttentionKernel {
  const SelfAttention& p;
  std::int64_t most, kv_width;
  float *into_qkv, *into_width;  // the weights, turned over
  float *q, *kv, *mixed, *softmax;  // where the caller keeps none
  float *dmixed, *dq, *dkv, *attention_memory;
  std::int64_t floats;

  SelfAttentionKernel(const SelfAttention& of, float* block)
      : p(of), most(at_once(p.length, p.width, p.batch)), kv_width(2 * p.width) {
    Memory memory(block);
    into_qkv = memory.take(3 * p.width * p.width);
    into_width = memory.take(p.width * p.width);
    for (float** part : {&q, &mixed, &dmixed, &dq}) *part = memory.take(most * p.queries * p.width);
    for (float** part : {&kv, &dkv}) *part = memory.take(most * p.length * kv_width);
    softmax = memory.take(most * p.heads * 2 * p.queries);
    attention_memory = memory.take(attention_scratch(attention({0, most})));
    floats = memory.used();
  }

  // What the forward pass alone reads.
  void turn_projections() const {
    turn_over(p.in_proj, 3 * p.width, p.width, into_qkv);
    turn_over(p.out_proj, p.width, p.width, into_width);
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

  Attention attention(const Part& part) const {
    Attention a{};
    a.batch = part.sequences, a.heads = p.heads, a.length = p.length, a.queries = p.queries;
    a.width = p.width / p.heads;
    a.q = heads(q_of(part), p.queries);
    a.k = heads(kv_of(part), p.length), a.v = heads(kv_of(part), p.length, p.width);
    a.cosines = p.cosines, a.sines = p.sines;
    a.softmax = kept(p.softmax, softmax, part.first * p.heads * 2 * p.queries);
    return a;
  }

  void forward(const Part& part) const {
    const std::int64_t width = p.width;
    const Given x = x_of(part);
    const Rows q = q_of(part), mixed = mixed_of(part);
    each_asking(part, [&](std::int64_t from, std::int64_t to, std::int64_t count) {
      product(count, width, width, as_it_is({x[from], width}), {into_qkv, 3 * width}, {q[to], width});
    });
    product(part.sequences * p.length, kv_width, width, as_it_is(x), {into_qkv + width, 3 * width},
            kv_of(part));
    Attention a = attention(part);
    a.out = heads(mixed, p.queries);
    attention_forward(a, 0, part.sequences * p.heads, attention_memory);
    product(part.sequences * p.queries, width, width, as_it_is(mixed), {into_width, width},
            {p.out + part.first * p.queries * width, width});
  }

  void backward(const Part& part, float* share) const {
    const std::int64_t width = p.width, asking = part.sequences * p.queries;
    const Given dout{p.grad_out + part.first * p.queries * width, width};
    product(asking, width, width, as_it_is(dout), {p.out_proj, width}, {dmixed, width});
    add_product(width, width, asking, turned(dout), mixed_of(part), {share + 3 * width * width, width});
    Attention a = attention(part);
    a.grad_out = heads({dmixed, width}, p.queries), a.grad_q = heads({dq, width}, p.queries);
    a.grad_k = heads({dkv, kv_width}, p.length), a.grad_v = heads({dkv, kv_width}, p.length, width);
    attention_backward(a, 0, part.sequences * p.heads, attention_memory);
    backward_projection(part, share);
  }

  void backward_projection(const Part& part, float* share) const {
    const std::int64_t width = p.width, rows = part.sequences * p.length;
    const Given x = x_of(part);
    const Rows dx{p.grad_x + part.first * p.length * width, width};
    const Given for_kv{p.in_proj + width * width, width};
    product(rows, width, kv_width, as_it_is({dkv, kv_width}), for_kv, dx);
    add_product(kv_width, width, rows, turned({dkv, kv_width}), x, {share + width * width, width});
    each_asking(part, [&](std::int64_t to, std::int64_t from, std::int64_t count) {
      const Given arriving{dq + from * width, width};
      add_product(count, width, width, as_it_is(arriving), {p.in_proj, width}, {dx[to], width});
      add_product(width, width, count, turned(arriving), {x[to], width}, {share, width});
    });
  }
};

inline void self_attention_forward(const SelfAttention& p, std::int64_t begin, std::int64_t end,
                                   float* scratch) {
  const SelfAttentionKernel kernel(p, scratch);
  kernel.turn_projections();
  each_part(begin, end, kernel.most, [&](std::int64_t first, std::int64_t count) {
    kernel.forward({first, count});
  });
}

inline void self_attention_backward(const SelfAttention& p, std::int64_t begin, std::int64_t end,
                                    float* scratch) {
  const SelfAttentionKernel kernel(p, scratch);
  each_portion(p, begin, end, kernel.most, [&](std::int64_t first, std::int64_t count, float* share) {
    kernel.backward({first, count}, share);
  });
}

inline std::int64_t self_attention_scratch(const SelfAttention& p) {
  return SelfAttentionKernel(p, nullptr).floats;
}

}  // namespace recall::RECALL_ISA
