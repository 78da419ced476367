// What crosses the C ABI: one struct of sizes, strides and pointers for each operation.
// `src/recall_arena/kernels/structs.py` mirrors these structs field by field.
//
// A tensor (batch, length, width) is given by its first element and its stride: the
// distance in floats between consecutive positions.  Its last axis is contiguous and its
// sequences follow one another, so a slice of a wider tensor needs no copy.

#pragma once

#include <cstdint>

namespace recall {

struct Scan {
  std::int64_t batch, length, channels, state;
  const float *u, *delta, *B, *C, *z;  // z may be null: no gate
  std::int64_t u_stride, delta_stride, B_stride, C_stride, z_stride;
  const float *A, *D, *delta_bias;  // A (state, channels)
  const float* initial;  // (batch, state, channels): the state before the first position; null: zero
  float* final;          // the same after the last position; may be null
  float* out;            // (batch, length, channels)
  float* states;  // (batch, chunks, state, channels): the state before each chunk; may be null
  const float* grad_out;
  std::int64_t grad_out_stride;
  float *grad_u, *grad_delta, *grad_z;     // (batch, length, channels)
  float *grad_B, *grad_C;                  // (batch, length, state)
  float *grad_A, *grad_D, *grad_bias;      // one share a sequence: (batch, state + 2, channels)
  float* again;       // backward: room for `out`, computed again; may be null
  std::int64_t last;  // not 0: z, out, grad_out and grad_z are (batch, channels), the last position's
};

struct Conv {
  std::int64_t batch, length, channels, window;
  const float* x;
  std::int64_t x_stride;
  const float *weight, *bias;  // weight (window, channels)
  float* out;                  // (batch, length, channels)
  const float* grad_out;
  std::int64_t grad_out_stride;
  float* grad_x;
  float *grad_weight, *grad_bias;  // one share a sequence: (batch, window + 1, channels)
};

// A tensor (batch, heads, positions, width) whose last axis is contiguous, by its strides in floats.
struct Heads {
  float* data;
  std::int64_t batch, head, row;
};

struct Attention {
  std::int64_t batch, heads, length, queries, width;  // the last `queries` of `length` positions ask
  Heads q, k, v;
  const float *cosines, *sines;  // (length, width / 2): RoPE's angles; null: none
  Heads out;
  float* softmax;  // (batch, heads, 2, queries): largest exponent, 1 / sum
  Heads grad_out, grad_q, grad_k, grad_v;
};

// With a norm, a mixer is the residual block x + mixer(norm(x)), and the gradients of weight and bias
// follow those of the mixer's weights.
struct Norm {
  const float *weight, *bias;  // null: neither norm nor residual
  double epsilon;
};

// Where x holds only `distinct` rows (distinct, width), the one of each position (batch, length); such
// rows get no gradient.  None: x has a row of its own for each position.
struct Tokens {
  const std::int64_t* rows;
  std::int64_t distinct;
};

// A Mamba mixer: projections, convolution, scan.  Weights are laid out as torch's modules keep them.
struct Mamba {
  std::int64_t batch, length, width, channels, state, window, rank;
  const float* x;  // (batch, length, width)
  Tokens tokens;
  Norm norm;
  const float *in_proj, *conv_weight, *conv_bias, *x_proj, *dt_weight, *dt_bias, *A_log, *D, *out_proj;
  float* out;         // (batch, length, width)
  float *before, *z;  // (batch, length, channels): both halves of in_proj x
  float* u;           // (batch, length, channels): the convolved first half
  float* selection;   // (batch, length, rank + 2 state): x_proj u
  float* states;      // (batch, chunks, state, channels); may be null, as may all of these but `out`
  const float* grad_out;
  float* grad_x;
  float* gradients;  // (portions, numbers): one share a portion of the batch, see `mamba_mixer.hpp`
  std::int64_t portions, numbers;
  std::int64_t last;  // not 0: z, out and grad_out have the last position alone
};

// Self-attention between its projections.  Weights are laid out as torch's modules keep them.
struct SelfAttention {
  std::int64_t batch, length, width, heads, queries;  // the last `queries` of `length` positions ask
  const float* x;                                     // (batch, length, width)
  Tokens tokens;
  Norm norm;
  const float *in_proj, *out_proj;
  const float *cosines, *sines;  // (length, width / heads / 2): RoPE's angles; null: none
  float* out;                    // (batch, queries, width)
  float *q, *mixed;              // (batch, queries, width): queries; what the heads give
  float* kv;                     // (batch, length, 2 width): keys, values
  float* softmax;                // (batch, heads, 2, queries)
  const float* grad_out;
  float* grad_x;
  float* gradients;  // (portions, numbers): one share a portion of the batch: in_proj, out_proj
  std::int64_t portions, numbers;
};

// One of a stack's layers: one of the two is there.  Sizes, weights and `numbers` are read, no more.
struct Layer {
  const Mamba* mamba;
  const SelfAttention* attention;
};

// Where a weight's gradient goes, (rows, columns); a portion's share has it as (columns, rows).
struct Place {
  float* to;  // null: nobody wants it
  std::int64_t rows, columns;
};

// A whole model: embedded tokens, layers that are residual blocks, norm, readout of the last position.
struct Stack {
  std::int64_t batch, length, width, vocabulary, depth;
  const std::int64_t *tokens, *answers;  // (batch, length); (batch,)
  const float *embedding, *positions;    // (vocabulary, width); (at least length, width), null: none
  std::int64_t looked_up;  // not 0: the first layer goes by distinct tokens; there are no positions
  const Layer* layers;     // (depth,); the last one reads the last position alone
  Norm norm;
  const float* lm_head;  // (vocabulary, width)
  float *logits, *losses;  // (batch, vocabulary); (batch,): cross-entropies
  float* gradients;  // of the mean loss, (portions, numbers): layers, norm, lm_head, positions; or null
  std::int64_t portions, numbers;
  const Place* places;  // (weights,): the parts of a share one after another
  std::int64_t weights;
};

constexpr int scan_chunk = 8;
constexpr int largest_state = 256;
constexpr int largest_window = 16;
constexpr int largest_head = 256;

// Each kernel works through the sequences [begin, end) on its own, so that the caller may
// share them out among threads and the result does not depend on how.
struct Kernels {
  const char* name;
  void (*scan_forward)(const Scan&, std::int64_t begin, std::int64_t end);
  void (*scan_backward)(const Scan&, std::int64_t begin, std::int64_t end, float* scratch);
  std::int64_t (*scan_scratch)(const Scan&);  // floats that scan_backward needs
  void (*conv_forward)(const Conv&, std::int64_t begin, std::int64_t end);
  void (*conv_backward)(const Conv&, std::int64_t begin, std::int64_t end);
  // These work through heads of sequences, and use scratch both ways.
  void (*attention_forward)(const Attention&, std::int64_t begin, std::int64_t end, float* scratch);
  void (*attention_backward)(const Attention&, std::int64_t begin, std::int64_t end, float* scratch);
  std::int64_t (*attention_scratch)(const Attention&);
  // Forward these work through sequences, backward through portions of the batch.
  void (*mamba_forward)(const Mamba&, std::int64_t begin, std::int64_t end, float* scratch);
  void (*mamba_backward)(const Mamba&, std::int64_t begin, std::int64_t end, float* scratch);
  std::int64_t (*mamba_scratch)(const Mamba&);
  void (*self_attention_forward)(const SelfAttention&, std::int64_t begin, std::int64_t end,
                                 float* scratch);
  void (*self_attention_backward)(const SelfAttention&, std::int64_t begin, std::int64_t end,
                                  float* scratch);
  std::int64_t (*self_attention_scratch)(const SelfAttention&);
  void (*stack_logits)(const Stack&, std::int64_t begin, std::int64_t end, float* scratch);
  void (*stack_gradients)(const Stack&, std::int64_t begin, std::int64_t end, float* scratch);
  std::int64_t (*stack_scratch)(const Stack&);
};

}  // namespace recall
