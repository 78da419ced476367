"""The studies.  To add one: a file with a Study, and its line in STUDIES."""

from recall_arena.studies.assignment import ASSIGNMENT, RATES
from recall_arena.studies.controls import STUDY as CONTROLS
from recall_arena.studies.delays import STUDY as DELAYS
from recall_arena.studies.study import NamedRun, Picture, Plan, Playable, Section, Study, Table

STUDIES: dict[str, Study] = {study.name: study for study in (ASSIGNMENT, RATES, DELAYS, CONTROLS)}

__all__ = ["STUDIES", "NamedRun", "Picture", "Plan", "Playable", "Section", "Study", "Table"]
