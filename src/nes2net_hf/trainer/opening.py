"""Opens the corpora that a recipe trains on and evaluates, and makes sure that they share no recordings."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..configuration_nes2net import ID2LABEL
from ..corpora import CorpusError
from ..corpora.loading import OWN_DATA, TableRows, load_corpus, open_rows
from ..corpora.overlaps import Part, check_apart, overlap_warning
from ..corpora.own_data import manifest_columns, our_columns
from .holding_out import divide
from .mixtures import MixedRows, Rows, columns_for
from .order import lane_count
from .recipe import CorpusRecipe, DataRecipe, RecipeError

COLUMNS = ("utterance_id", "audio", "label")


def parts_of(recipe: DataRecipe, name: str) -> dict[str, CorpusRecipe]:
    """
    Returns what `data.train` or `data.dev` reads, by corpus, with each corpus and root filled in. A single corpus has
    an empty name.
    """
    split = getattr(recipe, name)
    fields = [field.name for field in dataclasses.fields(CorpusRecipe)]
    chosen = {key: CorpusRecipe(**{field: getattr(part, field) for field in fields})
              for key, part in (split.corpora or {"": split}).items()}  # fmt: skip
    for key, part in chosen.items():
        part.corpus = part.corpus or key or recipe.corpus
        part.root = part.root or (os.path.join(recipe.root, key) if key else recipe.root)
    return chosen


def open_split(recipe: DataRecipe, name: str, batch_size: int | None = None, of_frames: bool = False) -> Rows:
    """
    Opens the rows of the recipe's `data.train` or `data.dev`.

    Args:
        batch_size: batch size of this process if it reads rows in the order of `epoch_order`; None if in sequence.
        of_frames: whether to read segment labels.

    Raises:
        RecipeError: a corpus cannot be opened, or has no utterances of one class. Of several corpora in train, one may
            have a single class if the others have both.
    """
    columns = (*COLUMNS, *(("segment_labels",) if of_frames else ()))
    if name == "train":
        columns += columns_for(recipe.mixing)
    parts = parts_of(recipe, name)
    rows = {key: _open(recipe, name, key, part, columns, batch_size) for key, part in parts.items()}
    found = MixedRows(rows) if getattr(recipe, name).corpora else rows[""]
    checked = {"": found} if name == "train" else rows
    for key, one in checked.items():
        absent = [label for index, label in ID2LABEL.items() if index not in one.labels]
        if absent:
            place = f"data.{name}.corpora.{key}" if key else f"data.{name}"
            whose = parts[key].root if key in parts else "the mixture"
            chosen = _chosen(recipe, name, parts[key]) if key in parts else ""
            raise RecipeError(
                f"{place}: {whose} has no {' or '.join(absent)} utterances{chosen}: "
                f"{'training' if name == 'train' or not key else 'an EER'} needs both classes."
            )
    return found


def _open(
    recipe: DataRecipe, name: str, key: str, part: CorpusRecipe, columns: tuple[str, ...], batch_size: int | None
) -> Rows:
    """Opens one corpus of `data.train` or `data.dev`."""
    place = f"data.{name}.corpora.{key}" if key else f"data.{name}"
    corpus, root = str(part.corpus), str(part.root)
    if corpus == OWN_DATA and part.split is not None and Path(root).is_file():
        raise RecipeError(
            f"{place}.split: this recipe says {part.split}, but your own data has no splits: add "
            f"{place}.split=null to the command; to choose rows, use {place}.where={{COLUMN: VALUE}}."
        )
    options: dict[str, Any] = {
        "root": root,
        "condition": part.condition,
        "where": part.where,
        "columns": part.columns,
        "label_map": part.label_map or None,
        "allow_missing": recipe.allow_missing,
    }
    try:
        if not _is_divided(recipe, name, part):
            return open_rows(
                corpus,
                part.split,
                columns_read=columns,
                # Two extra groups, because lanes may start in the middle of a group.
                groups_in_memory=2 if batch_size is None else lane_count(batch_size) + 2,
                **options,
            )
        dataset = load_corpus(corpus, part.split, **options)
        column = _partition_column(part)
        labels, utterances, speakers, partitions = (
            list(dataset[name]) for name in ("label", "utterance_id", "speaker_id", "partition")
        )
        division = divide(labels, utterances, speakers, partitions, recipe.hold_out or 0, column, root)
    except CorpusError as error:
        raise RecipeError(f"{place}: {str(error).replace(' in Python', '')}") from error
    if name == "dev" and PartialState().is_main_process:
        print(division.said)
    return TableRows(dataset.select(getattr(division, name)), columns)


def _chosen(recipe: DataRecipe, name: str, part: CorpusRecipe) -> str:
    """Says which rows of a corpus were chosen."""
    said = f" with {', '.join(f'{key}={value}' for key, value in part.where.items())}" if part.where else ""
    if _is_divided(recipe, name, part):
        # Only a column can cause this: a drawn part always has both classes.
        said += f" for {name} (as column {_partition_column(part)} assigns them)"
    return said


def _partition_column(part: CorpusRecipe) -> str:
    """Returns the name that the user's table has for our column `partition`."""
    if part.corpus == OWN_DATA and Path(str(part.root)).is_file():
        return manifest_columns(Path(str(part.root)), part.columns).get("partition", "partition")
    return our_columns(part.columns).get("partition", "partition")


def _resolved(part: CorpusRecipe) -> CorpusRecipe:
    """Returns the same part by the real path of its root."""
    root = str(part.root)
    return dataclasses.replace(part, root=os.path.realpath(root) if os.path.exists(root) else root)


def _is_divided(recipe: DataRecipe, name: str, part: CorpusRecipe) -> bool:
    """Returns whether dev is held out from this part, because train and dev both name it."""
    others = parts_of(recipe, "dev" if name == "train" else "train").values()
    return recipe.hold_out is not None and _resolved(part) in map(_resolved, others)


def holds_out(recipe: DataRecipe) -> bool:
    """Returns whether dev is held out from rows that train and dev share."""
    return any(_is_divided(recipe, "train", part) for part in parts_of(recipe, "train").values())


def same_rows(recipe: DataRecipe) -> bool:
    """Returns whether train and dev use the same rows."""
    train, dev = ([_resolved(part) for part in parts_of(recipe, name).values()] for name in ("train", "dev"))
    return train == dev


def count_shared(recipe: DataRecipe, train: Rows, dev: Rows) -> int:
    """Counts the dev recordings that are also in train: the same files, or the same utterance ids of one dataset."""
    of_train, of_dev = (_by_part(recipe, name, rows) for name, rows in (("train", train), ("dev", dev)))
    files = {file for _, rows in of_train for file in rows.files() or ()}
    shared = 0
    for part, rows in of_dev:
        names = rows.files()
        if names is not None:
            shared += sum(name in files for name in names)
        # Two datasets may use the same ids by chance.
        place = (part.corpus, part.root, part.split)
        known = {
            name
            for other, others in of_train
            if (other.corpus, other.root, other.split) == place and (names is None or others.files() is None)
            for name in others.utterances()
        }
        shared += sum(name in known for name in rows.utterances()) if known else 0
    return shared


def refuse_same_corpora(recipe: DataRecipe) -> None:
    """
    Prints a warning if a corpus of dev was made from the same recordings as one of train.

    Raises:
        RecipeError: dev names rows of a benchmark that train names too, even in another folder.
    """
    if same_rows(recipe):
        return
    train = [_named(part) for part in parts_of(recipe, "train").values()]
    for key, part in parts_of(recipe, "dev").items():
        if _is_divided(recipe, "dev", part):
            continue
        place = f"data.dev.corpora.{key}" if key else "data.dev"
        try:
            check_apart(train, _named(part))
        except CorpusError as error:
            raise RecipeError(f"{place}: {error}") from error
        warning = overlap_warning([one.corpus for one in train], str(part.corpus))
        if warning is not None and PartialState().is_main_process:
            print(f"{place}: {warning}.")


def _named(part: CorpusRecipe) -> Part:
    return Part(str(part.corpus), part.split, part.root, part.condition, part.where)


def _by_part(recipe: DataRecipe, name: str, rows: Rows) -> list[tuple[CorpusRecipe, Rows]]:
    whole = rows.parts.values() if isinstance(rows, MixedRows) else [rows]
    return list(zip(parts_of(recipe, name).values(), whole, strict=True))


def refuse_shared(recipe: DataRecipe, shared: int, total: int) -> None:
    """
    Raises:
        RecipeError: dev shares recordings with train, unless the recipe uses the same rows for both on purpose.
    """
    if not shared or (same_rows(recipe) and recipe.hold_out is None):
        return
    remedy = "choose other rows with data.dev.where, or other recordings with data.dev.root"
    if recipe.dev.corpora:
        remedy = "choose other rows or recordings in data.dev.corpora"
    elif holds_out(recipe):
        remedy = "list each file once, or in one part only"
    elif recipe.hold_out is not None:
        remedy += " (data.hold_out divides rows only if data.train and data.dev choose the same rows)"
    raise RecipeError(
        f"data.dev: {shared} of its {total} recordings are also in train, so dev would not show how well the model "
        f"judges new recordings: {remedy}."
    )
