// The kernels for one instruction set.  CMake compiles this file once for each, so nothing that it includes
// may define a function outside the instruction set's namespace: the linker would keep one of the copies.

#include "causal_attention.hpp"
#include "causal_conv.hpp"
#include "cores.hpp"
#include "gated_delta.hpp"
#include "gated_delta_backward.hpp"
#include "math.hpp"
#include "selective_scan.hpp"
#include "selective_scan_backward.hpp"
#include "stack.hpp"

#define RECALL_TEXT_(name) #name
#define RECALL_TEXT(name) RECALL_TEXT_(name)

namespace recall::RECALL_ISA {

extern const Kernels kernels;
const Kernels kernels = {
    RECALL_TEXT(RECALL_ISA),
    scan_forward<Data::cold>,
    scan_backward<Data::cold>,
    scan_scratch,
    conv_forward<Data::cold>,
    conv_backward<Data::cold>,
    attention_forward,
    attention_backward,
    attention_scratch,
    delta_forward,
    delta_backward,
    delta_scratch,
    Kinds::known,
    block_forward,
    block_backward,
    block_scratch,
    stack_logits,
    stack_gradients,
    stack_scratch,
    elementary,
};

}  // namespace recall::RECALL_ISA
