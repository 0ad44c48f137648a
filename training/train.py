"""Trains a model as a recipe says: accelerate launch training/train.py --config RECIPE.yaml [key=value ...]"""

import argparse
import sys

from nes2net_hf.training import BrokenDataError, RecipeError, load_recipe, train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, metavar="RECIPE.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. data.root=/data/asvspoof2019 epochs=2")
    options = parser.parse_args()
    try:
        print(f"best checkpoint: {train(load_recipe(options.config, options.overrides))}")
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (FloatingPointError, BrokenDataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the best checkpoint so far is kept in the run's folder.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
