// Every kernel on buffers of exactly the size that it may touch, for the address and undefined-behaviour
// sanitizers, which stop at the first read or write beyond one; the leak sanitizer speaks at the end of
// thousands of calls.  `make sanitize` builds and runs it.

#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "interface.hpp"

namespace {

using std::int64_t;

std::mt19937 random_bits(0);

// Buffers of their own, so that one float beyond one of them is noticed, and the structs that point to them.
struct Buffers {
  std::vector<std::unique_ptr<float[]>> floats;
  std::vector<std::shared_ptr<void>> structs;

  float* operator()(int64_t count) {
    std::normal_distribution<float> normal;
    floats.push_back(std::make_unique<float[]>(count));
    for (int64_t i = 0; i < count; ++i) floats.back()[i] = normal(random_bits);
    return floats.back().get();
  }

  template <class Struct>
  Struct& zeroed() {
    auto made = std::make_shared<Struct>();
    structs.push_back(made);
    return *made;
  }
};

bool finite(const float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (!std::isfinite(x[i])) return false;
  return true;
}

int64_t chunks(int64_t length) { return (length + recall::scan_chunk - 1) / recall::scan_chunk; }

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
  p.out = make(read), p.states = make(chunks(length) * state), p.errors = make(rows * values);
  recall_delta_forward(&p, threads);
  p.grad_out = make(read), p.grad_final = p.initial ? make(state) : nullptr;
  p.grad_initial = p.initial ? make(state) : nullptr;
  p.grad_q = make(rows * keys), p.grad_k = make(rows * keys), p.grad_v = make(rows * values);
  p.grad_g = decay ? make(rows * decays) : nullptr, p.grad_beta = make(rows);
  recall_delta_backward(&p, threads);
  return finite(p.out, read) && finite(p.grad_k, rows * keys) && finite(p.grad_beta, rows);
}

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
  p.states = make(s.batch * chunks(s.length) * p.key_width * values), p.errors = make(s.rows() * values);
  return p.block;
}

using Mixer = recall::Block& (*)(Buffers&, const Sizes&);
constexpr Mixer mixers[] = {mamba, self_attention, gated_delta, mlp};

// RMS norm where the width is odd.
recall::Norm norm(Buffers& make, int64_t width) { return {make(width), width % 2 ? nullptr : make(width), 1e-5}; }

int64_t numbers(int64_t width) { return width % 2 ? width : 2 * width; }

recall::Block& head(Buffers& make, Mixer mixer, const Sizes& s, bool normal) {
  recall::Block& p = mixer(make, s);
  p.batch = s.batch, p.length = s.length, p.width = s.width, p.last = s.last, p.shards = 2;
  if (normal) p.norm = norm(make, s.width), p.numbers += numbers(s.width);
  return p;
}

bool block(Mixer mixer, Sizes s, bool normal, int threads) {
  Buffers make;
  bool right = true;
  for (bool saved : {false, true}) {
    s.saved = saved;
    recall::Block& p = head(make, mixer, s, normal);
    p.x = make(s.rows() * s.width), p.out = make(s.read() * s.width);
    right &= recall_block_forward(&p, threads) == 0 && finite(p.out, s.read() * s.width);
    if (!saved) continue;
    p.grad_out = make(s.read() * s.width), p.grad_x = make(s.rows() * s.width);
    p.gradients = make(p.shards * p.numbers);
    right &= recall_block_backward(&p, threads) == 0;
    right &= finite(p.grad_x, s.rows() * s.width) && finite(p.gradients, p.numbers);
    p.kind = recall::Kind{77};
    right &= recall_block_forward(&p, threads) == 2 && recall_block_backward(&p, threads) == 2;
  }
  return right;
}

bool stack(Mixer first, Mixer second, Sizes s, int64_t vocabulary, bool positions, bool everywhere, int threads) {
  Buffers make;
  s.saved = s.last = false;
  recall::Block& below = head(make, first, s, true);
  s.last = !everywhere;
  const recall::Block* layers[] = {&below, &head(make, second, s, true)};
  const int64_t asked = everywhere ? s.length + 1 : 1;  // one position twice
  std::vector<int64_t> tokens(s.rows()), answers(s.batch * asked), where(s.batch * asked);
  for (auto& position : where) position = random_bits() % s.length;
  for (auto* ids : {&tokens, &answers})
    for (auto& id : *ids) id = random_bits() % vocabulary;
  auto& p = make.zeroed<recall::Stack>();
  p.batch = s.batch, p.length = s.length, p.width = s.width, p.vocabulary = vocabulary, p.depth = 2;
  p.tokens = tokens.data(), p.answers = answers.data(), p.layers = layers;
  p.asked = asked, p.where = everywhere ? where.data() : nullptr;
  const int64_t reach = positions ? s.length + 1 : 0;
  p.gathered = !positions && vocabulary % 2, p.embeds = vocabulary == 16;
  p.embedding = make(vocabulary * s.width), p.positions = positions ? make(reach * s.width) : nullptr;
  p.norm = norm(make, s.width), p.lm_head = make(vocabulary * s.width);
  p.logits = make(s.batch * asked * vocabulary), p.losses = make(s.batch * asked);
  bool right = recall_stack_logits(&p, threads) == 0;
  p.shards = 2, p.numbers = layers[0]->numbers + layers[1]->numbers + numbers(s.width);
  p.numbers += ((p.embeds ? 2 : 1) * vocabulary + reach) * s.width;
  p.gradients = make(p.shards * p.numbers);
  const recall::Place places[] = {{make(p.numbers - s.width), 1, p.numbers - s.width}, {nullptr, s.width, 1}};
  p.places = places, p.weights = 2;
  right &= recall_stack_gradients(&p, threads) == 0;
  right &= finite(p.logits, s.batch * asked * vocabulary) && finite(p.gradients, p.numbers);
  float* const logits = std::exchange(p.logits, nullptr);
  right &= recall_stack_gradients(&p, threads) == 0 && finite(p.gradients, p.numbers);
  p.logits = logits, where.back() = s.length;
  if (everywhere) right &= recall_stack_logits(&p, threads) == 3 && recall_stack_gradients(&p, threads) == 3;
  where.back() = 0;
  tokens.back() = vocabulary;
  right &= recall_stack_logits(&p, threads) == 1 && recall_stack_gradients(&p, threads) == 1;
  below.kind = recall::Kind{0};
  return right && recall_stack_logits(&p, threads) == 2 && recall_stack_gradients(&p, threads) == 2;
}

int run_all() {
  int calls = 0, wrong = 0;
  const auto check = [&](bool right) { ++calls, wrong += !right; };
  for (int threads : {1, 3})
    for (int64_t length : {1, 2, 7, 8, 9, 17, 33})
      for (int64_t width : {1, 4, 5, 8, 16, 17, 33}) {
        for (int64_t state : {1, 3, 8, 16, 17})
          for (bool gated : {false, true})
            for (bool last : {false, true}) check(scan(3, length, width, state, gated, last, threads));
        for (int64_t window : {1, 3, 4, 16})
          for (bool linear : {false, true}) check(conv(3, length, width, window, linear, threads));
        for (int64_t queries : {int64_t{1}, (length + 1) / 2, length})
          for (int64_t heads : {1, 2}) {
            check(attention(2, heads, length, queries, width, false, threads));
            check(attention(2, heads, length, queries, 2 * width, true, threads));
          }
        for (int64_t values : {1, 4, 16, 33})
          for (int decay : {0, 1, 2})
            for (bool last : {false, true}) check(delta(2, length, width, values, decay, last, threads));
        const int64_t state = length % 2 ? 16 : 3;
        for (Mixer mixer : mixers) {
          for (bool last : {false, true})
            for (bool normal : {false, true}) check(block(mixer, {3, length, width, state, last, false}, normal, threads));
          for (Mixer other : mixers)
            for (int64_t vocabulary : {2, 3, 16, 41})
              for (bool positions : {false, true})
                for (bool everywhere : {false, true})
                  check(stack(mixer, other, {3, length, width, state, false, false}, vocabulary, positions, everywhere,
                              threads));
        }
      }
  std::printf("%s: %d operations forward and backward, %d wrong\n", recall_instruction_set(), calls, wrong);
  return wrong;
}

}  // namespace

int main() {
  int wrong = 0;
  for (const char* name : {"avx512", "avx2", "baseline"}) {
    if (recall_choose_instruction_set(name) == 0) {
      for (int repeat = 0; repeat < 3; ++repeat) wrong += run_all();
    } else {
      std::printf("%s: not on this processor\n", name);
    }
  }
  return wrong != 0;
}
