// The functions of the C ABI.

#pragma once

#include "operations.hpp"

extern "C" {

// Of the kernels in use, and the choice of others: 0, or 1 if this processor or this build lacks them.
const char* recall_instruction_set();
int recall_choose_instruction_set(const char* name);

// A SHA-256 over the sources that the library was built from.
const char* recall_build();

// A line for each struct: its name, its size, and name:offset of each field.
const char* recall_layouts();

// From now on calls of several threads run on the team of this OpenMP, given its GOMP_parallel.
void recall_use_team(void* parallel);

// From now on scratch memory is filled with a pattern before use, or (0) no longer: what a result may not
// depend on.
void recall_fill_scratch(int fill, std::uint32_t pattern);

// A function of `math.hpp` on `count` numbers: 0, or 1 if none has this name.
int recall_elementary(const char* name, const float* x, float* y, std::int64_t count);

// Each operation returns 0; 1 if a token or an answer is not in the vocabulary; 2 if a block's kind is
// unknown; 3 if a position that is asked is not in its sequence.  But for 0, nothing has been done.
int recall_scan_forward(const recall::Scan* p, int threads);
int recall_scan_backward(const recall::Scan* p, int threads);
int recall_conv_forward(const recall::Conv* p, int threads);
int recall_conv_backward(const recall::Conv* p, int threads);
int recall_attention_forward(const recall::Attention* p, int threads);
int recall_attention_backward(const recall::Attention* p, int threads);
int recall_delta_forward(const recall::Delta* p, int threads);
int recall_delta_backward(const recall::Delta* p, int threads);
int recall_block_forward(const recall::Block* p, int threads);
int recall_block_backward(const recall::Block* p, int threads);
int recall_stack_logits(const recall::Stack* p, int threads);
int recall_stack_gradients(const recall::Stack* p, int threads);

}  // extern "C"
