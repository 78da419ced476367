"""Which study is meant, and how much of it."""

from recall_arena.cli.command import Mistake
from recall_arena.names import unknown
from recall_arena.studies import STUDIES, Plan, Study


def study_named(name: str) -> Study:
    """Raises Mistake if there is no such study."""
    if name not in STUDIES:
        raise Mistake(unknown("study", name, STUDIES))
    return STUDIES[name]


def plan_of(study: Study, scale: str, parts: tuple[int, ...], seeds: int | None) -> Plan:
    """Raises Mistake for a scale or a problem that the study lacks, or no seeds."""
    if scale not in study.scales:
        raise Mistake(unknown("scale", scale, study.scales))
    for part in parts:
        if part not in study.parts:
            raise Mistake(f"no problem {part}. There are: {', '.join(map(str, study.parts))}")
    if seeds is not None and seeds < 1:
        raise Mistake(f"--seeds must be at least 1, got {seeds}")
    chosen = tuple(part for part in study.parts if not parts or part in parts)
    return Plan(scale, chosen, seeds)
