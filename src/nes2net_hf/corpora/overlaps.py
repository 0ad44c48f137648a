"""
Do two corpora share recordings? A corpus must not judge a model that was trained on it. Two corpora may also have been
made from the same recordings, such as those of VCTK: `sources` in `model_cards/training_corpora.yaml` lists these.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..corpus_facts import read_corpus_facts
from ..errors import CorpusError
from .registry import CORPORA, only_split
from .row_filter import as_values

# The organisers of these chose other speakers of VCTK for evaluation than for training.
_WITH_SPEAKERS_APART = {"asvspoof2019-la", "asvspoof2021-la", "asvspoof2021-df", "partialspoof"}


class Part(NamedTuple):
    """Rows of a corpus: arguments of `load_corpus`. A benchmark is the same wherever its root is."""

    corpus: str
    split: str | None = None
    root: str | None = None
    condition: str | None = None
    where: Mapping[str, Any] | None = None


def check_apart(train: Iterable[Part], judged: Part) -> None:
    """
    Checks that a model is not judged with rows that it trains on, as far as the names tell. Different filters of one
    corpus may share rows, too: compare their recordings.

    Args:
        train: the training data, one or more corpora.
        judged: the data to judge the model with.

    Raises:
        CorpusError: the same rows of a corpus are in both.
    """
    for part in train:
        filters = [_filters(part), _filters(judged)]
        if _place(part) == _place(judged) and (filters[0] == filters[1] or not all(filters)):
            split = _split(judged)
            rows = f"{judged.corpus}{f', split {split}' if split else ''}"
            raise CorpusError(
                f"{rows} is in the training data, so it cannot show how well the model judges new recordings: choose "
                "another corpus or split to judge it with."
            )


def shared_sources(train: Iterable[str], judged: str) -> dict[str, list[str]]:
    """
    Returns the collections of recordings that a corpus shares with training corpora.

    Args:
        train: names of the training corpora.
        judged: name of the corpus that judges the model. Nothing is known of the sources of your own data.

    Returns:
        Source → the training corpora, other than `judged`, that were made from it. ASVspoof 2019 and 2021 and
        PartialSpoof do not count as sharing VCTK with each other, because their organisers keep speakers apart.
    """
    facts = read_corpus_facts()
    apart = _WITH_SPEAKERS_APART if judged in _WITH_SPEAKERS_APART else {judged}
    others = [name for name in dict.fromkeys(train) if name in facts and name not in apart]
    of_judged = facts[judged].sources if judged in facts else ()
    found = {source: [name for name in others if source in facts[name].sources] for source in of_judged}
    return {source: names for source, names in found.items() if names}


def overlap_warning(train: Iterable[str], judged: str) -> str | None:
    """Returns a sentence (without its full stop) about `shared_sources`; None if there are none."""
    shared = shared_sources(train, judged)
    if not shared:
        return None
    named = "; ".join(f"{source} (in {', '.join(names)})" for source, names in shared.items())
    return (
        f"{judged} was made from the same recordings as training corpora: {named}. The model may know the voices, so "
        "its error rates may be too low"
    )


def _place(part: Part) -> tuple[str, str | None, str | None]:
    root = None if part.corpus in CORPORA or part.root is None else os.path.realpath(part.root)
    return part.corpus, root, _split(part)


def _split(part: Part) -> str | None:
    return only_split(CORPORA[part.corpus], part.split) if part.corpus in CORPORA else part.split


def _filters(part: Part) -> dict[str, Any]:
    """Returns what chooses rows of a split; empty if nothing does."""
    found: dict[str, Any] = {} if part.condition is None else {"condition": part.condition}
    for column, value in (part.where or {}).items():
        found[f"where {column.casefold()}"] = set(map(str, as_values(value)))
    return found
