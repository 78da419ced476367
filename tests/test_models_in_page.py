"""Trained models in the report's page: what JavaScript computes there is what PyTorch computes."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import chromium, needs_browser, opened
from conftest import ROOT

from recall_arena.config import as_json
from recall_arena.frame import frame_of
from recall_arena.inspection import inspect
from recall_arena.mixers import Attention, Mamba
from recall_arena.model import ModelSpec, SequenceModel, named
from recall_arena.records import Record, Store, weights_path
from recall_arena.report import write_report
from recall_arena.report.models import exported, played
from recall_arena.runs import run_of
from recall_arena.studies import STUDIES, Plan
from recall_arena.tasks import AssociativeRecall
from recall_arena.trained import with_weights

PUBLISHED = ROOT / "results" / "records"
STATIC = ROOT / "src" / "recall_arena" / "report" / "static"
LENGTHS = (2, 16, 64, 192)
NAMES = ["Transformer (RoPE)", "Mamba", "Hybrid-A", "Hybrid-B"]
LOGITS = """([models, rows]) => models.map(RecallModels.unpacked).map(
    (model) => rows.map((row) => Array.from(RecallModels.forward(model, row).logits)))"""
SHOWN = """([model, row]) => RecallModels.forward(RecallModels.unpacked(model), row)
    .layers.map(({shown}) => Array.from(shown))"""
CELLS = "[...document.querySelectorAll('#try-cells span')].map((cell) => Number(cell.textContent))"

pytestmark = [pytest.mark.whole, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Those whose weights are published."""
    kept = sorted(path.stem for path in (PUBLISHED / "weights").iterdir())
    found = Store(PUBLISHED).read_all(kept)
    assert [record.address for record in found] == kept
    return found


@pytest.fixture(scope="module")
def models(records: list[Record]) -> list[dict[str, Any]]:
    """What the page has of them."""
    found = played(STUDIES["assignment"], frame_of(records), Store(PUBLISHED))
    assert [model["name"] for model in found.models] == NAMES
    assert found.refused == []
    return found.models


def write(records: list[Record], store: Path, folder: Path) -> Path:
    """The report of records of a store, most of whose parts say that there are no runs."""
    plan = Plan("smoke", (1,), 1)
    return write_report(STUDIES["assignment"], plan, frame_of(records), folder, (), Store(store))


@pytest.fixture(scope="module")
def report(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(records, PUBLISHED, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The report, open; whatever it complains of fails the test."""
    with opened(browser, report, 390) as page:
        yield page


def model_of(address: str) -> SequenceModel:
    record = Store(PUBLISHED).read(address)
    model, doubt = with_weights(PUBLISHED, run_of(record), record)
    assert doubt is None
    return model


def sequences(length: int, count: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(length)
    return AssociativeRecall().sample(count, length, rng).tokens


@needs_browser
def test_the_page_answers_a_thousand_sequences_of_a_thousand_as_pytorch_does(
    page: Any, models: list[dict[str, Any]]
) -> None:
    told = json.loads(page.evaluate("document.getElementById('try-data').textContent"))
    assert told == models
    asked = [sequences(length, 250) for length in LENGTHS]
    rows = [row for batch in asked for row in batch.tolist()]
    assert len(rows) == 1000
    for model, logits in zip(models, page.evaluate(LOGITS, [told, rows]), strict=True):
        torch_model = model_of(model["address"])
        with torch.no_grad():
            expected = torch.cat([torch_model(batch) for batch in asked])
            exact = torch.cat([torch_model.double()(batch) for batch in asked])
        found = torch.tensor(logits, dtype=torch.float64)
        assert int((found.argmax(1) == expected.argmax(1)).sum()) == 1000, model["name"]
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-9)
        torch.testing.assert_close(found, expected.double(), rtol=0, atol=5e-4)  # float32 rounds


@needs_browser
@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_drawn_is_what_inspection_finds(
    page: Any, models: list[dict[str, Any]], length: int
) -> None:
    (tokens,) = sequences(length, 1)
    for model in models:
        found = page.evaluate(SHOWN, [model, tokens.tolist()])
        with torch.no_grad():
            layers = inspect(model_of(model["address"]), tokens.unsqueeze(0))
        expected = [
            layer["Delta"][0].mean(1) if "Delta" in layer else layer["weights"][0, :, -1].mean(0)
            for layer in layers
        ]
        for own, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(torch.tensor(own), theirs, rtol=1e-4, atol=1e-5)


OTHERS = {
    "every option of Mamba": ModelSpec(
        (Mamba(state=5, expand=3, window=1, rank=2, bias=True), Mamba(window=7, conv_bias=False))
    ),
    "heads, biases, another base": ModelSpec(
        (
            Attention(heads=2, positions="rope", base=500.0, bias=True),
            Attention(heads=4, positions="rope"),
            Attention(heads=8),
        ),
        vocabulary=11,
        width=16,
    ),
    "learned positions, rms, a trained embedding": replace(
        named("transformer-learned", longest_context=16), norm="rms", embedding="trained"
    ),
}


def weights_of(model: SequenceModel) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def random_model(spec: ModelSpec) -> SequenceModel:
    """A model whose every number is random, the norms' and D's too."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = SequenceModel(spec)
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@needs_browser
@pytest.mark.parametrize("spec", OTHERS.values(), ids=OTHERS)
def test_other_stacks_and_options_run_in_a_browser_too(browser: Any, spec: ModelSpec) -> None:
    model, page = random_model(spec), browser.new_page()
    page.add_script_tag(content=(STATIC / "models.js").read_text())
    tokens = torch.randint(spec.vocabulary, (20, 17), generator=torch.Generator().manual_seed(0))
    told = exported(as_json(spec), weights_of(model))
    (logits,) = page.evaluate(LOGITS, [[told], tokens.tolist()])
    page.close()
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(logits), model(tokens), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gated-delta, attention", "it has the mixer gated-delta"),
        ("attention(positions=xpos)", "the positions of its attention are xpos"),
        ("mamba, attention(k_window=3)", r"it has a layers\.1\.mixer\.k_conv1d\.weight"),
        ("mamba; mlp=gelu", r"it has a layers\.0\.(mlp|norm2)\."),
        ("attention; positions=sinusoidal", "its positions are sinusoidal"),
    ],
)
def test_a_model_that_the_page_cannot_run_is_refused_with_the_reason(
    text: str, reason: str
) -> None:
    spec = named(text)
    with pytest.raises(ValueError, match=reason):
        exported(as_json(spec), weights_of(SequenceModel(spec)))


def test_weights_of_another_type_are_refused() -> None:
    spec = named("mamba")
    with pytest.raises(ValueError, match=r"its .* is float64"):
        exported(as_json(spec), weights_of(SequenceModel(spec).double()))


def copied(records: list[Record], folder: Path) -> Store:
    """A store of one's own, with records and weights as they are published."""
    store = Store(folder)
    (folder / "weights").mkdir(parents=True)
    for record in records:
        store.write(record)
        name = weights_path(folder, record.address).name
        shutil.copy(PUBLISHED / "weights" / name, folder / "weights" / name)
    return store


def test_weights_that_are_not_the_records_are_not_run_and_the_page_says_why(
    records: list[Record], tmp_path: Path
) -> None:
    store = copied(records, tmp_path / "runs")
    one, two, three, _ = (weights_path(store.folder, record.address) for record in records)
    one.write_bytes(two.read_bytes())
    damaged = bytearray(two.read_bytes())
    damaged[-1] ^= 1
    two.write_bytes(damaged)
    three.write_bytes(b"no weights")
    text = write(records, store.folder, tmp_path / "report").read_text()
    for path in (one, two):
        assert f"{path.name} does not hold the weights that its record tells of" in text
    assert f"{three.name} holds no weights that can be read" in text
    data = re.findall(r'id="try-data">(.*?)</script>', text)
    assert [model["address"] for model in json.loads(data[0])] == [records[3].address]


def test_of_a_model_s_runs_the_first_whose_weights_were_kept_is_shown(
    records: list[Record], tmp_path: Path
) -> None:
    store = copied(records, tmp_path)
    study, frame = STUDIES["assignment"], frame_of(records)
    weights_path(tmp_path, records[0].address).unlink()
    shown = [model["address"] for model in played(study, frame, store).models]
    assert sorted(shown) == [record.address for record in records[1:]]
    assert played(study, frame, None).models == []


def test_no_weights_no_part_of_the_page(records: list[Record], tmp_path: Path) -> None:
    text = write(records, tmp_path / "empty", tmp_path / "report").read_text()
    assert "Try it" not in text
    assert "models.js" not in text
    assert (STATIC / "models.js").read_text() not in text


def test_a_diverged_run_s_weights_are_not_run(records: list[Record], tmp_path: Path) -> None:
    from safetensors.numpy import load, save

    from recall_arena.records.weights import hash_of

    path = weights_path(PUBLISHED, records[0].address)
    weights = {name: array.copy() for name, array in load(path.read_bytes()).items()}
    weights["lm_head.weight"][0, 0] = np.nan
    store = Store(tmp_path)
    store.write(replace(records[0], weights=hash_of(weights)))
    (tmp_path / "weights").mkdir()
    weights_path(tmp_path, records[0].address).write_bytes(save(weights))
    found = played(STUDIES["assignment"], frame_of(records[:1]), store)
    assert found.models == []
    assert [one.reason for one in found.refused] == ["holds weights that are not finite"]


WITHOUT_TORCH = """
import sys
from pathlib import Path
from recall_arena.frame import frame_of
from recall_arena.records import Store
from recall_arena.report.models import played
from recall_arena.studies import STUDIES
store = Store(Path(sys.argv[1]))
records = store.read_all(path.stem for path in (store.folder / "weights").iterdir())
assert len(played(STUDIES["assignment"], frame_of(records), store).models) == 4
assert "torch" not in sys.modules
"""


def test_models_come_into_the_page_without_torch() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(PUBLISHED)], check=True)


def test_the_part_is_small_and_code_stays_as_it_is(report: Path) -> None:
    text = report.read_text()
    begin = text.index('<h2 id="try">')
    part = text[begin : text.index('<h2 id="redo">', begin)]
    assert len(part.encode()) < 100_000
    for name in ("models.js", "try.js"):
        assert (STATIC / name).read_text() in text
    beside = (report.parent / "report.md").read_text()
    assert f"page, index.html, runs trained models, {', '.join(NAMES)}, on sequences" in beside


@needs_browser
def test_without_script_the_page_says_that_this_part_needs_it(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.get_by_text("on a screen, and with script").is_visible()
    assert not page.locator("#try-it").is_visible()
    assert page.get_by_text("How to redo it").first.is_visible()
    context.close()


@needs_browser
def test_on_paper_a_line_points_to_the_screen(page: Any) -> None:
    line = page.get_by_text("on a screen, and with script")
    assert [page.locator("#try-it").is_visible(), line.is_visible()] == [True, False]
    page.emulate_media(media="print")
    assert [page.locator("#try-it").is_visible(), line.is_visible()] == [False, True]


@needs_browser
def test_new_sequences_are_drawn_by_the_rule_of_the_task(page: Any) -> None:
    page.locator("#try-length").select_option("16")
    for box in page.locator("#try-chosen input").all():
        box.uncheck()
    drawn = [
        page.evaluate(f"document.getElementById('try-new').click(), {CELLS}") for _ in "x" * 300
    ]
    places, values = set(), set()
    for *body, query in drawn:
        first = body.index(query)
        places.add(first)
        values.add(body[first + 1])
        others = body[:first] + body[first + 2 :]
        assert query == 0
        assert len(body) == 16
        assert 0 not in others
    assert places == set(range(15))
    assert values == set(range(16))


@needs_browser
def test_a_reader_edits_by_keys_and_by_buttons_and_the_models_follow(
    page: Any, models: list[dict[str, Any]]
) -> None:
    cells = page.locator("#try-cells span")

    def stand(selected: int) -> tuple[int, int]:
        return page.evaluate(CELLS)[selected], page.locator("#try-cells [tabindex='0']").count()

    def check_answers() -> None:
        tokens = page.evaluate(CELLS)
        answer = tokens[tokens.index(tokens[-1]) + 1]
        assert f"The right answer is {answer}:" in page.locator("#try-answer").inner_text()
        for model, card in zip(models, page.locator("#try-models article").all(), strict=True):
            with torch.no_grad():
                said = int(model_of(model["address"])(torch.tensor([tokens])).argmax())
            right = "✓ right" if said == answer else "✗ wrong"
            assert f"Answers {said} {right}" in card.inner_text()

    page.locator("#try-length").select_option("16")
    first = page.evaluate(CELLS).index(0)
    value = first + 1
    for token in (5, 13):
        page.locator("#try-values button").nth(token).click()  # the value is selected at first
        assert stand(value) == (token, 1)
        check_answers()
    cells.nth(value).click()
    page.keyboard.press("ArrowUp")
    assert stand(value) == (14, 1)
    page.keyboard.type("12")
    assert stand(value) == (12, 1)
    check_answers()
    page.keyboard.press("End")
    page.keyboard.type("7")
    assert page.evaluate(CELLS)[-1] == 7
    assert "In training no sequence asked for 7." in page.locator("#try-answer").inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Home")
    at = page.evaluate("document.activeElement.ariaLabel")
    assert at.startswith("position 1")
    assert page.evaluate("document.activeElement.ariaValueNow") == str(page.evaluate(CELLS)[0])


@needs_browser
def test_what_has_no_answer_is_told_and_models_can_be_left_out(page: Any) -> None:
    page.locator("#try-length").select_option("16")
    first = page.evaluate(CELLS).index(0)
    page.locator("#try-cells span").nth(first).click()
    page.keyboard.type("9")
    page.locator("#try-cells span").nth(first + 1).click()
    page.keyboard.type("9")
    told = page.locator("#try-answer").inner_text()
    assert told.startswith("There is no right answer: 0 does not stand before the final query.")
    assert "✓" not in page.locator("#try-models").inner_text()
    page.get_by_label("Mamba", exact=True).uncheck()
    names = page.locator("#try-models h3").all_inner_texts()
    assert names == ["Transformer (RoPE)", "Hybrid-A", "Hybrid-B"]


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_at_every_length_it_fits_the_screen_and_every_position_has_a_bar(
    page: Any, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for length in ("16", "64", "128", "192"):
        page.locator("#try-length").select_option(length)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        bars = page.evaluate(
            "[...document.querySelectorAll('#try-models svg path[d*=z][fill]')]"
            ".map((path) => path.getAttribute('d').split('M').length - 1)"
        )
        assert len(bars) == 9, "two layers each, three of Hybrid-B"
        assert set(bars) == {int(length) + 1}
        outside = page.evaluate(
            "[...document.querySelectorAll('#try-models svg')].filter((svg) => "
            "[...svg.querySelectorAll('text')].some((text) => text.getBoundingClientRect().right "
            "> svg.getBoundingClientRect().right + 1)).length"
        )
        assert outside == 0


@needs_browser
def test_learned_positions_say_how_far_they_reach(
    browser: Any, models: list[dict[str, Any]], report: Path, tmp_path: Path
) -> None:
    spec = named("transformer-learned", longest_context=64)
    own = models[0] | exported(as_json(spec), weights_of(SequenceModel(spec)))
    data = f'id="try-data">{json.dumps([own])}</script>'
    text = re.sub(r'id="try-data">.*?</script>', lambda _: data, report.read_text())
    (tmp_path / "index.html").write_text(text)
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    assert "Answers" in page.locator("#try-models").inner_text()
    page.locator("#try-length").select_option("128")
    told = page.locator("#try-models").inner_text()
    page.close()
    assert "No answer: learned positions reach 65 tokens." in told
