"""The demonstration corpus's texts, and the baseline that sees only the manifest's columns, without downloads."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "training/demo"))

from corpus import audio, composed
from corpus.errors import CorpusError
from corpus.manifest import Entry, write_manifest

LANGUAGES = ("en", "es", "fr", "it", "de", "nl", "da", "uk", "el", "ru", "pt-br", "hu", "ca", "ro", "cs", "fi")


def sentences(partition: str, language: str, count: int) -> list[str]:
    """Draws `count` single sentences."""
    rng = np.random.default_rng(0)
    return [composed.draw(partition, language, "sentences", 1, rng) for _ in range(count)]


def test_all_languages_have_texts_and_another_is_an_error():
    assert set(composed.languages()) == set(LANGUAGES)
    with pytest.raises(CorpusError, match="'xx'"):
        composed.draw("train", "xx", "words", 10, np.random.default_rng(0))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sentence_belongs_to_one_partition(language):
    drawn = {partition: set(sentences(partition, language, 800)) for partition in composed.PARTITIONS}
    assert len(set().union(*drawn.values())) == sum(map(len, drawn.values()))
    assert all(len(found) > (500 if language != "fi" else 100) for found in drawn.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_are_complete(language):
    for sentence in sentences("train", language, 300):
        assert re.fullmatch(r"[¿]?[^\W\d_a-z][^{}|]*[.?;]", sentence), sentence
        assert "  " not in sentence


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("style", ["sentences", "words"])
def test_texts_are_as_long_as_asked_and_at_most_one_piece_longer(language, style):
    rng = np.random.default_rng(1)
    for characters in (1, 40, 100):
        text = composed.draw("dev", language, style, characters, rng)
        assert characters <= len(text) < characters + 200
    longest = max(map(len, text.split(". ")))
    if style == "words":
        assert longest < 25
        assert len(text) <= characters + 2 + longest


def test_same_seed_same_text():
    one, two = (composed.draw("test", "en", "sentences", 200, np.random.default_rng(5)) for _ in range(2))
    assert one == two
    assert composed.draw("test", "en", "sentences", 200, np.random.default_rng(6)) != one


def entries(spoof_languages: str, spoof_seconds: float = 0.0, spoof_style: str = "") -> list[Entry]:
    """
    Makes a manifest of 400 utterances per partition, half of them bona fide in the languages a, b and c.

    Args:
        spoof_languages: a letter per language of the spoofs, as likely as it is frequent.
        spoof_seconds: how much longer spoofs are.
        spoof_style: style of all spoofs; drawn as in bona fide without it.
    """
    rng = np.random.default_rng(0)
    made = []
    for partition in ("train", "dev", "test", "extra"):
        for number in range(400):
            spoof = number % 2 == 1
            style = str(rng.choice(["sentences", "words"]))
            made.append(
                Entry(
                    f"{partition}-{number}", "", "spoof" if spoof else "bonafide", "", "",
                    str(rng.choice(list(spoof_languages if spoof else "abc"))), "x" if spoof else "", "", "",
                    partition, f"{rng.uniform(2, 6) + spoof * spoof_seconds:.3f}", "", "",
                    spoof_style if spoof and spoof_style else style,
                )
            )  # fmt: skip
    return made


@pytest.fixture
def baseline():
    pytest.importorskip("sklearn")
    from corpus import baseline

    return baseline


def test_balanced_columns_are_at_chance(baseline):
    lines: list[str] = []
    assert baseline.check_columns(entries("abc"), lines.append)
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "train -> test", "train -> dev", "train -> extra",
        "within train", "within test", "within dev", "within extra",
    ]  # fmt: skip
    assert not any("leaks" in line for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    "manifest",
    [{"spoof_languages": "aaad"}, {"spoof_languages": "abc", "spoof_seconds": 2.0},
     {"spoof_languages": "abc", "spoof_style": "words"}],
)  # fmt: skip
def test_a_column_that_tells_the_class_is_found(baseline, manifest):
    lines: list[str] = []
    assert not baseline.check_columns(entries(**manifest), lines.append)
    assert "train -> test" in [line.split("  ")[0] for line in lines if "leaks" in line]


def test_an_imbalance_inside_one_partition_is_found(baseline):
    skewed = [entry for entry in entries("aaad") if entry.partition == "dev"]
    balanced = [entry for entry in entries("abc") if entry.partition != "dev"]
    lines: list[str] = []
    assert not baseline.check_columns(balanced + skewed, lines.append)
    assert [line.split("  ")[0] for line in lines if "leaks" in line] == ["within dev"]


def test_too_few_utterances_are_an_error(baseline):
    with pytest.raises(CorpusError, match="5 utterances of each class in train"):
        baseline.inner_column_scores(entries("abc")[:8])


def test_languages_of_one_class_are_marked(baseline):
    lines: list[str] = []
    baseline.report_languages(entries("abd"), lines.append)
    marks = {tuple(line.split()[:2]): line.partition("only ")[2] for line in lines[1:]}
    assert [marks["test", language] for language in "abcd"] == ["", "", "bona fide", "spoof"]
    assert max(map(len, lines)) <= 80


def corpus(folder: Path, spoof_gain: float) -> Path:
    """Writes half a second of noise for each of 40 utterances per partition; spoofs are louder by `spoof_gain`."""
    rng = np.random.default_rng(0)
    made = [entry for entry in entries("abc") if int(entry.utterance_id.split("-")[1]) < 40]
    made = [replace(entry, path=f"{entry.utterance_id}.flac") for entry in made]
    for entry in made:
        gain = rng.uniform(0.02, 0.03) * (spoof_gain if entry.label == "spoof" else 1.0)
        audio.write(folder / entry.path, (gain * rng.standard_normal(audio.SAMPLE_RATE // 2)).astype(np.float32))
    write_manifest(folder / "manifest.csv", made)
    return folder


def test_level_is_found_in_every_evaluated_partition(baseline, tmp_path):
    lines: list[str] = []
    assert not baseline.check(corpus(tmp_path, spoof_gain=4.0), lines.append)
    leaks = [line.split("  ")[0] for line in lines if "leaks" in line and ", " in line and "->" not in line]
    assert leaks == [
        f"{partition}, {name}"
        for partition in ("test", "dev", "extra")
        for name in ("all attacks", "all seen attacks", "seen: x")
    ]
    assert max(map(len, lines)) <= 80


def test_baseline_scores_named_partitions(baseline, tmp_path):
    folder = corpus(tmp_path, spoof_gain=4.0)
    scores = baseline.baseline_scores(folder, ["dev", "test"])
    assert list(scores) == [f"{partition}-{number}" for partition in ("dev", "test") for number in range(40)]
    for partition in ("dev", "test"):
        bonafide, spoof = ([scores[f"{partition}-{n}"] for n in range(first, 40, 2)] for first in (0, 1))
        assert min(bonafide) > max(spoof)
