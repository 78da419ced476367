"""What every mixer promises, one property a function: `recall check-mixer`, and the tests, ask it.

A property is given a mixer in float64 and its width, (batch, length, width) -> same.  It returns
what it measured, for people, and raises `Broken` where it does not hold.
"""

from collections.abc import Callable

from torch import nn

from recall_arena.battery.batches import sequences_in_a_batch_do_not_mix
from recall_arena.battery.causality import (
    a_longer_sequence_begins_like_a_shorter_one,
    no_output_depends_on_a_later_input,
)
from recall_arena.battery.last import last_is_the_last_position_of_all
from recall_arena.battery.lengths import any_length_has_finite_outputs
from recall_arena.battery.precision import float32_agrees_with_float64
from recall_arena.battery.probe import Broken
from recall_arena.battery.repeats import (
    the_same_input_gives_the_same_bits,
    training_and_evaluation_compute_the_same,
)
from recall_arena.battery.slopes import gradients_are_finite, gradients_are_those_of_differences
from recall_arena.battery.states import (
    a_continued_sequence_is_the_whole_one,
    no_more_is_remembered_than_state_size_says,
)

Property = Callable[[nn.Module, int], str]

PROPERTIES: tuple[Property, ...] = (
    any_length_has_finite_outputs,
    no_output_depends_on_a_later_input,
    a_longer_sequence_begins_like_a_shorter_one,
    sequences_in_a_batch_do_not_mix,
    the_same_input_gives_the_same_bits,
    training_and_evaluation_compute_the_same,
    last_is_the_last_position_of_all,
    a_continued_sequence_is_the_whole_one,
    no_more_is_remembered_than_state_size_says,
    gradients_are_finite,
    gradients_are_those_of_differences,
    float32_agrees_with_float64,
)


def name_of(holds: Property) -> str:
    """A property in words: its function's name."""
    return holds.__name__.replace("_", " ")


__all__ = ["PROPERTIES", "Broken", "Property", "name_of"]
