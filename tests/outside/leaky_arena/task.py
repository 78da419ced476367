"""Which token stood first?"""

import torch

from recall_arena.config import frozen
from recall_arena.tasks import Batch, Task


@frozen
class FirstToken(Task):
    """The answer is the first token, whatever the others are.

    Attributes:
        vocabulary: K, how many tokens there are
        copies: how many tokens at the beginning are the same
    """

    vocabulary: int = 8
    copies: int = 1

    @property
    def shortest_context(self) -> int:
        return self.copies

    def sample(self, batch: int, context: int, rng: torch.Generator) -> Batch:
        self.check_context(context)
        tokens = torch.randint(self.vocabulary, (batch, context + 1), generator=rng)
        tokens[:, : self.copies] = tokens[:, :1]
        return Batch.asked_last(tokens, tokens[:, 0])
