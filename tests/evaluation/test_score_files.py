"""Tests score files and keys as people write them: ids with suffixes, headers, any separator and line ending."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("datasets")

from nes2net_hf.detection import Result
from nes2net_hf.detection.writers import CsvWriter, JsonLinesWriter, RowFile
from nes2net_hf.evaluation import EvaluationError, match, read_keys, read_scores

SCORES = {"LA_E_1": 1.5, "LA_E_2": -0.5, "x.1.2": 0.25}
LABELS = {"LA_E_1": "bonafide", "LA_E_2": "spoof", "x.1.2": "spoof"}


def scores_of(tmp_path: Path, scores: bytes, keys: bytes, names: tuple[str, str] = ("s.txt", "k.txt")) -> list[float]:
    """Returns the scores of the trials in the order of the keys."""
    (tmp_path / names[0]).write_bytes(scores)
    (tmp_path / names[1]).write_bytes(keys)
    return match(read_scores(tmp_path / names[0]), read_keys(tmp_path / names[1])).scores.tolist()


def lines(table: dict[str, Any], suffix: str = "", between: str = " ", end: str = "\n", head: str = "") -> bytes:
    rows = [head] if head else []
    return (end.join([*rows, *(f"{name}{suffix}{between}{value}" for name, value in table.items())]) + end).encode()


@pytest.mark.parametrize("of_scores", ["", ".flac", ".WAV", ".mp3"])
@pytest.mark.parametrize("of_keys", ["", ".flac", ".m4a"])
def test_ids_with_and_without_the_suffix_of_audio_are_one_trial(
    of_scores: str, of_keys: str, tmp_path: Path, nes2net: Any
) -> None:
    scores, keys = lines(SCORES, of_scores), lines(LABELS, of_keys)
    assert scores_of(tmp_path, scores, keys) == [*SCORES.values()]
    run = nes2net("evaluate", tmp_path / "s.txt", "--keys", tmp_path / "k.txt", "--resamples", 100)
    assert run.code == 0 and "ignored" not in run.err
    table = {"filename": [name + of_scores for name in SCORES], "Score": [*SCORES.values()]}
    pq.write_table(pa.table(table), tmp_path / "s.parquet")
    assert match(read_scores(tmp_path / "s.parquet"), read_keys(tmp_path / "k.txt")).scores.tolist() == [
        1.5,
        -0.5,
        0.25,
    ]


@pytest.mark.parametrize(
    ("scores", "keys", "expected"),
    [
        ("a.wav 1\na.flac 2\nb 3\n", "a.flac bonafide\na.wav spoof\nb spoof\n", [2, 1, 3]),  # told apart by suffix
        ("a.wav 1\na.flac 2\nb 3\n", "a.flac bonafide\nb spoof\n", [2, 3]),
        ("a 1\na.wav 2\nb 3\n", "a bonafide\na.wav spoof\nb spoof\n", [1, 2, 3]),
        ("a.wav 1\na.flac 2\n", "a bonafide\nb spoof\n", "a.wav and a.flac both match trial a: remove one"),
        ("a.wav 1\na.flac 2\n", "a.mp3 bonafide\nb spoof\n", "both match trial a.mp3"),
        ("a 1\na.flac 2\nb 3\n", "a bonafide\nb spoof\n", "a and a.flac both match trial a"),
        ("a 1\na.wav 2\nb 3\n", "a.wav bonafide\nb spoof\n", "a.wav and a both match trial a.wav"),
        ("a 1\nb 3\n", "a.wav bonafide\na.flac spoof\n", "a matches both trial a.wav and trial a.flac: score both"),
        ("a.wav 1\n", "a.wav bonafide\na spoof\n", r"1 of 2 trials of .* have no score \(a\)"),
        ("a.txt 1\nb 2\n", "a bonafide\nb spoof\n", r"1 of 2 trials of .* have no score \(a\)"),  # not an audio suffix
    ],
)
def test_ids_that_may_be_two_trials_are_refused(
    scores: str, keys: str, expected: list[float] | str, tmp_path: Path
) -> None:
    if isinstance(expected, list):
        assert scores_of(tmp_path, scores.encode(), keys.encode()) == expected
        return
    with pytest.raises(EvaluationError, match=expected):
        scores_of(tmp_path, scores.encode(), keys.encode())


@pytest.mark.parametrize(
    ("head", "between"),
    [
        ("filename label", " "),
        ("FileName   Label", " "),
        ("utt_id\tKEY", "\t"),
        ("Utterance ID\tCM-Label", "\t"),
        ("trial key", " "),
        ("clip class", " "),
        ("Path,LABEL", ","),
        ('"Path", "Label"', ","),
        ("file name;label", ";"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
def test_keys_may_begin_with_a_header_and_have_any_separator(
    head: str, between: str, end: str, tmp_path: Path
) -> None:
    keys = b"\xef\xbb\xbf" + lines(LABELS, "", between, end, head)
    assert scores_of(tmp_path, lines(SCORES), keys) == [*SCORES.values()]
    wide = keys.decode("utf-8-sig").encode("utf-16")
    assert scores_of(tmp_path, lines(SCORES, ".flac"), wide) == [*SCORES.values()]


@pytest.mark.parametrize(
    ("head", "between"),
    [
        ("filename score", " "),
        ("filename\tcm-score", "\t"),
        ("FileName\tCM-Score", "\t"),
        ("utt logit", " "),
        ("Utterance_ID,SCORE", ","),
        ("score;Filename", ";"),
        ("", " "),
        ("", "\t"),
        ("", "   "),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
def test_scores_may_begin_with_a_header_and_have_any_separator(
    head: str, between: str, end: str, tmp_path: Path
) -> None:
    turned = head.startswith("score")
    rows = {str(score): name for name, score in SCORES.items()} if turned else SCORES
    assert scores_of(tmp_path, lines(rows, "", between, end, head), lines(LABELS)) == [*SCORES.values()]


def test_tables_of_more_columns(tmp_path: Path) -> None:
    keys = b"speaker filename Attack label\ns1 LA_E_1 - bonafide\ns2 LA_E_2 A1 spoof\ns3 x.1.2 A2 spoof\n"
    assert scores_of(tmp_path, lines(SCORES), keys) == [*SCORES.values()]
    assert read_keys(tmp_path / "k.txt").columns["attack"].tolist() == [None, "A1", "A2"]
    scores = b"filename\tcm-score\tasv-score\n" + b"".join(f"{n}\t{s}\t1\n".encode() for n, s in SCORES.items())
    assert scores_of(tmp_path, scores, keys) == [*SCORES.values()]
    csv = b"Score,Utterance_ID,Label,\n1.5,LA_E_1,Real,\n-0.5,LA_E_2,FAKE,\n\n,,,\n"
    (tmp_path / "s.csv").write_bytes(csv)
    assert read_scores(tmp_path / "s.csv").kinds.tolist() == ["bonafide", "spoof"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.csv", "id,Score,score\n", "columns 'Score' and 'score' have the same name"),
        ("s.csv", "utterance_id,score\na,b,1\n", "s.csv, line 2: 3 fields instead of 2"),
        ("s.csv", 'utterance_id,score\n"a,1\nb,2\n', "a quotation mark is not closed"),
        ("s.txt", "filename score\na\n", "score '' is not a number"),
        ("k.csv", "file,label,Label\na,spoof,spoof\n", "columns 'label' and 'Label' have the same name"),
        (
            "k.csv",
            "file,label\na,maybe\n",
            r"k.csv, line 2: 'maybe' is not a known label .*\): fix it\.",
        ),
        ("k.csv", "clip,file,verdict\na,b,spoof\n", "it needs `utterance_id` and `label`"),
        ("k.txt", "a bonafide\nfilename label\n", "k.txt, line 2: 'label' is not a known label"),  # not a header
        ("k.txt", "filename label\n", "k.txt has no trials"),
    ],
)
def test_tables_that_are_wrong_are_one_sentence(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(EvaluationError, match=message):
        (read_keys if name.startswith("k") else read_scores)(tmp_path / name)


def test_systems_whose_ids_differ_by_suffix_are_compared_and_fused(tmp_path: Path, nes2net: Any) -> None:
    rng = np.random.default_rng(0)
    labels = {f"u{n}": ("spoof", "bonafide")[n % 2] for n in range(60)}
    for name, suffix in (("a", ""), ("b", ".wav")):
        scores = {key: rng.normal() + (label == "bonafide") for key, label in labels.items()}
        (tmp_path / f"{name}.txt").write_bytes(lines(scores, suffix))
        rows = "".join(f"{key}{suffix},{labels[key]},{score}\n" for key, score in [*scores.items()][::-1])
        (tmp_path / f"{name}.csv").write_text("Utterance_ID,Label,Score\n" + rows)
    (tmp_path / "k.txt").write_bytes(lines(labels, ".flac", head="filename label"))
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert nes2net("evaluate", *files, "--keys", tmp_path / "k.txt", "--resamples", 100).code == 0
    assert nes2net("evaluate", tmp_path / "a.csv", tmp_path / "b.csv", "--resamples", 100).code == 0
    assert nes2net("fuse", *files, "--keys", tmp_path / "k.txt", "--out", tmp_path / "w.json").code == 0
    assert nes2net("fuse", *files, "--apply", tmp_path / "w.json", "--out", tmp_path / "f.txt").code == 0
    assert len(read_scores(tmp_path / "f.txt").scores) == 60


# ---------------------------------------------------------------------------------------------------------------------
# Ids with spaces
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "keys"),
    [
        ("my own call.wav 1.5\nb 0.5\n", "my own call bonafide\nb spoof\n"),
        ("a  b.wav 1.5\nb -0.5\n", "a  b.wav,bonafide\nb,spoof\n"),
        ("the first long call 1.5\nb 1\n", "the first long call\tbonafide\nb\tspoof\n"),
        ("a A07 spoof 1.5\nb - bonafide 1\n", "a spoof\nb bonafide\n"),  # ASVspoof 2019
    ],
)
def test_the_last_column_is_the_score(scores: str, keys: str, tmp_path: Path) -> None:
    keys = keys if "," not in keys else f"file,label\n{keys}"
    assert scores_of(tmp_path, scores.encode(), keys.encode())[0] == 1.5


# ---------------------------------------------------------------------------------------------------------------------
# What `nes2net detect` writes
# ---------------------------------------------------------------------------------------------------------------------


def verdict(file: str, score: float | None = 1.0, **fields: Any) -> Result:
    fields = {"label": "bonafide" if score else None, "error": None if score else "it is broken.", **fields}
    return Result(file, score=score, duration=3.0 if score else None, model="m", **fields)


def written(path: Path, *results: Result) -> Path:
    with RowFile(path) as file:
        writer = (CsvWriter if path.suffix == ".csv" else JsonLinesWriter)(file)
        for result in results:
            writer.write(result)
    return path


FORMS = ("v.jsonl", "v.csv", "v.ndjson", "v")


@pytest.mark.parametrize("form", FORMS)
def test_verdicts_of_detect_are_scores(form: str, tmp_path: Path, nes2net: Any) -> None:
    rng = np.random.default_rng(0)
    names = [f"recordings/=a {n}.wav" for n in range(40)]
    rows = [verdict(name, rng.normal() + n % 2) for n, name in enumerate(names)]
    rows[3] = verdict(names[3], 0.75, label=None, undecided="too short to judge")
    rows[4] = verdict(names[4], -0.5, label=None, undecided="no speech found")
    rows[5] = verdict(names[5], -0.25, label=None, undecided="no speech found")
    path = written(tmp_path / form, *rows, verdict("recordings/broken.wav", None))
    keys = "file,label\n" + "".join(f"=a {n},{('spoof', 'bonafide')[n % 2]}\n" for n in range(40))
    (tmp_path / "k.csv").write_text(keys)
    run = nes2net("evaluate", path, "--keys", tmp_path / "k.csv", "--json", "--resamples", 100)
    assert run.code == 0, run.err
    assert json.loads(run.out)["n_bonafide"] == 20
    assert [row["value"] for row in json.loads(run.out)["breakdown"]] in ([], ["2 to 4 s"])
    said = (
        "3 of 40 recordings have a score but no verdict (2 no speech found, 1 too short to judge): "
        "their scores are included"
    )
    assert said in run.err and said in json.loads(run.out)["warnings"]
    assert "ignored" not in run.err
    run = nes2net("evaluate", path)
    assert run.code == 1 and "has no labels: pass --keys" in run.err  # verdicts are not labels


@pytest.mark.parametrize("form", FORMS[:2])
def test_the_attacks_that_detect_named_are_counted_by_those_of_the_keys(
    form: str, tmp_path: Path, nes2net: Any
) -> None:
    named = ["A07", "A08", None, "A07", None, None]  # the last two are bona fide
    rows = [
        verdict(f"u{n}.wav", 1.5 - n, label="spoof" if name else "bonafide", attack=name)
        for n, name in enumerate(named)
    ]
    path = written(tmp_path / form, *rows)
    true = ["A07", "A07", "A07", "A08", "", ""]
    lines = [f"u{n},{'spoof' if attack else 'bonafide'},{attack}" for n, attack in enumerate(true)]
    (tmp_path / "k.csv").write_text("\n".join(["file,label,attack", *lines]) + "\n")
    options = ("evaluate", path, "--keys", tmp_path / "k.csv", "--resamples", 100)
    said = json.loads(nes2net(*options, "--json").out)["tracing"]
    assert said["confusion"] == {"A07": {"A07": 1, "A08": 1, "none": 1}, "A08": {"A07": 1}}
    assert said["accuracy"] == 0.25
    text = nes2net(*options).out
    assert "attack named rightly" in text and "25.00 % of 4 spoofed" in text
    (tmp_path / "k.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in ["file,label,x", *lines]) + "\n")
    assert "tracing" not in json.loads(nes2net(*options, "--json").out)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_was_not_judged_has_no_score(form: str, tmp_path: Path, nes2net: Any) -> None:
    path = written(tmp_path / form, verdict("x/a.wav"), verdict("x/b.wav", -1.0), verdict("x/c.wav", None))
    (tmp_path / "k.txt").write_text("a bonafide\nb spoof\nc spoof\n")
    run = nes2net("evaluate", path, "--keys", tmp_path / "k.txt")
    assert run.code == 1 and "1 of 3 trials of" in run.err and "have no score (c): score them" in run.err


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"channel": 0}, "a.wav has several scores, one per channel: judge the mix with nes2net detect --channels"),
        ({"track": 0}, "a.wav has several scores, one per track: judge only one with nes2net detect --track N"),
        ({}, "a.wav has several scores: remove one of its lines"),
    ],
)
def test_several_scores_of_a_file_are_refused(form: str, fields: Any, words: str, tmp_path: Path) -> None:
    more = dict.fromkeys(fields, 1)
    path = written(tmp_path / form, verdict("a.wav", **fields), verdict("b.wav"), verdict("a.wav", 2.0, **more))
    with pytest.raises(EvaluationError, match=words):
        read_scores(path)


@pytest.mark.parametrize(
    ("files", "trials", "expected"),
    [
        (["recordings/a.wav", "recordings/b.flac"], ["a", "b.flac"], [1, 2]),
        (["recordings/a.wav", "recordings/b.flac"], ["recordings/a.wav", "recordings/b"], [1, 2]),
        (["/data/x/a.wav", "/data/y/a.wav"], ["y/a", "x/a.wav"], [2, 1]),
        (["/data/x/a.wav", "/data/a.wav"], ["a", "x/a"], [2, 1]),
        (["x/a.wav", "a.wav"], ["x/a", "a"], [1, 2]),
        (["C:\\x\\a.wav", "C:\\x\\b.wav"], ["x/b", "x/a"], [2, 1]),
        (["./a.wav", "b.wav"], ["z/a.wav", "b"], [1, 2]),
        (["x/a.wav", "y/a.wav"], ["a", "b"], "x/a.wav and y/a.wav both match trial a: name the folder in the keys"),
        (["a.wav", "b.wav"], ["x/a", "y/a"], "a.wav matches both trial x/a and trial y/a: judge the parent folder"),
        (["x/a.wav", "x/b.wav"], ["y/a", "x/b"], r"1 of 2 trials of .* have no score \(y/a\)"),
        (["x/a.wav", "x/b.wav"], ["x/a", "a"], r"1 of 2 trials of .* have no score \(a\)"),
        (["xa.wav", "x/b.wav"], ["a", "b"], r"1 of 2 trials of .* have no score \(a\)"),
    ],
)
def test_files_and_keys_may_differ_in_folders(
    files: list[str], trials: list[str], expected: list[int] | str, tmp_path: Path
) -> None:
    path = written(tmp_path / "v.jsonl", *(verdict(file, float(n)) for n, file in enumerate(files, 1)))
    keys = "".join(f"{trial},{label}\n" for trial, label in zip(trials, ("bonafide", "spoof"), strict=True))
    (tmp_path / "k.csv").write_text("file,label\n" + keys)
    if isinstance(expected, list):
        assert match(read_scores(path), read_keys(tmp_path / "k.csv")).scores.tolist() == expected
        return
    with pytest.raises(EvaluationError, match=expected):
        match(read_scores(path), read_keys(tmp_path / "k.csv"))


def test_folders_are_nothing_to_look_past_in_other_score_files(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="1 of 2 trials"):
        scores_of(tmp_path, b"x/a 1\nb 2\n", b"a bonafide\nb spoof\n")


def test_lines_that_are_no_verdicts_are_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path / "v.jsonl", verdict("a.wav"), verdict("b.wav"))
    whole = path.read_bytes()
    for content, words in (
        (whole[:-9], "line 2, is not complete JSON: finish it with nes2net detect --resume"),
        (whole + b'{"a": 1}\n', "line 3, is not a verdict of nes2net detect"),
        (b"[1]\n", "line 1, is not a verdict"),
        (b"", "has no scores"),
    ):
        path.write_bytes(content)
        with pytest.raises(EvaluationError, match=words):
            read_scores(path)


def test_verdicts_are_fused_with_scores(tmp_path: Path, nes2net: Any) -> None:
    path = written(tmp_path / "v.jsonl", *(verdict(f"x/u{n}.wav", n % 7 + 1.0) for n in range(20)))
    (tmp_path / "b.txt").write_text("".join(f"u{n} {n % 5}\n" for n in range(20)))
    (tmp_path / "k.txt").write_text("".join(f"u{n} {('spoof', 'bonafide')[n % 2]}\n" for n in range(20)))
    files = [path, tmp_path / "b.txt"]
    assert nes2net("fuse", *files, "--keys", tmp_path / "k.txt", "--out", tmp_path / "w.json").code == 0
    assert nes2net("evaluate", *files, "--keys", tmp_path / "k.txt", "--resamples", 100).code == 0
    for order in (files, files[::-1]):
        weights = json.loads((tmp_path / "w.json").read_text()) | {"systems": [file.name for file in order]}
        (tmp_path / "w.json").write_text(json.dumps(weights))
        done = nes2net("fuse", *order, "--apply", tmp_path / "w.json", "--out", tmp_path / "f.txt")
        assert done.code == 0, done.err
        assert len(read_scores(tmp_path / "f.txt").scores) == 20
