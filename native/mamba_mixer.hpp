// Mamba's mixer from end to end (arXiv:2312.00752, figure 3), forward and backward, a few sequences
// at a time, so that what one step leaves is still in the cache when the next one reads it.
//
//   (before, z)      = in_proj x
//   u                = silu(convolution of before)
//   (delta, B, C)    = x_proj u
//   y                = scan of u with dt_weight delta, A = -exp(A_log), B, C, D, gated by z
//   out              = out_proj y
//
// Backward, the same path in reverse; `d` stands for the gradient that arrives at what follows it:
//
//   dy = out_proj^T dout                      dout_proj = dout^T y
//   du, dstep, dB, dC, dz, dA, dD, dbias      from the scan; dA_log = A dA
//   ddelta = dt_weight^T dstep                ddt_weight = dstep^T delta
//   du    += x_proj^T (ddelta, dB, dC)        dx_proj = (ddelta, dB, dC)^T u
//   dbefore, dconvolution                     from the convolution
//   dx = in_proj^T (dbefore, dz)              din_proj = (dbefore, dz)^T x
//
// With a norm, x stands for norm(x) above, and x itself is added to `out`.  Where x has only a few
// distinct rows, the first and the last line go by them (`lookup.hpp`).
//
// A portion of the batch adds up its own share of the weights' gradients, in this order:
//
//   in_proj (2 channels, width), convolution (window, channels), its bias, x_proj (rank + 2 state,
//   channels), dt_weight (rank, channels), A_log (state, channels), D, dt_bias, out_proj (width,
//   channels), and those of the norm

#pragma once

#include "causal_conv.hpp"
#include "layer_norm.hpp"
#include "lookup.hpp"
#include "matrix.hpp"
#include "memory.hpp"
#include "operations.hpp"
#include "selective_scan.hpp"
#include "selective_scan_backward.hpp"

namespace recall::RECALL_ISA {

struct MambaKernel {
  const Mamba& p;
  std::int64_t selected, most;  // numbers of a row of x_proj u; sequences at once
  float *into_inner, *into_selection, *into_steps, *into_width;  // the weights, turned over
  float *window, *A;                                             // (window, channels); (state, channels)
  float *before, *z, *u, *selection;                             // where the caller keeps none
  float *steps, *y, *dy, *du, *dsteps, *dz, *dB, *dC, *dlow, *dbefore, *shares;
  float* scan_memory;
  NormKernel norm;
  Lookup lookup;

  // What must last from the forward pass to the backward pass lies in `memory`, the rest in `passing`.
  MambaKernel(const Mamba& of, Memory& memory, Memory& passing)
      : p(of),
        selected(p.rank + 2 * p.state),
        most(at_once(p.length, p.width, p.batch)),
        norm(p.norm, p.width, larger(most * p.length, p.tokens.distinct), passing),
        lookup(p.tokens.distinct, 2 * p.channels, memory) {
    const std::int64_t rows = most * p.length, inner = rows * p.channels;
    into_inner = memory.take(2 * p.channels * p.width);
    into_selection = memory.take(selected * p.channels);
    into_steps = memory.take(p.rank * p.channels);
    into_width = memory.take(p.channels * p.width);
    window = memory.take(p.window * p.channels);
    A = memory.take(p.state * p.channels);
    for (float** part : {&before, &z, &u}) *part = memory.take(inner);
    selection = memory.take(rows * selected);
    for (float** part : {&steps, &y, &dy, &du, &dsteps, &dz, &dbefore}) *part = passing.take(inner);
    for (float** part : {&dB, &dC}) *part = passing.take(rows * p.state);
    dlow = passing.take(rows * p.rank);
    shares = passing.take(most * (p.state + 2 + p.window + 1) * p.channels);
    scan_memory = passing.take(scan_scratch(scan(most)));
    if (memory) prepare();
  }

  // What the forward pass alone reads.
  void turn_projections() const {
    turn_over(p.in_proj, 2 * p.channels, p.width, into_inner);
    turn_over(p.x_proj, selected, p.channels, into_selection);
    turn_over(p.out_proj, p.width, p.channels, into_width);
    if (lookup) lookup.project(norm, {p.x, p.width}, {into_inner, 2 * p.channels});
  }

  void prepare() const {
    turn_over(p.dt_weight, p.channels, p.rank, into_steps);
    turn_over(p.conv_weight, p.channels, p.window, window);
    turn_over(p.A_log, p.channels, p.state, A);
    const std::int64_t numbers = p.state * p.channels;
    for (std::int64_t i = 0; i < numbers; i += lanes)
      store(A + i, -exponential(load(A + i, filled(numbers - i))), filled(numbers - i));
  }

  // The rows of some sequences, and those of their positions that are read.
  struct Part {
    std::int64_t first, sequences, rows, read;
  };

  Part part(std::int64_t first, std::int64_t sequences) const {
    const std::int64_t rows = sequences * p.length;
    return {first, sequences, rows, p.last ? sequences : rows};
  }

  // Where a tensor of `width` numbers a position, kept by the caller or not, begins for a part.
  float* kept(float* by_caller, float* otherwise, const Part& part, std::int64_t width) const {
    return by_caller ? by_caller + part.first * p.length * width : otherwise;
  }
  float* before_of(const Part& part) const { return kept(p.before, before, part, p.channels); }
  float* u_of(const Part& part) const { return kept(p.u, u, part, p.channels); }
  float* selection_of(const Part& part) const { return kept(p.selection, selection, part, selected); }
  float* z_of(const Part& part) const { return p.z ? p.z + read_rows(part) * p.channels : z; }

  float* states_of(const Part& part) const {
    return p.states ? p.states + part.first * scan_chunks(p.length) * p.state * p.channels : nullptr;
  }

  // How many rows that are read lie before a part.
  std::int64_t read_rows(const Part& part) const {
    return p.last ? part.first : part.first * p.length;
  }

  Given x_of(const Part& part) const {
    return {p.x + part.first * p.length * p.width, p.width};
  }
  // Of rows for all positions, those of the ones that are read.
  template <class Number>
  Matrix<Number> read_of(Matrix<Number> rows) const {
    return p.last ? Matrix<Number>{rows[p.length - 1], p.length * rows.stride} : rows;
  }

  Conv conv(const float* from, std::int64_t sequences) const {
    Conv c{};
    c.batch = sequences, c.length = p.length, c.channels = p.channels, c.window = p.window;
    c.x = from, c.x_stride = c.grad_out_stride = p.channels;
    c.weight = window, c.bias = p.conv_bias;
    return c;
  }

  Scan scan(std::int64_t sequences) const {
    Scan s{};
    s.batch = sequences, s.length = p.length, s.channels = p.channels, s.state = p.state;
    s.u_stride = s.delta_stride = s.z_stride = s.grad_out_stride = p.channels;
    s.B_stride = s.C_stride = selected;
    s.delta = steps, s.A = A, s.D = p.D, s.delta_bias = p.dt_bias;
    s.last = p.last;
    return s;
  }

  Scan scan(const Part& part) const {
    Scan s = scan(part.sequences);
    s.u = u_of(part), s.z = z_of(part);
    s.B = selection_of(part) + p.rank, s.C = s.B + p.state;
    s.states = states_of(part);
    return s;
  }

  void time_steps(const Part& part) const {
    product(part.rows, p.channels, p.rank, as_it_is({selection_of(part), selected}),
            {into_steps, p.channels}, {steps, p.channels});
  }

  // The rows of x that the positions of a part have, and those that are read, where x is looked up.
  Positions positions_of(const Part& part) const {
    return {p.tokens.rows + part.first * p.length, 1};
  }
  Positions read_positions_of(const Part& part) const {
    const Positions all = positions_of(part);
    return p.last ? Positions{all.rows + p.length - 1, p.length} : all;
  }

  void project(const Part& part) const {
    const std::int64_t inner = p.channels;
    const Rows before{before_of(part), inner}, z{z_of(part), inner};
    if (lookup) {
      lookup.look_up(part.rows, positions_of(part), 0, inner, before);
      lookup.look_up(part.read, read_positions_of(part), inner, inner, z);
    } else {
      const Given x = norm.forward(part.rows, x_of(part));
      product(part.rows, inner, p.width, as_it_is(x), {into_inner, 2 * inner}, before);
      product(part.read, inner, p.width, as_it_is(read_of(x)), {into_inner + inner, 2 * inner}, z);
    }
  }

  // Adds x to what the positions give that are read.
  void residual(const Part& part, Rows out) const {
    if (!lookup) return add_rows(part.read, p.width, read_of(x_of(part)), out);
    lookup.add_x(part.read, read_positions_of(part), {p.x, p.width}, p.width, out);
  }

  void forward(const Part& part) const {
    const std::int64_t inner = p.channels;
    project(part);
    Conv c = conv(before_of(part), part.sequences);
    c.out = u_of(part);
    conv_forward(c, 0, part.sequences);
    product(part.rows, selected, inner, as_it_is({c.out, inner}), {into_selection, selected},
            {selection_of(part), selected});
    time_steps(part);
    Scan s = scan(part);
    s.out = y;
    scan_forward(s, 0, part.sequences);
    const Rows out{p.out + read_rows(part) * p.width, p.width};
    product(part.read, p.width, inner, as_it_is({y, inner}), {into_width, p.width}, out);
    if (p.norm.weight) residual(part, out);
  }

  // The places in one share of the weights' gradients.
  struct Gradients {
    float *in_proj, *convolution, *x_proj, *dt_weight, *A_log, *out_proj, *norm;

    Gradients(const Mamba& p, float* share) {
      in_proj = share;
      convolution = in_proj + 2 * p.channels * p.width;
      x_proj = convolution + (p.window + 1) * p.channels;
      dt_weight = x_proj + (p.rank + 2 * p.state) * p.channels;
      A_log = dt_weight + p.rank * p.channels;
      out_proj = A_log + (p.state + 2) * p.channels;
      norm = out_proj + p.width * p.channels;
    }
  };

  void backward(const Part& part, const Gradients& to) const {
    const Given dout{p.grad_out + read_rows(part) * p.width, p.width};
    fetch(u_of(part), part.rows * p.channels), fetch(z_of(part), part.read * p.channels);
    fetch(states_of(part), part.sequences * scan_chunks(p.length) * p.state * p.channels);
    product(part.read, p.channels, p.width, as_it_is(dout), {p.out_proj, p.channels}, {dy, p.channels});
    backward_scan(part, to);
    add_product(p.width, p.channels, part.read, turned(dout), {y, p.channels}, {to.out_proj, p.channels});
    backward_selection(part, to);
    backward_conv(part, to);
    backward_projection(part, to);
  }

  void backward_scan(const Part& part, const Gradients& to) const {
    time_steps(part);
    Scan s = scan(part);
    s.again = y, s.grad_out = dy;
    s.grad_u = du, s.grad_delta = dsteps, s.grad_z = dz, s.grad_B = dB, s.grad_C = dC;
    s.grad_A = shares, s.grad_D = s.grad_A + p.state * p.channels, s.grad_bias = s.grad_D + p.channels;
    scan_backward(s, 0, part.sequences, scan_memory);
    const std::int64_t share = (p.state + 2) * p.channels;
    for (std::int64_t sequence = 0; sequence < part.sequences; ++sequence)
      for (std::int64_t i = 0; i < p.state * p.channels; ++i) shares[sequence * share + i] *= A[i];
    add_shares(part.sequences, share, to.A_log);
  }

  void backward_selection(const Part& part, const Gradients& to) const {
    const std::int64_t inner = p.channels, state = p.state, rank = p.rank;
    const float* low = selection_of(part);
    product(part.rows, rank, inner, as_it_is({dsteps, inner}), {p.dt_weight, rank}, {dlow, rank});
    add_product(rank, inner, part.rows, turned({low, selected}), {dsteps, inner}, {to.dt_weight, inner});
    const Given u{u_of(part), inner};
    std::int64_t row = 0;
    for (const Given& from : {Given{dlow, rank}, Given{dB, state}, Given{dC, state}}) {
      const std::int64_t width = from.stride;
      add_product(part.rows, inner, width, as_it_is(from), {p.x_proj + row * inner, inner}, {du, inner});
      add_product(width, inner, part.rows, turned(from), u, {to.x_proj + row * inner, inner});
      row += width;
    }
  }

  void backward_conv(const Part& part, const Gradients& to) const {
    Conv c = conv(before_of(part), part.sequences);
    c.grad_out = du, c.grad_x = dbefore;
    c.grad_weight = shares, c.grad_bias = shares + p.window * p.channels;
    conv_backward(c, 0, part.sequences);
    add_shares(part.sequences, (p.window + 1) * p.channels, to.convolution);
  }

  void backward_projection(const Part& part, const Gradients& to) const {
    const std::int64_t inner = p.channels, width = p.width;
    if (lookup) {
      lookup.add(part.rows, positions_of(part), 0, inner, {dbefore, inner});
      return lookup.add(part.read, read_positions_of(part), inner, inner, {dz, inner});
    }
    const Given x = norm.forward(part.rows, x_of(part));
    const Rows dx{p.grad_x + part.first * p.length * width, width};
    const Rows dnormed = p.norm.weight ? Rows{norm.dy, width} : dx;
    product(part.rows, width, inner, as_it_is({dbefore, inner}), {p.in_proj, width}, dnormed);
    add_product(part.read, width, inner, as_it_is({dz, inner}), {p.in_proj + inner * width, width},
                read_of(dnormed));
    add_product(inner, width, part.rows, turned({dbefore, inner}), x, {to.in_proj, width});
    add_product(inner, width, part.read, turned({dz, inner}), read_of(x),
                {to.in_proj + inner * width, width});
    if (!p.norm.weight) return;
    norm.backward(part.rows, x_of(part), dx, to.norm);
    add_rows(part.read, width, {p.grad_out + read_rows(part) * width, width}, read_of(dx));
  }

  // At the end of a portion.
  void finish(const Gradients& to) const {
    if (lookup) lookup.finish(norm, {p.x, p.width}, p.in_proj, to.in_proj, to.norm);
  }

  // Adds the shares of a part's sequences, one after another.
  void add_shares(std::int64_t sequences, std::int64_t numbers, float* to) const {
    for (std::int64_t sequence = 0; sequence < sequences; ++sequence)
      for (std::int64_t i = 0; i < numbers; ++i) to[i] += shares[sequence * numbers + i];
  }
};

inline void mamba_forward(const Mamba& p, std::int64_t begin, std::int64_t end, float* scratch) {
  Memory memory(scratch);
  const MambaKernel kernel(p, memory, memory);
  kernel.turn_projections();
  each_part(begin, end, kernel.most, [&](std::int64_t first, std::int64_t count) {
    kernel.forward(kernel.part(first, count));
  });
}

inline void mamba_backward(const Mamba& p, std::int64_t begin, std::int64_t end, float* scratch) {
  Memory memory(scratch);
  const MambaKernel kernel(p, memory, memory);
  each_portion(
      p, begin, end, kernel.most,
      [&](std::int64_t first, std::int64_t count, float* share) {
        kernel.backward(kernel.part(first, count), {p, share});
      },
      [&](float* share) { kernel.finish({p, share}); });
}

inline std::int64_t mamba_scratch(const Mamba& p) {
  Memory memory(nullptr);
  MambaKernel(p, memory, memory);
  return memory.used();
}

}  // namespace recall::RECALL_ISA
