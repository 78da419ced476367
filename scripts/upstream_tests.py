"""Run the tests of mamba-ssm and causal-conv1d on `recall_arena.compat`, from a checkout of either.

    git clone https://github.com/Dao-AILab/causal-conv1d /tmp/causal-conv1d
    python scripts/upstream_tests.py /tmp/causal-conv1d --sample 500

Each test file is copied to a temporary folder, where three things are changed in its text: the
device is the CPU, the functions come from `recall_arena.compat`, and a loop of 10,000 repeats
(of a search for race conditions) has `--repeats`.  What they are compared with stays upstream's:
the functions named `..._ref` are cut out of the checkout.  The tests need einops.

Prints how many passed, failed, were refused (NotImplementedError, TypeError or ValueError, which
is how compat says no) and skipped, by test and by reason.  The exit status is 0 if none failed,
1 if any did, 2 for a path that is no such checkout.
"""

import ast
import random
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import tyro
from rich.console import Console
from rich.table import Table

SOURCES = {  # each test file, and the modules of upstream that it imports from
    "tests/ops/test_selective_scan.py": ["mamba_ssm.ops.selective_scan_interface"],
    "tests/ops/triton/test_selective_state_update.py": [
        "mamba_ssm.ops.triton.selective_state_update"
    ],
    "tests/test_causal_conv1d.py": [
        "causal_conv1d.causal_conv1d_interface",
        "causal_conv1d.causal_conv1d_varlen",
    ],
}
REFUSALS = ("NotImplementedError", "TypeError", "ValueError")
OUTCOMES = ("passed", "failed", "refused", "skipped")

# The functions under test, which mamba_inner_ref is made of upstream too.
PRELUDE = "from recall_arena.compat import causal_conv1d_fn, selective_scan_fn"
IMPORTED = ("einops", "math", "torch")  # what the references use besides


def copied(checkout: Path, folder: Path, repeats: int) -> list[Path]:
    """The test files of the checkout, changed, in the folder; none if it is no such checkout."""
    tests = []
    for name, modules in SOURCES.items():
        sources = {module: source_of(checkout, module) for module in modules}
        found = {module: path for module, path in sources.items() if path.is_file()}
        if (checkout / name).is_file() and found:
            test = folder / Path(name).name
            references = f"references_of_{test.stem}"
            text = (checkout / name).read_text()
            text = text.replace("range(10000)", f"range({repeats})")
            text = re.sub(r"""device\s*=\s*(["'])cuda\1""", 'device = "cpu"', text)
            for module in found:
                text = with_imports_from_here(text, module, references)
            test.write_text(text)
            parts = [cut_out_references(path.read_text()) for path in found.values()]
            (folder / f"{references}.py").write_text("\n\n\n".join([PRELUDE, *parts]))
            tests.append(test)
    return tests


def with_imports_from_here(text: str, module: str, references: str) -> str:
    """Its `from module import a, a_ref`, a from compat and a_ref from the module of references."""

    def lines(match: re.Match[str]) -> str:
        names = [name.strip() for name in match[1].split(",")]
        sources = [references if n.endswith("_ref") else "recall_arena.compat" for n in names]
        return "\n".join(f"from {s} import {n}" for s, n in zip(sources, names, strict=True))

    return re.sub(rf"^from {re.escape(module)} import (.+)$", lines, text, flags=re.MULTILINE)


def source_of(checkout: Path, module: str) -> Path:
    return (checkout / Path(*module.split("."))).with_suffix(".py")


def cut_out_references(text: str) -> str:
    """The functions in the text of a module whose names end in `_ref`, with their imports."""

    def wanted(node: ast.stmt) -> bool:
        match node:
            case ast.FunctionDef(name=name):
                return name.endswith("_ref")
            case ast.Import(names=[ast.alias(name=name), *_]) | ast.ImportFrom(module=str(name)):
                return name.split(".")[0] in IMPORTED
        return False

    nodes = [node for node in ast.parse(text).body if wanted(node)]
    return "\n".join(ast.get_source_segment(text, node) or "" for node in nodes)


@dataclass
class Outcomes:
    """A pytest plugin that draws tests and counts what becomes of them."""

    sample: int | None
    seed: int
    collected: int = 0
    by_test: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_reason: Counter[tuple[str, str]] = field(default_factory=Counter)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.collected = len(items)
        if self.sample is not None and self.sample < len(items):
            places = random.Random(self.seed).sample(range(len(items)), self.sample)
            items[:] = [items[place] for place in sorted(places)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._count(report.nodeid.split("::")[-1].split("[")[0], report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome == "failed":
            self._count(report.nodeid, report)

    def _count(self, name: str, report: pytest.TestReport | pytest.CollectReport) -> None:
        outcome, reason = report.outcome, reason_of(report)
        if outcome == "failed" and reason.startswith(REFUSALS):
            outcome = "refused"
        self.by_test[name, outcome] += 1
        if outcome != "passed":
            self.by_reason[outcome, reason] += 1


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test did not pass: the error without its numbers, or the assertion that is false."""
    if report.outcome == "passed":
        return ""
    if isinstance(report.longrepr, tuple):  # a skip: path, line, reason
        return report.longrepr[2]
    lines = report.longreprtext.splitlines()
    first = next((n for n, line in enumerate(lines) if line.startswith("E ")), len(lines) - 1)
    error = lines[first].removeprefix("E").strip()
    asserted = error.startswith(("assert", "AssertionError"))
    return lines[first - 1].strip() if asserted else re.sub(r"\d+", "n", error)


def show(outcomes: Outcomes, console: Console) -> None:
    """The counts, by test and by reason."""
    table = Table("test", *OUTCOMES, title=f"{outcomes.collected} tests to draw from")
    for name in sorted({name for name, _ in outcomes.by_test}):
        table.add_row(name, *(str(outcomes.by_test[name, outcome]) for outcome in OUTCOMES))
    totals = [sum(n for (_, o), n in outcomes.by_test.items() if o == out) for out in OUTCOMES]
    table.add_row("together", *map(str, totals), style="bold")
    console.print(table)
    if outcomes.by_reason:
        reasons = Table("outcome", "tests", "reason")
        for (outcome, reason), count in outcomes.by_reason.most_common():
            reasons.add_row(outcome, str(count), reason)
        console.print(reasons)


def main(
    checkout: Annotated[Path, tyro.conf.Positional],
    sample: int | None = None,
    seed: int = 0,
    repeats: int = 10,
    select: str = "",
) -> int:
    """Run upstream's tests on recall_arena.compat.

    Args:
        checkout: a working tree of state-spaces/mamba or Dao-AILab/causal-conv1d
        sample: how many tests to draw; all where it is left out
        seed: of the draw
        repeats: of the race-condition test, which has 10,000 of them
        select: only tests whose names contain this, as pytest's -k
    """
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        tests = copied(checkout, Path(name), repeats)
        if not tests:
            wanted = ", ".join(SOURCES)
            console.print(
                f"{checkout} is no working tree of state-spaces/mamba or Dao-AILab/causal-conv1d: "
                f"it has none of {wanted}",
                soft_wrap=True,
            )
            return 2
        outcomes = Outcomes(sample, seed)
        options = ["-c", "/dev/null", "--rootdir", name, "-p", "no:cacheprovider"]
        options += ["-q", "--no-header", "--tb=short", "--show-capture=no", "-k", select]
        sys.path.insert(0, name)
        status = pytest.main([*options, *map(str, tests)], plugins=[outcomes])
    show(outcomes, console)
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
