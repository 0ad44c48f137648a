"""The human recordings: their Debian packages, speakers and licences."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import queen
from .errors import CorpusError, require_program


@dataclass(frozen=True)
class Source:
    """
    Recordings of a Debian package by one speaker, or by one speaker per subfolder (`speaker` empty).

    `language` is also empty if the subfolders are named after languages. The recordings of an `evaluation_only` source
    may not be shared together with the others, or their licence is unclear about it.
    """

    package: str
    folder: str  # folder of the recordings below usr/share
    pattern: str
    speaker: str
    gender: str
    language: str
    licence: str
    attribution: str
    evaluation_only: bool = False
    archive: str = ""  # below usr/share; `fetch` extracts `folder` from it
    not_speech: str = ""  # regular expression; files whose name below `folder` has a match are left out
    most: int | None = None  # number of recordings to take, evenly spread


@dataclass(frozen=True)
class NoiseSource:
    """Sounds of a Debian package without speech or music, of one licence and for one partition; see `surroundings`."""

    package: str
    folder: str  # folder of the sounds below usr/share
    patterns: tuple[str, ...]
    partition: str
    licence: str
    attribution: str
    archive: str  # below usr/share; `fetch` extracts `folder` from it


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
    evaluation_only: bool = False


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

# Folder, speaker, gender and language of Kajongg's voices. The two folders of female1, female2 and male1 sound alike
# (mean cepstra), so they count as one speaker in two languages; those of male2 do not.
_KAJONGG = (
    ("female1", "female1", "f", "en"),
    ("female2", "female2", "f", "en"),
    ("male1", "male1", "m", "en"),
    ("male2", "male2", "m", "en"),
    ("de/female1", "female1", "f", "de"),
    ("de/female2", "female2", "f", "de"),
    ("de/male1", "male1", "m", "de"),
    ("de/male2", "male2-de", "m", "de"),
)
# Nexuiz's characters. Its carni-lycan and reptilian are omitted: voices of monsters.
_NEXUIZ = (
    ("fricka", "f"),
    ("insurrectionist", "m"),
    ("marine", "m"),
    ("pyria-skadi", "f"),
    ("soldier", "m"),
    ("specop", "m"),
)
# The voices of 0 A.D. with the names in its credits. Napatan is a guess at what the folder means: Egyptian.
_0AD = (
    ("greek", "female", "grc", "Kaitlynn Hegarty"),
    ("latin", "female", "la", "Camille Tidjditi"),
    ("latin", "male", "la", "Nicolas Auvray"),
    ("napatan", "female", "egy", "Marine Hasselvender"),
    ("napatan", "male", "egy", "Stanislas Dolcini"),
    ("persian", "female", "fa", "Bahare Abasian"),
    ("persian", "male", "fa", "Mostafa Lotfi"),
)
# Hedgewars' folders. Robot is processed, Singer sings, and Classic shares many files with Default.
_HEDGEWARS = {
    **dict.fromkeys(("British", "Default", "HillBilly", "Mobster", "Pirate", "Russian", "Surfer"), "en"),
    "Default_es": "es",
    "Default_pl": "pl",
    "Default_ru": "ru",
    "Default_uk": "uk",
    "Russian_pl": "pl",
}
# The two fish of Fish Fillets, by the letter in their file names.
_FILLETS = (("m", "small-fish", "f"), ("v", "big-fish", "m"))

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
    *(
        Source(
            "kajongg",
            f"kajongg/voices/{folder}",
            "*.ogg",
            f"kajongg-{speaker}",
            gender,
            language,
            "GPL-2.0-or-later",
            "Wolfgang Rohdewald; speakers are not named",
        )
        for folder, speaker, gender, language in _KAJONGG
    ),
    Source(
        "gcin-voice",
        "gcin-voice/ogg",
        "*/3.ogg",
        "gcin-liu",
        "m",
        "zh",
        "GPL-3.0-only OR LGPL-3.0-only",
        "Edward Der-Hua Liu, 2014",
        most=700,
    ),
    Source(
        "gcin-voice",
        "gcin-voice/ogg",
        "*/5.ogg",
        "gcin-chu-lo",
        "f",
        "zh",
        "CC-BY-3.0",
        "聲優 羅竺與徵音梅林開發委員會錄音組 (ChionMeilin with the vocal source from Chu Lo)",
        most=700,
    ),
    *(
        Source(
            "nexuiz-data",
            "games/nexuiz/data/sound/player",
            f"{character}/coms/**/*.ogg",
            f"nexuiz-{character}",
            gender,
            "en",
            "GPL-2.0-or-later",
            "Alientrap, Lee Vermeulen; speakers are not named",
            archive="games/nexuiz/data/data.pk3",
        )
        for character, gender in _NEXUIZ
    ),
    *(
        Source(
            "0ad-data",
            "games/0ad/mods/public/audio/voice",
            f"{folder}/civ/civ_{gender}_*.ogg",
            f"0ad-{folder}-{gender}",
            gender[0],
            language,
            "CC-BY-SA-3.0",
            f"Wildfire Games (www.wildfiregames.com); spoken by {speaker}",
            archive="games/0ad/mods/public/public.zip",
        )
        for folder, gender, language, speaker in _0AD
    ),
    *(
        Source(
            "hedgewars-data",
            "games/hedgewars/Data/Sounds/voices",
            f"{folder}/*.ogg",
            f"hedgewars-{folder}".lower().replace("_", "-"),
            "unknown",
            language,
            "GFDL-1.3",
            "Andrey Korotaev and the Hedgewars project; speakers are not named",
            evaluation_only=True,
            not_speech=r"/(Firepunch|Hmm|Jump|Kamikaze|Laugh|Nooo|Oof|Ouch|Ow\d|Poison)",
        )
        for folder, language in _HEDGEWARS.items()
    ),
    Source(
        "flight-of-the-amazon-queen",
        "scummvm/flight-of-the-amazon-queen/lines",
        "*/*.mp3",
        "",
        "unknown",
        "en",
        "Flight of the Amazon Queen License",
        "John Passfield and Steven Stamatiadis, 1995; modified; speakers are named after characters",
        evaluation_only=True,
        archive="scummvm/flight-of-the-amazon-queen/queen.1c",
        not_speech="^dog/",
    ),
    *(
        Source(
            f"fillets-ng-data-{language}",
            "games/fillets-ng/sound",
            f"**/{language}/*-{letter}-*.ogg",
            f"fillets-{language}-{speaker}",
            gender,
            language,
            "GPL-2.0-only",
            "Ivo and Pavel Danihelka, ALTAR interactive and others; speakers are not named",
            evaluation_only=True,
            most=150,
        )
        for language in ("cs", "nl")
        for letter, speaker, gender in _FILLETS
    ),
)

_0AD_PUBLIC = "games/0ad/mods/public"
_0AD_AMBIENT = {
    # Omitted are amb_trade, which may be a crowd of voices, and copies of others, found by cross-correlation:
    # day_temperate_gen_01, rain_12 and windleaves_10. The files of train share material with one another, those of dev
    # with none of train.
    "train": (
        "building/amb_farm_*.ogg",
        "building/amb_port_*.ogg",
        "dayscape/day_temperate_1?.ogg",
        "dayscape/day_temperate_gen_0[23].ogg",
        "water/river_*.ogg",
        "water/waterfall_31.ogg",
        "weather/rain_11.ogg",
        "weather/snowstorm_11.ogg",
        "weather/wind_11.ogg",
        "weather/windgust_11.ogg",
        "weather/windleaves_11.ogg",
    ),
    "dev": ("dayscape/day_tropical_*.ogg", "water/wave*.ogg", "weather/thunder_*.ogg", "weather/windstorm_11.ogg"),
}
_MARINE = ("CC-BY-SA-3.0", '"Marine" Baklund, Gren, Christian Hoffmann, Slippycurb')
_MARINO = ("CC-BY-3.0", 'Manuel "Vanethian" Marino (manuelmarino.com), Gren, David Reeves, azrael1322, Karl Macklin')
_AXIS = ("GPL-2.0-or-later", 'Axis REC, Martin Gerhardy, Nexuiz, Max Neave, Michael "Tenshihan" Quinn')
# UFO: Alien Invasion's copyright file gives authors and licence for groups of files. Omitted are those under GPL-2
# only (such as droning_long and fire1), speech (tv_newswav, radiomessage), tones, music and what is shorter than 2 s.
_UFOAI = (
    ("train", *_MARINE, ("alien-*", "alien_engine", "alienatmo", "alienenergy1", "alienmachinery?")),
    ("train", *_MARINE, ("alienpowermachinery1", "alienwormhole", "engine_alien_*", "tv_static")),
    ("train", *_MARINE, ("fire", "fire0?", "smallfire", "water0?")),
    ("dev", *_MARINE, ("arcticwind", "thunder?", "waterfontain", "wind_turbine")),
    ("train", *_MARINO, ("minepump03",)),
    ("dev", *_MARINO, ("bloodspiderwalk",)),
    ("train", *_AXIS, ("city_abnd_ufoai_atm", "hum", "machine1", "ufo_night_atm")),
    ("dev", *_AXIS, ("cricket_loop", "steam")),
)
NOISES = (
    *(
        NoiseSource(
            "0ad-data",
            f"{_0AD_PUBLIC}/audio/ambient",
            patterns,
            partition,
            "CC-BY-SA-3.0",
            "Wildfire Games (www.wildfiregames.com)",
            f"{_0AD_PUBLIC}/public.zip",
        )
        for partition, patterns in _0AD_AMBIENT.items()
    ),
    *(
        NoiseSource(
            "ufoai-sound",
            "games/ufoai/base/sound/ambience",
            tuple(f"{name}.ogg" for name in names),
            partition,
            licence,
            f"UFO: Alien Invasion (ufoai.org): {authors}",
            "games/ufoai/base/0snd.pk3",
        )
        for partition, licence, authors, names in _UFOAI
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
    """Downloads and unpacks the packages of `SOURCES` and `NOISES` that `folder` lacks (apt-get download, dpkg -x)."""
    apt, dpkg = require_program("apt-get", "apt"), require_program("dpkg", "dpkg")
    folder.mkdir(parents=True, exist_ok=True)
    everything: tuple[Source | NoiseSource, ...] = (*SOURCES, *NOISES)
    for package in dict.fromkeys(source.package for source in everything):
        sources = [source for source in everything if source.package == package]
        if all((folder / package / "usr/share" / source.folder).is_dir() for source in sources):
            continue
        result = subprocess.run([apt, "download", package], cwd=folder, capture_output=True, text=True)
        downloads = sorted(folder.glob(f"{package}_*.deb"))
        if result.returncode or not downloads:
            reason = (result.stderr.strip().splitlines() or ["no archive was downloaded"])[-1]
            raise CorpusError(f"apt-get download {package} failed ({reason}): run apt-get update first.")
        # The package gets its name only when it is complete.
        unfinished = folder / f"{package}.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run([dpkg, "-x", str(downloads[-1]), str(unfinished)], check=True)
        downloads[-1].unlink()
        for archive, inner in dict.fromkeys((source.archive, source.folder) for source in sources if source.archive):
            _extract(unfinished / "usr/share" / archive, unfinished / "usr/share" / inner)
        for archive in {source.archive for source in sources if source.archive}:
            (unfinished / "usr/share" / archive).unlink()  # 0 A.D.'s has 3.3 GB
        shutil.rmtree(folder / package, ignore_errors=True)
        unfinished.rename(folder / package)


def _extract(archive: Path, folder: Path) -> None:
    """Extracts `folder`, which is inside a game's archive beside it."""
    if archive.suffix == ".1c":
        queen.extract(archive, folder)
    else:
        prefix = f"{folder.relative_to(archive.parent)}/"
        with zipfile.ZipFile(archive) as file:
            file.extractall(archive.parent, [name for name in file.namelist() if name.startswith(prefix)])


def list_recordings(folder: Path) -> Iterator[Recording]:
    """Yields the speech recordings in the `folder` of `fetch` in a fixed order, and skips duplicate files."""
    seen: set[bytes] = set()
    for source in SOURCES:
        root = folder / source.package / "usr/share" / source.folder
        paths: list[Path] = []
        for path in sorted(root.glob(source.pattern)):
            name = str(path.relative_to(root))
            if any(word in name for word in _NOT_SPEECH):
                continue
            if source.not_speech and re.search(source.not_speech, name):
                continue
            if path.suffix not in {".g722", ".gsm", ".wav", ".ogg", ".opus", ".mp3"}:
                continue
            # KTuberling has its Serbian files four times, and Tux Paint has a letter's file for each of its shapes.
            content = hashlib.sha256(path.read_bytes()).digest()
            if content not in seen:
                seen.add(content)
                paths.append(path)
        for path in queen.spread(paths, source.most) if source.most else paths:
            subfolder = path.relative_to(root).parts[0]
            speaker = source.speaker or f"{source.package.removesuffix('-data')}-{subfolder}".lower().replace("_", "-")
            yield Recording(
                f"{source.package}/{path.relative_to(root)}", path, speaker, source.gender,
                source.language or subfolder, source.package, source.licence, source.evaluation_only,
            )  # fmt: skip


def copyright_file(folder: Path, package: str) -> Path:
    """Returns the path of the package's Debian copyright file."""
    return folder / package / "usr/share/doc" / package / "copyright"
