"""All benchmarks by name."""

from __future__ import annotations

import difflib

from ..errors import CorpusError, option
from .benchmarks import (
    add2022,
    add2023,
    asvspoof5,
    asvspoof2019_la,
    asvspoof2021_df,
    asvspoof2021_la,
    codecfake_wu,
    codecfake_xie,
    ctrsvdd,
    deepfake_eval_2024,
    dfadd,
    fake_or_real,
    in_the_wild,
    llamapartialspoof,
    mlaad,
    partialspoof,
    spoofceleb,
    wavefake,
)
from .corpus import Corpus

_MODULES = (
    asvspoof2019_la, asvspoof2021_la, asvspoof2021_df, asvspoof5, in_the_wild, partialspoof, ctrsvdd,
    mlaad, spoofceleb, wavefake, dfadd, codecfake_wu, codecfake_xie, fake_or_real, deepfake_eval_2024,
    llamapartialspoof, add2022, add2023,
)  # fmt: skip
CORPORA: dict[str, Corpus] = {module.CORPUS.name: module.CORPUS for module in _MODULES}
OWN_DATA, ANY_DATASET = "own-data", "dataset"
NAMES = (*CORPORA, OWN_DATA, ANY_DATASET)


def find_corpus(name: str) -> Corpus:
    """Returns the benchmark of this name; raises CorpusError with the nearest name."""
    if name not in CORPORA:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(NAMES)}."
        raise CorpusError(f"{name!r} is not a known corpus; {hint}")
    return CORPORA[name]


def only_split(corpus: Corpus, split: str | None) -> str | None:
    """Returns the given partition, or the only one; None if there are several."""
    return corpus.partitions[0] if split is None and len(corpus.partitions) == 1 else split


def check_split(corpus: Corpus, split: str | None) -> str:
    """Returns the given partition, or the only one. Raises CorpusError if there is no such partition."""
    split = only_split(corpus, split)
    if split is None or split not in corpus.partitions:
        raise CorpusError(
            f"{option('split')} must be one of {', '.join(corpus.partitions)} for {corpus.title}, got {split!r}."
        )
    return split
