// Random buffers of exactly the size that a kernel may touch.

#pragma once

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "../interface.hpp"

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

inline int64_t chunks(int64_t length, int64_t most = recall::scan_chunk) { return (length + most - 1) / most; }

inline int64_t delta_chunks(int64_t length, int64_t keys, bool by_channel) {
  return chunks(length, keys < recall::delta_by_products || by_channel ? recall::scan_chunk : recall::delta_chunk);
}

}  // namespace
