"""`recall check-mixer`: each promise is measured, and the one that is broken is named."""

import json

import pytest

from recall_arena.battery import PROPERTIES
from recall_arena.cli import main


@pytest.mark.parametrize("words", ["Sound", "SoundMixer", "Options"])
def test_a_mixer_that_keeps_every_promise_passes(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-mixer", f"broken_mixers:{words}"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == said.count("ok ") == len(PROPERTIES)


def test_a_mixer_in_words_with_its_options_is_checked_too() -> None:
    assert main(["check-mixer", "mamba(state=2, bias=True)", "--json"]) == 0


@pytest.mark.parametrize(
    ("words", "property", "measured"),
    [
        ("LooksAhead", "no output depends on a later input", "gradient 2e-09 from later"),
        ("PeeksWithoutGradient", "a longer sequence begins like a shorter one", "17 of 63"),
        ("MixesTheBatch", "sequences in a batch do not mix", "from another's inputs"),
        ("NeedsTwoTokens", "any length has finite outputs", "at length 1, 4 outputs are not fin"),
        ("DrawsAnew", "the same input gives the same bits", "the second time"),
        ("DropsOut", "training and evaluation compute the same", "outputs differ by"),
        ("ForgetsAWeight", "gradients are finite", "unused has no gradient"),
        ("HasAnotherGradient", "gradients are those of differences", "may be by 1e-05"),
        ("RoundsToHalf", "float32 agrees with float64", "the output at length 1 is off by"),
        ("LastIsAnother", "last is the last position of all", "is off by 0.001, and may be"),
        ("ContinuesElsewhere", "a continued sequence is the whole one", "in 5 pieces is off by"),
        (
            "ClaimsTooLittle",
            "no more is remembered than state size says",
            "after 1 tokens 2 numbers, and state_size says 1",
        ),
    ],
)
def test_a_broken_promise_is_named_with_what_was_measured(
    words: str, property: str, measured: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-mixer", f"broken_mixers:{words}", "--json"]) == 1
    broken = {
        row["property"]: row["measured"]
        for row in json.loads(capsys.readouterr().out)
        if not row["holds"]
    }
    assert measured in broken[property]
    assert "at width 2" in broken[property]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("mambo", "did you mean 'mamba'?"),
        ("nowhere:Mixer", "nowhere cannot be imported: No module named 'nowhere'"),
        ("broken_mixers:Sounds", "has no attribute 'Sounds'"),
        ("broken_mixers:SOMETHING_ELSE", "is neither a class of MixerOptions nor one of nn.Module"),
        ("broken_mixers:Undecorated", "must be decorated with recall_arena.config.frozen"),
        ("torch.nn:Bilinear", "the mixer cannot be built: width 2: Bilinear.__init__() missing"),
        ("attention(heads=3)", "the mixer cannot be built: width 2: heads must divide the width"),
    ],
)
def test_what_is_no_mixer_is_a_mistake(
    words: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-mixer", words]) == 2
    said = capsys.readouterr()
    assert hint in said.err
    assert said.out == ""
