"""Whether a run fits into this machine at all; found before anything is built."""

import os
from functools import lru_cache
from typing import Any

import torch

from recall_arena.runs import Run

TOKEN, NUMBER = 8, 4  # bytes
SMALL = 256  # the width and every option of a mixer that takes 200 MB at most
COPIES = 4  # of each trained number: itself, its gradient, two moments


def check_memory(run: Run) -> None:
    """Raises ValueError if a run needs more memory than the machine has."""
    needed, there = least_memory(run), _physical_memory()
    if there is not None and needed > there:
        raise ValueError(
            f"the run needs at least {_gib(needed)} of memory, and this machine has {_gib(there)}; "
            "width, vocabulary, batch, context or sequences are too large"
        )


def least_memory(run: Run) -> int:
    """Bytes below which the run cannot be trained, checked and tested: weights and tokens alone."""
    model, longest = run.model, max(run.contexts.longest, run.schedule.context)
    embedding = model.vocabulary * model.width
    fixed = embedding if model.embedding == "unit" else 0  # no gradient, no moments
    numbers = 2 * embedding - fixed + (model.max_length or 0) * model.width
    numbers += sum(_parameters(options, model.width) for options in model.mixers)
    sequences = max(run.schedule.batch, run.checks.sequences)
    tokens = sequences * (run.schedule.context + 1) + longest + 1
    return NUMBER * (COPIES * numbers + fixed) + TOKEN * tokens


def _parameters(options: Any, width: int) -> int:
    """The numbers of a mixer; kept, for the runs of a plan have few mixers among them."""
    try:
        return _kept(options, width)
    except TypeError:  # somebody else's options, with a list among them
        return _counted(options, width)


def _counted(options: Any, width: int) -> int:
    """The numbers of a mixer; 0 if it cannot be told without memory.

    What is small is built as it will be, and thrown away: "meta" would import PyTorch's compiler,
    which takes each process seconds.
    """
    small = _is_small(options, width)
    try:
        with torch.random.fork_rng(devices=[]) if small else torch.device("meta"):
            module = options.build(width)
    except OverflowError:
        return 1 << 62
    except RuntimeError as error:
        return 1 << 62 if "overflow" in str(error) else 0
    except Exception:  # somebody else's mixer, which computes with its weights
        return 0
    return sum(weight.numel() for weight in module.parameters())


def _is_small(options: Any, width: int) -> bool:
    """Whether no number that decides a mixer's size is large."""
    numbers = [width, *getattr(options, "__dict__", {"unknown": ()}).values()]
    return all(
        number <= SMALL if isinstance(number, int) else isinstance(number, float | str | None)
        for number in numbers
    )


_kept = lru_cache(maxsize=1024)(_counted)


def _physical_memory() -> int | None:
    """Bytes of this machine's memory, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _gib(size: int) -> str:
    return f"{size / 2**30:,.3g} GiB"
