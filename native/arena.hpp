// Scratch arenas, prefetching, and the loops over batch tiles and shards of gradients.

#pragma once

#include "lanes.hpp"

namespace recall::RECALL_ISA {

// Hands out pieces of one block of memory, each aligned to a whole vector.  Without a block it only
// counts what it would hand out, so that one constructor both sizes and lays out an arena.
class Arena {
 public:
  explicit Arena(float* block) : block_(block) {}

  float* take(std::int64_t floats) {
    float* piece = block_ ? block_ + used_ : nullptr;
    used_ += round_up(floats, lanes);
    return piece;
  }
  explicit operator bool() const { return block_; }
  std::int64_t used() const { return used_; }

 private:
  float* block_;
  std::int64_t used_ = 0;
};

// Whether an operation's tensors are in the cache already.  Cold ones are prefetched: they are read
// column by column, a pattern that hardware prefetchers do not recognise.
enum class Data { hot, cold };

// (height, width) to (width, height).
inline void transpose(const float* from, std::int64_t height, std::int64_t width, float* to) {
  for (std::int64_t i = 0; i < height; ++i)
    for (std::int64_t j = 0; j < width; ++j) to[j * height + i] = from[i * width + j];
}

// Prefetches contiguous numbers that are about to be read in another order.
RECALL_INLINE inline void prefetch(const float* from, std::int64_t floats) {
  constexpr std::int64_t line = 16;  // floats
  for (std::int64_t i = 0; i < floats; i += line) __builtin_prefetch(from + i, 0, 2);
}

inline std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

// How many sequences a batch tile has: few rows make slow products, many leave the cache.
inline std::int64_t tile_sequences(std::int64_t length, std::int64_t width, std::int64_t batch) {
  constexpr std::int64_t floats = 1 << 12;
  const std::int64_t fit = floats / (length * width);
  return fit < 1 ? 1 : fit < batch ? fit : batch;
}

// body(first, count) for each tile of the sequences [begin, end).
template <class Body>
inline void each_tile(std::int64_t begin, std::int64_t end, std::int64_t most, const Body& body) {
  for (std::int64_t first = begin; first < end; first += most)
    body(first, end - first < most ? end - first : most);
}

// body(first, count, gradients) for each tile of the shards [begin, end) of the batch.  A shard has
// partial gradients of its own, zero at first; finish(gradients) ends it.
template <class Operation, class Body, class Finish>
inline void each_shard(const Operation& p, std::int64_t begin, std::int64_t end, std::int64_t most,
                       const Body& body, const Finish& finish) {
  for (std::int64_t shard = begin; shard < end; ++shard) {
    float* gradients = p.gradients + shard * p.numbers;
    std::memset(gradients, 0, sizeof(float) * p.numbers);
    each_tile(p.batch * shard / p.shards, p.batch * (shard + 1) / p.shards, most,
              [&](std::int64_t first, std::int64_t count) { body(first, count, gradients); });
    finish(gradients);
  }
}

}  // namespace recall::RECALL_ISA
