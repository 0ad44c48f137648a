"""Train a model from a recipe: accelerate launch --quiet training/train.py --config RECIPE.yaml [key=value ...]"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nes2net_cli.console import ending
from nes2net_hf.errors import Nes2NetError
from nes2net_hf.trainer import TrainingStopped, load_recipe, train

PATIENCE = 10  # s


@contextmanager
def said_once() -> Iterator[None]:
    """
    If all processes fail in the same way, only the first one prints the error. The others wait for the launcher to
    stop them. They print their own error only if the first process did not fail.
    """
    try:
        yield
    except Nes2NetError:
        if int(os.environ.get("RANK", 0)) > 0:
            time.sleep(PATIENCE)
        raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, metavar="RECIPE.yaml")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint, if there is one")
    parser.add_argument(
        "--push-to-hub", metavar="ORG/NAME", help="upload each new best model, to a private repository if new"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. data.root=/data/asvspoof2019 epochs=2")
    options = parser.parse_intermixed_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with ending(error_word="error") as end:
        try:
            with said_once():
                recipe = load_recipe(options.config, options.overrides)
                train(recipe, options.resume, options.push_to_hub)
        except TrainingStopped as stopped:
            print(stopped, file=sys.stderr)
            end.code = 130 if stopped.signal_number == signal.SIGINT else 0
    return end.code


if __name__ == "__main__":
    sys.exit(main())
