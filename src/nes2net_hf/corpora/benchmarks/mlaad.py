"""
MLAAD (Müller et al. 2024, arXiv 2401.09512): synthetic speech in many languages; with M-AILABS as its bona fide part.

The publishers define no splits. The reader of M-AILABS whose text a synthesiser speaks is not the speaker of the
synthetic speech, so spoofs have no speaker.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from ...audio import without_suffix
from ..corpus import Corpus, Row
from ..schema import make_row

_GENDERS = {"female": "f", "male": "m"}


def _parse(fields: list[str], where: str, partition: str) -> Row:
    """Parses a row of a model's `meta.csv`. Its path is like `./fake/en/MODEL/NAME.wav`."""
    file, language = fields
    utterance = without_suffix(file.removeprefix("./"))
    return make_row(utterance, "spoof", attack=PurePosixPath(utterance).parent.name, language=language)


def _parse_file(folders: tuple[str, ...], stem: str, partition: str) -> Row | None:
    """Returns the row of a file of M-AILABS, `LOCALE/by_book/GENDER/READER/BOOK/wavs/NAME.wav`."""
    if "by_book" not in folders[1:] or folders[-1] != "wavs":
        return None
    start = folders.index("by_book", 1)
    locale, gender, *others = folders[start - 1], *folders[start + 1 :]
    return make_row(
        "/".join((*folders[start - 1 :], stem)), "bonafide", language=locale.partition("_")[0],
        gender=_GENDERS.get(gender), speaker_id=others[0] if len(others) == 3 else None,
    )  # fmt: skip


CORPUS = Corpus(
    name="mlaad",
    title="MLAAD with M-AILABS",
    folders={"all": ("fake",)},
    needed="unpack MLAAD (its folder fake) and the archives of M-AILABS there",
    protocols={"all": ("fake/*/*/meta.csv",)},
    columns=("path", "language"),
    delimiter="|",
    parse=_parse,
    parse_file=_parse_file,
)
