"""What docs/reliability.md says, from results/torture.jsonl; see `numbers`."""

import json
from typing import Any

from benchmarks.tables import RESULTS, line
from recall_arena.records.archive import Archive

SAID = {
    "test_killed_again_and_again_a_command_ends_with_the_same_records": (
        "SIGKILL of a sweep of 6 runs in 2 processes, mostly at work, which is then called again"
    ),
    "test_random_command_lines_end_as_they_should": "random and hostile command lines",
    "test_random_configurations_are_refused_or_trained_and_none_fails": (
        "random runs of six iterations, some of which cannot be meant"
    ),
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
    "test_a_store_takes_ten_thousand_runs_and_their_study_goes_on": (
        "records as long as the published ones, and the sweep that they are of, called again"
    ),
    "test_a_store_of_five_thousand_records_is_listed_exported_and_reported": (
        "a store of such records, at first without an index"
    ),
    "test_an_executor_hands_runs_on[local]": (
        "runs of a fraction of a second, two at once, in local processes"
    ),
    "test_an_executor_hands_runs_on[ray]": "likewise, as tasks of Ray",
    "test_an_executor_hands_runs_on[slurm]": "likewise, as jobs of a SLURM of one node",
    "test_ray_beside_processes": (
        "a sweep of four runs of about a minute, with Ray beside local processes"
    ),
}
NODES, CORES, MINUTE = 100, 16, 60


OF_THE_ROW = ("test", "seconds", "machine", "commit")


def table() -> str:
    """The newest figures of each torture, and where they were measured."""
    newest = _newest()
    lines = [line(["what was done", "figures", "seconds"]), "|---|---|--:|"]
    for test, said in SAID.items():
        if (row := newest.get(test)) is not None:
            found = {n: v for n, v in row.items() if n not in OF_THE_ROW}
            figures = ", ".join(f"{name} {value:,}" for name, value in found.items())
            lines.append(line([said, figures, str(row["seconds"])]))
    at = {(row["machine"], row["commit"]) for row in newest.values() if "commit" in row}
    places = "; ".join(f"{name}, commit {commit}" for name, commit in sorted(at))
    lines += ["", f"Measured on {places}."] if at else []
    return "\n" + "\n".join(lines) + "\n\n"


def cluster() -> str:
    """What many nodes would need, by these figures."""
    newest = _newest()
    store = newest["test_a_store_takes_ten_thousand_runs_and_their_study_goes_on"]
    taken = {
        name: newest[f"test_an_executor_hands_runs_on[{name}]"]["core-seconds a run"]
        for name in ("local", "ray", "slurm")
    }
    runs, at_once = store["runs"], NODES * CORES
    written, loose = store["records written a second"], store["bytes a record"]
    archives = sorted((RESULTS / "records").glob("revision-*.parquet"))
    packed = sum(path.stat().st_size for path in archives) / sum(
        len(Archive(path).rows) for path in archives
    )
    shares = ", ".join(f"{seconds / MINUTE:.1%}" for seconds in taken.values())
    lines = [
        f"* **Records.** {at_once:,} runs at once, of a minute each, are {at_once / MINUTE:.0f} "
        f"records a second. One process wrote {written:,} a second to a local disk, each "
        "synchronised. A shared file system may take fewer.",
        f"* **Space.** A record takes {loose / 1000:.1f} kB, packed (`recall runs archive`, as the "
        f"published ones are) {packed / 1000:.1f} kB: "
        f"{runs:,} of them {runs * loose / 1e6:.0f} MB and {runs * packed / 1e6:.0f} MB.",
        f"* **The command.** Called again for {runs:,} runs that are all there it takes "
        f"{store['seconds of the sweep called again']:.0f} s and {store['its MB']:,} MB.",
        f"* **Handing on.** A run of 30 iterations takes {taken['local']:.2f} core-seconds in "
        f"local processes, {taken['ray']:.2f} with Ray and {taken['slurm']:.1f} with SLURM, whose "
        f"jobs each start a Python of their own. Were it all overhead, it would be {shares} of a "
        "run of a minute.",
    ]
    return "\n" + "\n".join(lines) + "\n\n"


def _newest() -> dict[str, dict[str, Any]]:
    path = RESULTS / "torture.jsonl"
    rows = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    return {row["test"]: row for row in rows}
