"""The context lengths that a command is given, checked against its task."""

from recall_arena.cli.command import Mistake
from recall_arena.evaluation import Contexts
from recall_arena.tasks import Task


def checked_contexts(contexts: Contexts, task: Task) -> Contexts:
    """The contexts; raises Mistake if there is none among them, or one that the task has not."""
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
