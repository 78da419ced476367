"""Associative recall: a token comes back; what followed it the first time?

The recipe is that of the assignment's "Generating training dataset", steps 1 to 6.
"""

import torch

from recall_arena.config import added, frozen
from recall_arena.tasks.task import Batch, Task


@frozen
class AssociativeRecall(Task):
    """AR(M): recall the value that stood `delay` tokens after the query.

        delay 1     4 1 [7 3] 0 2 | 7   ->  3
        delay 3     4 [7 0 5 3] 2 | 7   ->  3

    `context` tokens come before the query, so the shortest context is delay + 1.  Filler is
    uniform over every token but the query, so it may contain other queries.  The value is
    uniform over all tokens: one time in `vocabulary` it is the query itself.  The answer then
    still is what stood `delay` tokens after the first appearance of the query, so a solver
    that looks there is always right.  Without `repeats` the value is uniform over the others.

    Attributes:
        vocabulary: K, how many tokens there are
        queries: M, how many of them, the first ones, are ever asked for; 1 is the induction head
        delay: tau, how many tokens after the query its value stands
        distance: how far before the end, where the query is asked, it stands at most in the
            context; None is anywhere.  What a curriculum of near pairs first lets grow
        repeats: whether the value may be the query itself

    Raises:
        ValueError: for a vocabulary below 2, queries outside 1..vocabulary, a delay below 1, a
            distance below delay + 1
    """

    vocabulary: int = 16
    queries: int = 1
    delay: int = 1
    distance: int | None = added(default=None)
    repeats: bool = added(default=True)

    def __post_init__(self) -> None:
        if self.vocabulary < 2:
            raise ValueError(f"vocabulary must be at least 2, got {self.vocabulary}")
        if not 1 <= self.queries <= self.vocabulary:
            raise ValueError(f"queries must be in 1..{self.vocabulary}, got {self.queries}")
        if self.delay < 1:
            raise ValueError(f"delay must be at least 1, got {self.delay}")
        if self.distance is not None and self.distance < self.shortest_context:
            raise ValueError(
                f"distance must be at least delay + 1 = {self.shortest_context}, "
                f"got {self.distance}"
            )

    @property
    def shortest_context(self) -> int:
        return self.delay + 1

    def growing(self, name: str, context: int) -> tuple[int, int] | None:
        if name == "distance":
            return self.shortest_context, self.distance or context
        return super().growing(name, context)

    def sample(self, batch: int, context: int, rng: torch.Generator) -> Batch:
        if batch < 0:
            raise ValueError(f"batch must not be negative, got {batch}")
        if context < self.shortest_context:
            raise ValueError(
                f"context must be at least delay + 1 = {self.shortest_context}, got {context}"
            )

        def draw(below: int, columns: int = 1) -> torch.Tensor:
            return torch.randint(below, (batch, columns), generator=rng)

        def draw_others(columns: int) -> torch.Tensor:
            drawn = draw(self.vocabulary - 1, columns)
            return drawn + (drawn >= query)  # steps over the query and stays uniform

        query = draw(self.queries)
        value = draw(self.vocabulary) if self.repeats else draw_others(columns=1)
        nearest = min(self.distance or context, context)  # where the furthest query may stand
        first = context - nearest + draw(nearest - self.delay)

        body = draw_others(columns=context)
        body.scatter_(1, first, query)
        body.scatter_(1, first + self.delay, value)
        return Batch.asked_last(torch.cat([body, query], dim=1), value.squeeze(1))
