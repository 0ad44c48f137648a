"""Plans the utterances from one seed: separate speakers and attacks in each partition, balanced codec conditions."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice

import numpy as np

from . import composed
from .channel import LOW_RATE, NARROWBAND, WIDEBAND
from .manifest import primary
from .partitions import (
    NARROWBAND_SHARE,
    PARTITIONS,
    QUOTAS,
    TTS_NARROWBAND_SHARE,
    most_utterances,
    partition_of,
)
from .recordings import Piece
from .synthesizers import VOICES

SECONDS = (2.0, 5.5)  # range of the maximum length of speech, the same for both classes
CHARACTERS_PER_SECOND = 18
SENTENCE_SECONDS = 1.2  # recordings that are longer on average count as sentences, others as words


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
    style: str  # of the text: sentences or words

    def fingerprint(self) -> int:
        """Returns a checksum that changes with any part of the plan that the audio depends on."""
        return zlib.crc32(repr(sorted(asdict(self).items())).encode())


def utterance_seed(seed: int, utterance_id: str) -> int:
    """Returns the utterance's own seed, so that its audio does not depend on what was made before."""
    return zlib.crc32(f"{seed}:{utterance_id}".encode())


def make_plan(recordings: Sequence[Piece], seed: int, without: Collection[str] = ()) -> list[Utterance]:
    """
    Returns all utterances of the corpus, in an order fixed by `seed` and the recordings.

    Text-to-speech is planned first. Copy-synthesis then takes its originals from the languages that the spoofs still
    lack, so that a language tells as little as possible about the class.

    Args:
        recordings: the pieces of all bona fide recordings.
        seed: seed of every draw.
        without: attacks to omit.
    """
    plan: list[Utterance] = []
    for partition in PARTITIONS:
        here = [item for item in recordings if partition_of(item.recording) == partition]
        if not here:
            continue
        bonafide = _with_references(_bonafide(here, partition, seed), seed)
        quotas = {attack: quota for attack, quota in QUOTAS[partition].items() if attack not in without}
        spoken = [
            utterance
            for attack, quota in quotas.items()
            if attack in VOICES
            for utterance in _spoken(bonafide, partition, attack, quota, seed)
        ]
        copies = {attack: quota for attack, quota in quotas.items() if attack not in VOICES}
        plan += [*bonafide, *spoken, *_copied(bonafide, spoken, partition, copies, seed)]
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
        most = made.get(speaker, 0) + most_utterances(pool[0].recording, partition) // languages
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
            mean = sum(part.seconds for part in parts) / len(parts)
            codec = NARROWBAND if narrowband or rng.random() < NARROWBAND_SHARE.get(partition, 0.0) else WIDEBAND
            codec = LOW_RATE if partition == "extra" else codec
            utterances.append(
                Utterance(
                    utterance_id, partition, "bonafide", speaker, first.gender, language, "", codec, first.source,
                    first.licence, round(float(seconds), 3), utterance_seed(seed, utterance_id),
                    tuple(part.piece_id for part in parts), "", (),
                    "sentences" if mean > SENTENCE_SECONDS else "words",
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


def _spoken(bonafide: Sequence[Utterance], partition: str, attack: str, quota: int, seed: int) -> list[Utterance]:
    """Plans `quota` utterances of a TTS attack, in the bona fide utterances' shares of languages and styles."""
    voice, utterances = VOICES[attack], []
    speakers = voice.styles or {attack: voice.gender}
    models = [u for u in bonafide if primary(u.language) in {primary(language) for language in voice.languages}]
    for number in range(1, quota + 1):
        utterance_id = f"{partition}-{attack}-{number:04d}"
        own_seed = utterance_seed(seed, utterance_id)
        rng = np.random.default_rng([own_seed, 2])
        seconds = rng.uniform(*SECONDS)
        model = (models or bonafide)[rng.integers(len(models or bonafide))]
        known = [language for language in voice.languages if primary(language) == primary(model.language)]
        language = str(rng.choice(known or voice.languages))
        speaker = str(rng.choice(list(speakers)))
        characters = round(CHARACTERS_PER_SECOND * seconds)
        codec = NARROWBAND if rng.random() < TTS_NARROWBAND_SHARE.get(partition, 0.0) else WIDEBAND
        codec = LOW_RATE if partition == "extra" else codec
        utterances.append(
            Utterance(
                utterance_id, partition, "spoof", speaker, speakers[speaker], language, attack, codec, voice.source,
                voice.licence, round(float(seconds), 3), own_seed, (),
                composed.draw(partition, language, model.style, characters, rng),
                _draw_reference(bonafide, codec, own_seed), model.style,
            )
        )  # fmt: skip
    return utterances


def _copied(
    bonafide: Sequence[Utterance], spoken: Sequence[Utterance], partition: str, quotas: Mapping[str, int], seed: int
) -> list[Utterance]:
    """Plans copy-synthesis: `quotas` of each attack, of bona fide utterances in the languages that `spoken` lacks."""
    rng = np.random.default_rng(utterance_seed(seed, f"{partition}:copies"))
    originals = iter(_balanced(bonafide, spoken, sum(quotas.values()), rng))
    utterances = []
    for attack, quota in quotas.items():
        for number, original in enumerate(islice(originals, quota), start=1):
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


def _balanced(
    bonafide: Sequence[Utterance], spoken: Sequence[Utterance], count: int, rng: np.random.Generator
) -> list[Utterance]:
    """Draws `count` bona fide utterances, so that with `spoken` they have bona fide's shares of languages."""
    pools: dict[str, list[Utterance]] = {}
    for utterance in bonafide:
        pools.setdefault(primary(utterance.language), []).append(utterance)
    have = Counter(primary(utterance.language) for utterance in spoken)
    total = count + len(spoken)
    lacking = [max(0.0, total * len(pool) / len(bonafide) - have[language]) for language, pool in pools.items()]
    # Rounding the running sum gives whole numbers with the right sum.
    bounds = np.round(np.cumsum(lacking) * count / sum(lacking)).astype(int)
    drawn: list[Utterance] = []
    for pool, quota in zip(pools.values(), np.diff(bounds, prepend=0).tolist()):
        rounds = [rng.permutation(len(pool)) for _ in range(1 + quota // len(pool))]
        drawn += [pool[index] for index in np.concatenate(rounds)[:quota]]
    return [drawn[index] for index in rng.permutation(len(drawn))]
