"""
The command line, `nes2net`: one file per command. A command is a function whose parameters are its options.

No module here imports torch or transformers before a command runs, so help and usage errors appear at once.
"""


def main() -> None:
    """Runs the command line; the console entry point."""
    from .app import main as run

    run()
