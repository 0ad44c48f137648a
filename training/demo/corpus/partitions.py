"""Who and what is in which partition: speakers, attacks, their numbers, and their shares of narrow-band speech."""

from __future__ import annotations

from collections.abc import Collection

from .sources import Recording

PARTITIONS = ("train", "dev", "test", "extra")  # extra is for evaluation only: recordings that may not be shared
# Narrow-band shares of the bona fide utterances that could be wide-band, so that about half of each partition is
# narrow-band; and of TTS, so that train's spoofs, with Codec2 (only narrow-band), have the same share.
NARROWBAND_SHARE = {"train": 0.4, "dev": 0.45, "test": 0.2}
TTS_NARROWBAND_SHARE = {"train": 0.3, "dev": 0.3, "test": 0.45}

# Volunteers of one language in KLettres, KTuberling and Tux Paint may be the same person, so they share a partition.
_VOLUNTEERS = {
    "dev": ("de", "he", "el", "nl", "tn", "gl", "uk", "da"),
    "test": ("en", "en-gb", "ru", "it", "hu", "pt", "pt-br", "sl", "es", "be"),
}
_PARTITION_OF = {
    "allison": "train", "june": "train", "carlo": "train", "nsh": "train", "armelle": "train",
    "ivrvoice-ru": "test", "menardi": "test", "librivox-austen": "test", "pocketsphinx-cards": "test",
}  # fmt: skip
# Packages whose speakers are all in one partition.
_PARTITION_OF_PACKAGE = {"gcin-voice": "train", "nexuiz-data": "train", "0ad-data": "train", "kajongg": "dev"}

# Maximum number of bona fide utterances of a speaker, so that no one dominates a partition.
_MOST = {"train": 180, "dev": 80, "test": 70, "extra": 30}
_MOST_OF = {"allison": 280, "klettres-ml": 110}  # two languages; single syllables only
_MOST_OF_PACKAGE = {"gcin-voice": 60}  # single syllables only

# Number of spoofed utterances per partition and attack. Attacks in train are "seen".
SEEN = ("hifigan", "world", "griffin-lim", "mel-magnitude", "stft-phase", "sinusoidal", "lpc", "codec2")
QUOTAS: dict[str, dict[str, int]] = {
    "train": {
        "hifigan": 450, "kokoro": 420, "hibari": 100, "world": 300, "griffin-lim": 280, "mel-magnitude": 280,
        "stft-phase": 200, "sinusoidal": 200, "lpc": 160, "codec2": 140, "festival-ked": 60, "festival-czech-ph": 12,
        "festival-czech-dita": 12, "festival-czech-machac": 12, "festival-czech-krb": 12, "festival-finnish-lj": 12,
        "festival-finnish-mv": 12,
    },
    "dev": {**dict.fromkeys(SEEN, 50), "hifigan": 90, "kokoro-dev": 80, "festival-hts-ona": 20},
    "test": {
        **dict.fromkeys(SEEN, 120), "hifigan": 170, "kokoro-unseen": 170, "piper-joe": 200, "festival-hts-slt": 60,
        "festival-italian-lp": 100, "festival-italian-pc": 100, "flite-slt": 50, "flite-rms": 50, "flite-awb": 50,
        "flite-kal16": 50, "espeak-ng": 200, "world-shifted": 150,
    },
    "extra": {"hifigan": 70, "world": 50, "griffin-lim": 50, "kokoro-unseen": 60, "piper-joe": 60},
}  # fmt: skip
# Held-out styles of a generator that is in train: neither a seen attack nor an unseen generator.
UNSEEN_STYLES = ("kokoro-unseen",)


def partition_of(recording: Recording) -> str:
    """Returns the partition of the recording's speaker."""
    if recording.evaluation_only:
        return "extra"
    if recording.speaker_id in _PARTITION_OF:
        return _PARTITION_OF[recording.speaker_id]
    if recording.source in _PARTITION_OF_PACKAGE:
        return _PARTITION_OF_PACKAGE[recording.source]
    language = recording.language.lower().replace("_", "-")
    for partition, languages in _VOLUNTEERS.items():
        if language in languages:
            return partition
    return "train"


def most_utterances(recording: Recording, partition: str) -> int:
    """Returns the most bona fide utterances of the recording's speaker."""
    return _MOST_OF.get(recording.speaker_id, _MOST_OF_PACKAGE.get(recording.source, _MOST[partition]))


def attack_groups(attacks: Collection[str], seen: Collection[str]) -> dict[str, list[str]]:
    """
    Returns the groups of attacks that are judged together, by name: all that are in train (`seen`), each of them, all
    unseen ones, each of them, and unseen styles of a generator that is in train.
    """
    groups: dict[str, list[str]] = {}
    styles = set(attacks) & set(UNSEEN_STYLES)
    for kind, names in (("seen", set(attacks) & set(seen)), ("unseen", set(attacks) - set(seen) - styles)):
        if names:
            groups[f"all {kind} attacks"] = sorted(names)
        groups |= {f"{kind}: {name}": [name] for name in sorted(names)}
    return groups | {f"unseen styles: {name}": [name] for name in sorted(styles)}
