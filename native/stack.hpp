// A whole model on one batch tile at a time: from token ids to logits, and from the loss back to every
// weight's gradient, so that of a batch nothing leaves the cache but partial gradients.
//
//   x      = embedding[token] (+ positions)
//   x      = x + mixer(norm(x))             layer after layer, of the last one the last position alone
//   logits = lm_head norm(x)                loss = mean over sequences of -log softmax(logits)[answer]
//
//   dlogits  = (softmax(logits) - onehot(answer)) / batch
//   dlm_head = dlogits^T norm(x)            dnorm(x) = dlogits lm_head
//
// Without positions the first layer's input has no more distinct rows than there are tokens (`gather.hpp`).

#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "cores.hpp"

namespace recall::RECALL_ISA {

class StackKernel {
 public:
  const std::int64_t most;  // sequences of a tile

  // What lasts from the forward pass to the backward pass lies in `saved`; each layer has all of `scratch`
  // to itself while it works.
  StackKernel(const Stack& of, Arena& saved, Arena& scratch)
      : most(tile_sequences(of.length, of.width, of.batch)), p(of), norm(p.norm, p.width, most, saved) {
    const std::int64_t rows = most * p.length;
    lm_head = saved.take(p.width * p.vocabulary);
    dlogits = saved.take(most * p.vocabulary);
    embedded = saved.take(p.gathered ? 0 : rows * p.width);
    last = saved.take(most * p.width), dlast = saved.take(most * p.width);
    for (float*& gradient : dx) gradient = saved.take(rows * p.width);
    const float* x = p.gathered ? p.embedding : embedded;
    const Arena start = scratch;
    for (std::int64_t i = 0; i < p.depth; ++i) {
      float* out = i + 1 == p.depth ? last : saved.take(rows * p.width);
      Arena own = start;
      layers.push_back(Kinds::make(*p.layers[i], head(i, x, out), p.gradients, saved, own));
      if (own.used() > scratch.used()) scratch = own;
      x = out;
    }
    if (!saved) return;
    transpose(p.lm_head, p.vocabulary, p.width, lm_head);
    for (const auto& layer : layers) layer->prepare_forward();
  }

  void forward(std::int64_t first, std::int64_t sequences) const {
    const std::int64_t* tokens = p.tokens + first * p.length;
    if (!p.gathered) embed(tokens, sequences);
    for (const auto& layer : layers) {
      layer->head().tokens.rows = tokens;
      layer->forward(0, sequences);
    }
    product(sequences, p.vocabulary, p.width, scalars(norm.forward(sequences, {last, p.width})),
            {lm_head, p.vocabulary}, {p.logits + first * p.vocabulary, p.vocabulary});
  }

  void backward(std::int64_t first, std::int64_t sequences, float* shard) const {
    for (std::int64_t i = 0; i < sequences; ++i) cross_entropy(first + i, dlogits + i * p.vocabulary);
    float* to = shard;
    for (const auto& layer : layers) to += layer->head().numbers;
    const ConstRows gradient{dlogits, p.vocabulary};
    product(sequences, p.width, p.vocabulary, scalars(gradient), {p.lm_head, p.width}, {norm.dy, p.width});
    add_product(p.vocabulary, p.width, sequences, transposed(gradient), {norm.y, p.width},
                {to + 2 * p.width, p.width});
    norm.backward(sequences, {last, p.width}, {dlast, p.width}, to);
    float* const of_positions = to + 2 * p.width + p.vocabulary * p.width;
    for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
      to -= (*layer)->head().numbers;
      (*layer)->backward(0, sequences, to);
    }
    for (std::int64_t i = 0; p.positions && i < sequences; ++i)
      add_rows(p.length, p.width, {dx[0] + i * p.length * p.width, p.width}, {of_positions, p.width});
  }

  // After a shard's last tile.
  void finish(float* shard) const { layers.front()->finish(shard); }

 private:
  // That of layer i on one tile, whose rows lie in this kernel's arena.
  Block head(std::int64_t i, const float* x, float* out) const {
    Block own = *p.layers[i];
    own.batch = most, own.x = x, own.out = out;
    own.tokens = {nullptr, i == 0 && p.gathered ? p.vocabulary : 0};
    own.grad_x = dx[i % 2], own.grad_out = i + 1 == p.depth ? dlast : dx[(i + 1) % 2];
    return own;
  }

  void embed(const std::int64_t* tokens, std::int64_t sequences) const {
    for (std::int64_t i = 0; i < sequences * p.length; ++i)
      std::memcpy(embedded + i * p.width, p.embedding + tokens[i] * p.width, sizeof(float) * p.width);
    for (std::int64_t i = 0; p.positions && i < sequences; ++i)
      add_rows(p.length, p.width, {p.positions, p.width}, {embedded + i * p.length * p.width, p.width});
  }

  void cross_entropy(std::int64_t sequence, float* gradient) const {
    const float* logits = p.logits + sequence * p.vocabulary;
    const std::int64_t answer = p.answers[sequence];
    float most_likely = logits[0], total = 0.0f;
    for (std::int64_t i = 1; i < p.vocabulary; ++i)
      if (logits[i] > most_likely) most_likely = logits[i];
    for (std::int64_t i = 0; i < p.vocabulary; i += lanes) {
      const int count = filled(p.vocabulary - i);
      const Lanes e = exp(load(logits + i, count) - most_likely);
      total += sum(first_of(e, count));
      store(gradient + i, e, count);
    }
    p.losses[sequence] = std::log(total) - (logits[answer] - most_likely);
    const float each = 1.0f / static_cast<float>(p.batch);
    for (std::int64_t i = 0; i < p.vocabulary; ++i) gradient[i] *= each / total;
    gradient[answer] -= each;
  }

  const Stack& p;
  NormKernel norm;
  float *lm_head, *dlogits;  // transposed; (most, vocabulary)
  float *embedded, *dx[2];   // (rows, width): the first layer's input; gradients, layers alternate between them
  float *last, *dlast;       // (most, width): the last layer's output, and its gradient
  std::vector<std::unique_ptr<AnyBlock>> layers;
};

inline std::int64_t stack_scratch(const Stack& p) {
  Arena saved(nullptr), scratch(nullptr);
  const StackKernel kernel(p, saved, scratch);
  return saved.used() + scratch.used();
}

// work(kernel) with a kernel in `block`.
template <class Work>
inline void with_stack(const Stack& p, float* block, const Work& work) {
  Arena counted(nullptr), scratch_counted(nullptr);
  { const StackKernel kernel(p, counted, scratch_counted); }
  Arena saved(block), scratch(block + counted.used());
  work(StackKernel(p, saved, scratch));
}

inline void stack_logits(const Stack& p, std::int64_t begin, std::int64_t end, float* scratch) {
  with_stack(p, scratch, [&](const StackKernel& kernel) {
    each_tile(begin, end, kernel.most, [&](std::int64_t first, std::int64_t count) { kernel.forward(first, count); });
  });
}

inline void stack_gradients(const Stack& p, std::int64_t begin, std::int64_t end, float* scratch) {
  with_stack(p, scratch, [&](const StackKernel& kernel) {
    each_shard(
        p, begin, end, kernel.most,
        [&](std::int64_t first, std::int64_t count, float* shard) {
          kernel.forward(first, count);
          kernel.backward(first, count, shard);
        },
        [&](float* shard) { kernel.finish(shard); });
  });
}

}  // namespace recall::RECALL_ISA
