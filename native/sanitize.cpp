// Every kernel on buffers of exactly the size that it may touch, for the address and
// undefined-behaviour sanitizers, which stop at the first read or write beyond one; the leak
// sanitizer speaks at the end of thousands of calls.  `make sanitize` builds and runs it.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "operations.hpp"

extern "C" {
const char* recall_instruction_set();
int recall_choose_instruction_set(const char* name);
void recall_scan_forward(const recall::Scan* p, int threads);
void recall_scan_backward(const recall::Scan* p, int threads);
void recall_conv_forward(const recall::Conv* p, int threads);
void recall_conv_backward(const recall::Conv* p, int threads);
void recall_attention_forward(const recall::Attention* p, int threads);
void recall_attention_backward(const recall::Attention* p, int threads);
void recall_mamba_forward(const recall::Mamba* p, int threads);
void recall_mamba_backward(const recall::Mamba* p, int threads);
void recall_self_attention_forward(const recall::SelfAttention* p, int threads);
void recall_self_attention_backward(const recall::SelfAttention* p, int threads);
int recall_stack_logits(const recall::Stack* p, int threads);
int recall_stack_gradients(const recall::Stack* p, int threads);
}

namespace {

std::mt19937 random_bits(0);

// A buffer of its own, so that one float beyond it is noticed.
struct Buffers {
  std::vector<std::unique_ptr<float[]>> all;

  float* operator()(std::int64_t floats) {
    std::normal_distribution<float> normal;
    all.push_back(std::make_unique<float[]>(floats));
    for (std::int64_t i = 0; i < floats; ++i) all.back()[i] = normal(random_bits);
    return all.back().get();
  }
};

bool finite(const float* x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    if (!std::isfinite(x[i])) return false;
  return true;
}

bool scan(int batch, int length, int channels, int state, bool gated, bool last, int threads) {
  Buffers make;
  const std::int64_t inner = std::int64_t{batch} * length * channels;
  const std::int64_t selection = std::int64_t{batch} * length * state;
  const std::int64_t read = last ? std::int64_t{batch} * channels : inner;
  const std::int64_t chunks = (length + recall::scan_chunk - 1) / recall::scan_chunk;
  recall::Scan p{};
  p.batch = batch, p.length = length, p.channels = channels, p.state = state, p.last = last;
  p.u = make(inner), p.delta = make(inner), p.B = make(selection), p.C = make(selection);
  p.z = gated ? make(read) : nullptr;
  p.u_stride = p.delta_stride = p.z_stride = p.grad_out_stride = channels;
  p.B_stride = p.C_stride = state;
  float* A = make(state * channels);
  for (int i = 0; i < state * channels; ++i) A[i] = -std::exp(A[i]);
  p.A = A, p.D = make(channels), p.delta_bias = make(channels);
  p.initial = make(std::int64_t{batch} * state * channels);
  p.final = make(std::int64_t{batch} * state * channels);
  p.out = make(read), p.states = make(batch * chunks * state * channels);
  recall_scan_forward(&p, threads);
  p.grad_out = make(read);
  p.grad_u = make(inner), p.grad_delta = make(inner), p.grad_z = gated ? make(read) : nullptr;
  p.grad_B = make(selection), p.grad_C = make(selection);
  p.grad_A = make(std::int64_t{batch} * (state + 2) * channels);
  p.grad_D = p.grad_A + state * channels, p.grad_bias = p.grad_D + channels;
  recall_scan_backward(&p, threads);
  return finite(p.out, read) && finite(p.grad_u, inner) && finite(p.grad_B, selection);
}

bool conv(int batch, int length, int channels, int window, int threads) {
  Buffers make;
  const std::int64_t inner = std::int64_t{batch} * length * channels;
  recall::Conv p{};
  p.batch = batch, p.length = length, p.channels = channels, p.window = window;
  p.x = make(inner), p.x_stride = p.grad_out_stride = channels;
  p.weight = make(window * channels), p.bias = make(channels), p.out = make(inner);
  recall_conv_forward(&p, threads);
  p.grad_out = make(inner), p.grad_x = make(inner);
  p.grad_weight = make(std::int64_t{batch} * (window + 1) * channels);
  p.grad_bias = p.grad_weight + window * channels;
  recall_conv_backward(&p, threads);
  return finite(p.out, inner) && finite(p.grad_x, inner);
}

bool attention(int batch, int heads, int length, int queries, int width, bool rotary, int threads) {
  Buffers make;
  const auto rows = [&](int positions) {
    const std::int64_t head = std::int64_t{positions} * width;
    return recall::Heads{make(batch * heads * head), heads * head, head, width};
  };
  recall::Attention p{};
  p.batch = batch, p.heads = heads, p.length = length, p.queries = queries, p.width = width;
  p.q = rows(queries), p.k = rows(length), p.v = rows(length), p.out = rows(queries);
  p.cosines = rotary ? make(length * (width / 2)) : nullptr;
  p.sines = rotary ? make(length * (width / 2)) : nullptr;
  p.softmax = make(std::int64_t{batch} * heads * 2 * queries);
  recall_attention_forward(&p, threads);
  p.grad_out = rows(queries), p.grad_q = rows(queries);
  p.grad_k = rows(length), p.grad_v = rows(length);
  recall_attention_backward(&p, threads);
  const std::int64_t total = std::int64_t{batch} * heads * width;
  return finite(p.out.data, total * queries) && finite(p.grad_k.data, total * length);
}

recall::Norm norm(Buffers& make, std::int64_t width) { return {make(width), make(width), 1e-5}; }

// A mixer's sizes and weights.
recall::Mamba mamba_weights(Buffers& make, int batch, int length, int width, int channels, int state, bool last) {
  recall::Mamba p{};
  p.batch = batch, p.length = length, p.width = width, p.channels = channels, p.state = state;
  p.window = 4, p.rank = 2, p.last = last, p.portions = 2;
  const std::int64_t selected = p.rank + 2 * state;
  p.numbers = channels * (3 * width + p.window + 1 + selected + p.rank + state + 2) + 2 * width;
  p.in_proj = make(2 * channels * width);
  p.conv_weight = make(channels * p.window), p.conv_bias = make(channels);
  p.x_proj = make(selected * channels), p.dt_weight = make(channels * p.rank);
  p.A_log = make(channels * state), p.D = make(channels), p.dt_bias = make(channels);
  p.out_proj = make(width * channels);
  return p;
}

bool mamba(int batch, int length, int width, int channels, int state, bool last, bool normal,
           int threads) {
  Buffers make;
  recall::Mamba p = mamba_weights(make, batch, length, width, channels, state, last);
  const std::int64_t rows = std::int64_t{batch} * length, read = last ? batch : rows;
  const std::int64_t selected = p.rank + 2 * state;
  const std::int64_t chunks = (length + recall::scan_chunk - 1) / recall::scan_chunk;
  if (normal) p.norm = norm(make, width);
  p.x = make(rows * width), p.out = make(read * width);
  recall_mamba_forward(&p, threads);
  p.before = make(rows * channels), p.z = make(read * channels), p.u = make(rows * channels);
  p.selection = make(rows * selected), p.states = make(batch * chunks * state * channels);
  recall_mamba_forward(&p, threads);
  p.grad_out = make(read * width), p.grad_x = make(rows * width);
  p.gradients = make(p.portions * p.numbers);
  recall_mamba_backward(&p, threads);
  return finite(p.out, read * width) && finite(p.grad_x, rows * width) && finite(p.gradients, p.numbers);
}

recall::SelfAttention attention_weights(Buffers& make, int batch, int length, int queries, int width,
                                        int heads, bool rotary) {
  recall::SelfAttention p{};
  p.batch = batch, p.length = length, p.queries = queries, p.width = width, p.heads = heads;
  p.portions = 2, p.numbers = 4 * width * width + 2 * width;
  p.in_proj = make(3 * width * width), p.out_proj = make(width * width);
  p.cosines = rotary ? make(length * (width / heads / 2)) : nullptr;
  p.sines = rotary ? make(length * (width / heads / 2)) : nullptr;
  return p;
}

bool self_attention(int batch, int length, int queries, int width, int heads, bool rotary, int threads) {
  Buffers make;
  recall::SelfAttention p = attention_weights(make, batch, length, queries, width, heads, rotary);
  if (rotary) p.norm = norm(make, width);
  const std::int64_t rows = std::int64_t{batch} * length, asking = std::int64_t{batch} * queries;
  p.x = make(rows * width), p.out = make(asking * width);
  recall_self_attention_forward(&p, threads);
  p.q = make(asking * width), p.mixed = make(asking * width), p.kv = make(rows * 2 * width);
  p.softmax = make(std::int64_t{batch} * heads * 2 * queries);
  recall_self_attention_forward(&p, threads);
  p.grad_out = make(asking * width), p.grad_x = make(rows * width);
  p.gradients = make(p.portions * p.numbers);
  recall_self_attention_backward(&p, threads);
  return finite(p.out, asking * width) && finite(p.grad_x, rows * width) && finite(p.gradients, p.numbers);
}

// Mamba, then attention, or the other way round.
bool stack(int batch, int length, int width, int vocabulary, bool positions, bool attention_last, int threads) {
  Buffers make;
  recall::Mamba mamba = mamba_weights(make, batch, length, width, 2 * width, 16, !attention_last);
  recall::SelfAttention attention =
      attention_weights(make, batch, length, attention_last ? 1 : length, width, width % 4 ? 1 : 2, width % 4 == 0);
  mamba.norm = norm(make, width), attention.norm = norm(make, width);
  recall::Layer layers[2] = {{&mamba, nullptr}, {nullptr, &attention}};
  if (!attention_last) std::swap(layers[0], layers[1]);
  std::vector<std::int64_t> tokens(batch * length), answers(batch);
  for (auto* numbers : {&tokens, &answers})
    for (auto& number : *numbers) number = random_bits() % vocabulary;
  recall::Stack p{};
  p.batch = batch, p.length = length, p.width = width, p.vocabulary = vocabulary, p.depth = 2;
  p.tokens = tokens.data(), p.answers = answers.data(), p.layers = layers;
  const std::int64_t reach = positions ? length + 1 : 0;
  p.looked_up = !positions && vocabulary % 2;
  p.embedding = make(vocabulary * width), p.positions = positions ? make(reach * width) : nullptr;
  p.norm = norm(make, width), p.lm_head = make(vocabulary * width);
  p.logits = make(batch * vocabulary), p.losses = make(batch);
  if (recall_stack_logits(&p, threads) != 0) return false;
  p.portions = 2;
  p.numbers = mamba.numbers + attention.numbers + (2 + vocabulary + reach) * width;
  p.gradients = make(p.portions * p.numbers);
  const recall::Place places[2] = {{make(p.numbers - width), width, p.numbers / width - 1}, {nullptr, width, 1}};
  p.places = places, p.weights = p.numbers % width == 0 ? 2 : 0;
  if (recall_stack_gradients(&p, threads) != 0) return false;
  tokens.back() = vocabulary;
  const bool refused = recall_stack_logits(&p, threads) == 1 && recall_stack_gradients(&p, threads) == 1;
  return refused && finite(p.logits, batch * vocabulary) && finite(p.gradients, p.numbers);
}

int run_all() {
  int calls = 0, wrong = 0;
  const auto check = [&](bool right) { ++calls, wrong += !right; };
  for (int threads : {1, 3})
    for (int length : {1, 2, 7, 8, 9, 17, 33})
      for (int channels : {1, 4, 5, 8, 16, 17, 33}) {
        for (int state : {1, 3, 8, 16, 17})
          for (bool gated : {false, true})
            for (bool last : {false, true}) check(scan(3, length, channels, state, gated, last, threads));
        for (bool last : {false, true})
          for (int state : {3, 16})
            for (bool normal : {false, true})
              check(mamba(3, length, 5, channels, state, last, normal, threads));
        for (int vocabulary : {2, 3, 16, 41})
          for (bool positions : {false, true})
            for (bool attention_last : {false, true})
              check(stack(3, length, channels, vocabulary, positions, attention_last, threads));
        for (int window : {1, 3, 4, 16}) check(conv(3, length, channels, window, threads));
        for (int queries : {1, (length + 1) / 2, length})
          for (int heads : {1, 2}) {
            check(attention(2, heads, length, queries, channels, false, threads));
            check(attention(2, heads, length, queries, 2 * channels, true, threads));
            check(self_attention(3, length, queries, 2 * heads * channels, heads, heads == 2, threads));
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
