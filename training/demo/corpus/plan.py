"""Plans the utterances from one seed: separate speakers and attacks in each partition, balanced codec conditions."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from . import texts
from .channel import NARROWBAND, WIDEBAND
from .recordings import Piece
from .sources import Recording
from .synthesizers import VOICES

PARTITIONS = ("train", "dev", "test")
SECONDS = (2.0, 5.5)  # range of the maximum length of speech, the same for both classes
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

# Maximum number of bona fide utterances of a speaker, so that no one dominates a partition.
_MOST = {"train": 180, "dev": 80, "test": 70}
_MOST_OF = {"allison": 280, "klettres-ml": 110}  # two languages; single syllables only

# Number of spoofed utterances per partition and attack. Attacks in train are "seen".
SEEN = ("world", "griffin-lim", "mel-magnitude", "stft-phase", "sinusoidal", "lpc", "codec2")
QUOTAS: dict[str, dict[str, int]] = {
    "train": {
        "world": 450, "griffin-lim": 400, "mel-magnitude": 400, "stft-phase": 300, "sinusoidal": 300, "lpc": 250,
        "codec2": 200, "festival-ked": 130, "festival-czech-ph": 70, "festival-czech-dita": 70,
        "festival-czech-machac": 70, "festival-czech-krb": 70, "festival-finnish-lj": 70, "festival-finnish-mv": 70,
    },
    "dev": {**dict.fromkeys(SEEN, 50), "festival-hts-ona": 80},
    "test": {
        **dict.fromkeys(SEEN, 150), "piper-joe": 220, "festival-hts-slt": 150, "festival-italian-lp": 150,
        "festival-italian-pc": 150, "flite-slt": 150, "flite-rms": 150, "flite-awb": 150, "flite-kal16": 150,
        "espeak-ng": 220, "world-shifted": 150,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Utterance:
    """An utterance to make. `recordings` are the ids that a bona fide utterance or copy-synthesis is joined from."""

    utterance_id: str
    partition: str
    label: str
    speaker_id: str
    gender: str
    language: str
    attack: str
    codec: str
    source: str
    licence: str
    seconds: float
    seed: int
    recordings: tuple[str, ...]
    text: str
    reference: tuple[str, ...]  # recordings of the bona fide utterance whose spectrum the channel matches

    def fingerprint(self) -> int:
        """Returns a checksum that changes with any part of the plan that the audio depends on."""
        return zlib.crc32(repr(sorted(asdict(self).items())).encode())


def partition_of(recording: Recording) -> str:
    """Returns the partition of the recording's speaker."""
    if recording.speaker_id in _PARTITION_OF:
        return _PARTITION_OF[recording.speaker_id]
    language = recording.language.lower().replace("_", "-")
    for partition, languages in _VOLUNTEERS.items():
        if language in languages:
            return partition
    return "train"


def utterance_seed(seed: int, utterance_id: str) -> int:
    """Returns the utterance's own seed, so that its audio does not depend on what was made before."""
    return zlib.crc32(f"{seed}:{utterance_id}".encode())


def make_plan(recordings: Sequence[Piece], seed: int) -> list[Utterance]:
    """Returns all utterances of the corpus, in an order fixed by `seed` and the recordings."""
    plan: list[Utterance] = []
    for partition in PARTITIONS:
        here = [item for item in recordings if partition_of(item.recording) == partition]
        bonafide = _with_references(_bonafide(here, partition, seed), seed)
        plan += bonafide
        for attack, quota in QUOTAS[partition].items():
            if attack in VOICES:
                plan += _spoken(bonafide, partition, attack, quota, seed)
            else:
                plan += _copied(bonafide, partition, attack, quota, seed)
    return plan


def thin(plan: Sequence[Utterance], limit: int) -> list[Utterance]:
    """Returns about `limit` utterances of the plan, with at least two of each partition and attack."""
    groups: dict[tuple[str, str], list[Utterance]] = {}
    for utterance in plan:
        groups.setdefault((utterance.partition, utterance.attack), []).append(utterance)
    share = limit / len(plan)
    return [
        utterance
        for group in groups.values()
        for utterance in group[:: max(1, len(group) // max(2, round(len(group) * share)))]
    ]


def _bonafide(recordings: Sequence[Piece], partition: str, seed: int) -> list[Utterance]:
    """Joins each speaker's recordings, in random order, into utterances of 2 to 5.5 s of speech; each is used once."""
    pools: dict[tuple[str, str, bool], list[Piece]] = {}
    for item in recordings:
        pools.setdefault((item.recording.speaker_id, item.recording.language, item.narrowband), []).append(item)
    utterances: list[Utterance] = []
    made: dict[str, int] = {}
    for (speaker, language, narrowband), pool in sorted(pools.items()):
        rng = np.random.default_rng(utterance_seed(seed, f"{partition}:{speaker}:{language}:{narrowband}"))
        order, position = rng.permutation(len(pool)), 0
        # Allison speaks two languages, and each gets an equal share.
        languages = len({key[1] for key in pools if key[0] == speaker})
        most = made.get(speaker, 0) + _MOST_OF.get(speaker, _MOST[partition]) // languages
        while made.get(speaker, 0) < most and position < len(order):
            seconds = rng.uniform(*SECONDS)
            parts: list[Piece] = []
            while sum(part.seconds for part in parts) < seconds and position < len(order):
                parts.append(pool[order[position]])
                position += 1
            if sum(part.seconds for part in parts) < SECONDS[0]:
                break
            number = made[speaker] = made.get(speaker, 0) + 1
            utterance_id = f"{partition}-{speaker}-{number:04d}"
            first = parts[0].recording
            codec = NARROWBAND if narrowband or rng.random() < NARROWBAND_SHARE[partition] else WIDEBAND
            utterances.append(
                Utterance(
                    utterance_id, partition, "bonafide", speaker, first.gender, language, "", codec, first.source,
                    first.licence, round(float(seconds), 3), utterance_seed(seed, utterance_id),
                    tuple(part.piece_id for part in parts), "", (),
                )
            )  # fmt: skip
    return utterances


def _with_references(utterances: Sequence[Utterance], seed: int) -> list[Utterance]:
    return [
        replace(utterance, reference=_draw_reference(utterances, utterance.codec, utterance.seed))
        for utterance in utterances
    ]


def _draw_reference(bonafide: Sequence[Utterance], codec: str, seed: int) -> tuple[str, ...]:
    """Returns the recordings of a random bona fide utterance of the same partition and codec condition."""
    rng = np.random.default_rng([seed, 1])
    candidates = [utterance for utterance in bonafide if utterance.codec == codec]
    return candidates[rng.integers(len(candidates))].recordings


def _copied(bonafide: Sequence[Utterance], partition: str, attack: str, quota: int, seed: int) -> list[Utterance]:
    """Plans copy-synthesis of `quota` bona fide utterances, without repetition if there are enough."""
    rng = np.random.default_rng(utterance_seed(seed, f"{partition}:{attack}"))
    chosen = np.concatenate([rng.permutation(len(bonafide)) for _ in range(1 + quota // len(bonafide))])[:quota]
    utterances = []
    for number, index in enumerate(chosen.tolist(), start=1):
        original = bonafide[index]
        utterance_id = f"{partition}-{attack}-{number:04d}"
        own_seed = utterance_seed(seed, utterance_id)
        codec = NARROWBAND if attack == "codec2" else original.codec
        utterances.append(
            replace(
                original, utterance_id=utterance_id, label="spoof", attack=attack, codec=codec, seed=own_seed,
                reference=_draw_reference(bonafide, codec, own_seed),
            )
        )  # fmt: skip
    return utterances


def _spoken(bonafide: Sequence[Utterance], partition: str, attack: str, quota: int, seed: int) -> list[Utterance]:
    """Plans `quota` utterances of a TTS voice, each with a random text."""
    voice, utterances = VOICES[attack], []
    for number in range(1, quota + 1):
        utterance_id = f"{partition}-{attack}-{number:04d}"
        own_seed = utterance_seed(seed, utterance_id)
        rng = np.random.default_rng([own_seed, 2])
        seconds = rng.uniform(*SECONDS)
        language = str(rng.choice(voice.languages))
        codec = NARROWBAND if rng.random() < TTS_NARROWBAND_SHARE[partition] else WIDEBAND
        utterances.append(
            Utterance(
                utterance_id, partition, "spoof", attack, voice.gender, language, attack, codec, voice.source,
                voice.licence, round(float(seconds), 3), own_seed, (), texts.draw(language, round(18 * seconds), rng),
                _draw_reference(bonafide, codec, own_seed),
            )
        )  # fmt: skip
    return utterances
