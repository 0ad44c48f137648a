"""The human recordings: their Debian packages, speakers and licences."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import CorpusError, require_program


@dataclass(frozen=True)
class Source:
    """A Debian package of recordings by one speaker, or by one speaker per language (`speaker` empty)."""

    package: str
    folder: str  # folder of the recordings below usr/share
    pattern: str
    speaker: str
    gender: str
    language: str
    licence: str
    attribution: str


@dataclass(frozen=True)
class Recording:
    """A file of a package. `recording_id` is the package name and the path in the source's folder."""

    recording_id: str
    path: Path
    speaker_id: str
    gender: str
    language: str
    source: str
    licence: str


_ASTERISK = "asterisk/sounds"
_KDE = "the contributors of KDE's {} (kde-edu@mail.kde.org); speakers of the recordings are not named one by one"

# Speakers of Tux Paint's descriptions, as its changelog credits them. Other languages have few files or no credits.
_TUXPAINT = (
    ("be", "f", "Kseniya Buraya"),
    ("bg", "m", "Krasimir Petkov"),
    ("ca", "m", "Pere Pujal Carabantes"),
    ("da", "m", "Joe Dalton"),
    ("el", "f", "Kiriaki Serafeim"),
    ("es", "f", "Estefanía Ortiz"),
    ("fr", "m", "PaulK and Jacques Chion"),
    ("ro", "f", "Tabbytha"),
    ("ru", "m", "Edwin Veber"),
)

# asterisk-prompt-es-co and alsa-utils are omitted: their licence, GPL-2 only, is not compatible with CC-BY-SA or
# GPL-3, so a corpus with them could not be distributed.
SOURCES = (
    Source(
        "asterisk-core-sounds-en-g722",
        _ASTERISK,
        "**/*.g722",
        "allison",
        "f",
        "en",
        "CC-BY-SA-3.0",
        "Allison Smith (theivrvoice.com), financed by Digium, Inc.",
    ),
    Source(
        "asterisk-core-sounds-es-g722",
        _ASTERISK,
        "**/*.g722",
        "allison",
        "f",
        "es",
        "CC-BY-SA-3.0",
        "Allison Smith (theivrvoice.com), financed by Digium, Inc.",
    ),
    Source(
        "asterisk-core-sounds-fr-g722",
        _ASTERISK,
        "**/*.g722",
        "june",
        "f",
        "fr",
        "CC-BY-SA-3.0",
        "June Wallack (junewallack.com); translated by Clod Patry, Kristopher Lalletti and June Wallack; financed by "
        "Digium, Unlimitel and BGM Informatique",
    ),
    Source(
        "asterisk-core-sounds-it-g722",
        _ASTERISK,
        "**/*.g722",
        "carlo",
        "m",
        "it",
        "CC-BY-3.0",
        "Carlo Flora (carloflora.com, segreterietelefoniche.it); translated by Silvia Petrin",
    ),
    Source(
        "asterisk-core-sounds-ru-g722",
        _ASTERISK,
        "**/*.g722",
        "ivrvoice-ru",
        "f",
        "ru",
        "CC-BY-3.0",
        "Maxim Topal (ivrvoice.ru)",
    ),
    Source(
        "asterisk-prompt-it-menardi-wav",
        _ASTERISK,
        "**/*.wav",
        "menardi",
        "f",
        "it",
        "CC-BY-SA-3.0-IT",
        "Marco Menardi and his wife Paola Dal Zot (the voice), http://www.voip.ammdomus.it",
    ),
    Source(
        "asterisk-prompt-fr-armelle",
        _ASTERISK,
        "**/*.gsm",
        "armelle",
        "f",
        "fr",
        "BSD-style (Indigen Solutions)",
        "Armelle Desjardins (the voice), copyright 2006 Michel Gutierrez",
    ),
    Source(
        "festvox-ru",
        "festival/voices/russian/msu_ru_nsh_clunits/wav",
        "*.wav",
        "nsh",
        "m",
        "ru",
        "BSD-style (Festvox)",
        "Nickolay V. Shmyrev, 2005",
    ),
    Source(
        "pocketsphinx-testdata",
        "pocketsphinx/test/data",
        "librivox/*.wav",
        "librivox-austen",
        "f",
        "en",
        "BSD-2-Clause",
        "Carnegie Mellon University and Alpha Cephei Inc.; a LibriVox reading of Sense and Sensibility",
    ),
    Source(
        "pocketsphinx-testdata",
        "pocketsphinx/test/data",
        "cards/*.wav",
        "pocketsphinx-cards",
        "m",
        "en",
        "BSD-2-Clause",
        "Carnegie Mellon University and Alpha Cephei Inc.",
    ),
    *(
        Source(
            "tuxpaint-stamps-default",
            "tuxpaint/stamps",
            f"**/*_desc_{language}.ogg",
            f"tuxpaint-{language}",
            gender,
            language,
            "GPL-2.0-or-later",
            f"Bill Kendrick and contributors (tuxpaint.org); spoken by {speaker}",
        )
        for language, gender, speaker in _TUXPAINT
    ),
    Source(
        "klettres-data",
        "klettres",
        "*/*/*.ogg",
        "",
        "unknown",
        "",
        "GPL-2.0-or-later",
        _KDE.format("KLettres"),
    ),
    Source(
        "ktuberling-data",
        "ktuberling/sounds",
        "*/*.*",
        "",
        "unknown",
        "",
        "GPL-2.0-or-later",
        _KDE.format("KTuberling"),
    ),
)

# Files with these words are not speech, or not only speech.
_NOT_SPEECH = (
    "beep",
    "2tone",
    "silence",
    "music",
    "moh",
    "confbridge-join",
    "confbridge-leave",
    "tt-monkeys",
    "tt-weasels",
)


def fetch(folder: Path) -> None:
    """Downloads and unpacks the packages of `SOURCES` that `folder` does not have yet (apt-get download, dpkg -x)."""
    apt, dpkg = require_program("apt-get", "apt"), require_program("dpkg", "dpkg")
    folder.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        if (folder / source.package / "usr/share" / source.folder).is_dir():
            continue
        result = subprocess.run([apt, "download", source.package], cwd=folder, capture_output=True, text=True)
        archives = sorted(folder.glob(f"{source.package}_*.deb"))
        if result.returncode or not archives:
            reason = (result.stderr.strip().splitlines() or ["no archive was downloaded"])[-1]
            raise CorpusError(f"apt-get download {source.package} failed ({reason}): run apt-get update first.")
        subprocess.run([dpkg, "-x", str(archives[-1]), str(folder / source.package)], check=True)
        archives[-1].unlink()


def list_recordings(folder: Path) -> Iterator[Recording]:
    """Yields the speech recordings in the `folder` of `fetch` in a fixed order, and skips duplicate files."""
    seen: set[bytes] = set()
    for source in SOURCES:
        root = folder / source.package / "usr/share" / source.folder
        for path in sorted(root.glob(source.pattern)):
            name = str(path.relative_to(root))
            language = source.language or path.relative_to(root).parts[0]
            if any(word in name for word in _NOT_SPEECH):
                continue
            if path.suffix not in {".g722", ".gsm", ".wav", ".ogg", ".opus"}:
                continue
            # KTuberling has its Serbian files four times, and Tux Paint has a letter's file for each of its shapes.
            content = hashlib.sha256(path.read_bytes()).digest()
            if content in seen:
                continue
            seen.add(content)
            speaker = source.speaker or f"{source.package.removesuffix('-data')}-{language}".lower().replace("_", "-")
            yield Recording(
                f"{source.package}/{name}", path, speaker, source.gender, language, source.package, source.licence
            )


def copyright_file(folder: Path, package: str) -> Path:
    """Returns the path of the package's Debian copyright file."""
    return folder / package / "usr/share/doc" / package / "copyright"
