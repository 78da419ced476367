"""How much torture a test does, and what it measured.

By default each test does a little; with `--torture`, as `make torture` calls them, it does what
docs/reliability.md says, and its figures are written to results/torture.jsonl.
"""

from collections.abc import Callable

Scale = Callable[[int, int], int]
"""(by default, in full) to how much."""

Figures = Callable[..., None]
"""What a test found, as numbers by name."""
