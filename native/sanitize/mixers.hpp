// Mixers and MLPs: what the core of each has beside the block's head.

#pragma once

#include "buffers.hpp"

namespace {

// Options follow from the sizes, so that all of them come up.
struct Sizes {
  int64_t batch, length, width, state;
  bool last, saved;  // whether there are buffers for the backward pass

  int64_t rows() const { return batch * length; }
  int64_t read() const { return last ? batch : rows(); }
  bool biased() const { return length % 2; }
};

// A mixer's projections, and how many numbers a shard has for them and for `own` weights of the core.
void project(Buffers& make, recall::Block& p, const Sizes& s, int64_t columns, int64_t inner, int64_t own) {
  p.in_proj = make(columns * s.width), p.out_proj = make(s.width * inner);
  p.numbers = own + (columns + inner) * s.width;
  if (!s.biased()) return;
  p.in_bias = make(columns), p.out_bias = make(s.width);
  p.numbers += columns + s.width;
}

// Each mixer: what its core has beside the head.

recall::Block& mamba(Buffers& make, const Sizes& s) {
  auto& p = make.zeroed<recall::Mamba>();
  const int64_t channels = 2 * s.width + 1;
  p.channels = channels, p.state = s.state, p.window = 4, p.rank = 2;
  const int64_t selected = p.rank + 2 * p.state;
  p.conv_weight = make(channels * p.window), p.conv_bias = s.biased() ? make(channels) : nullptr;
  p.x_proj = make(selected * channels), p.dt_weight = make(channels * p.rank);
  p.A_log = make(channels * p.state), p.D = make(channels), p.dt_bias = make(channels);
  p.block.kind = recall::Kind::mamba;
  const int64_t own = p.window + (p.conv_bias ? 1 : 0) + selected + p.rank + p.state + 2;
  project(make, p.block, s, 2 * channels, channels, own * channels);
  if (!s.saved) return p.block;
  p.before = make(s.rows() * channels), p.z = make(s.read() * channels), p.u = make(s.rows() * channels);
  p.selection = make(s.rows() * selected), p.states = make(s.batch * chunks(s.length) * p.state * channels);
  return p.block;
}

recall::Block& self_attention(Buffers& make, const Sizes& s) {
  auto& p = make.zeroed<recall::SelfAttention>();
  p.heads = s.width % 4 ? 1 : 2;
  const int64_t angles = s.width / p.heads / 2;
  if (s.width % 4 == 0) p.cosines = make(s.length * angles), p.sines = make(s.length * angles);
  p.block.kind = recall::Kind::attention;
  p.q_window = s.length % 4 == 1 ? 3 : 0, p.k_window = s.length % 2 ? 4 : 0, p.v_window = s.width % 2 ? 16 : 0;
  p.q_conv = make(p.q_window * s.width), p.k_conv = make(p.k_window * s.width), p.v_conv = make(p.v_window * s.width);
  project(make, p.block, s, 3 * s.width, s.width, (p.q_window + p.k_window + p.v_window) * s.width);
  if (!s.saved) return p.block;
  p.q = make((p.q_window ? s.rows() : s.read()) * s.width), p.mixed = make(s.read() * s.width);
  p.kv = make(2 * s.rows() * s.width);
  p.softmax = make(p.heads * 2 * s.read());
  return p.block;
}

recall::Block& mlp(Buffers& make, const Sizes& s) {
  auto& p = make.zeroed<recall::MLP>();
  p.hidden = s.width + 3, p.gated = s.length % 3 == 0;
  p.block.kind = recall::Kind::mlp;
  const int64_t before = p.gated ? 2 * p.hidden : p.hidden;
  project(make, p.block, s, before, p.hidden, 0);
  p.before = s.saved ? make(s.read() * before) : nullptr;
  return p.block;
}

recall::Block& gated_delta(Buffers& make, const Sizes& s) {
  auto& p = make.zeroed<recall::GatedDelta>();
  p.heads = 2, p.key_width = s.width, p.value_width = s.width % 2 ? 3 : 20;
  p.window = s.length % 4 ? s.state / 4 : 4, p.beta_scale = 1, p.epsilon = 1e-5;
  const int64_t decays[] = {0, p.heads, p.heads * p.key_width};
  p.decays = decays[s.length % 3];
  p.gate = recall::OutputGate(s.length % 3);
  const int64_t values = p.heads * p.value_width, channels = 2 * p.heads * p.key_width + values;
  const int64_t gate = p.gate == recall::OutputGate::none ? 0 : values, gates = p.heads + p.decays;
  p.block.kind = recall::Kind::gated_delta;
  p.conv_weight = p.window ? make(p.window * channels) : nullptr, p.o_norm = make(p.value_width);
  p.A_log = p.decays ? make(p.heads) : nullptr, p.dt_bias = p.decays ? make(p.decays) : nullptr;
  const int64_t own = p.window * channels + p.value_width + (p.decays ? p.heads + p.decays : 0);
  project(make, p.block, s, channels + gates + gate, values, own);
  if (!s.saved) return p.block;
  p.before = make(s.rows() * channels), p.qkv = make(s.rows() * channels), p.gates = make(s.rows() * gates);
  p.z = gate ? make(s.read() * values) : nullptr, p.o = make(s.read() * values);
  const int64_t kept = delta_chunks(s.length, p.key_width, p.decays > p.heads);
  p.states = make(s.batch * kept * p.key_width * values), p.errors = make(s.rows() * values);
  return p.block;
}

using Mixer = recall::Block& (*)(Buffers&, const Sizes&);
constexpr Mixer mixers[] = {mamba, self_attention, gated_delta, mlp};

}  // namespace
