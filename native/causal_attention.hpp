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
// query, so that nothing is added up across lanes; for dk and dv a lane is one of the head's numbers.  A lone
// query would leave most lanes idle: see `one_query_attention.hpp`.

#pragma once

#include "attention_buffers.hpp"
#include "math.hpp"
#include "one_query_attention.hpp"

namespace recall::RECALL_ISA {

inline Lanes larger(Lanes x, Lanes y) { return x > y ? x : y; }

class AttentionKernel : AttentionBuffers {
 public:
  AttentionKernel(const Attention& of, std::int64_t kept, Arena& arena)
      : AttentionBuffers(of, kept, arena), one_query_(of, arena) {}

  void forward(std::int64_t item) const {
    const ConstRows k = keys(item), v = rows_of(p.v, item), q = queries(item);
    if (p.queries == 1) return one_query_.forward(q, k, v, rows_of(p.out, item), weights_of(item), softmax(item));
    float* const cells = weights_of(item);
    const bool finite = all_finite(v, p.length, p.width);
    rows_to_columns(q, p.queries, padding, p.width, scale() * log2_e, q_columns);
    each_block([&](const Block& b) {
      products(b, q_columns, k, cells);
      each_vector(b, [&](std::int64_t first, std::int64_t seen) { exponentials(first, seen, cells); });
      finite ? mix(b, cells, v) : mix_seen(b, cells, v);
    });
    columns_to_rows(columns, p.queries, padding, p.width, [&](std::int64_t i) { return load(inverse + i); },
                    rows_of(p.out, item));
    std::memcpy(softmax(item), largest + padding, sizeof(float) * p.queries);
    std::memcpy(softmax(item) + p.queries, inverse + padding, sizeof(float) * p.queries);
  }

  void backward(std::int64_t item) const {
    const ConstRows k = keys(item), v = rows_of(p.v, item), q = queries(item), dout = rows_of(p.grad_out, item);
    const Rows dq = rows_of(p.grad_q, item), dk = rows_of(p.grad_k, item), dv = rows_of(p.grad_v, item);
    float* const cells = weights_of(item);
    if (p.queries == 1)
      one_query_.backward(q, k, v, dout, cells, items > 0, softmax(item), dq, dk, dv);
    else
      backward(q, k, v, dout, cells, softmax(item), dq, dk, dv);
    rotate_back(dq, p.queries);
    rotate_back(dk, p.length);
  }

 private:
  // One or two vectors of queries from `first` on.  Their first lane sees `seen_by_all` keys and itself, the next
  // one a key more, and so on; where queries are padded in front, `seen_by_all` may be negative.
  struct Block {
    std::int64_t first, vectors, seen_by_all;
  };

  template <class Body>
  void each_block(const Body& body) const {
    const std::int64_t odd = padded / lanes % 2;
    if (odd) body(Block{0, 1, p.length - padded});
    for (std::int64_t first = odd * lanes; first < padded; first += 2 * lanes)
      body(Block{first, 2, p.length - padded + first});
  }

  // body(first, seen): the first query of each vector, and how many keys any of its lanes sees.
  template <class Body>
  void each_vector(const Block& b, const Body& body) const {
    for (std::int64_t v = 0; v < b.vectors; ++v) body(b.first + v * lanes, b.seen_by_all + (v + 1) * lanes);
  }

  // The lanes of the vector at `first`, of which any sees `seen` keys, that do not see the key j.  Padding sees
  // what the first query sees.
  auto unseen(std::int64_t first, std::int64_t seen, std::int64_t j) const {
    const Bits lane = counted(every_lane), least = Bits{} + static_cast<int>(first ? 0 : padding);
    return (lane > least ? lane : least) < static_cast<int>(j - (seen - lanes));
  }

  float scale() const { return 1.0f / __builtin_sqrtf(static_cast<float>(p.width)); }
  float* softmax(std::int64_t item) const { return p.softmax + 2 * item * p.queries; }

  // cells[j, i] = column i . row j, for the pairs of a block in which some lane sees the key.
  void products(const Block& b, const float* columns_of, ConstRows rows, float* cells) const {
    const std::int64_t seen = b.seen_by_all + lanes;
    product(seen, b.vectors * lanes, p.width, scalars(rows), {columns_of + b.first, padded},
            {cells + b.first, padded});
    if (b.vectors == 1) return;
    const std::int64_t second = b.first + lanes;
    product(lanes, lanes, p.width, scalars({rows[seen], rows.stride}), {columns_of + second, padded},
            {cells + seen * padded + second, padded});
  }

  // cells = exp(s - max s), zero where a key is not seen.
  void exponentials(std::int64_t first, std::int64_t seen, float* cells) const {
    Lanes most = splat(-__builtin_inff()), total{};
    const auto score = [&](std::int64_t j) { return load(cells + j * padded + first); };
    for (std::int64_t j = 0; j < seen - lanes; ++j) most = larger(most, score(j));
    for (std::int64_t j = larger(seen - lanes, 0); j < seen; ++j) {
      const Lanes s = unseen(first, seen, j) ? splat(-__builtin_inff()) : score(j);
      store(cells + j * padded + first, s);
      most = larger(most, s);
    }
    for (std::int64_t j = 0; j < seen; ++j) {
      const Lanes e = exp2_bounded(score(j) - most);
      total += e;
      store(cells + j * padded + first, e);
    }
    store(largest + first, most);
    store(inverse + first, 1.0f / total);
  }

  // columns = sum_j cells[j] rows[j], for a block.
  void mix(const Block& b, const float* cells, ConstRows rows) const {
    const std::int64_t seen = b.seen_by_all + lanes, second = b.first + lanes;
    product(p.width, b.vectors * lanes, seen, transposed(rows), {cells + b.first, padded},
            {columns + b.first, padded});
    if (b.vectors == 2)
      continue_product(p.width, lanes, transposed({rows[seen], rows.stride}),
                       {cells + seen * padded + second, padded}, {columns + second, padded});
  }

  // The same over the keys alone that a lane sees, where a value is not finite: zero times it would reach the past.
  void mix_seen(const Block& b, const float* cells, ConstRows v) const {
    each_vector(b, [&](std::int64_t first, std::int64_t seen) {
      for (std::int64_t w = 0; w < p.width; ++w) {
        Lanes sum{};
        for (std::int64_t j = 0; j < seen; ++j)
          sum += load(cells + j * padded + first) * (unseen(first, seen, j) ? Lanes{} : splat(v[j][w]));
        store(columns + w * padded + first, sum);
      }
    });
  }

  void backward(ConstRows q, ConstRows k, ConstRows v, ConstRows dout, float* cells, const float* saved, Rows dq,
                Rows dk, Rows dv) const {
    if (!items) rows_to_columns(q, p.queries, padding, p.width, scale() * log2_e, q_columns);
    rows_to_columns(dout, p.queries, padding, p.width, 1.0f, d_columns);
    load_softmax(saved);
    each_block([&](const Block& b) {
      if (!items) products(b, q_columns, k, cells);
      products(b, d_columns, v, slopes);
      each_vector(b, [&](std::int64_t first, std::int64_t seen) { differentiate(first, seen, cells); });
      mix(b, slopes, k);
    });
    add_queries(cells, dout, 1.0f, dv);
    add_queries(slopes, q, scale(), dk);
    columns_to_rows(columns, p.queries, padding, p.width, [&](std::int64_t) { return splat(scale()); }, dq);
  }

  void load_softmax(const float* saved) const {
    for (float* of : {largest, inverse}) {
      std::memset(of, 0, sizeof(float) * padding);
      std::memcpy(of + padding, saved, sizeof(float) * p.queries);
      saved += p.queries;
    }
  }

  // cells = p and slopes = ds, from exponentials if they were kept, else from scores, and from dp.
  void differentiate(std::int64_t first, std::int64_t seen, float* cells) const {
    const Lanes most = load(largest + first), one_over_total = load(inverse + first);
    Lanes own{};
    for (std::int64_t j = 0; j < seen; ++j) {
      float* const cell = cells + j * padded + first;
      Lanes weight = (items ? load(cell) : exp2_bounded(load(cell) - most)) * one_over_total;
      if (j >= seen - lanes) weight = unseen(first, seen, j) ? Lanes{} : weight;
      own += weight * load(slopes + j * padded + first);
      store(cell, weight);
    }
    for (std::int64_t j = 0; j < seen; ++j) {
      float* const slope = slopes + j * padded + first;
      const Lanes ds = load(cells + j * padded + first) * (load(slope) - own);
      store(slope, j < seen - lanes ? ds : unseen(first, seen, j) ? Lanes{} : ds);
    }
  }

  // to[j] = times sum_i cells[j, i] rows[i]: vector after vector, the keys that it is the first to see.
  void add_queries(const float* cells, ConstRows rows, float times, Rows to) const {
    if (in_half()) pair_rows(rows);
    for (std::int64_t first = 0, begin = 0; first < padded; first += lanes) {
      const std::int64_t end = p.length - padded + first + lanes, from = larger(first, padding);
      if (in_half())
        add_query_pairs(cells + begin * padded, end - begin, from / 2, {to[begin], to.stride});
      else
        product(end - begin, p.width, padded - from, {cells + begin * padded + from, padded, 1},
                {rows[from - padding], rows.stride}, {to[begin], to.stride});
      begin = end;
    }
    if (times != 1.0f)
      for (std::int64_t j = 0; j < p.length; ++j)
        for (std::int64_t w = 0; w < p.width; w += lanes)
          store(to[j] + w, load(to[j] + w, filled(p.width - w)) * times, filled(p.width - w));
  }

  // Heads that leave half of a vector's lanes unused: the numbers of two queries beside one another fill it.
  void pair_rows(ConstRows rows) const {
    const int width = static_cast<int>(p.width);
    const auto row = [&](std::int64_t i) { return i < padding ? Lanes{} : load(rows[i - padding], width); };
    for (std::int64_t i = 0; i < padded; i += 2) store(pairs + i / 2 * lanes, zipped(row(i), row(i + 1), every_lane));
  }

  void add_query_pairs(const float* cells, std::int64_t count, std::int64_t from, Rows to) const {
    pair_product(count, padded / 2 - from, {cells + 2 * from, padded, 2}, {pairs + from * lanes, lanes},
                 {sums, lanes});
    for (std::int64_t j = 0; j < count; ++j)
      store(to[j], neighbours(load(sums + j * lanes), every_lane), static_cast<int>(p.width));
  }

  const OneQueryAttention one_query_;
};

inline void attention_forward(const Attention& p, std::int64_t begin, std::int64_t end, float* scratch) {
  Arena arena(scratch);
  const AttentionKernel kernel(p, 0, arena);
  for (std::int64_t item = begin; item < end; ++item) kernel.forward(item);
}

inline void attention_backward(const Attention& p, std::int64_t begin, std::int64_t end, float* scratch) {
  Arena arena(scratch);
  const AttentionKernel kernel(p, 0, arena);
  for (std::int64_t item = begin; item < end; ++item) kernel.backward(item);
}

inline std::int64_t attention_scratch(const Attention& p) {
  Arena arena(nullptr);
  AttentionKernel(p, 0, arena);
  return arena.used();
}

}  // namespace recall::RECALL_ISA
