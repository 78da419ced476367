"""Whatever is typed, a command ends in one of its exit codes: no traceback, no stray file."""

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from torture import Figures, Scale

from recall_arena.cli import main
from recall_arena.cli.commands import COMMANDS
from recall_arena.records import DamagedRecord, Store

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


def in_a_deep_folder(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, from which "../../x" leads into another one below the base."""
    work = base / "a" / "b" / "c" / "work"
    (work / "folder").mkdir(parents=True)
    (work / "file").touch()
    monkeypatch.chdir(work)
    for name in ("HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(base / name))
    return work


def beside(work: Path, base: Path) -> set[Path]:
    """All that is below the base and not in the folder of work."""
    return {path for path in base.rglob("*") if work not in (path, *path.parents)}


def ended(words: list[str], number: int, capfd: pytest.CaptureFixture[str]) -> object:
    """The exit code of a command line, one of those that there are, with a word about it."""
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
    return code


def test_random_command_lines_end_as_they_should(
    flags: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    scale: Scale,
    figures: Figures,
) -> None:
    work = in_a_deep_folder(tmp_path, monkeypatch)
    outside = beside(work, tmp_path)
    endings: dict[object, int] = {}
    for number, words in zip(
        range(scale(100, 10_000)), lines(random.Random(0), flags), strict=False
    ):
        code = ended(words, number, capfd)
        endings[code] = endings.get(code, 0) + 1
    assert beside(work, tmp_path) == outside
    assert not list(work.rglob("owned"))
    figures(lines=sum(endings.values()), **{f"code {code}": n for code, n in endings.items()})


OPTIONS = {
    "mamba": (
        *("state=1", "state=4", "expand=1", "expand=3", "window=1", "window=7", "rank=3"),
        *("bias=True", "conv_bias=False", "A_log_offset=0.7", "dt_offset=-1", "state=0"),
    ),
    "attention": (
        *("heads=2", "heads=3", "positions=rope", "positions=xpos", "base=10", "bias=True"),
        *("q_window=2", "k_window=4", "v_window=3", "heads=-1"),
    ),
    "gated-delta": (
        *("heads=2", "key_width=3", "expand=1", "window=1", "decay=channel", "decay=none"),
        *("negative_eigenvalues=True", "gate=none", "gate=sigmoid"),
    ),
}
OPTIONS |= {"attention-rope": OPTIONS["attention"], "kda": OPTIONS["gated-delta"]}
SETTINGS = (
    *("positions=learned", "positions=sinusoidal", "norm=rms", "mlp=gelu", "mlp=swiglu"),
    *("embedding=trained", "mlp_expand=2"),
)
TASKS = {
    "associative-recall": (
        *("--task.queries=4", "--task.delay=3", "--task.no-repeats", "--task.vocabulary=5"),
        *("--task.distance=4", "--task.delay=60"),
    ),
    "induction-heads": ("--task.train-on=all", "--task.vocabulary=9", "--task.vocabulary=2"),
    "mqar": ("--task.pairs=2", "--task.vocabulary=32", "--task.fill=random", "--task.pairs=90"),
}
SCHEDULE = (
    *("--schedule.rate=0.03", "--schedule.rate=1e30", "--schedule.optimizer=adam"),
    *("--schedule.weight-decay=0.5", "--schedule.shortest=38", "--schedule.decay-steps=2"),
    *("--schedule.warmup=0", "--schedule.clip=0.01", "--schedule.curriculum.kind=linear"),
    *("--schedule.curriculum.kind=gated", "--checks.solved=0.1", "--threads=2", "--seed=7"),
    *("--schedule.rate=-1", "--schedule.warmup=99", "--contexts=1,2,20"),
)
TINY = (
    *("train", "--schedule.steps=6", "--schedule.context=40", "--schedule.batch=2", "--quiet"),
    *("--checks.every=3", "--checks.sequences=4", "--contexts=40,45", "--contexts.sequences=4"),
)


def configuration(draw: random.Random) -> list[str]:
    """A run that may be meant: some of every kind of option, among them a few that cannot be."""

    def some(of: Sequence[str], most: int) -> list[str]:
        return draw.sample(of, draw.randint(0, min(most, len(of))))

    mixers = [draw.choice(list(OPTIONS)) for _ in range(draw.randint(1, 3))]
    stack = ",".join(f"{mixer}({', '.join(some(OPTIONS[mixer], 2))})" for mixer in mixers)
    task = draw.choice(list(TASKS))
    return [
        *(*TINY, "--model", "; ".join([stack, *some(SETTINGS, 2)])),
        *("--width", str(draw.choice((4, 6, 8, 8, 12, 9)))),
        *("--task", task, *some(TASKS[task], 2), *some(SCHEDULE, 2)),
    ]


def test_random_configurations_are_refused_or_trained_and_none_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    scale: Scale,
    figures: Figures,
) -> None:
    """Whatever cannot be meant is found before the first step."""
    work = in_a_deep_folder(tmp_path, monkeypatch)
    outside, draw = beside(work, tmp_path), random.Random(0)
    many = scale(40, 2_000)
    trained: dict[object, list[list[str]]] = {0: [], 2: []}
    for number in range(many):
        words = configuration(draw)
        code = ended(words, number, capfd)
        assert code in trained, f"{words} was begun and failed"
        trained[code].append(words)
    records = list(Store(work / "runs").scan())
    assert not [one for one in records if isinstance(one, DamagedRecord)]
    assert many / 4 < len(records) <= len(trained[0])
    assert beside(work, tmp_path) == outside
    assert main(["verify", "--store", "runs", "--sample", str(scale(4, 40)), "--quiet"]) == 0
    figures(configurations=many, trained=len(trained[0]), refused=len(trained[2]))
