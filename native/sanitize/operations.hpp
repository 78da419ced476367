// Operations alone, forward and backward.

#pragma once

#include "buffers.hpp"

namespace {

bool scan(int64_t batch, int64_t length, int64_t channels, int64_t state, bool gated, bool last, int threads) {
  Buffers make;
  const int64_t inner = batch * length * channels, selection = batch * length * state;
  const int64_t read = last ? batch * channels : inner;
  auto& p = make.zeroed<recall::Scan>();
  p.batch = batch, p.length = length, p.channels = channels, p.state = state, p.last = last;
  p.u = make(inner), p.delta = make(inner), p.B = make(selection), p.C = make(selection);
  p.z = gated ? make(read) : nullptr;
  p.u_stride = p.delta_stride = p.z_stride = p.grad_out_stride = channels;
  p.B_stride = p.C_stride = state;
  float* A = make(state * channels);
  for (int i = 0; i < state * channels; ++i) A[i] = -std::exp(A[i]);
  p.A = A, p.D = make(channels), p.delta_bias = make(channels);
  p.initial = make(batch * state * channels), p.final = make(batch * state * channels);
  p.out = make(read), p.states = make(batch * chunks(length) * state * channels);
  recall_scan_forward(&p, threads);
  p.grad_out = make(read);
  p.grad_u = make(inner), p.grad_delta = make(inner), p.grad_z = gated ? make(read) : nullptr;
  p.grad_B = make(selection), p.grad_C = make(selection), p.grad_A = make(batch * (state + 2) * channels);
  p.grad_D = p.grad_A + state * channels, p.grad_bias = p.grad_D + channels;
  recall_scan_backward(&p, threads);
  return finite(p.out, read) && finite(p.grad_u, inner) && finite(p.grad_B, selection);
}

bool conv(int64_t batch, int64_t length, int64_t channels, int64_t window, bool linear, int threads) {
  Buffers make;
  const int64_t inner = batch * length * channels;
  auto& p = make.zeroed<recall::Conv>();
  p.batch = batch, p.length = length, p.channels = channels, p.window = window, p.linear = linear;
  p.x = make(inner), p.x_stride = p.grad_out_stride = p.grad_x_stride = channels;
  p.weight = make(window * channels), p.bias = linear ? nullptr : make(channels), p.out = make(inner);
  recall_conv_forward(&p, threads);
  p.grad_out = make(inner), p.grad_x = make(inner);
  p.grad_weight = make(batch * (window + 1) * channels), p.grad_bias = p.grad_weight + window * channels;
  recall_conv_backward(&p, threads);
  return finite(p.out, inner) && finite(p.grad_x, inner);
}

bool attention(int64_t batch, int64_t heads, int64_t length, int64_t queries, int64_t width, bool rotary, int threads) {
  Buffers make;
  const auto rows = [&](int64_t positions) {
    const int64_t head = positions * width;
    return recall::Heads{make(batch * heads * head), heads * head, head, width};
  };
  auto& p = make.zeroed<recall::Attention>();
  p.batch = batch, p.heads = heads, p.length = length, p.queries = queries, p.width = width;
  p.q = rows(queries), p.k = rows(length), p.v = rows(length), p.out = rows(queries);
  if (rotary) p.cosines = make(length * (width / 2)), p.sines = make(length * (width / 2));
  p.softmax = make(batch * heads * 2 * queries);
  recall_attention_forward(&p, threads);
  p.grad_out = rows(queries), p.grad_q = rows(queries), p.grad_k = rows(length), p.grad_v = rows(length);
  recall_attention_backward(&p, threads);
  const int64_t total = batch * heads * width;
  return finite(p.out.data, total * queries) && finite(p.grad_k.data, total * length);
}

bool delta(int64_t batch, int64_t length, int64_t keys, int64_t values, int decay, bool last, int threads) {
  Buffers make;
  const int64_t heads = 2, rows = batch * length * heads, items = batch * heads, state = items * keys * values;
  auto& p = make.zeroed<recall::Delta>();
  p.batch = batch, p.length = length, p.heads = heads, p.key_width = keys, p.value_width = values, p.last = last;
  p.normalised = keys > 1, p.scale = 0.5, p.g_by_channel = decay == 2;
  p.q = make(rows * keys), p.k = make(rows * keys), p.v = make(rows * values), p.beta = make(rows);
  p.q_stride = p.k_stride = p.grad_key_stride = heads * keys, p.v_stride = p.grad_v_stride = heads * values;
  const int64_t decays = decay == 2 ? keys : 1;
  float* g = decay ? make(rows * decays) : nullptr;
  for (int64_t i = 0; g && i < rows * decays; ++i) g[i] = -std::exp(g[i]);
  p.g = g, p.g_stride = heads * decays, p.g_head = decays, p.beta_stride = heads, p.beta_head = 1;
  p.initial = length % 2 ? make(state) : nullptr, p.final = length % 2 ? make(state) : nullptr;
  const int64_t read = last ? items * values : rows * values;
  p.out = make(read), p.states = make(delta_chunks(length, keys, decay == 2) * state), p.errors = make(rows * values);
  recall_delta_forward(&p, threads);
  p.grad_out = make(read), p.grad_final = p.initial ? make(state) : nullptr;
  p.grad_initial = p.initial ? make(state) : nullptr;
  p.grad_q = make(rows * keys), p.grad_k = make(rows * keys), p.grad_v = make(rows * values);
  p.grad_g = decay ? make(rows * decays) : nullptr, p.grad_beta = make(rows);
  recall_delta_backward(&p, threads);
  return finite(p.out, read) && finite(p.grad_k, rows * keys) && finite(p.grad_beta, rows);
}

}  // namespace
