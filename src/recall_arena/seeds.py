"""Random numbers that depend on names alone: no global state, no order, no worker count."""

import hashlib

import torch


def generator(*names: object) -> torch.Generator:
    """A generator seeded by the names, such as ("train", seed, step).

    Names count by their `repr`.  PyTorch's CPU generator uses 32 bits of a seed, so two
    names in four billion share a stream.
    """
    digest = hashlib.blake2b(repr(names).encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
