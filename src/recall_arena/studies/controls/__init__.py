"""Controls: what would the assignment's runs have learnt, had one thing about them been another?

Problem 1, the corner: one value in sixteen is its own query, and a model that counts its query
earns by it.  Here no value is, and all else is the recipe's, at the rates of the recipe's search.

Problem 3, width and state: d = 64 brings Mamba eight times the width and eight times the state.
Here it has the width with the state of d = 8; and the RoPE transformer and the hybrids have the
width.  With sixteen queries at lengths up to L, at rates of a search of their own.

The runs that these are set against are the assignment's, and belong to the study.  The claims were
written before the controls' own seeds were trained; what the others had found was known.
"""

from recall_arena.records import Store
from recall_arena.studies.controls.sections import sections
from recall_arena.studies.controls.settings import PARTS, SCALES, select, size
from recall_arena.studies.study import NamedRun, Plan, Study


def _runs(plan: Plan, store: Store) -> list[NamedRun]:
    from recall_arena.studies.controls import runs  # needs torch, as all the rest does not

    return runs.runs(plan, store)


STUDY = Study(
    name="controls",
    question="What would have been learnt without the corner v = q, or with width and no state?",
    parts=PARTS,
    scales={name: scale.about for name, scale in SCALES.items()},
    runs=_runs,
    size=size,
    select=select,
    sections=sections,
)
