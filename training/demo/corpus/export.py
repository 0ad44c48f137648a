"""Copies utterances from the corpus to the repository, with attribution: two samples and the tests' fixtures."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .errors import CorpusError
from .manifest import Entry, read_manifest, write_manifest
from .sources import SOURCES

SAMPLES, FIXTURES = Path("src/nes2net_hf/samples"), Path("tests/fixtures/audio")
_BEGIN, _END = "<!-- audio files: written by build_corpus.py export -->", "<!-- end of audio files -->"

# Speaker, attack, codec condition and number of the fixtures; the longest are taken. KDE's speakers are omitted,
# because their recordings would be the only GPL files in the repository.
_FIXTURE_GROUPS = (
    ("ivrvoice-ru", "", "g722", 4),
    ("ivrvoice-ru", "", "g722-8k", 1),
    ("menardi", "", "g722-8k", 4),
    ("librivox-austen", "", "g722", 3),
    ("pocketsphinx-cards", "", "g722", 1),
    ("ivrvoice-ru", "world", "g722", 1),
    ("ivrvoice-ru", "griffin-lim", "g722", 1),
    ("menardi", "codec2", "g722-8k", 1),
    ("menardi", "lpc", "g722-8k", 1),
    ("piper-joe", "piper-joe", "g722", 3),
    ("piper-joe", "piper-joe", "g722-8k", 1),
    ("festival-hts-slt", "festival-hts-slt", "g722", 2),
    ("flite-rms", "flite-rms", "g722", 1),
)


def export(corpus: Path, repository: Path, bonafide_id: str, spoof_id: str) -> None:
    """
    Writes both samples, the fixtures with their manifest, and the table of audio files in `LICENSES/README.md`.

    Raises:
        CorpusError: an id is not in the corpus's test partition, or has the wrong label.
    """
    entries = {entry.utterance_id: entry for entry in read_manifest(corpus / "manifest.csv")}
    copied: list[tuple[Path, Entry]] = []
    for label, utterance_id in (("bonafide", bonafide_id), ("spoof", spoof_id)):
        entry = entries.get(utterance_id)
        if entry is None or entry.label != label or entry.partition != "test":
            raise CorpusError(f"{utterance_id} is not a {label} utterance in the test partition of {corpus}.")
        copied.append((_copy(corpus, entry, repository / SAMPLES / f"{label}.flac"), entry))
    chosen = choose_fixtures(list(entries.values()))
    folder = repository / FIXTURES
    shutil.rmtree(folder, ignore_errors=True)
    copied += [(_copy(corpus, entry, folder / f"{entry.utterance_id}.flac"), entry) for entry in chosen]
    write_manifest(folder / "manifest.csv", [replace(entry, path=f"{entry.utterance_id}.flac") for entry in chosen])
    _write_table(repository / "LICENSES/README.md", [(path.relative_to(repository), entry) for path, entry in copied])


def choose_fixtures(entries: Sequence[Entry]) -> list[Entry]:
    """Returns the longest test utterances of each group in `_FIXTURE_GROUPS`, ordered by utterance id."""
    chosen: list[Entry] = []
    for speaker, attack, codec, count in _FIXTURE_GROUPS:
        group = [
            entry
            for entry in entries
            if (entry.partition, entry.speaker_id, entry.attack, entry.codec) == ("test", speaker, attack, codec)
        ]
        chosen += sorted(group, key=lambda entry: (-float(entry.duration), entry.utterance_id))[:count]
    return sorted(chosen, key=lambda entry: entry.utterance_id)


def _copy(corpus: Path, entry: Entry, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(corpus / entry.path, target)
    return target


def _write_table(readme: Path, files: Sequence[tuple[Path, Entry]]) -> None:
    attribution = {source.package: source.attribution for source in SOURCES}
    lines = ["| file | source package | speaker or voice | made by | licence |", "|---|---|---|---|---|"]
    for path, entry in files:
        how = entry.attack or "recording"
        credit = attribution.get(entry.source)
        speaker = f"{entry.speaker_id}: {credit}" if credit else entry.speaker_id
        lines.append(f"| `{path}` | {entry.source} | {speaker} | {how}, {entry.codec} | {entry.licence} |")
    text = readme.read_text(encoding="utf-8")
    if _BEGIN not in text or _END not in text:
        raise CorpusError(f"{readme} needs the lines {_BEGIN!r} and {_END!r} around the table: add them.")
    head, rest = text.split(_BEGIN, 1)
    readme.write_text(f"{head}{_BEGIN}\n" + "\n".join(lines) + f"\n{_END}{rest.split(_END, 1)[1]}", encoding="utf-8")
