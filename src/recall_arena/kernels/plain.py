"""Which tensors compiled code may read: those that are what they seem.

A compiled kernel is handed addresses.  A fake, traced, batched or dual tensor has none that
mean anything, and a mode that wants to see PyTorch's operations would not see the kernel's.
Such tensors run through the PyTorch definitions, which are right for all of them.
"""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

_CLASSES = (Tensor, nn.Parameter)


def eager() -> bool:
    """Whether operations run as they are called: nothing traces, transforms or intercepts them.

    False under torch.jit.trace, torch.compile, torch.export, make_fx, FakeTensorMode and other
    dispatch modes, torch.func's transforms, forward-mode differentiation and autocast.
    """
    return not (
        torch._C._functorch.peek_interpreter_stack() is not None
        or _get_current_dispatch_mode() is not None
        or torch._C._get_tracing_state() is not None
        or torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
    )


def is_mask(where: Tensor | None, tokens: Tensor) -> bool:
    """Whether `where` is no positions but a padding mask of whole numbers, as tokenizers make it.

    That is 0s and 1s in the tokens' own shape, of more than two columns.  What traced tensors hold
    is not known, and they count as positions.
    """
    if where is None or where.shape != tokens.shape or tokens.shape[1] <= 2:
        return False
    return eager() and type(where) is Tensor and bool(((where == 0) | (where == 1)).all())


def readable(tensor: Tensor) -> bool:
    """Whether this is a float32 tensor of numbers in the CPU's memory, of torch's own class.

    A subclass may mean anything by its numbers, a sparse tensor has others, and one that is
    negative lazily (the imaginary part of a conjugate) has the wrong signs in memory.  Gradients
    that autograd batches (`is_grads_batched`) are many in one.
    """
    return (
        type(tensor) in _CLASSES
        and tensor.dtype == torch.float32
        and tensor.is_cpu
        and tensor.layout == torch.strided
        and not tensor.is_neg()
        and not torch._C._functorch.is_legacy_batchedtensor(tensor)
    )
