"""Whatever is typed, a command ends in one of its exit codes: no traceback, no stray file."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from torture import Figures, Scale

from recall_arena.cli import COMMANDS, main

HARMLESS = {  # what keeps commands from training for long, or from changing the package
    "train": ["--dry-run"],
    "sweep": ["--dry-run"],
    "study run": ["--dry-run"],
    "extend": ["--dry-run"],
    "study choose-rates": ["--store", "nowhere"],
    "study explain": ["--store", "nowhere"],
    "verify": ["--store", "nowhere"],
    "check-mixer": ["no.such.module:Mixer"],
}
NUMBERS = (
    *("0", "-1", "1", "2", "3", "7", "16", "64", "0.5", "1e3", "1e-30", "1e400", "nan", "inf"),
    *("-inf", "2^20", "2^62", "2^63", "9" * 18, "9" * 40, "0x10", "1_000", "١٢", "1e", "-0"),
)
NAMES = (
    *("mamba", "attention", "hybrid-b", "gated-delta", "mamba(state=-1)", "mamba(state=1e99)"),
    *("attention(heads=3)", "attention(heads=", "mamba,,", ", ", "mqar", "induction-heads"),
    *("linear", "gated", "context", "delay", "adam", "assignment", "rates", "smoke", "published"),
    *("rate=1e-3,3e-3", "rate=", "=", "seed=0,1", "model=mamba|attention", "seed == 1", "seed >"),
    *("task.queries == 16 and", "__import__('os')", "seed.__class__", "accuracy", "None", "True"),
)
ODD = (
    *(
        "",
        " ",
        "-",
        "--",
        "---",
        "..",
        "../../x",
        "/",
        "/dev/null",
        "/proc/self/mem",
        "~",
        "a" * 300,
    ),
    *("\u00e9", "\U0001f4a5", "\ud800", "a\nb", "\x1b[31m", "[bold]", "%s", "{}", "$(touch owned)"),
    *("x" * 5000, "[]", "()", "''", '"', "\\", "*", "runs", "file", "folder", "file/x", "all.csv"),
)
VALUES = (*NUMBERS, *NAMES, *ODD)


@pytest.fixture(scope="module")
def flags() -> dict[str, list[str]]:
    """Every flag of every command, as its help has it."""
    return {name: _flags(name) for name in COMMANDS}


def _flags(name: str) -> list[str]:
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    return sorted({*re.findall(r"(--[a-z][a-z.-]*[a-z])", said.getvalue())} - {"--help"})


def lines(draw: random.Random, flags: dict[str, list[str]]) -> Iterator[list[str]]:
    """Command lines without end: known commands with known flags and any values, mostly."""
    while True:
        name = draw.choice(list(COMMANDS))
        words = name.split() if draw.random() < 0.95 else [draw.choice(VALUES)]
        for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 4))):
            flag = draw.choice(flags[name]) if flags[name] else draw.choice(VALUES)
            if draw.random() < 0.1:
                flag = draw.choice(
                    (flag[:-1], flag + "s", flag.upper(), "--" + draw.choice(VALUES))
                )
            value = draw.choice(VALUES)
            words += [f"{flag}={value}"] if draw.random() < 0.3 else [flag, value]
        if draw.random() < 0.3:
            words.append(draw.choice(VALUES))
        yield words + HARMLESS.get(name, [])


def test_random_command_lines_end_as_they_should(
    flags: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    scale: Scale,
    figures: Figures,
) -> None:
    work = tmp_path / "work"
    (work / "folder").mkdir(parents=True)
    (work / "file").touch()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    endings: dict[object, int] = {}
    for number, words in zip(
        range(scale(100, 10_000)), lines(random.Random(0), flags), strict=False
    ):
        try:
            code: object = main(words)
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            raise AssertionError(f"line {number}, {words}, ended in {error!r}") from error
        said = capfd.readouterr()
        assert code in (0, 1, 2), words
        assert "Traceback" not in said.err + said.out, words
        assert code == 0 or said.err or said.out, f"{words} failed without a word"
        endings[code] = endings.get(code, 0) + 1
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert not list(work.rglob("owned"))
    figures(lines=sum(endings.values()), **{f"code {code}": n for code, n in endings.items()})
