// Every kernel on buffers of exactly the size that it may touch, for the address and undefined-behaviour
// sanitizers, which stop at the first read or write beyond one; the leak sanitizer speaks at the end of
// thousands of calls.  `make sanitize` builds and runs it.

#include <cstdio>
#include <utility>

#include "mixers.hpp"
#include "operations.hpp"

namespace {

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
  constexpr int64_t vocabularies[] = {2, 3, 16, 41};
  int calls = 0, wrong = 0;
  int64_t cell = 0;
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
        int64_t option = cell++;  // so every pair of mixers meets every option at some length and width
        for (Mixer mixer : mixers) {
          for (bool last : {false, true})
            for (bool normal : {false, true}) check(block(mixer, {3, length, width, state, last, false}, normal, threads));
          for (Mixer other : mixers) {
            const int64_t vocabulary = vocabularies[option % 4];
            check(stack(mixer, other, {3, length, width, state, false, false}, vocabulary, option / 4 % 2, option / 8 % 2,
                        threads));
            ++option;
          }
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
