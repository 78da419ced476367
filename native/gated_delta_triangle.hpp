// What the positions of a chunk have to do with one another in the gated delta rule where a state decays as a
// whole (arXiv:2406.06484, section 3; 2412.06464, section 3.3).  With S the state before the chunk and u_j what
// position j writes under its key:
//
//   S'_t = c_t S + sum over j < t of D_tj k_j u_j^T       c_t = a_0 ... a_t      D_tj = a_{j+1} ... a_t
//   e_t  = v_t - c_t S^T k_t - sum over j < t of A_tj u_j             A_tj = D_tj k_t . k_j
//   o_t  = c_t S^T q_t + sum over j <= t of B_tj u_j                  B_tj = D_tj q_t . k_j
//   next S = c_T S + sum over j of D_Tj k_j u_j^T                     T the chunk's last position
//
// So a state is read and written once a chunk, by matrix products.  D is multiplied up, never a quotient: all of it is
// at most 1 where no a is larger.  Sums over j < t have no other terms, so that what is not finite stays in its future.

#pragma once

#include "gated_delta_chunks.hpp"
#include "matrix.hpp"

namespace recall::RECALL_ISA {

static_assert(delta_chunk % lanes == 0, "a chunk's positions fill vectors of lanes");

// to (width, columns) from rows [begin, end); the other columns are zero.  Whole vectors of columns.
inline void turn(ConstRows from, std::int64_t begin, std::int64_t end, std::int64_t width, std::int64_t columns, Rows to) {
  for (std::int64_t i = 0; i < width; i += lanes)
    for (std::int64_t j = 0; j < columns; j += lanes) {
      Lanes square[lanes];
      for (int l = 0; l < lanes; ++l)
        square[l] = begin <= j + l && j + l < end ? load(from[j + l] + i, filled(width - i)) : Lanes{};
      transpose(square);
      for (int l = 0, rows = filled(width - i); l < rows; ++l) store(to[i + l] + j, square[l]);
    }
}

inline void copy_rows(std::int64_t height, std::int64_t width, ConstRows from, Rows to) {
  for (std::int64_t row = 0; row < height; ++row) std::memcpy(to[row], from[row], sizeof(float) * width);
}

inline void clear_rows(std::int64_t height, std::int64_t width, Rows to) {
  for (std::int64_t row = 0; row < height; ++row) std::memset(to[row], 0, sizeof(float) * width);
}

inline ConstRows below(ConstRows x, std::int64_t row) { return {x[row], x.stride}; }
inline Rows below(Rows x, std::int64_t row) { return {x[row], x.stride}; }

class DeltaTriangle : public DeltaChunk<delta_chunk> {
 public:
  Rows D, A, B;            // (delta_chunk, delta_chunk), of which what is above the diagonal counts for nothing
  Rows k_to_end;           // (delta_chunk, stride): D_Tj k_j
  Rows k_across, q_across;  // (key_width, delta_chunk)
  float* c;                // (delta_chunk,)

  DeltaTriangle(const Delta& of, Arena& arena) : DeltaChunk(of, arena), p(of) {
    for (Rows* square : {&D, &A, &B}) *square = {arena.take(delta_chunk * delta_chunk), delta_chunk};
    k_to_end = {arena.take(delta_chunk * stride), stride};
    for (Rows* across : {&k_across, &q_across}) *across = {arena.take(p.key_width * delta_chunk), delta_chunk};
    c = arena.take(delta_chunk);
  }

  void prepare(std::int64_t of, std::int64_t chunk) {
    DeltaChunk::prepare(of, chunk);
    prepare_decays();
    turn(keys(), 0, steps, p.key_width, delta_chunk, k_across);
    relate(keys(), 0, A), relate(queries(), from, B);
  }

  // This head's rows in tensors of all positions, and of those from `from` on that are read.
  template <class Number>
  Matrix<Number> every(Number* of, std::int64_t distance) const {
    return {of + first * distance + head * p.value_width, distance};
  }
  template <class Number>
  Matrix<Number> where_read(Number* of) const {
    return {of + read(from), p.heads * p.value_width};
  }

  ConstRows keys() const { return {k, stride}; }
  ConstRows queries() const { return {q, stride}; }
  ConstRows kept_state() const { return {p.states + kept(), p.value_width}; }
  int read_steps() const { return steps - from; }
  bool starts_empty() const { return index == 0 && !p.initial; }
  const float* to_end() const { return D[steps - 1]; }
  float whole() const { return c[steps - 1]; }

 private:
  void prepare_decays() {
    const int end = steps;
    const std::int64_t width = stride;
    const float* const a = decay;
    const Rows faded = D, to = k_to_end, from = {k, stride};
    std::memset(c, 0, sizeof(float) * delta_chunk);
    Lanes row[delta_chunk / lanes] = {};
    float since = 1.0f;
    for (int step = 0; step < end; ++step) {
      since *= a[step], c[step] = since;
      for (int j = 0; j < delta_chunk; j += lanes) {
        Lanes& of = row[j / lanes];
        of = counted(every_lane) == step - j ? splat(1.0f) : first_of(of * a[step], step - j);
        store(faded[step] + j, of);
      }
    }
    for (int step = 0; step < end; ++step) {
      const float left = faded[end - 1][step];
      for (std::int64_t i = 0; i < width; i += lanes) store(to[step] + i, load(from[step] + i) * left);
    }
  }

  // The products of rows with all keys, faded.
  void relate(ConstRows rows, int begin, Rows to) const {
    const int end = steps;
    const Rows faded = D;
    product(end - begin, delta_chunk, p.key_width, scalars(below(rows, begin)), k_across, below(to, begin));
    for (int step = begin; step < end; ++step)
      for (int j = 0; j < delta_chunk; j += lanes) store(to[step] + j, load(to[step] + j) * load(faded[step] + j));
  }

  const Delta& p;
};

}  // namespace recall::RECALL_ISA
