"""
The command `nes2net`: one file per command, each a function whose parameters are the options.

Nothing here imports torch or transformers before a command runs, so that help and wrong usage are answered at once.
"""


def main() -> None:
    """The console entry."""
    from .app import main as run

    run()
