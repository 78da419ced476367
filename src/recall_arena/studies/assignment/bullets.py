"""The assignment's bullets, word for word, and the figures that each of them asks for."""

from collections.abc import Mapping

from recall_arena.claims import Finding
from recall_arena.studies.assignment.claims import BY_BULLET, problem_of
from recall_arena.studies.study import Answer

BULLETS = {
    "p1-1": "Train all models on the induction heads problem (M = 1, τ = 1). After training, "
    "evaluate the test performance and plot the accuracy of all models as a function of the "
    "context length (similar to Table 2 of [1]). In total, you will be plotting 6 curves (3 "
    "Transformers, 1 Mamba, 2 Hybrids). Comment on the findings and compare performance of the "
    "models including length generalization ability.",
    "p1-2": "Repeat the experiment above with delay τ = 5. Comment on the impact of delay.",
    "p1-3": "Which models converge faster during training? Provide a plot of convergence rate "
    "where x-axis is the number of iterations and y-axis is the AR accuracy over a test batch. "
    "Make sure to specify the batch size you are using (ideally use 32 or 64).",
    "p2-1": "Train Mamba models for M = 4, 8, 16. Note that M = 16 is the full AR (retrieve any "
    "query). Comment on the results.",
    "p2-2": "Train Transformer models for M = 4, 8, 16. Comment on the results and compare "
    "against Mamba's behavior.",
    "p2-3": "Train Hybrid models for M = 4, 8, 16. Comment and compare.",
    "p3-1": "Set τ = 1 (standard AR). Train Mamba models for M = 4, 8, 16. Compare against the "
    "corresponding results of Problem 2. How does embedding d impact results?",
    "p3-2": "Train a Mamba model for M = 16 for τ = 10. Comment if any difference.",
}

FIGURES = {
    "p1-1": ("problem1-context-delay1",),
    "p1-2": ("problem1-context-delay5", "problem1-delay"),
    "p1-3": ("problem1-convergence",),
    "p2-1": ("problem2-context", "problem2-queries"),
    "p2-2": ("problem2-context", "problem2-convergence"),
    "p2-3": ("problem2-context", "problem2-convergence"),
    "p3-1": ("problem3-width", "problem3-convergence", "problem3-queries"),
    "p3-2": ("problem3-delay", "problem3-delay-convergence"),
}


def answers(
    parts: tuple[int, ...], findings: Mapping[str, Finding], drawn: set[str]
) -> tuple[Answer, ...]:
    """The answer to each bullet of these problems, with those of its figures that are `drawn`."""
    return tuple(
        Answer(
            name,
            asked,
            tuple(findings[claim.question] for claim in BY_BULLET[name]),
            tuple(figure for figure in FIGURES[name] if figure in drawn),
        )
        for name, asked in BULLETS.items()
        if problem_of(name) in parts
    )
