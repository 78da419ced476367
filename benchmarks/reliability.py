"""What docs/reliability.md says, from results/torture.jsonl; see `numbers`."""

import json
from typing import Any

from benchmarks.tables import RESULTS, line

SAID = {
    "test_killed_again_and_again_a_command_ends_with_the_same_records": (
        "SIGKILL at a random moment of a sweep of 8 runs in 2 processes, which is then called again"
    ),
    "test_random_command_lines_end_as_they_should": "random and hostile command lines",
    "test_runners_share_a_study_and_a_dead_ones_run_is_taken_over": (
        "runners on one store, some of them killed"
    ),
    "test_no_damage_passes[record]": "a record cut at every byte, and bits flipped",
    "test_no_damage_passes[archive]": "an archive, likewise",
    "test_no_damage_passes[weights]": "trained weights, likewise",
    "test_no_damage_passes[snapshot]": "a snapshot of an unfinished run, likewise",
    "test_on_a_full_disk_what_is_finished_stays_whole_and_space_lets_it_go_on": (
        "a disk of 64 KiB, nearly full"
    ),
    "test_snapshots_and_the_executor_cost_little": "a run of a minute, beside its bare loop",
}


def table() -> str:
    """The newest figures of each torture."""
    path = RESULTS / "torture.jsonl"
    rows = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    newest: dict[str, dict[str, Any]] = {row["test"]: row for row in rows}
    lines = [line(["what was done", "figures", "seconds"]), "|---|---|--:|"]
    for test, said in SAID.items():
        if (row := newest.get(test)) is not None:
            found = {n: v for n, v in row.items() if n not in ("test", "seconds")}
            figures = ", ".join(f"{name} {value:,}" for name, value in found.items())
            lines.append(line([said, figures, str(row["seconds"])]))
    return "\n" + "\n".join(lines) + "\n\n"
