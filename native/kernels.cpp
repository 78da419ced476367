// The kernels for one instruction set.  CMake compiles this file once for each.

#include "attention_mixer.hpp"
#include "causal_attention.hpp"
#include "causal_conv.hpp"
#include "mamba_mixer.hpp"
#include "selective_scan.hpp"
#include "selective_scan_backward.hpp"
#include "stack.hpp"

#define RECALL_TEXT_(name) #name
#define RECALL_TEXT(name) RECALL_TEXT_(name)

namespace recall::RECALL_ISA {

extern const Kernels kernels;
const Kernels kernels = {
    RECALL_TEXT(RECALL_ISA),
    scan_forward<Tensors::elsewhere>,
    scan_backward<Tensors::elsewhere>,
    scan_scratch,
    conv_forward<Tensors::elsewhere>,
    conv_backward<Tensors::elsewhere>,
    attention_forward,
    attention_backward,
    attention_scratch,
    mamba_forward,
    mamba_backward,
    mamba_scratch,
    self_attention_forward,
    self_attention_backward,
    self_attention_scratch,
    stack_logits,
    stack_gradients,
    stack_scratch,
};

}  // namespace recall::RECALL_ISA
