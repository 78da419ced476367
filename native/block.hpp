// The residual block around every mixer, forward and backward, a batch tile at a time.
//
//   streams  = in_proj norm(x) (+ in_bias)          out = x + out_proj core(streams) (+ out_bias)
//
//   dcore    = out_proj^T dout            dout_proj = dout^T core(streams)
//   dnorm(x) = in_proj^T dstreams         din_proj  = dstreams^T norm(x)          dx = dout + dnorm^T dnorm(x)
//
// Without a norm, x stands for norm(x) and is not added.  Where x has few distinct rows, the input
// projection goes through `gather.hpp`.  What stands between the projections is the mixer's core:
// see `README.md` for what a core declares.

#pragma once

#include "arena.hpp"
#include "gather.hpp"
#include "layer_norm.hpp"
#include "matrix.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

// A few sequences that go through a block together, so that they stay in the cache from step to step.
struct Tile {
  std::int64_t first, sequences;  // of the batch
  std::int64_t first_row, rows;   // their positions
  std::int64_t first_read, read;  // those whose output is read: all, or each sequence's last one
};

// Some columns of in_proj, in the order in which a core lists its streams.
struct Stream {
  std::int64_t width;
  bool everywhere;  // needed at all positions, or only where the output is read
  float* saved;     // the caller's (batch, positions, width); null: none, an arena has that of one tile
};

// A buffer that the caller may keep for the whole batch, and that otherwise serves one tile after another.
inline float* saved_or(float* saved, std::int64_t floats_before, float* otherwise) {
  return saved ? saved + floats_before : otherwise;
}

// A block whatever its mixer.  `head` is that of its own copy of the struct.
class AnyBlock {
 public:
  virtual ~AnyBlock() = default;
  virtual void prepare_forward() const = 0;  // before the first forward pass
  virtual void forward(std::int64_t first, std::int64_t sequences) = 0;
  virtual void backward(std::int64_t first, std::int64_t sequences, float* shard) = 0;
  virtual void finish(float* shard) const = 0;  // after a shard's last tile
  virtual Block& head() = 0;
};

template <class Core>
class BlockKernel final : public AnyBlock {
 public:
  // What lasts from the forward pass to the backward pass lies in `saved`, the rest in `scratch`.
  // `trained`: both passes follow one another, and the caller keeps nothing between them.
  BlockKernel(const typename Core::Operation& of, bool trained, Arena& saved, Arena& scratch)
      : operation_(of),
        most_(tile_sequences(p.length, p.width, p.batch)),
        core_(operation_, most_, trained, saved, scratch),
        norm_(p.norm, p.width, larger(most_ * p.length, p.tokens.distinct), scratch),
        gather_(p.tokens.distinct, columns_before(Core::streams), saved) {
    in_proj_ = saved.take(columns_before(Core::streams) * p.width);
    out_proj_ = saved.take(core_.width() * p.width);
    drows_ = scratch.take(most_ * read_positions() * core_.width());
    for (int i = 0; i < Core::streams; ++i) {
      const std::int64_t floats = most_ * positions(i) * core_.stream(i).width;
      stream_[i] = saved.take(floats), dstream_[i] = scratch.take(floats);
    }
  }

  Block& head() override { return operation_.block; }

  void prepare_forward() const override {
    const std::int64_t columns = columns_before(Core::streams);
    transpose(p.in_proj, columns, p.width, in_proj_);
    transpose(p.out_proj, p.width, core_.width(), out_proj_);
    core_.prepare_forward();
    if (gather_) gather_.project(norm_, embedding(), {in_proj_, columns}, p.in_bias);
  }

  void forward(std::int64_t first, std::int64_t sequences) override {
    const Tile t = tile(first, sequences);
    project(t);
    core_.forward(t, streams(t).rows);
    const Rows out{p.out + t.first_read * p.width, p.width};
    product(t.read, p.width, core_.width(), scalars(core_.rows(t)), {out_proj_, p.width}, out);
    if (p.out_bias) add_to_rows(t.read, p.width, p.out_bias, out);
    if (!p.norm.weight) return;
    if (gather_) return add_gathered(t.read, ids(t, false), embedding(), p.width, out);
    add_rows(t.read, p.width, read(x_of(t)), out);
  }

  void backward(std::int64_t first, std::int64_t sequences, float* shard) override {
    const Tile t = tile(first, sequences);
    const std::int64_t inner = core_.width();
    const ConstRows dout{p.grad_out + t.first_read * p.width, p.width};
    const Each<Rows> values = streams(t), gradients = gradients_of_streams();
    core_.prefetch(t, values.rows);
    product(t.read, inner, p.width, scalars(dout), {p.out_proj, inner}, {drows_, inner});
    core_.backward(t, values.rows, {drows_, inner}, gradients.rows, of_core(shard));
    add_product(p.width, inner, t.read, transposed(dout), core_.rows(t), {of_out_proj(shard), inner});
    if (p.out_bias) add_sum_of_rows(t.read, p.width, dout, of_out_bias(shard));
    gather_ ? scatter(t) : backward_projection(t, shard);
  }

  void finish(float* shard) const override {
    if (gather_) gather_.finish(norm_, embedding(), p.in_proj, shard, of_in_bias(shard), of_norm(shard));
  }

 private:
  template <class Number>
  struct Each {
    Number rows[Core::streams];
  };

  Tile tile(std::int64_t first, std::int64_t sequences) const {
    const std::int64_t read = read_positions();
    return {first, sequences, first * p.length, sequences * p.length, first * read, sequences * read};
  }

  std::int64_t read_positions() const { return p.last ? 1 : p.length; }
  std::int64_t positions(int i) const { return core_.stream(i).everywhere ? p.length : read_positions(); }

  // Of streams before the i-th.
  std::int64_t columns_before(int i) const {
    std::int64_t columns = 0;
    for (int before = 0; before < i; ++before) columns += core_.stream(before).width;
    return columns;
  }

  // The places in a shard of gradients.
  float* of_in_bias(float* shard) const { return p.in_bias ? shard + columns_before(Core::streams) * p.width : nullptr; }
  float* of_core(float* shard) const {
    return shard + columns_before(Core::streams) * (p.in_bias ? p.width + 1 : p.width);
  }
  float* of_out_proj(float* shard) const { return of_core(shard) + core_.numbers(); }
  float* of_out_bias(float* shard) const { return of_out_proj(shard) + p.width * core_.width(); }
  float* of_norm(float* shard) const { return of_out_bias(shard) + (p.out_bias ? p.width : 0); }

  Each<Rows> streams(const Tile& t) const {
    Each<Rows> each;
    for (int i = 0; i < Core::streams; ++i) {
      const Stream s = core_.stream(i);
      each.rows[i] = {saved_or(s.saved, t.first * positions(i) * s.width, stream_[i]), s.width};
    }
    return each;
  }

  Each<Rows> gradients_of_streams() const {
    Each<Rows> each;
    for (int i = 0; i < Core::streams; ++i) each.rows[i] = {dstream_[i], core_.stream(i).width};
    return each;
  }

  ConstRows embedding() const { return {p.x, p.width}; }
  ConstRows x_of(const Tile& t) const { return {p.x + t.first_row * p.width, p.width}; }

  // Of rows for all positions, those of the ones that are read.
  template <class Number>
  Matrix<Number> read(Matrix<Number> rows) const {
    return p.last ? Matrix<Number>{rows[p.length - 1], p.length * rows.stride} : rows;
  }

  TokenIds ids(const Tile& t, bool everywhere) const {
    const std::int64_t* first = p.tokens.rows + t.first_row;
    return everywhere || !p.last ? TokenIds{first, 1} : TokenIds{first + p.length - 1, p.length};
  }

  void project(const Tile& t) const {
    const Each<Rows> to = streams(t);
    const ConstRows x = gather_ ? embedding() : norm_.forward(t.rows, x_of(t));
    const std::int64_t columns = columns_before(Core::streams);
    for (int i = 0; i < Core::streams; ++i) {
      const auto [width, everywhere, saved] = core_.stream(i);
      const std::int64_t rows = everywhere ? t.rows : t.read, before = columns_before(i);
      if (gather_) {
        gather_.gather(rows, ids(t, everywhere), before, width, to.rows[i]);
        continue;
      }
      product(rows, width, p.width, scalars(everywhere ? x : read(x)), {in_proj_ + before, columns}, to.rows[i]);
      if (p.in_bias) add_to_rows(rows, width, p.in_bias + before, to.rows[i]);
    }
  }

  void scatter(const Tile& t) const {
    for (int i = 0; i < Core::streams; ++i) {
      const auto [width, everywhere, saved] = core_.stream(i);
      gather_.scatter(everywhere ? t.rows : t.read, ids(t, everywhere), columns_before(i), width, {dstream_[i], width});
    }
  }

  void backward_projection(const Tile& t, float* shard) const {
    const ConstRows x = norm_.forward(t.rows, x_of(t));
    const Rows dx{p.grad_x + t.first_row * p.width, p.width};
    const Rows dnormed = p.norm.weight ? Rows{norm_.dy, p.width} : dx;
    bool written = false;  // the first stream of all positions writes dnormed, the others add to it
    for (bool everywhere : {true, false})
      for (int i = 0; i < Core::streams; ++i)
        if (core_.stream(i).everywhere == everywhere) {
          backward_stream(t, i, x, dnormed, written, shard);
          written = true;
        }
    if (!p.norm.weight) return;
    norm_.backward(t.rows, x_of(t), dx, of_norm(shard));
    add_rows(t.read, p.width, {p.grad_out + t.first_read * p.width, p.width}, read(dx));
  }

  void backward_stream(const Tile& t, int i, ConstRows x, Rows dnormed, bool written, float* shard) const {
    const auto [width, everywhere, saved] = core_.stream(i);
    const std::int64_t before = columns_before(i) * p.width, rows = everywhere ? t.rows : t.read;
    const ConstRows gradient{dstream_[i], width}, seen = everywhere ? x : read(x), in_proj{p.in_proj + before, p.width};
    const Rows to = everywhere ? dnormed : read(dnormed), din_proj{shard + before, p.width};
    if (written)
      add_product(rows, p.width, width, scalars(gradient), in_proj, to);
    else
      product(rows, p.width, width, scalars(gradient), in_proj, to);
    const bool by_sequence = Core::adds_by_sequence && p.last && !everywhere;
    for (std::int64_t row = 0, step = by_sequence ? 1 : rows; row < rows; row += step)
      add_product(width, p.width, step, transposed({gradient[row], width}), {seen[row], seen.stride}, din_proj);
    if (p.in_bias) add_sum_of_rows(rows, width, gradient, of_in_bias(shard) + columns_before(i));
  }

  typename Core::Operation operation_;
  const Block& p = operation_.block;
  const std::int64_t most_;
  Core core_;
  NormKernel norm_;
  Gather gather_;
  float *in_proj_, *out_proj_;                          // transposed
  float* drows_;                                        // (read rows, core width)
  float *stream_[Core::streams], *dstream_[Core::streams];  // of one tile
};

}  // namespace recall::RECALL_ISA
