"""
Averages models of a run, batch-norm statistics included:
python training/average_checkpoints.py runs/asvspoof2021 --best 5 --out runs/asvspoof2021/average
"""

import argparse
import sys
from pathlib import Path

from nes2net_cli.console import ending
from nes2net_hf.trainer import RecipeError
from nes2net_hf.trainer.averaging import average_models, kept_epochs, recalibrate_batch_norm
from nes2net_hf.trainer.recipe import load_kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", type=Path, metavar="RUN | MODEL", help="a run, or folders of models")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--best", type=int, metavar="N", help="of the run's kept epochs")
    choice.add_argument("--last", type=int, metavar="N", help="of the run's kept epochs")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write")
    parser.add_argument(
        "--official",
        action="store_true",
        help="what the authors' averaging computes of c1 … cN: (2·c2 + c3 + … + cN) / N",
    )
    parser.add_argument(
        "--recalibrate-bn", type=int, metavar="BATCHES", help="measure batch norms anew, over the run's training data"
    )
    options = parser.parse_args()
    run = options.places[0]
    with ending(error_word="error") as end:
        if options.best or options.last:
            folders = kept_epochs(run, options.best or options.last, best=bool(options.best))
        else:
            folders = options.places
        if options.recalibrate_bn and not (run / "recipe.yaml").is_file():
            raise RecipeError(f"--recalibrate-bn needs a run: {run} holds no recipe.yaml.")
        average_models(folders, options.out, options.official)
        print(f"{options.out}: of {', '.join(folder.name for folder in folders)}; its threshold is still to be set")
        if options.recalibrate_bn:
            recalibrate_batch_norm(options.out, load_kept(run / "recipe.yaml"), options.recalibrate_bn)
            print(f"batch norms measured over {options.recalibrate_bn} batches")
    return end.code


if __name__ == "__main__":
    sys.exit(main())
