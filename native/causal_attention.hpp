// Causal softmax attention for small heads, forward and backward.
//
//   s_ij  = scale q_i . k_j  for j <= position of i            scale = 1 / sqrt(width)
//   p_ij  = exp(s_ij) / sum_j exp(s_ij)
//   out_i = sum_j p_ij v_j
//
//   dp_ij = dout_i . v_j                     ds_ij = p_ij (dp_ij - sum_j p_ij dp_ij)
//   dq_i  = scale sum_j ds_ij k_j            dk_j  = scale sum_i ds_ij q_i
//   dv_j  = sum_i p_ij dout_i
//
// The queries are the last `queries` positions; one head of one sequence is worked on at a time.  A lane is a
// query, so that nothing is added up across lanes: its keys follow one another.  For dk and dv a lane is one
// of the head's numbers.

#pragma once

#include "attention_buffers.hpp"
#include "math.hpp"

namespace recall::RECALL_ISA {

// Which pairs of a query and a key take part in a product.  Vectors of queries also hold pairs whose key comes
// later, with a weight of zero.  That is right as long as all numbers are finite; where a result is not, it is
// computed again from the pairs that see each other alone, for zero times NaN would reach the past.
enum class Pairs { in_vectors, seen };

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
inline void multiply_pairs(Lanes* result, std::int64_t count, const float* vectors, const float* scalars,
                           std::int64_t row) {
  Lanes sum[tile];
  for (int r = 0; r < tile; ++r) sum[r] = result[r];
  for (std::int64_t k = 0; k < count; ++k) {
    const Lanes x = load(vectors + k * lanes);
    for (int r = 0; r < tile; ++r) sum[r] += x * splat_pair(scalars + r * row + 2 * k);
  }
  for (int r = 0; r < tile; ++r) result[r] = sum[r];
}

class AttentionKernel : AttentionBuffers {
 public:
  AttentionKernel(const Attention& of, Arena& arena)
      : AttentionBuffers(of, arena), scale_(1.0f / __builtin_sqrtf(static_cast<float>(p.width))) {}

  void forward(std::int64_t item) const {
    pack(item, scale_ * log2_e);
    forward_blocks<Pairs::in_vectors>();
    if (!finite_columns()) forward_blocks<Pairs::seen>();
    unpack_output(item);
  }

  void backward(std::int64_t item) const {
    pack(item, scale_ * log2_e);
    pack_gradient(item);
    backward_blocks<Pairs::in_vectors>();
    const bool finite = finite_columns();
    if (!finite) backward_blocks<Pairs::seen>();
    finite ? add_queries(weights, d_rows, 1.0f) : add_seen_queries(weights, d_rows, 1.0f);
    unpack_values(item);
    finite ? add_queries(slopes, q_rows, scale_) : add_seen_queries(slopes, q_rows, scale_);
    unpack_keys(item);
    unpack_queries(item);
  }

 private:
  // A vector of queries: the position of each, and one more than the last key that any sees.
  struct QueryBlock {
    std::int64_t first, keys;
    Lanes position;
  };

  QueryBlock block(std::int64_t first) const {
    QueryBlock b{first, p.length - padded + first + lanes, Lanes{}};
    for (int lane = 0; lane < lanes; ++lane) {
      const std::int64_t query = first + lane - padding;
      b.position[lane] = static_cast<float>(position(query < 0 ? 0 : query));
    }
    return b;
  }

  // The products of a block's columns with the keys from j on.
  void products(const QueryBlock& b, const float* of, const float* with, std::int64_t j, Lanes* result) const {
    for (int r = 0; r < tile; ++r) result[r] = Lanes{};
    multiply(result, p.width, of + b.first, padded, with + j * wide, wide, 1);
  }

  // columns = times sum_j cells[j] of[j] for a block of queries.
  template <Pairs which>
  void add_keys(const QueryBlock& b, const float* cells, const float* of, Lanes times) const {
    for (std::int64_t w = 0; w < p.width; w += tile) {
      Lanes sum[tile]{};
      if (which == Pairs::in_vectors)
        multiply(sum, b.keys, cells + b.first, padded, of + w, 1, wide);
      else
        for (std::int64_t j = 0; j < b.keys; ++j)
          for (int r = 0; r < tile; ++r)
            sum[r] += load(cells + j * padded + b.first) *
                      (b.position < static_cast<float>(j) ? Lanes{} : splat(of[j * wide + w + r]));
      for (int r = 0; r < tile; ++r) store(columns + (w + r) * padded + b.first, sum[r] * times);
    }
  }

  template <Pairs which>
  void forward_blocks() const {
    for (std::int64_t first = 0; first < padded; first += lanes) forward_block<which>(block(first));
  }

  template <Pairs which>
  void forward_block(const QueryBlock& b) const {
    constexpr float unseen = -__builtin_inff();
    Lanes most = splat(unseen), total{};
    for (std::int64_t j = 0; j < b.keys; j += tile) {
      Lanes s[tile];
      products(b, q_columns, k, j, s);
      for (int r = 0; r < tile; ++r) {
        s[r] = b.position < static_cast<float>(j + r) ? splat(unseen) : s[r];
        most = larger(most, s[r]);
        store(weights + (j + r) * padded + b.first, s[r]);
      }
    }
    for (std::int64_t j = 0; j < b.keys; ++j) {
      float* cell = weights + j * padded + b.first;
      const Lanes e = exp2_bounded(load(cell) - most);
      total += e;
      store(cell, e);
    }
    const Lanes one_over_total = 1.0f / total;
    add_keys<which>(b, weights, v, one_over_total);
    store(largest + b.first, most);
    store(inverse + b.first, one_over_total);
  }

  template <Pairs which>
  void backward_blocks() const {
    for (std::int64_t first = 0; first < padded; first += lanes) backward_block<which>(block(first));
  }

  template <Pairs which>
  void backward_block(const QueryBlock& b) const {
    const Lanes most = load(largest + b.first), one_over_total = load(inverse + b.first);
    Lanes own{};
    for (std::int64_t j = 0; j < b.keys; j += tile) {
      Lanes s[tile], dp[tile];
      products(b, q_columns, k, j, s);
      products(b, d_columns, v, j, dp);
      for (int r = 0; r < tile; ++r) {
        const auto unseen = b.position < static_cast<float>(j + r);
        const Lanes weight = unseen ? Lanes{} : exp2_bounded(s[r] - most) * one_over_total;
        if (which == Pairs::seen) dp[r] = unseen ? Lanes{} : dp[r];
        own += weight * dp[r];
        store(weights + (j + r) * padded + b.first, weight);
        store(slopes + (j + r) * padded + b.first, dp[r]);
      }
    }
    for (std::int64_t j = 0; j < round_up(b.keys, tile); ++j) {
      const std::int64_t cell = j * padded + b.first;
      store(slopes + cell, load(weights + cell) * (load(slopes + cell) - own));
    }
    add_keys<which>(b, slopes, k, splat(scale_));
  }

  // The first query of the first block that sees the key j.
  std::int64_t first_block_seeing(std::int64_t j) const {
    const std::int64_t unseen = j - (p.length - padded);
    return unseen > 0 ? unseen / lanes * lanes : 0;
  }

  // rows[j] = times sum_i cells[j, i] of[i], over the blocks that see the key j.
  void add_queries(const float* cells, const float* of, float times) const {
    if (2 * p.width <= lanes) return add_query_pairs(cells, of, times);
    for (std::int64_t j = 0; j < keys; j += tile) {
      const std::int64_t first = first_block_seeing(j);
      for (std::int64_t w = 0; w < p.width; w += lanes) {
        Lanes sum[tile]{};
        multiply(sum, padded - first, of + first * wide + w, wide, cells + j * padded + first, padded, 1);
        for (int r = 0; r < tile; ++r) store(rows + (j + r) * wide + w, sum[r] * times);
      }
    }
  }

  // The same for heads that leave half of a vector's lanes unused: two queries at once fill them.
  void add_query_pairs(const float* cells, const float* of, float times) const {
    for (std::int64_t i = 0; i < padded; i += 2)
      store(pairs + i / 2 * lanes, zipped(load(of + i * wide), load(of + (i + 1) * wide), every_lane));
    for (std::int64_t j = 0; j < keys; j += tile) {
      const std::int64_t first = first_block_seeing(j);
      Lanes sum[tile]{};
      multiply_pairs(sum, (padded - first) / 2, pairs + first / 2 * lanes, cells + j * padded + first, padded);
      for (int r = 0; r < tile; ++r) store(rows + (j + r) * wide, neighbours(sum[r], every_lane) * times);
    }
  }

  // The same over the queries alone that see the key j.
  void add_seen_queries(const float* cells, const float* of, float times) const {
    for (std::int64_t j = 0; j < p.length; ++j)
      for (std::int64_t w = 0; w < p.width; w += lanes) {
        Lanes sum{};
        for (std::int64_t i = larger(padding, j - (p.length - padded)); i < padded; ++i)
          sum += load(of + i * wide + w) * cells[j * padded + i];
        store(rows + j * wide + w, sum * times);
      }
  }

  float scale_;
};

inline void attention_forward(const Attention& p, std::int64_t begin, std::int64_t end, float* scratch) {
  Arena arena(scratch);
  const AttentionKernel kernel(p, arena);
  for (std::int64_t item = begin; item < end; ++item) kernel.forward(item);
}

inline void attention_backward(const Attention& p, std::int64_t begin, std::int64_t end, float* scratch) {
  Arena arena(scratch);
  const AttentionKernel kernel(p, arena);
  for (std::int64_t item = begin; item < end; ++item) kernel.backward(item);
}

inline std::int64_t attention_scratch(const Attention& p) {
  Arena arena(nullptr);
  AttentionKernel(p, arena);
  return arena.used();
}

}  // namespace recall::RECALL_ISA
