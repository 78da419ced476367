"""The assignment's bullets, word for word, and the figures that each of them asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recall_arena.claims import Finding
from recall_arena.studies.assignment.claims import BY_BULLET, problem_of
from recall_arena.studies.study import Answer, Picture


@dataclass(frozen=True)
class Bullet:
    """What the assignment asks for, word for word, under a short title, and what shows it.

    A figure stands with the first of the bullets that name it.
    """

    title: str
    asked: str
    figures: tuple[str, ...]


BULLETS = {
    "p1-1": Bullet(
        "Six models, delay 1",
        "Train all models on the induction heads problem (M = 1, τ = 1). After training, evaluate "
        "the test performance and plot the accuracy of all models as a function of the context "
        "length (similar to Table 2 of [1]). In total, you will be plotting 6 curves (3 "
        "Transformers, 1 Mamba, 2 Hybrids). Comment on the findings and compare performance of the "
        "models including length generalization ability.",
        ("problem1-context-delay1",),
    ),
    "p1-2": Bullet(
        "The same with delay 5",
        "Repeat the experiment above with delay τ = 5. Comment on the impact of delay.",
        ("problem1-context-delay5", "problem1-delay"),
    ),
    "p1-3": Bullet(
        "Convergence",
        "Which models converge faster during training? Provide a plot of convergence rate where "
        "x-axis is the number of iterations and y-axis is the AR accuracy over a test batch. Make "
        "sure to specify the batch size you are using (ideally use 32 or 64).",
        ("problem1-convergence", "problem1-reached"),
    ),
    "p2-1": Bullet(
        "Mamba, M = 4, 8, 16",
        "Train Mamba models for M = 4, 8, 16. Note that M = 16 is the full AR (retrieve any "
        "query). Comment on the results.",
        ("problem2-context", "problem2-queries"),
    ),
    "p2-2": Bullet(
        "The transformer, beside Mamba",
        "Train Transformer models for M = 4, 8, 16. Comment on the results and compare against "
        "Mamba's behavior.",
        ("problem2-convergence", "problem2-reached", "problem2-context"),
    ),
    "p2-3": Bullet(
        "The hybrids, beside both",
        "Train Hybrid models for M = 4, 8, 16. Comment and compare.",
        ("problem2-context", "problem2-convergence", "problem2-queries"),
    ),
    "p3-1": Bullet(
        "Width 64 against 8",
        "Set τ = 1 (standard AR). Train Mamba models for M = 4, 8, 16. Compare against the "
        "corresponding results of Problem 2. How does embedding d impact results?",
        ("problem3-width", "problem3-convergence", "problem3-queries"),
    ),
    "p3-2": Bullet(
        "Delay 10",
        "Train a Mamba model for M = 16 for τ = 10. Comment if any difference.",
        ("problem3-delay", "problem3-delay-convergence"),
    ),
}


def answers(
    part: int,
    findings: Mapping[str, Finding],
    drawn: Sequence[Picture],
    said: Mapping[str, Sequence[str]],
) -> tuple[Answer, ...]:
    """The answer to each bullet of a problem, with those of its figures that are `drawn`.

    `said` has the paragraphs that were written on a bullet; the first one is its short answer.
    """
    pictures = {picture.name: picture for picture in drawn}
    left = dict(pictures)
    found = []
    for name, bullet in BULLETS.items():
        if problem_of(name) == part:
            own = tuple(left.pop(figure) for figure in bullet.figures if figure in left)
            paragraphs = tuple(said.get(name, ()))
            found.append(
                Answer(
                    name,
                    f"{name[1:].replace('-', '.')} {bullet.title}",
                    bullet.asked,
                    short=next(iter(paragraphs), ""),
                    said=paragraphs,
                    pictures=own,
                    see=tuple(
                        figure
                        for figure in bullet.figures
                        if figure in pictures and pictures[figure] not in own
                    ),
                    findings=tuple(findings[claim.question] for claim in BY_BULLET[name]),
                )
            )
    return tuple(found)
