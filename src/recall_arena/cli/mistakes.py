"""Mistakes in what was typed: shown as one line, exit code 2."""


class Mistake(Exception):
    """The message says what was given and what is allowed."""
