// The core of an MLP, each position by itself.
//
//   rows = gelu(before) = before Phi(before)                           streams: before
//   rows = y silu(gate), before = (y, gate)                            SwiGLU, arXiv:2002.05202
//
// It has no weights of its own.

#pragma once

#include "arena.hpp"
#include "block.hpp"
#include "math.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

class MLPCore {
 public:
  using Operation = MLP;
  static constexpr Kind kind = Kind::mlp;
  static constexpr int streams = 1;
  static constexpr bool adds_by_sequence = false;

  MLPCore(const MLP& of, std::int64_t most, bool, Arena& saved, Arena&) : p(of) {
    active_ = saved.take(most * (p.block.last ? 1 : p.block.length) * p.hidden);
  }

  Stream stream(int) const { return {p.gated ? 2 * p.hidden : p.hidden, false, p.before}; }
  std::int64_t width() const { return p.hidden; }
  std::int64_t numbers() const { return 0; }
  Rows rows(const Tile&) const { return {active_, p.hidden}; }
  void prepare_forward() const {}
  void prefetch(const Tile&, const Rows*) const {}

  void forward(const Tile& t, const Rows* streams) const {
    each(t, [&](std::int64_t row, std::int64_t i, int count) RECALL_INLINE {
      const float* x = streams[0][row] + i;
      const Lanes y = load(x, count);
      store(active_ + row * p.hidden + i, p.gated ? y * silu(load(x + p.hidden, count)).value : gelu(y).value, count);
    });
  }

  void backward(const Tile& t, const Rows* streams, Rows drows, const Rows* dstreams, float*) const {
    each(t, [&](std::int64_t row, std::int64_t i, int count) RECALL_INLINE {
      const float* x = streams[0][row] + i;
      float* const dx = dstreams[0][row] + i;
      const Lanes y = load(x, count), arriving = load(drows[row] + i, count);
      const Activation f = p.gated ? silu(load(x + p.hidden, count)) : gelu(y);
      store(active_ + row * p.hidden + i, p.gated ? y * f.value : f.value, count);
      store(dx, arriving * (p.gated ? f.value : f.slope), count);
      if (p.gated) store(dx + p.hidden, arriving * y * f.slope, count);
    });
  }

 private:
  // body(row, i, count) for all vectors of a tile's hidden numbers.
  template <class Body>
  void each(const Tile& t, const Body& body) const {
    for (std::int64_t row = 0; row < t.read; ++row)
      for (std::int64_t i = 0; i < p.hidden; i += lanes) body(row, i, filled(p.hidden - i));
  }

  const MLP& p;
  float* active_;  // (read rows, hidden), of one tile
};

}  // namespace recall::RECALL_ISA
