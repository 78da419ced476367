// A whole model on a few sequences at a time: from tokens to logits, and from the loss back to every
// weight's gradient, so that of a batch nothing leaves the cache but its share of the gradients.
//
//   x      = embedding[token] (+ positions)
//   x      = x + mixer(norm(x))             layer after layer, of the last one the last position alone
//   logits = lm_head norm(x)                loss = mean over sequences of -log softmax(logits)[answer]
//
//   dlogits  = (softmax(logits) - onehot(answer)) / batch
//   dlm_head = dlogits^T norm(x)            dnorm(x) = dlogits lm_head
//
// Without positions the first layer sees no more different rows than there are tokens (`lookup.hpp`).

#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "attention_mixer.hpp"
#include "mamba_mixer.hpp"

namespace recall::RECALL_ISA {

// One layer on a part's sequences, whose rows lie where the stack has put them.
class LayerKernel {
 public:
  // The rows of a part's sequences, and those of the gradients there; x also where it is looked up.
  struct Ends {
    const float* x;
    float* out;
    const float* grad_out;
    float* grad_x;
  };

  LayerKernel(const Layer& of, std::int64_t sequences, Tokens tokens, Ends ends, bool trained,
              Memory& memory, Memory& passing) {
    if (of.mamba) {
      mamba_ = *of.mamba;
      tie(mamba_, sequences, tokens, ends);
      if (trained)
        mamba_.states = memory.take(sequences * scan_chunks(mamba_.length) * mamba_.state * mamba_.channels);
      mamba = std::make_unique<MambaKernel>(mamba_, memory, passing);
    } else {
      attention_ = *of.attention;
      tie(attention_, sequences, tokens, ends);
      attention = std::make_unique<SelfAttentionKernel>(attention_, memory, passing);
    }
  }

  std::int64_t numbers() const { return mamba ? mamba_.numbers : attention_.numbers; }

  void turn_projections() const { mamba ? mamba->turn_projections() : attention->turn_projections(); }

  void forward(std::int64_t sequences, const std::int64_t* rows) {
    (mamba ? mamba_.tokens : attention_.tokens).rows = rows;
    mamba ? mamba->forward(mamba->part(0, sequences)) : attention->forward({0, sequences});
  }

  void backward(std::int64_t sequences, float* share) {
    mamba ? mamba->backward(mamba->part(0, sequences), {mamba_, share})
          : attention->backward({0, sequences}, share);
  }

  void finish(float* share) const { mamba ? mamba->finish({mamba_, share}) : attention->finish(share); }

 private:
  template <class Mixer>
  static void tie(Mixer& mixer, std::int64_t sequences, Tokens tokens, Ends ends) {
    mixer.batch = sequences, mixer.tokens = tokens;
    mixer.x = ends.x, mixer.out = ends.out, mixer.grad_out = ends.grad_out, mixer.grad_x = ends.grad_x;
  }

  Mamba mamba_{};
  SelfAttention attention_{};
  std::unique_ptr<MambaKernel> mamba;  // one of the two
  std::unique_ptr<SelfAttentionKernel> attention;
};

class StackKernel {
 public:
  const std::int64_t most;  // sequences at once

  // What lasts from the forward pass to the backward pass lies in `memory`; `passing` serves one layer
  // after another.
  StackKernel(const Stack& of, Memory& memory, Memory& passing)
      : most(at_once(of.length, of.width, of.batch)), p(of), norm(p.norm, p.width, most, memory) {
    const std::int64_t rows = most * p.length, ends = most * p.width;
    into_logits = memory.take(p.width * p.vocabulary);
    dlogits = memory.take(most * p.vocabulary);
    embedded = memory.take(p.looked_up ? 0 : rows * p.width);
    last = memory.take(ends), dlast = memory.take(ends);
    for (float*& part : dx) part = memory.take(rows * p.width);
    const float* x = p.looked_up ? p.embedding : embedded;
    const Memory before = passing;
    for (std::int64_t i = 0; i < p.depth; ++i) {
      const bool final = i + 1 == p.depth;
      float* out = final ? last : memory.take(rows * p.width);
      const LayerKernel::Ends at{x, out, final ? dlast : dx[(i + 1) % 2], dx[i % 2]};
      Memory own = before;
      layers.push_back(std::make_unique<LayerKernel>(
          p.layers[i], most, Tokens{nullptr, i == 0 && p.looked_up ? p.vocabulary : 0}, at, p.gradients, memory, own));
      if (own.used() > passing.used()) passing = own;
      x = out;
    }
    if (!memory) return;
    turn_over(p.lm_head, p.vocabulary, p.width, into_logits);
    for (const auto& layer : layers) layer->turn_projections();
  }

  void forward(std::int64_t first, std::int64_t sequences) const {
    const std::int64_t* tokens = p.tokens + first * p.length;
    if (!p.looked_up) embed(tokens, sequences);
    for (const auto& layer : layers) layer->forward(sequences, tokens);
    product(sequences, p.vocabulary, p.width, as_it_is(norm.forward(sequences, {last, p.width})),
            {into_logits, p.vocabulary}, {p.logits + first * p.vocabulary, p.vocabulary});
  }

  void backward(std::int64_t first, std::int64_t sequences, float* share) const {
    for (std::int64_t i = 0; i < sequences; ++i) cross_entropy(first + i, dlogits + i * p.vocabulary);
    float* to = share;
    for (const auto& layer : layers) to += layer->numbers();
    const Given slopes{dlogits, p.vocabulary};
    product(sequences, p.width, p.vocabulary, as_it_is(slopes), {p.lm_head, p.width}, {norm.dy, p.width});
    add_product(p.vocabulary, p.width, sequences, turned(slopes), {norm.y, p.width},
                {to + 2 * p.width, p.width});
    norm.backward(sequences, {last, p.width}, {dlast, p.width}, to);
    float* const for_positions = to + 2 * p.width + p.vocabulary * p.width;
    for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
      to -= (*layer)->numbers();
      (*layer)->backward(sequences, to);
    }
    for (std::int64_t i = 0; p.positions && i < sequences; ++i)
      add_rows(p.length, p.width, {dx[0] + i * p.length * p.width, p.width}, {for_positions, p.width});
  }

  // At the end of a portion.
  void finish(float* share) const { layers.front()->finish(share); }

 private:
  void embed(const std::int64_t* tokens, std::int64_t sequences) const {
    for (std::int64_t i = 0; i < sequences * p.length; ++i)
      std::memcpy(embedded + i * p.width, p.embedding + tokens[i] * p.width, sizeof(float) * p.width);
    for (std::int64_t i = 0; p.positions && i < sequences; ++i)
      add_rows(p.length, p.width, {p.positions, p.width}, {embedded + i * p.length * p.width, p.width});
  }

  void cross_entropy(std::int64_t sequence, float* slopes) const {
    const float* logits = p.logits + sequence * p.vocabulary;
    const std::int64_t answer = p.answers[sequence];
    float most_likely = logits[0], total = 0.0f;
    for (std::int64_t i = 1; i < p.vocabulary; ++i)
      if (logits[i] > most_likely) most_likely = logits[i];
    for (std::int64_t i = 0; i < p.vocabulary; i += lanes) {
      const int count = filled(p.vocabulary - i);
      const Lanes e = exponential(load(logits + i, count) - most_likely);
      total += sum(first_of(e, count));
      store(slopes + i, e, count);
    }
    p.losses[sequence] = std::log(total) - (logits[answer] - most_likely);
    const float each = 1.0f / static_cast<float>(p.batch);
    for (std::int64_t i = 0; i < p.vocabulary; ++i) slopes[i] *= each / total;
    slopes[answer] -= each;
  }

  const Stack& p;
  NormKernel norm;
  float *into_logits, *dlogits;  // lm_head turned over; (most, vocabulary)
  float *embedded, *dx[2];       // (rows, width): the first layer's input; gradients, by turns
  float *last, *dlast;           // (most, width): the last layer's output, and its gradient
  std::vector<std::unique_ptr<LayerKernel>> layers;
};

inline std::int64_t stack_scratch(const Stack& p) {
  Memory memory(nullptr), passing(nullptr);
  const StackKernel kernel(p, memory, passing);
  return memory.used() + passing.used();
}

// work(kernel) with a kernel in `scratch`.
template <class Work>
inline void with_stack(const Stack& p, float* scratch, const Work& work) {
  Memory counted(nullptr), counted_too(nullptr);
  { const StackKernel kernel(p, counted, counted_too); }
  Memory memory(scratch), passing(scratch + counted.used());
  work(StackKernel(p, memory, passing));
}

inline void stack_logits(const Stack& p, std::int64_t begin, std::int64_t end, float* scratch) {
  with_stack(p, scratch, [&](const StackKernel& kernel) {
    each_part(begin, end, kernel.most, [&](std::int64_t first, std::int64_t count) { kernel.forward(first, count); });
  });
}

inline void stack_gradients(const Stack& p, std::int64_t begin, std::int64_t end, float* scratch) {
  with_stack(p, scratch, [&](const StackKernel& kernel) {
    each_portion(
        p, begin, end, kernel.most,
        [&](std::int64_t first, std::int64_t count, float* share) {
          kernel.forward(first, count);
          kernel.backward(first, count, share);
        },
        [&](float* share) { kernel.finish(share); });
  });
}

}  // namespace recall::RECALL_ISA
