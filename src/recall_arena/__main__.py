"""`python -m recall_arena` is the command `recall`."""

from recall_arena.cli import entry

if __name__ == "__main__":
    entry()
