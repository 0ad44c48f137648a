"""Trains a model as a recipe says: accelerate launch training/train.py --config RECIPE.yaml [key=value ...]"""

import argparse
import logging
import signal
import sys

from nes2net_hf.commands.common import ending
from nes2net_hf.training import TrainingStopped, load_recipe, train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, metavar="RECIPE.yaml")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    parser.add_argument("--push-to-hub", metavar="ORG/NAME", help="upload each new best model; private if it is new")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. data.root=/data/asvspoof2019 epochs=2")
    options = parser.parse_intermixed_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with ending(error_word="error") as end:
        try:
            recipe = load_recipe(options.config, options.overrides)
            print(f"best model: {train(recipe, options.resume, options.push_to_hub)}")
        except TrainingStopped as stopped:
            print(stopped, file=sys.stderr)
            end.code = 130 if stopped.signal_number == signal.SIGINT else 0
    return end.code


if __name__ == "__main__":
    sys.exit(main())
