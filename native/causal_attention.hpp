// Causal softmax attention for small heads, forward and backward, RoPE applied on the way in.
//
//   s_ij  = scale q_i . k_j  for j <= position of i            scale = 1 / sqrt(width)
//   p_ij  = exp(s_ij) / sum_j exp(s_ij)
//   out_i = sum_j p_ij v_j
//
//   dp_ij = dout_i . v_j                     ds_ij = p_ij (dp_ij - sum_j p_ij dp_ij)
//   dq_i  = scale sum_j ds_ij k_j            dk_j  = scale sum_i ds_ij q_i
//   dv_j  = sum_i p_ij dout_i
//
// The queries are the last `queries` positions; one head of one sequence is worked on at a time.
// A lane is a query, so that nothing is added up across lanes: its keys follow one another.  For
// dk and dv a lane is one of the head's numbers.  Every product is an instance of `multiply`.
//
// With RoPE (arXiv:2104.09864, eq. 34), q and k are turned as they are packed, and dq and dk are
// turned back as they are stored.

#pragma once

#include "lanes.hpp"
#include "matrix.hpp"
#include "arena.hpp"
#include "operations.hpp"

namespace recall::RECALL_ISA {

constexpr int tile = 8;  // results that are added up at once, enough to hide an addition's latency

inline Lanes larger(Lanes x, Lanes y) { return x > y ? x : y; }

// Adds sum_k scalars[r, k] vectors[k] to result[r].
inline void multiply(Lanes* result, std::int64_t count, const float* vectors, std::int64_t step,
                     const float* scalars, std::int64_t row, std::int64_t column) {
  Lanes sum[tile];
  for (int r = 0; r < tile; ++r) sum[r] = result[r];
  for (std::int64_t k = 0; k < count; ++k) {
    const Lanes x = load(vectors + k * step);
    for (int r = 0; r < tile; ++r) sum[r] += x * scalars[r * row + k * column];
  }
  for (int r = 0; r < tile; ++r) result[r] = sum[r];
}

// The same with two numbers of a vector's beside one another, and two scalars that follow one another.
inline void multiply_pairs(Lanes* result, std::int64_t count, const float* vectors,
                           const float* scalars, std::int64_t row) {
  Lanes sum[tile];
  for (int r = 0; r < tile; ++r) sum[r] = result[r];
  for (std::int64_t k = 0; k < count; ++k) {
    const Lanes x = load(vectors + k * lanes);
    for (int r = 0; r < tile; ++r) sum[r] += x * splat_pair(scalars + r * row + 2 * k);
  }
  for (int r = 0; r < tile; ++r) result[r] = sum[r];
}

struct AttentionKernel {
  const Attention& p;
  // Queries are filled up to whole vectors by zeros in front, where they see the fewest keys; keys
  // and the head's numbers at the end.
  std::int64_t padding, padded, keys, wide;
  float scale;
  float *k, *v;                  // (keys, wide)
  float *q_columns, *d_columns;  // (wide, padded): queries, scaled for powers of two; dout
  float *q_rows, *d_rows;        // (padded, wide): queries; dout
  float *weights, *slopes;       // (keys, padded): p and ds
  float *columns;                // (wide, padded): out, then dq
  float *rows;                   // (keys, wide): dv, then dk
  float *pairs;                  // (padded / 2, lanes): two queries' numbers side by side
  float *largest, *share;        // (padded,): max_j s_ij, 1 / sum_j exp(s_ij)
  float *cosines, *sines;        // (length, lanes): of heads that fit into a vector, for all their numbers
  Bits partner;                  // the number that RoPE pairs each of such a head's numbers with

  AttentionKernel(const Attention& of, Arena& memory)
      : p(of),
        padding(round_up(p.queries, lanes) - p.queries),
        padded(p.queries + padding),
        keys(round_up(p.length, tile)),
        wide(round_up(p.width, lanes > tile ? lanes : tile)),
        scale(1.0f / __builtin_sqrtf(static_cast<float>(p.width))) {
    float* const begin = memory.take(0);
    const std::int64_t before = memory.used();
    for (float** part : {&k, &v, &rows}) *part = memory.take(keys * wide);
    for (float** part : {&q_columns, &d_columns, &columns, &q_rows, &d_rows})
      *part = memory.take(wide * padded);
    for (float** part : {&weights, &slopes}) *part = memory.take(keys * padded);
    for (float** part : {&largest, &share}) *part = memory.take(padded);
    pairs = memory.take(2 * p.width <= lanes ? padded / 2 * lanes : 0);
    for (float** part : {&cosines, &sines}) *part = memory.take(in_a_vector() ? p.length * lanes : 0);
    // What only fills up stays zero.
    if (!memory) return;
    std::memset(begin, 0, sizeof(float) * (memory.used() - before));
    if (in_a_vector()) spread_angles();
  }

  bool in_a_vector() const { return p.cosines && p.width <= lanes; }

  // The cosines and sines of a position beside one another for both halves of a head, so that
  // turned x = x cosines + (partners of x) sines.
  void spread_angles() {
    const std::int64_t half = p.width / 2;
    partner = Bits{};
    for (std::int64_t w = 0; w < p.width; ++w) partner[w] = static_cast<int>((w + half) % p.width);
    for (std::int64_t t = 0; t < p.length; ++t)
      for (std::int64_t w = 0; w < p.width; ++w) {
        cosines[t * lanes + w] = p.cosines[t * half + w % half];
        sines[t * lanes + w] = (w < half ? -1.0f : 1.0f) * p.sines[t * half + w % half];
      }
  }

  // The rows of one head of one sequence.
  Rows rows_of(const Heads& of, std::int64_t item) const {
    return {of.data + item / p.heads * of.batch + item % p.heads * of.head, of.row};
  }

  // Rows are packed as whole vectors, filled up by zeros: a processor is slow to read what it has just
  // written in parts.
  enum class To { pack, caller };

  template <To place>
  void copy(const float* from, float* to) const {
    for (std::int64_t w = 0; w < p.width; w += lanes) {
      const int count = filled(p.width - w);
      store(to + w, load(from + w, count), place == To::pack ? lanes : count);
    }
  }

  // Copies one row, turned forward (+1) or back (-1) by its position's angles where there are any.
  template <To place>
  RECALL_INLINE void turn(const float* from, std::int64_t position, float way, float* to) const {
    if (!p.cosines) return copy<place>(from, to);
    if (in_a_vector()) {
      const int count = static_cast<int>(p.width);
      const Lanes x = load(from, count), sine = way * load(sines + position * lanes);
      const Lanes turned = x * load(cosines + position * lanes) + permuted(x, partner) * sine;
      return store(to, turned, place == To::pack ? lanes : count);
    }
    const std::int64_t half = p.width / 2;
    for (std::int64_t i = 0; i < half; i += lanes) {
      const int count = filled(half - i);
      const Lanes left = load(from + i, count), right = load(from + half + i, count);
      const Lanes cosine = load(p.cosines + position * half + i, count);
      const Lanes sine = way * load(p.sines + position * half + i, count);
      store(to + i, left * cosine - right * sine, count);
      store(to + half + i, right * cosine + left * sine, count);
    }
  }

  std::int64_t position(std::int64_t query) const { return p.length - p.queries + query; }

  void pack(std::int64_t item) const {
    const Rows q = rows_of(p.q, item), key = rows_of(p.k, item), value = rows_of(p.v, item);
    for (std::int64_t j = 0; j < p.length; ++j) {
      turn<To::pack>(key[j], j, 1.0f, k + j * wide);
      copy<To::pack>(value[j], v + j * wide);
    }
    for (std::int64_t i = 0; i < p.queries; ++i)
      turn<To::pack>(q[i], position(i), 1.0f, q_rows + (padding + i) * wide);
    into_columns(q_rows, scale * log2_e, q_columns);
  }

  // (padded, wide) to (wide, padded), times a factor.
  void into_columns(const float* from, float times, float* to) const {
    for (std::int64_t i = 0; i < padded; i += lanes)
      for (std::int64_t w = 0; w < p.width; w += lanes)
        transpose_square(from + i * wide + w, wide, times, to + w * padded + i, padded);
  }

  void into_rows(const float* from, float* to) const {
    for (std::int64_t i = 0; i < padded; i += lanes)
      for (std::int64_t w = 0; w < p.width; w += lanes)
        transpose_square(from + w * padded + i, padded, 1.0f, to + i * wide + w, wide);
  }

  static void transpose_square(const float* from, std::int64_t row, float times, float* to,
                               std::int64_t column) {
    Lanes square[lanes];
    for (int r = 0; r < lanes; ++r) square[r] = load(from + r * row);
    transpose(square);
    for (int r = 0; r < lanes; ++r) store(to + r * column, square[r] * times);
  }

  // A vector of queries: the position of each, and one more than the last key that any sees.
  struct Block {
    std::int64_t first, keys;
    Lanes position;
  };

  Block block(std::int64_t first) const {
    Block b{first, p.length - padded + first + lanes, Lanes{}};
    for (int lane = 0; lane < lanes; ++lane) {
      const std::int64_t query = first + lane - padding;
      b.position[lane] = static_cast<float>(position(query < 0 ? 0 : query));
    }
    return b;
  }

  // The products of a block's columns with the keys from j on.
  void products(const Block& b, const float* of, const float* with, std::int64_t j,
                Lanes* result) const {
    for (int r = 0; r < tile; ++r) result[r] = Lanes{};
    multiply(result, p.width, of + b.first, padded, with + j * wide, wide, 1);
  }

  // (wide, padded): times sum_j weight[j] of[j] for a block of queries.
  void mix(const Block& b, const float* weight, const float* of, Lanes times) const {
    for (std::int64_t w = 0; w < p.width; w += tile) {
      Lanes sum[tile]{};
      multiply(sum, b.keys, weight + b.first, padded, of + w, 1, wide);
      for (int r = 0; r < tile; ++r) store(columns + (w + r) * padded + b.first, sum[r] * times);
    }
  }

  void forward_block(const Block& b) const {
    Lanes most = splat(-1e30f), total{};
    for (std::int64_t j = 0; j < b.keys; j += tile) {
      Lanes s[tile];
      products(b, q_columns, k, j, s);
      for (int r = 0; r < tile; ++r) {
        s[r] = b.position < static_cast<float>(j + r) ? splat(-1e30f) : s[r];
        most = larger(most, s[r]);
        store(weights + (j + r) * padded + b.first, s[r]);
      }
    }
    for (std::int64_t j = 0; j < b.keys; ++j) {
      float* cell = weights + j * padded + b.first;
      const Lanes e = power_of_two(load(cell) - most);
      total += e;
      store(cell, e);
    }
    const Lanes part = 1.0f / total;
    mix(b, weights, v, part);
    store(largest + b.first, most);
    store(share + b.first, part);
  }

  void forward(std::int64_t item) const {
    pack(item);
    for (std::int64_t first = 0; first < padded; first += lanes) forward_block(block(first));
    into_rows(columns, q_rows);
    const Rows out = rows_of(p.out, item);
    for (std::int64_t i = 0; i < p.queries; ++i) copy<To::caller>(q_rows + (padding + i) * wide, out[i]);
    std::memset(q_rows, 0, sizeof(float) * padding * wide);  // as a backward pass in the same room wants it
    const std::size_t bytes = sizeof(float) * p.queries;
    std::memcpy(p.softmax + 2 * item * p.queries, largest + padding, bytes);
    std::memcpy(p.softmax + (2 * item + 1) * p.queries, share + padding, bytes);
  }

  void pack_gradient(std::int64_t item) const {
    const Rows dout = rows_of(p.grad_out, item);
    for (std::int64_t i = 0; i < p.queries; ++i)
      copy<To::pack>(dout[i], d_rows + (padding + i) * wide);
    into_columns(d_rows, 1.0f, d_columns);
    const std::size_t bytes = sizeof(float) * p.queries;
    std::memcpy(largest + padding, p.softmax + 2 * item * p.queries, bytes);
    std::memcpy(share + padding, p.softmax + (2 * item + 1) * p.queries, bytes);
  }

  void backward_block(const Block& b) const {
    const Lanes most = load(largest + b.first), part = load(share + b.first);
    Lanes own{};
    for (std::int64_t j = 0; j < b.keys; j += tile) {
      Lanes s[tile], dp[tile];
      products(b, q_columns, k, j, s);
      products(b, d_columns, v, j, dp);
      for (int r = 0; r < tile; ++r) {
        const Lanes weight = b.position < static_cast<float>(j + r)
                                 ? Lanes{} : power_of_two(s[r] - most) * part;
        own += weight * dp[r];
        store(weights + (j + r) * padded + b.first, weight);
        store(slopes + (j + r) * padded + b.first, dp[r]);
      }
    }
    for (std::int64_t j = 0; j < round_up(b.keys, tile); ++j) {
      const std::int64_t cell = j * padded + b.first;
      store(slopes + cell, load(weights + cell) * (load(slopes + cell) - own));
    }
    mix(b, slopes, k, splat(scale));
  }

  // The first query of the first block that sees the key j.
  std::int64_t first_seeing(std::int64_t j) const {
    const std::int64_t unseen = j - (p.length - padded);
    return unseen > 0 ? unseen / lanes * lanes : 0;
  }

  // (keys, wide): times sum_i cells[j, i] of[i], over the blocks that see the key j.
  void gather(const float* cells, const float* of, float times) const {
    if (2 * p.width <= lanes) return gather_pairs(cells, of, times);
    for (std::int64_t j = 0; j < keys; j += tile) {
      const std::int64_t first = first_seeing(j);
      for (std::int64_t w = 0; w < p.width; w += lanes) {
        Lanes sum[tile]{};
        multiply(sum, padded - first, of + first * wide + w, wide, cells + j * padded + first, padded, 1);
        for (int r = 0; r < tile; ++r) store(rows + (j + r) * wide + w, sum[r] * times);
      }
    }
  }

  // The same for heads that leave half of a vector's lanes unused: two queries at once fill them.
  void gather_pairs(const float* cells, const float* of, float times) const {
    for (std::int64_t i = 0; i < padded; i += 2)
      store(pairs + i / 2 * lanes, zipped(load(of + i * wide), load(of + (i + 1) * wide), every_lane));
    for (std::int64_t j = 0; j < keys; j += tile) {
      const std::int64_t first = first_seeing(j);
      Lanes sum[tile]{};
      multiply_pairs(sum, (padded - first) / 2, pairs + first / 2 * lanes, cells + j * padded + first, padded);
      for (int r = 0; r < tile; ++r)
        store(rows + (j + r) * wide, neighbours(sum[r], every_lane) * times);
    }
  }

  void backward(std::int64_t item) const {
    pack(item);
    pack_gradient(item);
    for (std::int64_t first = 0; first < padded; first += lanes) backward_block(block(first));
    const Rows dq = rows_of(p.grad_q, item), dk = rows_of(p.grad_k, item);
    const Rows dv = rows_of(p.grad_v, item);
    gather(weights, d_rows, 1.0f);
    for (std::int64_t j = 0; j < p.length; ++j) copy<To::caller>(rows + j * wide, dv[j]);
    gather(slopes, q_rows, scale);
    for (std::int64_t j = 0; j < p.length; ++j) turn<To::caller>(rows + j * wide, j, -1.0f, dk[j]);
    into_rows(columns, d_rows);  // its padding stays zero, for that of dout was
    for (std::int64_t i = 0; i < p.queries; ++i)
      turn<To::caller>(d_rows + (padding + i) * wide, position(i), -1.0f, dq[i]);
  }
};

inline void attention_forward(const Attention& p, std::int64_t begin, std::int64_t end, float* scratch) {
  Arena memory(scratch);
  const AttentionKernel kernel(p, memory);
  for (std::int64_t item = begin; item < end; ++item) kernel.forward(item);
}

inline void attention_backward(const Attention& p, std::int64_t begin, std::int64_t end, float* scratch) {
  Arena memory(scratch);
  const AttentionKernel kernel(p, memory);
  for (std::int64_t item = begin; item < end; ++item) kernel.backward(item);
}

inline std::int64_t attention_scratch(const Attention& p) {
  Arena memory(nullptr);
  AttentionKernel(p, memory);
  return memory.used();
}

}  // namespace recall::RECALL_ISA
