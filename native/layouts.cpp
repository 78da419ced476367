// What the library tells about itself, so that callers built from other sources are refused.

#include <cstddef>
#include <string>

#include "interface.hpp"

namespace {

#define STRUCT(Type, ...)                                                \
  {                                                                      \
    using Struct = recall::Type;                                         \
    text += "\n" #Type " " + std::to_string(sizeof(Struct));             \
    __VA_ARGS__                                                          \
  }
#define F(field) text += " " #field ":" + std::to_string(offsetof(Struct, field));

std::string layouts() {
  std::string text;
  STRUCT(Scan, F(batch) F(length) F(channels) F(state) F(u) F(delta) F(B) F(C) F(z) F(u_stride) F(delta_stride)
               F(B_stride) F(C_stride) F(z_stride) F(A) F(D) F(delta_bias) F(initial) F(final) F(out) F(states)
               F(grad_out) F(grad_out_stride) F(grad_u) F(grad_delta) F(grad_z) F(grad_B) F(grad_C) F(grad_A)
               F(grad_D) F(grad_bias) F(recomputed) F(last))
  STRUCT(Conv, F(batch) F(length) F(channels) F(window) F(linear) F(x) F(x_stride) F(weight) F(bias) F(out)
               F(grad_out) F(grad_out_stride) F(grad_x) F(grad_x_stride) F(grad_weight) F(grad_bias))
  STRUCT(Heads, F(data) F(batch) F(head) F(row))
  STRUCT(Attention, F(batch) F(heads) F(length) F(queries) F(width) F(q) F(k) F(v) F(cosines) F(sines) F(out)
                    F(softmax) F(grad_out) F(grad_q) F(grad_k) F(grad_v))
  STRUCT(Delta, F(batch) F(length) F(heads) F(key_width) F(value_width) F(q) F(k) F(v) F(q_stride) F(k_stride)
                F(v_stride) F(g) F(beta) F(g_stride) F(g_head) F(beta_stride) F(beta_head) F(g_by_channel)
                F(normalised) F(scale) F(initial) F(final) F(out) F(states) F(errors) F(grad_out) F(grad_final)
                F(grad_q) F(grad_k) F(grad_v) F(grad_key_stride) F(grad_v_stride) F(grad_g) F(grad_beta)
                F(grad_initial) F(last))
  STRUCT(Norm, F(weight) F(bias) F(epsilon))
  STRUCT(Tokens, F(rows) F(distinct))
  STRUCT(Block, F(kind) F(batch) F(length) F(width) F(last) F(x) F(tokens) F(norm) F(in_proj) F(in_bias) F(out_proj)
                F(out_bias) F(out) F(grad_out) F(grad_x) F(gradients) F(shards) F(numbers))
  STRUCT(Mamba, F(block) F(channels) F(state) F(window) F(rank) F(conv_weight) F(conv_bias) F(x_proj) F(dt_weight)
                F(dt_bias) F(A_log) F(D) F(before) F(z) F(u) F(selection) F(states))
  STRUCT(SelfAttention, F(block) F(heads) F(q_window) F(k_window) F(v_window) F(q_conv) F(k_conv) F(v_conv)
                        F(cosines) F(sines) F(q) F(mixed) F(kv) F(softmax))
  STRUCT(MLP, F(block) F(hidden) F(gated) F(before))
  STRUCT(GatedDelta, F(block) F(heads) F(key_width) F(value_width) F(window) F(decays) F(gate) F(beta_scale)
                     F(epsilon) F(conv_weight) F(A_log) F(dt_bias) F(o_norm) F(before) F(qkv) F(gates) F(z) F(o)
                     F(states) F(errors))
  STRUCT(Place, F(to) F(rows) F(columns))
  STRUCT(Stack, F(batch) F(length) F(width) F(vocabulary) F(depth) F(asked) F(tokens) F(answers) F(where) F(embedding)
                F(positions) F(gathered) F(embeds) F(layers) F(norm) F(lm_head) F(logits) F(losses) F(gradients) F(shards)
                F(numbers) F(places) F(weights))
  return text.substr(1);
}

}  // namespace

extern "C" {

const char* recall_layouts() {
  static const std::string text = layouts();
  return text.c_str();
}

const char* recall_build() { return RECALL_BUILD; }

}  // extern "C"
