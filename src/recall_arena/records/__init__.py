"""Records: what runs produced, addressed by what was run.

A record is written as a small JSON file; many together are packed into a Parquet archive.
Nothing here imports torch: reading and drawing records needs no model.
"""

from recall_arena.records.record import Cost, DamagedRecord, Outcome, Provenance, Record, Tally
from recall_arena.records.store import Store, archive

__all__ = [
    "Cost",
    "DamagedRecord",
    "Outcome",
    "Provenance",
    "Record",
    "Store",
    "Tally",
    "archive",
]
