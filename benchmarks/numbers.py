"""The numbers that pages quote, from results/benchmarks.jsonl.

cog (https://nedbatchelder.com/code/cog) calls these functions between the markers of README.md and
benchmarks/README.md; `make numbers` fills in, a test compares.  A page quotes one machine, and of
its runs the newest one that has all that a number needs.
"""

from collections.abc import Callable
from statistics import median

from benchmarks.lookup import MACHINE, Lookup, Shape, published
from benchmarks.rows import FLOOR, OURS, OUTSIDE, Row, sizes
from benchmarks.tables import line

SIX = 6  # models
STANDARD: Shape = {"batch": 64, "L": 64}


def block(page: Callable[[Lookup], str]) -> str:
    """What stands between two markers."""
    return f"\n{page(published())}\n\n"


# README.md

Contenders = dict[str, str]
"""Names in the rows, and what the page calls them."""

BLOCK: Contenders = {"JAX": "JAX", "mambapy, pscan": "mambapy"}
STEP: Contenders = {"JAX": "JAX", "PyTorch, eager, each token once": "eager PyTorch"}
MAMBA_STEP: Contenders = STEP | {"PyTorch, mambapy": "mambapy"}


def speed(found: Lookup) -> str:
    """Ours, and how many times that the others take."""
    both = "forward and backward"
    lines = [line(["", "d = 8", "d = 64"]), "|---|---|---|"]
    for title, part, subject, stage, others in (
        ("Mamba block, forward and backward", "block", "mamba", both, BLOCK),
        ("whole training step, Mamba", "step", "mamba", "step", MAMBA_STEP),
        ("whole training step, RoPE transformer", "step", "transformer-rope", "step", STEP),
    ):
        cells = []
        for width in (8, 64):
            which = (part, subject, stage, STANDARD | {"d": width})
            ours, *theirs = found.together(*which, OURS, *others)
            times = zip(others.values(), theirs, strict=True)
            told = ", ".join(f"{name} {_two(row.ratio)}" for name, row in times)
            cells.append(f"{_ms(ours.median_ms)} ms; times that: {told}")
        lines.append(line([title, *cells]))
    return "\n".join(lines)


def threads_and_length(found: Lookup) -> str:
    """What a second thread brings, and how far a sequence may reach."""
    gains = [row.ratio for width in (8, 64) for row in _two_threads(found, width)]
    shape = {"batch": 1, "tokens": 1 << 20, "d": 64}
    ours, jax = found.together("long", "mamba", "forward", shape, OURS, "JAX")
    memory = "MiB above the model"
    return (
        f"A second thread makes a step {min(gains):.1f} to {max(gains):.1f} times as fast, by the "
        "model.\nA million tokens (2^20) through two layers of Mamba at d = 64 take "
        f"{_two(ours.median_ms / 1000)} s and {ours.figures[memory]:.0f} MiB on one\ncore, with "
        f"carried state; JAX takes {_two(jax.median_ms / 1000)} s and "
        f"{jax.figures[memory] / 1024:.1f} GiB."
    )


# benchmarks/README.md


def peaks(found: Lookup) -> str:
    """What the core was measured to do."""
    floors = [row.figures for row in found.newest() if row.contender == FLOOR and row.threads == 1]
    exponentials, products = (median(f[name] for f in floors) for name in ("Gexp/s", "Gfma/s"))
    return (
        f"One core of {MACHINE} was measured at {exponentials:.0f} G exponentials and "
        f"{products:.0f} G multiply-adds a second."
    )


def steps(found: Lookup) -> str:
    """A training step beside others, in a row, and on two threads."""
    heads = ["", "beside others, ms", "outside the kernel", "floor, ms", "in a row, ms", "outside"]
    lines = [line([*heads, "two threads, ms", "times as fast"]), "|---|" + 7 * "--:|"]
    for title, subject in (("Mamba", "mamba"), ("RoPE transformer", "transformer-rope")):
        for width in (8, 64):
            shape = STANDARD | {"d": width}
            ours, floor = found.together("step", subject, "step", shape, OURS, FLOOR)
            one, two = _one_and_two(found, subject, width)
            cells = [_ms(ours.median_ms), f"{ours.figures[OUTSIDE]:.0f} %"]
            cells += [_ms(floor.median_ms), _ms(one.median_ms)]
            cells += [f"{one.figures[OUTSIDE]:.0f} %", _ms(two.median_ms), f"{one.ratio:.2f}"]
            lines.append(line([f"{title}, d = {width}", *cells]))
    ranges = []
    for width in (8, 64):
        gains = [row.ratio for row in _two_threads(found, width)]
        ranges.append(f"{min(gains):.2f} to {max(gains):.2f} times as fast as one at d = {width}")
    return "\n".join([*lines, "", f"Over all six models two threads are {' and '.join(ranges)}."])


def _two_threads(found: Lookup, width: int) -> list[Row]:
    """Every model's step on one thread, whose ratio is to that on two."""
    rows = [
        row
        for row in found.newest()
        if row.part == "threads" and row.contender == "one thread" and row.threads == 2
        if row.shape == STANDARD | {"d": width}
    ]
    if len(rows) != SIX:
        raise LookupError(f"not all models have been measured on two threads at d = {width}")
    return rows


def _one_and_two(found: Lookup, subject: str, width: int) -> list[Row]:
    which = ("threads", subject, "step", STANDARD | {"d": width})
    return found.together(*which, "one thread", f"{OURS}, 2 threads", threads=2)


def kernels(found: Lookup) -> str:
    """Each kernel's time over its floor: the call, the kernel in it, the kernel in the cache."""
    heads = [f"d = {width}: call | kernel | in cache" for width in (8, 64)]
    lines = [line(["time over floor", *heads]), "|---|" + 6 * "--:|"]
    for title, subject, in_cache in (
        ("selective scan", "selective_scan", True),
        ("causal convolution", "causal_conv", False),  # on so few sequences, the call's own time
        ("causal attention", "causal_attention", False),
        ("gated delta rule", "gated_delta", True),
    ):
        for stage in ("forward", "backward"):
            cells = [f"{title}, {stage}"]
            for width in (8, 64):
                which = ("operations", subject, stage, STANDARD | {"d": width})
                (floor,) = found.together(*which, FLOOR)
                columns = ("ours / floor", "kernel / floor", "in cache / floor")[: 2 + in_cache]
                cells += [f"{floor.figures[name]:.1f}" for name in columns]
                cells += [""] * (3 - len(columns))
            lines.append(line(cells))
    return "\n".join(lines)


DELTA: Contenders = {
    "recall-arena, definition": "our definition",
    "transformers, step by step": "transformers, step by step",
    "transformers, chunks": "transformers, in chunks",
}


def gated_delta(found: Lookup) -> str:
    """The gated delta rule and its mixer, forward and backward, and how much others take."""
    heads = ["forward and backward", "ours, ms", *DELTA.values()]
    lines = [line(heads), "|---|" + 4 * "--:|"]
    for title, part, subject in (
        ("rule", "operations", "gated_delta"),
        ("mixer", "block", "gated-delta"),
    ):
        for width in (8, 64):
            which = (part, subject, "forward and backward", STANDARD | {"d": width})
            ours, *theirs = found.together(*which, OURS, *DELTA)
            cells = [_ms(ours.median_ms), *(_two(row.ratio) for row in theirs)]
            lines.append(line([f"{title}, d = {width}", *cells]))
    return "\n".join([*lines, "", _delta_beside_floor(found)])


def _delta_beside_floor(found: Lookup) -> str:
    """How near the rule's floor transformers' chunks come, and a whole step beside Mamba's."""
    wide = STANDARD | {"d": 64}

    def of_rule(stage: str, contender: str) -> float:
        (row,) = found.together("operations", "gated_delta", stage, wide, contender)
        return row.median_ms

    floor = of_rule("forward", FLOOR) + of_rule("backward", FLOOR)
    chunks = of_rule("forward and backward", "transformers, chunks")
    (step,) = found.together("step", "gated-delta, gated-delta", "step", wide, OURS)
    mamba, _ = _one_and_two(found, "mamba", 64)
    return (
        f"At d = 64 the floor of the rule's multiply-adds is {_ms(floor)} ms, forward and "
        f"backward, of which transformers' chunks take {_two(chunks / floor)} times. A training "
        f"step of two layers takes {_ms(step.median_ms)} ms, "
        f"{_two(step.median_ms / mamba.median_ms)} times that of two Mamba layers in a row."
    )


def behind(found: Lookup) -> str:
    """Every setting of blocks and steps in which somebody else is the faster one."""
    lines = [
        f"* {row.subject}, {row.stage}, {sizes(row.shape)}, threads {row.threads}: "
        f"{row.contender} takes {row.ratio:.2f} times as long as ours"
        for row in found.newest()
        if row.part in ("block", "step") and row.rounds > 0 and row.ratio < 1
    ]
    return "\n".join(lines or ["* none"])


def _ms(number: float) -> str:
    """Three digits."""
    return f"{number:#.3g}".rstrip(".")


def _two(number: float) -> str:
    """Two digits, or all of a larger number's."""
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"
