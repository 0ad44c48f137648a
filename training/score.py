"""
Score a corpus with a model, on all processes: accelerate launch training/score.py --model M --corpus NAME --root DIR
--out scores.txt. To continue after a stop, run the same command again.
"""

import argparse
import sys
from pathlib import Path

from nes2net_cli.console import ending
from nes2net_hf.errors import offering
from nes2net_hf.evaluation.scoring import score_corpus
from nes2net_hf.pretrained.precision import DTYPES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder, Hub id, short name or official checkpoint")
    parser.add_argument("--revision", help="branch, tag or commit of the model on the Hub")
    parser.add_argument("--corpus", required=True, help="asvspoof2021-la, …, own-data, or dataset")
    parser.add_argument("--root", required=True, help="the corpus's folder, manifest, Hub id or shards")
    parser.add_argument("--split", help="partition; may be omitted if there is only one")
    parser.add_argument("--condition", help="a condition defined by the organisers, e.g. eval of asvspoof2021-la")
    parser.add_argument("--allow-missing", action="store_true", help="skip utterances without audio")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="text, or Parquet if named .parquet")
    parser.add_argument("--all-windows", action="store_true", help="judge whole recordings, as nes2net detect does")
    parser.add_argument(
        "--length",
        choices=("window", "whole"),
        help="judge the first window of each utterance, or all of it in one pass (default: as the model says)",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="utterances per pass on each process")
    parser.add_argument("--workers", type=int, default=0, help="reader processes for each process")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    options = vars(parser.parse_args())
    with (
        offering(*options),
        ending("stopped; the scores so far are saved: run the same command to continue.", error_word="error") as end,
    ):
        scored = score_corpus(options.pop("model"), options.pop("out"), **options)
        rate = scored.fresh / scored.seconds
        print(f"{scored.utterances} utterances, {scored.fresh} of them in this run: {rate:.1f} utterances/s")
    return end.code


if __name__ == "__main__":
    sys.exit(main())
