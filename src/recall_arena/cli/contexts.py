"""The context lengths that a command is given, checked against its task."""

from dataclasses import replace

from recall_arena.cli.command import Mistake
from recall_arena.cli.options import lengths_of
from recall_arena.evaluation import Contexts
from recall_arena.tasks import Task


def checked_contexts(given: Contexts, listed: str, task: Task) -> Contexts:
    """The contexts, those of `listed`, "64,128,2^20", in their place where there are any.

    Raises Mistake if there is none among them, or one that the task has not.
    """
    contexts = replace(given, at=lengths_of(listed) or given.at)
    lengths, shortest = contexts.lengths(task), task.shortest_context
    if lengths and lengths[0] >= shortest:
        return contexts
    if contexts.at:
        raise Mistake(f"--contexts must be at least {shortest} with this task, got {lengths[0]}")
    first = shortest if contexts.first is None else contexts.first
    raise Mistake(
        f"--contexts.first must be at least {shortest} with this task and --contexts.last at "
        f"least --contexts.first, got {first} and {contexts.last}"
    )
