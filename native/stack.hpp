// A whole model on one batch tile at a time: from token ids to logits, and from the loss back to every
// weight's gradient, so that of a batch nothing leaves the cache but partial gradients.
//
//   x      = embedding[token] (+ positions)
//   x      = x + mixer(norm(x))             layer after layer
//   logits = lm_head norm(x)                where it is asked; of -log softmax(logits)[answer] the loss is the mean
//
//   dlogits  = (softmax(logits) - onehot(answer)) / answers
//   dlm_head = dlogits^T norm(x)            dnorm(x) = dlogits lm_head
//
// Where only the last position is asked, the last layer computes no other.  Elsewhere the rows that are
// asked are gathered behind it, and their gradients scattered.
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
      : most(tile_sequences(of.length, of.width, of.batch)), p(of), norm(p.norm, p.width, most * p.asked, saved) {
    const std::int64_t rows = most * p.length, read = most * p.asked;
    lm_head = saved.take(p.width * p.vocabulary);
    dlogits = saved.take(read * p.vocabulary);
    embedded = saved.take(p.gathered ? 0 : rows * p.width);
    last = saved.take(read * p.width), dlast = saved.take(read * p.width);
    top = p.where ? saved.take(rows * p.width) : last;
    for (float*& gradient : dx) gradient = saved.take(rows * p.width);
    const float* x = p.gathered ? p.embedding : embedded;
    const Arena start = scratch;
    for (std::int64_t i = 0; i < p.depth; ++i) {
      float* out = i + 1 == p.depth ? top : saved.take(rows * p.width);
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
    const std::int64_t read = sequences * p.asked;
    for (std::int64_t i = 0; p.where && i < read; ++i)
      std::memcpy(last + i * p.width, top + row(first, i) * p.width, sizeof(float) * p.width);
    product(read, p.vocabulary, p.width, scalars(norm.forward(read, {last, p.width})), {lm_head, p.vocabulary},
            {logits(first), p.vocabulary});
  }

  void backward(std::int64_t first, std::int64_t sequences, float* shard) const {
    const std::int64_t read = sequences * p.asked;
    for (std::int64_t i = 0; i < read; ++i)
      cross_entropy(first * p.asked + i, logits(first) + i * p.vocabulary, dlogits + i * p.vocabulary);
    float* to = shard;
    for (const auto& layer : layers) to += layer->head().numbers;
    float* const of_lm_head = to + norm.numbers();
    const ConstRows gradient{dlogits, p.vocabulary};
    product(read, p.width, p.vocabulary, scalars(gradient), {p.lm_head, p.width}, {norm.dy, p.width});
    add_product(p.vocabulary, p.width, read, transposed(gradient), {norm.y, p.width},
                {of_lm_head, p.width});
    norm.backward(read, {last, p.width}, {dlast, p.width}, to);
    if (p.where) scatter(first, sequences);
    float* const of_embedding = of_lm_head + p.vocabulary * p.width;
    float* const of_positions = of_embedding + (p.embeds ? p.vocabulary * p.width : 0);
    for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
      to -= (*layer)->head().numbers;
      (*layer)->backward(0, sequences, to);
    }
    for (std::int64_t i = 0; p.positions && i < sequences; ++i)
      add_rows(p.length, p.width, {dx[0] + i * p.length * p.width, p.width}, {of_positions, p.width});
    const std::int64_t* tokens = p.tokens + first * p.length;
    for (std::int64_t i = 0; p.embeds && i < sequences * p.length; ++i)
      add_rows(1, p.width, {dx[0] + i * p.width, p.width}, {of_embedding + tokens[i] * p.width, p.width});
  }

  // After a shard's last tile.
  void finish(float* shard) const { layers.front()->finish(shard); }

 private:
  // That of layer i on one tile, whose rows lie in this kernel's arena.
  Block head(std::int64_t i, const float* x, float* out) const {
    Block own = *p.layers[i];
    own.batch = most, own.x = x, own.out = out;
    own.tokens = {nullptr, i == 0 && p.gathered ? p.vocabulary : 0};
    own.grad_x = dx[i % 2], own.grad_out = i + 1 == p.depth && !p.where ? dlast : dx[(i + 1) % 2];
    return own;
  }

  void embed(const std::int64_t* tokens, std::int64_t sequences) const {
    for (std::int64_t i = 0; i < sequences * p.length; ++i)
      std::memcpy(embedded + i * p.width, p.embedding + tokens[i] * p.width, sizeof(float) * p.width);
    for (std::int64_t i = 0; p.positions && i < sequences; ++i)
      add_rows(p.length, p.width, {p.positions, p.width}, {embedded + i * p.length * p.width, p.width});
  }

  // Of a tile; where the caller wants none, their gradients take their place.
  float* logits(std::int64_t first) const {
    return p.logits ? p.logits + first * p.asked * p.vocabulary : dlogits;
  }

  // Which of a tile's positions the i-th is that is asked.
  std::int64_t row(std::int64_t first, std::int64_t i) const {
    return i / p.asked * p.length + p.where[first * p.asked + i];
  }

  void scatter(std::int64_t first, std::int64_t sequences) const {
    float* const to = dx[p.depth % 2];
    std::memset(to, 0, sizeof(float) * sequences * p.length * p.width);
    for (std::int64_t i = 0; i < sequences * p.asked; ++i)
      add_rows(1, p.width, {dlast + i * p.width, p.width}, {to + row(first, i) * p.width, p.width});
  }

  // `gradient` may be `logits`.
  void cross_entropy(std::int64_t asked, const float* logits, float* gradient) const {
    const std::int64_t answer = p.answers[asked];
    const float of_answer = logits[answer];
    float most_likely = logits[0], total = 0.0f;
    for (std::int64_t i = 1; i < p.vocabulary; ++i)
      if (logits[i] > most_likely) most_likely = logits[i];
    for (std::int64_t i = 0; i < p.vocabulary; i += lanes) {
      const int count = filled(p.vocabulary - i);
      const Lanes e = exp(load(logits + i, count) - most_likely);
      total += sum(first_of(e, count));
      store(gradient + i, e, count);
    }
    p.losses[asked] = std::log(total) - (of_answer - most_likely);
    const float each = 1.0f / static_cast<float>(p.batch * p.asked);
    for (std::int64_t i = 0; i < p.vocabulary; ++i) gradient[i] *= each / total;
    gradient[answer] -= each;
  }

  const Stack& p;
  NormKernel norm;
  float *lm_head, *dlogits;  // transposed; (most, asked, vocabulary)
  float *embedded, *dx[2];   // (rows, width): the first layer's input; gradients, layers alternate between them
  float *last, *dlast;       // (most, asked, width): the last layer's output where it is read, and its gradient
  float* top;                // (rows, width): all of that output; `last` itself where that is all
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
