"""
The command line, `nes2net`: one file per command. A command is a function whose parameters are its options.

No module here imports torch or transformers before a command runs, so help and usage errors appear at once.
"""

is_running = False
"""Whether this process is the command line; nes2net_hf then leaves transformers to the commands that need it."""


def main() -> None:
    """Runs the command line; the console entry point."""
    global is_running
    is_running = True
    from .app import main as run

    run()
