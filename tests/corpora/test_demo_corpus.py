"""The demonstration corpus's pure functions on generated signals, without downloads."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "training/demo"))

from corpus import activity, audio, channel, composed, partitions, plan
from corpus.errors import CorpusError, require_program
from corpus.manifest import COLUMNS, Entry, checksum, primary, read_manifest, write_manifest
from corpus.recordings import Piece
from corpus.sources import Recording
from corpus.synthesizers import VOICES

RATE = audio.SAMPLE_RATE


def speech_like(seconds: float = 3.0, seed: int = 0, tilt: float = 1.0) -> np.ndarray:
    """Harmonics of 150 Hz in syllables of 0.5 s with pauses of 0.3 s between them: (S,) float32."""
    time = np.arange(round(seconds * RATE)) / RATE
    rng = np.random.default_rng(seed)
    wave = sum(np.sin(2 * np.pi * 150 * k * time + rng.uniform(0, 6.28)) / k**tilt for k in range(1, 45))
    return (0.1 * wave * ((time % 0.8) < 0.5)).astype(np.float32)


def recordings(speakers: dict[str, tuple[str, str]], narrowband: tuple[str, ...] = ()) -> list[Piece]:
    """Sixty pieces of 1 to 3 s for each speaker: {speaker: (package, language)}."""
    rng = np.random.default_rng(1)
    return [
        Piece(
            f"{speaker}/{number}",
            Recording(f"{speaker}/{number}", Path(), speaker, "f", language, package, "CC0-1.0"),
            float(rng.uniform(1, 3)),
            speaker in narrowband,
        )
        for speaker, (package, language) in speakers.items()
        for number in range(60)
    ]


@pytest.fixture(scope="module")
def small_plan() -> list[plan.Utterance]:
    speakers = {
        "allison": ("asterisk-core-sounds-en-g722", "en"),
        "armelle": ("asterisk-prompt-fr-armelle", "fr"),
        "klettres-de": ("klettres-data", "de"),
        "ktuberling-el": ("ktuberling-data", "el"),
        "ivrvoice-ru": ("asterisk-core-sounds-ru-g722", "ru"),
        "menardi": ("asterisk-prompt-it-menardi-wav", "it"),
    }
    return plan.make_plan(recordings(speakers, narrowband=("armelle", "menardi")), seed=7)


def test_g722_round_trip_keeps_time_and_waveform():
    wave = speech_like(1.0)
    decoded = audio.g722_round_trip(wave)
    assert decoded.shape == wave.shape
    assert np.corrcoef(wave, decoded)[0, 1] > 0.99


def test_mp3_round_trip_keeps_time_and_level():
    wave = speech_like(1.0)
    decoded = audio.mp3_round_trip(wave)
    assert decoded.shape == wave.shape
    assert np.corrcoef(wave, decoded)[0, 1] > 0.98
    assert 0.9 < np.dot(wave, decoded) / np.dot(wave, wave) < 1.05
    assert np.array_equal(decoded, audio.mp3_round_trip(wave))
    power = np.abs(np.fft.rfft(audio.mp3_round_trip(np.random.default_rng(0).standard_normal(RATE) / 8))) ** 2
    assert power[5700:].sum() < 1e-3 * power.sum()


def test_telephone_band_holds_nothing_above_4_khz():
    power = np.abs(np.fft.rfft(audio.through_8khz(np.random.default_rng(0).standard_normal(RATE)))) ** 2
    assert power[4200:].sum() < 1e-4 * power.sum()


def test_long_pauses_are_shortened_and_silence_at_the_ends_is_gone():
    wave = np.concatenate([np.zeros(RATE), speech_like(2.1), np.zeros(RATE)]).astype(np.float32)
    shortened = activity.shorten_pauses(wave, np.random.default_rng(0))
    pauses = activity.runs(~activity.active_frames(shortened))
    assert 1.5 * RATE < shortened.size < 2.1 * RATE
    assert all(stop - start <= 100 * activity.PAUSE_SECONDS[1] + 2 for start, stop in pauses)


def test_cut_ends_an_utterance_at_a_pause():
    piece = activity.cut(speech_like(4.0), 2.8)
    assert piece.size / RATE == pytest.approx(2.1, abs=0.05)


def test_spectrum_is_matched_to_the_reference():
    wave, reference = speech_like(tilt=0.5), speech_like(tilt=1.2)
    before = channel.long_term_spectrum(wave) - channel.long_term_spectrum(reference)
    matched = channel.match_spectrum(wave, channel.long_term_spectrum(reference), bands=23)
    after = channel.long_term_spectrum(matched) - channel.long_term_spectrum(reference)
    assert np.abs(after).mean() < 0.35 * np.abs(before).mean()


@pytest.mark.parametrize("codec", [channel.WIDEBAND, channel.NARROWBAND, channel.LOW_RATE])
def test_channel_is_deterministic_and_keeps_its_ranges(codec):
    wave, reference = speech_like(), speech_like(seed=3)
    sent, again = (channel.send(wave, reference, codec, 2.5, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(sent, again)
    assert sent.size <= (2.5 + 2 * channel.PADDING_SECONDS[1]) * RATE
    assert np.abs(sent).max() < 1.0
    # No digital silence: the noise floor is present from the first 10 ms to the last.
    assert activity.frame_levels(sent).min() > channel.LEVEL_DB[0] - channel.NOISE_SNR_DB[1] - 3


def test_speakers_are_apart_between_partitions(small_plan):
    partitions = defaultdict(set)
    for utterance in small_plan:
        partitions[utterance.speaker_id].add(utterance.partition)
    assert all(len(found) == 1 for found in partitions.values())


def test_a_synthetic_speaker_is_in_train_in_dev_or_in_evaluation():
    places = defaultdict(set)
    for partition, quotas in partitions.QUOTAS.items():
        for attack in quotas.keys() & VOICES.keys():
            for speaker in VOICES[attack].styles or {attack}:
                places[speaker].add("evaluation" if partition in ("test", "extra") else partition)
    assert all(len(found) == 1 for found in places.values())
    assert len(places) > 70


def test_piper_and_the_style_that_hibari_learnt_from_are_on_their_sides():
    assert {partition for partition, quotas in partitions.QUOTAS.items() if "piper-joe" in quotas} == {"test", "extra"}
    assert {partition for partition, quotas in partitions.QUOTAS.items() if "hibari" in quotas} == {"train"}
    assert "kokoro-af_heart" in VOICES["kokoro"].styles


def test_dev_and_test_hold_attacks_that_train_lacks():
    train, dev, test, _ = (set(partitions.QUOTAS[partition]) for partition in partitions.PARTITIONS)
    assert set(partitions.SEEN) <= train & dev & test
    assert dev - train == {"festival-hts-ona", "kokoro-dev"}
    assert {"piper-joe", "world-shifted", "espeak-ng"} <= test - train - dev


def test_references_are_bona_fide_of_the_same_partition_and_codec(small_plan):
    allowed = defaultdict(set)
    for utterance in small_plan:
        if utterance.label == "bonafide":
            allowed[utterance.partition, utterance.codec].add(utterance.recordings)
    assert all(utterance.reference in allowed[utterance.partition, utterance.codec] for utterance in small_plan)


def test_8_khz_speakers_are_only_in_the_narrow_band_condition(small_plan):
    assert {item.codec for item in small_plan if item.speaker_id in {"armelle", "menardi"}} == {channel.NARROWBAND}
    assert {item.codec for item in small_plan if item.attack == "codec2"} == {channel.NARROWBAND}


def test_same_seed_same_plan(small_plan):
    ids = [utterance.utterance_id for utterance in small_plan]
    assert len(set(ids)) == len(ids)
    assert len({utterance.fingerprint() for utterance in small_plan}) == len(ids)


def test_thinned_plan_keeps_every_attack_of_every_partition(small_plan):
    thinned = plan.thin(small_plan, 100)
    assert len(thinned) < 250
    groups = {(item.partition, item.attack) for item in small_plan}
    assert {(item.partition, item.attack) for item in thinned} == groups


@pytest.mark.parametrize("partition", partitions.PARTITIONS[:3])
def test_spoofs_have_bona_fides_languages_as_far_as_the_voices_allow(small_plan, partition):
    here = [item for item in small_plan if item.partition == partition]
    bonafide = Counter(primary(item.language) for item in here if item.label == "bonafide")
    spoofs = [item for item in here if item.label == "spoof"]
    languages = Counter(primary(item.language) for item in spoofs)
    spoken = Counter(primary(item.language) for item in spoofs if item.attack in VOICES)
    for language, count in bonafide.items():
        wanted = len(spoofs) * count / bonafide.total()
        # Copy-synthesis makes up the rest, unless text-to-speech alone has more, here or in another language.
        surplus = sum(max(0, spoken[other] - len(spoofs) * bonafide[other] / bonafide.total()) for other in spoken)
        assert max(spoken[language], wanted - surplus - 2) <= languages[language] <= max(spoken[language], wanted + 2)


def test_a_missing_package_leaves_its_attacks_out():
    pieces = recordings({"allison": ("asterisk-core-sounds-en-g722", "en")})
    made = plan.make_plan(pieces, seed=7, without={"hifigan", "kokoro"})
    assert {item.attack for item in made} == {"", *partitions.QUOTAS["train"]} - {"hifigan", "kokoro"}


def test_recordings_for_evaluation_only_are_in_the_partition_extra():
    piece = recordings({"queen-joe": ("flight-of-the-amazon-queen", "en")})[0]
    assert partitions.partition_of(replace(piece.recording, evaluation_only=True)) == "extra"


def test_texts_are_long_enough_in_every_language_of_every_voice():
    for voice in VOICES.values():
        for language in voice.languages:
            assert len(composed.draw("dev", language, "words", 60, np.random.default_rng(0))) >= 60


def test_manifest_is_read_as_it_was_written(tmp_path):
    audio.write(tmp_path / "a.flac", speech_like(1.0))
    entry = Entry(
        "a",
        "a.flac",
        "bonafide",
        "s",
        "f",
        "en",
        "",
        "g722",
        "p",
        "test",
        "1.000",
        checksum(tmp_path / "a.flac"),
        "CC0",
    )
    write_manifest(tmp_path / "manifest.csv", [entry])
    assert (tmp_path / "manifest.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert read_manifest(tmp_path / "manifest.csv") == [entry]
    assert audio.read(tmp_path / "a.flac").shape == (RATE,)


def test_missing_program_is_named_with_its_package():
    with pytest.raises(CorpusError, match=r"no-such-program is not installed: apt-get install some-package\."):
        require_program("no-such-program", "some-package")


@pytest.mark.parametrize("attack", ["griffin-lim", "mel-magnitude", "stft-phase", "lpc", "sinusoidal", "world"])
def test_vocoders_keep_length_and_pitch_with_librosa_and_pyworld(attack):
    pytest.importorskip("librosa")
    pytest.importorskip("pyworld")
    from corpus.vocoders import VOCODERS

    wave = speech_like(1.5)
    made, again = (VOCODERS[attack](wave, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(made, again)
    assert abs(made.size - wave.size) < 0.05 * RATE
    assert np.isfinite(made).all() and made.std() > 0.01
    assert not np.allclose(made[: wave.size], wave[: made.size], atol=1e-3)


def test_baseline_features_are_what_they_are_called_with_scikit_learn():
    pytest.importorskip("sklearn")
    from corpus.baseline import FEATURES, features

    wave = speech_like()
    loud, quiet = features(wave), features(0.5 * wave)
    assert loud.shape == (len(FEATURES),)
    difference = dict(zip(FEATURES, loud - quiet, strict=True))
    assert difference["rms"] == pytest.approx(6.02, abs=0.01)
    assert difference["crest"] == pytest.approx(0.0, abs=0.01)
    assert difference["tilt"] == pytest.approx(0.0, abs=0.01)
