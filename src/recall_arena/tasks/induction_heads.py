"""Induction heads: a trigger comes back; what followed it the first time?

The task of Gu & Dao 2023 (arXiv:2312.00752, section 4.1.2 and table 2), who made longer that of
Dao et al. 2022 (arXiv:2212.14052).  Their code was never released.
"""

from typing import Literal

import torch

from recall_arena.config import frozen
from recall_arena.tasks.task import Batch, Task

TRIGGER = 0


@frozen
class InductionHeads(Task):
    """Recall the token that followed the only other appearance of the trigger, token 0.

        4 1 [0 3] 7 2 | 0   ->  3

    `context` tokens come before the final trigger, so the shortest context is 2.  The trigger
    stands at a place that is uniform over all that have a token behind them; every other token,
    the answer among them, is uniform over all but the trigger, so chance is 1 / (vocabulary - 1).
    In safari's generator (HazyResearch/safari) the answer is never the last token of the context.

    Attributes:
        vocabulary: how many tokens there are, the trigger among them
        train_on: "last": the loss is that of the answer; "all": that of each next token as well

    Raises:
        ValueError: for a vocabulary below 2, or anything else to train on
    """

    vocabulary: int = 16
    train_on: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        if self.vocabulary < 2:
            raise ValueError(f"vocabulary must be at least 2, got {self.vocabulary}")

    @property
    def shortest_context(self) -> int:
        return 2

    def sample(self, batch: int, context: int, rng: torch.Generator) -> Batch:
        self.check_context(context)
        place = torch.randint(context - 1, (batch, 1), generator=rng)
        body = torch.randint(1, self.vocabulary, (batch, context), generator=rng)
        body.scatter_(1, place, TRIGGER)
        trigger = torch.full((batch, 1), TRIGGER)
        return Batch.asked_last(torch.cat([body, trigger], dim=1), body.gather(1, place + 1)[:, 0])

    def sample_to_train(self, batch: int, context: int, rng: torch.Generator) -> Batch:
        asked = self.sample(batch, context, rng)
        if self.train_on == "last":
            return asked
        targets = torch.cat([asked.tokens[:, 1:], asked.targets], dim=1)
        return Batch(asked.tokens, targets, torch.arange(context + 1).expand(batch, -1))
