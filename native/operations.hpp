// What crosses the C ABI: one struct of sizes, strides and pointers for each operation, and the table of
// kernels that each instruction set has.  `src/recall_arena/kernels/structs.py` mirrors the structs;
// `layouts.cpp` tells their layout, which is compared when the library is loaded.
//
// A tensor (batch, length, width) is given by its first element and its stride: the distance in floats
// between consecutive positions.  Its last axis is contiguous and its sequences follow one another, so a
// slice of a wider tensor needs no copy.

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
  float *grad_u, *grad_delta, *grad_z;  // (batch, length, channels)
  float *grad_B, *grad_C;               // (batch, length, state)
  float *grad_A, *grad_D, *grad_bias;   // partial gradients of each sequence: (batch, state + 2, channels)
  float* recomputed;  // backward: receives `out` once more; may be null
  std::int64_t last;  // not 0: z, out, grad_out and grad_z are (batch, channels), the last position's
};

struct Conv {
  std::int64_t batch, length, channels, window;
  std::int64_t linear;  // not 0: without SiLU
  const float* x;
  std::int64_t x_stride;
  const float *weight, *bias;  // weight (window, channels); no bias: null
  float* out;                  // (batch, length, channels)
  const float* grad_out;
  std::int64_t grad_out_stride;
  float* grad_x;
  std::int64_t grad_x_stride;
  float *grad_weight, *grad_bias;  // partial gradients of each sequence: (batch, window + 1, channels)
};

// A tensor (batch, heads, positions, width) whose last axis is contiguous, by its strides in floats.
struct Heads {
  float* data;
  std::int64_t batch, head, row;
};

struct Attention {
  std::int64_t batch, heads, length, queries, width;  // the queries are the last of `length` positions
  Heads q, k, v;
  const float *cosines, *sines;  // (length, width / 2): RoPE's angles; null: none
  Heads out;
  float* softmax;  // (batch, heads, 2, queries): largest exponent, 1 / sum
  Heads grad_out, grad_q, grad_k, grad_v;
};

struct Delta {
  std::int64_t batch, length, heads, key_width, value_width;
  const float *q, *k, *v;  // (batch, length, heads, key_width), v with value_width
  std::int64_t q_stride, k_stride, v_stride;
  const float *g, *beta;  // (batch, length, heads), g with key_width where it is by channel; no g: no decay
  std::int64_t g_stride, g_head, beta_stride, beta_head;  // from position to position, from head to head
  std::int64_t g_by_channel, normalised;  // not 0: g has a number for each channel; q and k get unit length
  double scale;                           // of q
  const float* initial;  // (batch, heads, key_width, value_width): the state before the first position; null: 0
  float* final;          // the same after the last position; may be null
  float* out;            // (batch, length, heads, value_width)
  float* states;         // (batch, heads, chunks, key_width, value_width): the state before each chunk; may be null
  float* errors;         // (batch, length, heads, value_width): what v was beside the state's value; may be null
  const float *grad_out, *grad_final;  // grad_final may be null: 0
  float *grad_q, *grad_k, *grad_v;
  std::int64_t grad_key_stride, grad_v_stride;
  float *grad_g, *grad_beta;  // they lie as g and beta do
  float* grad_initial;        // may be null
  std::int64_t last;          // not 0: out and grad_out are (batch, heads, value_width), the last position's
};

// With a norm, a block is x + mixer(norm(x)); without one it is the mixer alone.
struct Norm {
  const float *weight, *bias;  // no weight: neither norm nor residual; no bias: RMS norm
  double epsilon;
};

// Where x holds only the embedding's rows (distinct, width): the token id of each position (batch, length).
// Such rows get no gradient.  Null and 0: x has a row of its own for each position.
struct Tokens {
  const std::int64_t* rows;
  std::int64_t distinct;
};

// Which mixer a block holds, and so which struct its head begins.
enum class Kind : std::int64_t { mamba = 1, attention = 2, gated_delta = 3, mlp = 4 };

// The head of every mixer's struct.  Weights are laid out as torch's modules keep them.
struct Block {
  Kind kind;
  std::int64_t batch, length, width;
  std::int64_t last;  // not 0: out and grad_out have the last position alone
  const float* x;     // (batch, length, width)
  Tokens tokens;
  Norm norm;
  const float *in_proj, *in_bias, *out_proj, *out_bias;  // no bias: null
  float* out;  // (batch, length, width)
  const float* grad_out;
  float* grad_x;
  float* gradients;  // partial gradients of each shard (shards, numbers): in_proj, the core's, out_proj, norm;
                     // a bias after its projection
  std::int64_t shards, numbers;
};

// A core's own buffers keep what the backward pass reads; each may be null where there is none.
struct Mamba {
  Block block;
  std::int64_t channels, state, window, rank;
  const float *conv_weight, *conv_bias, *x_proj, *dt_weight, *dt_bias, *A_log, *D;
  float *before, *z;  // (batch, length, channels): both halves of in_proj x; z of the last position alone
  float* u;           // (batch, length, channels): the convolved first half
  float* selection;   // (batch, length, rank + 2 state): x_proj u
  float* states;      // (batch, chunks, state, channels)
};

struct SelfAttention {
  Block block;
  std::int64_t heads;
  std::int64_t q_window, k_window, v_window;    // 0: no convolution
  const float *q_conv, *k_conv, *v_conv;        // (width, window)
  const float *cosines, *sines;  // (length, width / heads / 2): RoPE's angles; null: none
  float *q, *mixed;  // (batch, length, width), or of the last position: queries before a convolution; heads' outputs
  float* kv;                     // (batch, length, 2 width): keys, values
  float* softmax;                // (batch, heads, 2, queries)
};

// Not a mixer, but a block as well: each position by itself.
struct MLP {
  Block block;
  std::int64_t hidden;
  std::int64_t gated;  // not 0: SwiGLU
  float* before;       // (batch, length, hidden), or 2 hidden where it is gated: in_proj x
};

// What gates the output of the gated delta rule.
enum class OutputGate : std::int64_t { none = 0, silu = 1, sigmoid = 2 };

struct GatedDelta {
  Block block;
  std::int64_t heads, key_width, value_width, window;  // window 0: no convolution
  std::int64_t decays;  // numbers of a: 0, one a head, or one a channel of the keys
  OutputGate gate;
  double beta_scale, epsilon;  // 2 for negative eigenvalues; of the norm of the output
  const float *conv_weight, *A_log, *dt_bias, *o_norm;  // (channels, window); (heads,); (decays,); (value_width,)
  float *before, *qkv;  // (batch, length, channels): queries, keys, values of all heads; the same convolved
  float* gates;         // (batch, length, heads + decays): b and a, of which beta and the decay are made
  float *z, *o;         // (batch, length, heads * value_width), or of the last position: output's gate; output
  float *states, *errors;  // as in Delta
};

// Where a weight's gradient goes, (rows, columns); a shard has it as (columns, rows).
struct Place {
  float* to;  // null: it is not wanted
  std::int64_t rows, columns;
};

// A whole model: embedded tokens, blocks with norms, final norm, readout where it is asked.
struct Stack {
  std::int64_t batch, length, width, vocabulary, depth;
  std::int64_t asked;  // positions of a sequence that are read
  const std::int64_t *tokens, *answers;  // (batch, length); (batch, asked)
  const std::int64_t* where;             // (batch, asked): the positions; null: the last one alone, asked is 1
  const float *embedding, *positions;    // (vocabulary, width); (at least length, width), null: none
  std::int64_t gathered;  // not 0: the first layer projects each token once; embedding and positions get no gradient
  std::int64_t embeds;    // not 0: the embedding gets a gradient
  const Block* const* layers;  // (depth,); without `where` the last one reads the last position alone
  Norm norm;
  const float* lm_head;  // (vocabulary, width)
  float *logits, *losses;  // (batch, asked, vocabulary), null where only the loss is wanted; (batch, asked)
  float* gradients;  // of the mean loss, (shards, numbers): layers, norm, lm_head, embedding, positions; or null
  std::int64_t shards, numbers;
  const Place* places;  // (weights,): in the order of a shard
  std::int64_t weights;
};

constexpr int scan_chunk = 8;
constexpr int delta_chunk = 16;         // of the gated delta rule by products, without a decay by channel
constexpr int delta_by_products = 32;  // and from which width of keys on
constexpr int largest_state = 256;
constexpr int largest_window = 16;
constexpr int largest_head = 256;

// What one instruction set has.  Every kernel works on items [begin, end): forward these are sequences
// (heads of sequences for attention and the delta rule), backward they are shards of the batch for blocks and stacks.  The
// caller may divide them among threads, and the result does not depend on how.
struct Kernels {
  const char* name;
  void (*scan_forward)(const Scan&, std::int64_t begin, std::int64_t end);
  void (*scan_backward)(const Scan&, std::int64_t begin, std::int64_t end, float* scratch);
  std::int64_t (*scan_scratch)(const Scan&);  // floats of scratch
  void (*conv_forward)(const Conv&, std::int64_t begin, std::int64_t end);
  void (*conv_backward)(const Conv&, std::int64_t begin, std::int64_t end);
  void (*attention_forward)(const Attention&, std::int64_t begin, std::int64_t end, float* scratch);
  void (*attention_backward)(const Attention&, std::int64_t begin, std::int64_t end, float* scratch);
  std::int64_t (*attention_scratch)(const Attention&);
  void (*delta_forward)(const Delta&, std::int64_t begin, std::int64_t end, float* scratch);
  void (*delta_backward)(const Delta&, std::int64_t begin, std::int64_t end, float* scratch);
  std::int64_t (*delta_scratch)(const Delta&);
  bool (*knows)(Kind);
  void (*block_forward)(const Block&, std::int64_t begin, std::int64_t end, float* scratch);
  void (*block_backward)(const Block&, std::int64_t begin, std::int64_t end, float* scratch);
  std::int64_t (*block_scratch)(const Block&);
  void (*stack_logits)(const Stack&, std::int64_t begin, std::int64_t end, float* scratch);
  void (*stack_gradients)(const Stack&, std::int64_t begin, std::int64_t end, float* scratch);
  std::int64_t (*stack_scratch)(const Stack&);
  bool (*elementary)(const char* name, const float* x, float* y, std::int64_t count);
};

}  // namespace recall
