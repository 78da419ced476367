"""What a run of the benchmarks is asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What the command line chooses.  Raises ValueError for numbers that are too small."""

    threads: int = 1
    """cores, and threads of each contender"""
    rounds: int = 11
    """rounds that are timed"""
    patience: float = 3.0
    """seconds of rounds after which a contender takes no more of them"""
    batch: int = 64
    """sequences at once, except in `long`"""
    lengths: tuple[int, ...] = ()
    """tokens before the query; none for each part's own choice"""
    widths: tuple[int, ...] = ()
    """d; none for each part's own choice"""
    subjects: tuple[str, ...] = ()
    """words of which what is compared must have one in its name; none for everything"""
    contenders: tuple[str, ...] = ()
    """words of which a contender's name must have one; none for all contenders"""
    stride: int = 38
    """evaluation: every how many lengths"""
    sequences: int = 1000
    """evaluation: how many a length"""
    compile_limit: float = 60.0
    """seconds that torch.compile may take; 0 leaves it out"""
    compile_block: bool = False
    """try it on a whole block as well, which takes minutes"""
    longest: int = 20
    """long: the binary logarithm of the most tokens"""
    seconds_limit: float = 30.0
    """long: a contender that would take longer for one sequence is left out"""
    memory_limit: float = 8192.0
    """long: so is one that would take more memory, in MiB"""

    def __post_init__(self) -> None:
        for name, least in (("rounds", 2), ("threads", 1), ("batch", 1), ("stride", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")

    def asks(self, subject: str) -> bool:
        """Whether a comparison is asked for, by the name of what is compared."""
        return _has_one(self.subjects, subject)

    def wants(self, contender: str) -> bool:
        """Whether a contender other than ours takes part."""
        return _has_one(self.contenders, contender)


def _has_one(words: tuple[str, ...], name: str) -> bool:
    return not words or any(word.lower() in name.lower() for word in words)
