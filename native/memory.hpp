// What a kernel works in: room handed out piece by piece from one block.

#pragma once

#include "lanes.hpp"

namespace recall::RECALL_ISA {

// Without a block it only counts.  Every piece begins at a whole vector.
class Memory {
 public:
  explicit Memory(float* block) : block_(block) {}

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

// Where the tensors of an operation are.  Those that are not in the cache are asked for a while before they
// are needed, column by column as they are read, which no processor foresees.
enum class Tensors { in_cache, elsewhere };

// Rows (height, width) turned into (width, height).
inline void turn_over(const float* from, std::int64_t height, std::int64_t width, float* to) {
  for (std::int64_t i = 0; i < height; ++i)
    for (std::int64_t j = 0; j < width; ++j) to[j * height + i] = from[i * width + j];
}

// Asks for numbers that are about to be read in another order than that in which they lie: so they
// come from memory one after another.
RECALL_INLINE inline void fetch(const float* from, std::int64_t floats) {
  constexpr std::int64_t line = 16;  // floats
  for (std::int64_t i = 0; i < floats; i += line) __builtin_prefetch(from + i, 0, 2);
}

inline std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

// How many sequences are worked on at once: few tokens make poor products, many leave the cache.
inline std::int64_t at_once(std::int64_t length, std::int64_t width, std::int64_t most) {
  constexpr std::int64_t floats = 1 << 12;
  const std::int64_t fit = floats / (length * width);
  return fit < 1 ? 1 : fit < most ? fit : most;
}

// body(first, count) for the sequences [begin, end), at most `most` at a time.
template <class Body>
inline void each_part(std::int64_t begin, std::int64_t end, std::int64_t most, const Body& body) {
  for (std::int64_t first = begin; first < end; first += most)
    body(first, end - first < most ? end - first : most);
}

// The same for portions of an operation's batch, each with its share of the gradients, first zero, and
// finish(share) at its end.
template <class Operation, class Body, class Finish>
inline void each_portion(const Operation& p, std::int64_t begin, std::int64_t end, std::int64_t most,
                         const Body& body, const Finish& finish) {
  for (std::int64_t portion = begin; portion < end; ++portion) {
    float* share = p.gradients + portion * p.numbers;
    std::memset(share, 0, sizeof(float) * p.numbers);
    each_part(p.batch * portion / p.portions, p.batch * (portion + 1) / p.portions, most,
              [&](std::int64_t first, std::int64_t count) { body(first, count, share); });
    finish(share);
  }
}

}  // namespace recall::RECALL_ISA
