"""
Average the models of a run, including their batch-norm statistics:
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
    parser.add_argument("places", nargs="+", type=Path, metavar="RUN | MODEL", help="a run, or model folders")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--best", type=int, metavar="N", help="average the N best kept epochs of the run")
    choice.add_argument("--last", type=int, metavar="N", help="average the N last kept epochs of the run")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write")
    parser.add_argument(
        "--official",
        action="store_true",
        help="average c1 … cN as the authors' script does: (2·c2 + c3 + … + cN) / N",
    )
    parser.add_argument(
        "--recalibrate-bn", type=int, metavar="BATCHES", help="recompute batch-norm statistics on the training data"
    )
    options = parser.parse_args()
    run = options.places[0]
    with ending(error_word="error") as end:
        if options.best or options.last:
            folders = kept_epochs(run, options.best or options.last, best=bool(options.best))
        else:
            folders = options.places
        if options.recalibrate_bn and not (run / "recipe.yaml").is_file():
            raise RecipeError(f"--recalibrate-bn needs a run, but {run} has no recipe.yaml: name a run's folder.")
        average_models(folders, options.out, options.official)
        names = ", ".join(folder.name for folder in folders)
        print(f"{options.out}: the average of {names}. It has no threshold: set one with nes2net calibrate.")
        if options.recalibrate_bn:
            recalibrate_batch_norm(options.out, load_kept(run / "recipe.yaml"), options.recalibrate_bn)
            print(f"batch-norm statistics recomputed over {options.recalibrate_bn} batches")
    return end.code


if __name__ == "__main__":
    sys.exit(main())
