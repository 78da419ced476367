"""Multi-query associative recall: keys with values, then some of the keys again; which values?

The generator is that of Zoology (Arora et al. 2023, arXiv:2312.04927, section 4 and figure 2).
"""

from typing import Literal

import torch
from torch import Tensor

from recall_arena.config import frozen
from recall_arena.tasks.task import Batch, Task


@frozen
class MQAR(Task):
    """Recall at every key that comes back the value that stood behind it.

        pairs 2     [5 11] [3 9]  3 0 0 0 5 0 0 0   ->  9 after the second 3, 11 after the second 5

    `context` is the length of the whole sequence: 2 `pairs` tokens of keys and values, then
    (context - 2 pairs) // 2 slots of two tokens, in the first of which a key may stand.  Each
    sequence has its own keys, from 1 to vocabulary / 2 - 1, and values, the upper half of the
    vocabulary, drawn without replacement.  Each key comes back once.  The slots are drawn
    without replacement, with probabilities that fall as g^(power - 1) in slot g = 1, 2, ...

    Zoology wants an even context and more tokens than positions as well; nothing here needs it.

    Attributes:
        vocabulary: how many tokens there are; 0 is filler
        pairs: how many keys a sequence has, each with a value and each asked for once
        power: the exponent of the slots' power law is power - 1; 1 makes all of them alike
        fill: "zeros", or "random": tokens of the whole vocabulary, which may be keys and values

    Raises:
        ValueError: for pairs below 1 or more than there are keys, a power outside 0..1
    """

    vocabulary: int = 8192
    pairs: int = 4
    power: float = 0.01
    fill: Literal["zeros", "random"] = "zeros"

    def __post_init__(self) -> None:
        if not 1 <= self.pairs < self.vocabulary // 2:
            most = self.vocabulary // 2 - 1
            raise ValueError(f"pairs must be in 1..{most} with this vocabulary, got {self.pairs}")
        if not 0 < self.power <= 1:
            raise ValueError(f"power must be above 0 and at most 1, got {self.power}")

    @property
    def shortest_context(self) -> int:
        return 4 * self.pairs

    def sample(self, batch: int, context: int, rng: torch.Generator) -> Batch:
        self.check_context(context)
        half, size = self.vocabulary // 2, (batch, self.pairs)
        keys = 1 + distinct(half - 1, size, rng)
        values = half + distinct(self.vocabulary - half, size, rng)
        where = 2 * self.pairs + 2 * self._slots((context - 2 * self.pairs) // 2, batch, rng)

        table = torch.stack([keys, values], dim=2).flatten(1)
        rest = torch.zeros(batch, context - table.shape[1], dtype=torch.int64)
        inputs = torch.cat([table, rest], dim=1).scatter_(1, where, keys)
        if self.fill == "random":
            anything = torch.randint(self.vocabulary, inputs.shape, generator=rng)
            inputs = torch.where(inputs == 0, anything, inputs)
        return Batch(inputs, values, where)

    def _slots(self, slots: int, batch: int, rng: torch.Generator) -> Tensor:
        """(batch, pairs) of the slots 0, 1, ..., drawn one after another from those left.

        The order of exponential variables, each over its slot's weight, is that of such draws.
        """
        weights = torch.arange(1, slots + 1, dtype=torch.float64) ** (self.power - 1)
        waits = -torch.rand(batch, slots, dtype=torch.float64, generator=rng).log()
        return (waits / weights).topk(self.pairs, largest=False, sorted=True).indices


def distinct(below: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """(batch, count) of the numbers 0 .. below - 1, in each row without replacement.

    Floyd's algorithm (Bentley & Floyd 1987), which draws each set with the same probability in
    `count` steps whatever there is to choose from; then the sets are shuffled.
    """
    batch, count = size
    chosen = torch.empty(batch, count, dtype=torch.int64)
    for i, largest in enumerate(range(below - count, below)):
        drawn = torch.randint(largest + 1, (batch,), generator=rng)
        again = (chosen[:, :i] == drawn.unsqueeze(1)).any(dim=1)
        chosen[:, i] = torch.where(again, largest, drawn)
    order = torch.rand(batch, count, dtype=torch.float64, generator=rng).argsort(dim=1)
    return chosen.gather(1, order)
