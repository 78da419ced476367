// Attention of one query, as a last layer has it that is read at its last position alone.  It sees every key, and
// a lane is a key: the equations are those of `causal_attention.hpp`, and every sum has the order that it has
// there.

#pragma once

#include "attention_buffers.hpp"
#include "math.hpp"

namespace recall::RECALL_ISA {

class OneQueryAttention {
 public:
  OneQueryAttention(const Attention& of, Arena& arena)
      : p(of), keys_(round_up(p.length, lanes)), scale_(1.0f / __builtin_sqrtf(static_cast<float>(p.width))) {
    const bool used = p.queries == 1;
    columns_ = arena.take(used ? p.width * keys_ : 0);
    q_ = arena.take(used ? p.width : 0), slopes_ = arena.take(used ? keys_ : 0);
  }

  // `weights` holds exp(s - max s) afterwards, `softmax` the largest score and 1 / sum exp.
  void forward(ConstRows q, ConstRows k, ConstRows v, Rows out, float* weights, float* softmax) const {
    scores(q, k, weights);
    float most = weights[0], total = 0.0f;
    for (std::int64_t j = 1; j < p.length; ++j) most = most > weights[j] ? most : weights[j];
    softmax[0] = most;
    exponentials(weights, most);
    for (std::int64_t j = 0; j < p.length; ++j) total += weights[j];
    softmax[1] = 1.0f / total;
    product(1, p.width, p.length, {weights, 0, 1}, v, out);
    scale(out[0], p.width, softmax[1]);
  }

  // `kept`: whether `weights` still holds what the forward pass left.
  void backward(ConstRows q, ConstRows k, ConstRows v, ConstRows dout, float* weights, bool kept,
                const float* softmax, Rows dq, Rows dk, Rows dv) const {
    if (!kept) {
      scores(q, k, weights);
      exponentials(weights, softmax[0]);
    }
    rows_to_columns(v, p.length, 0, p.width, 1.0f, columns_);
    product(1, p.length, p.width, scalars(dout), {columns_, keys_}, {slopes_, keys_});
    scale(weights, p.length, softmax[1]);
    float own;
    product(1, 1, p.length, {weights, 0, 1}, Rows{slopes_, 1}, {&own, 1});
    for (std::int64_t j = 0; j < p.length; ++j) slopes_[j] = weights[j] * (slopes_[j] - own);
    product(1, p.width, p.length, {slopes_, 0, 1}, k, dq);
    scale(dq[0], p.width, scale_);
    product(p.length, p.width, 1, {weights, 1, 0}, dout, dv);
    product(p.length, p.width, 1, {slopes_, 1, 0}, q, dk);
    for (std::int64_t j = 0; j < p.length; ++j) scale(dk[j], p.width, scale_);
  }

 private:
  void scores(ConstRows q, ConstRows k, float* weights) const {
    for (std::int64_t w = 0; w < p.width; ++w) q_[w] = q[0][w] * (scale_ * log2_e);
    rows_to_columns(k, p.length, 0, p.width, 1.0f, columns_);
    product(1, p.length, p.width, {q_, 0, 1}, {columns_, keys_}, {weights, keys_});
  }

  void exponentials(float* weights, float most) const {
    for (std::int64_t j = 0; j < p.length; j += lanes) {
      const int count = filled(p.length - j);
      store(weights + j, exp2_bounded(load(weights + j, count) - most), count);
    }
  }

  static void scale(float* row, std::int64_t count, float times) {
    for (std::int64_t i = 0; i < count; ++i) row[i] *= times;
  }

  const Attention& p;
  const std::int64_t keys_;
  const float scale_;
  float *columns_, *q_, *slopes_;  // (width, keys): keys, then values; (width,): scaled; (keys,)
};

}  // namespace recall::RECALL_ISA
