"""Records: what runs produced, addressed by what was run.

A record is written as a small JSON file; many together are packed into a Parquet archive.  Both
hold a checksum, and what is read is held against the hash of its run and the rules of counting.
Nothing here imports torch: reading and drawing records needs no model.
"""

from recall_arena.records.files import DamagedRecord
from recall_arena.records.identity import ADDRESS, address_of, check_run
from recall_arena.records.places import end_path, lease_path, snapshot_path, weights_path
from recall_arena.records.record import Cost, Outcome, Provenance, Record, Tally
from recall_arena.records.store import Store, archive, scan_file

__all__ = [
    "ADDRESS",
    "Cost",
    "DamagedRecord",
    "Outcome",
    "Provenance",
    "Record",
    "Store",
    "Tally",
    "address_of",
    "archive",
    "check_run",
    "end_path",
    "lease_path",
    "scan_file",
    "snapshot_path",
    "weights_path",
]
