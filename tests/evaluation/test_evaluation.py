"""Tests `nes2net evaluate`, `calibrate` and `fuse` with files as people and organisers write them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")

import pyarrow as pa
import pyarrow.parquet as pq

from nes2net_hf.calibration import fit_calibration, fit_fusion, spoof_probability
from nes2net_hf.detection import Detector, detect
from nes2net_hf.metrics import cllr, equal_error_rate, min_cllr, min_tdcf
from nes2net_hf.pretrained.fingerprint import fingerprint
from nes2net_hf.pretrained.load import load_model
from nes2net_hf.reference import Population
from tests.helpers import FIXTURES, tiny_model

EXPECTED = json.loads((FIXTURES / "metrics" / "expected.json").read_text(encoding="utf-8"))


def one(run: Any) -> dict[str, Any]:
    assert run.code == 0, run.err
    return json.loads(run.out)


@pytest.fixture
def la(tmp_path: Path) -> Path:
    """Returns a folder with keys and scores like ASVspoof 2021 LA: three phases, three codecs, 12 speakers."""
    rng = np.random.default_rng(0)
    keys, scores = [], []
    for number in range(900):
        spoofed, phase = rng.random() < 0.7, ("progress", "eval", "eval")[number % 3]
        codec, attack = (
            ("none", "alaw", "gsm")[rng.integers(3)],
            f"A{rng.integers(7, 10):02}" if spoofed else "bonafide",
        )
        label = "spoof" if spoofed else "bonafide"
        keys.append(f"LA_{rng.integers(12):04} LA_E_{number} {codec} ita_tx {attack} {label} notrim {phase}")
        scores.append(f"LA_E_{number} {rng.normal() + (-1.5 if spoofed else 1.5):.6f}")
    (tmp_path / "trial_metadata.txt").write_text("\n".join(keys) + "\n")
    (tmp_path / "scores.txt").write_text("\n".join(scores) + "\n")
    return tmp_path


@pytest.mark.parametrize("name", EXPECTED)
def test_json_holds_the_official_figures(nes2net: Any, name: str) -> None:
    figures = one(nes2net("evaluate", FIXTURES / "metrics" / name, "--json", "--resamples", 100))
    for key, ours in {"cllr_bits": "cllr"}.items():
        assert figures[ours] == pytest.approx(EXPECTED[name][key], abs=1e-9)
    same = ("n_bonafide", "n_spoof", "eer", "eer_threshold", "min_dcf", "min_dcf_threshold", "act_dcf")
    assert {key: figures[key] for key in same} == pytest.approx({key: EXPECTED[name][key] for key in same}, abs=1e-9)
    assert bool(figures["warnings"]) == (name == "reversed.csv")


def test_benchmark_keys_choose_the_organisers_phase_and_break_down(nes2net: Any, la: Path) -> None:
    options = ("--keys", la / "trial_metadata.txt", "--benchmark", "asvspoof2021-la", "--json", "--resamples", 100)
    figures = one(nes2net("evaluate", la / "scores.txt", *options))
    assert figures["n_bonafide"] + figures["n_spoof"] == 600 and figures["interval_unit"] == "speaker"
    groups = {(row["group"], row["value"]) for row in figures["breakdown"]}
    assert groups == {*(("attack", f"A0{n}") for n in (7, 8, 9)), *(("codec", c) for c in ("none", "alaw", "gsm"))}

    # Computed by hand: an attack against all bona fide trials, a codec against its own.
    lines = [line.split() for line in (la / "trial_metadata.txt").read_text().splitlines()]
    scores = dict(line.split() for line in (la / "scores.txt").read_text().splitlines())

    def eer(belongs: Any) -> float:
        chosen = [fields for fields in lines if fields[7] == "eval" and belongs(fields)]
        by_class = [[float(scores[f[1]]) for f in chosen if f[5] == label] for label in ("bonafide", "spoof")]
        return equal_error_rate(*by_class).eer

    rows = {row["value"]: row for row in figures["breakdown"]}
    assert rows["A08"]["eer"] == pytest.approx(eer(lambda f: f[4] in ("A08", "bonafide")))
    assert rows["gsm"]["eer"] == pytest.approx(eer(lambda f: f[2] == "gsm"))
    assert figures["eer"] == pytest.approx(eer(lambda f: True))
    assert rows["gsm"]["eer_interval"][0] <= rows["gsm"]["eer"] <= rows["gsm"]["eer_interval"][1]

    everything = one(nes2net("evaluate", la / "scores.txt", *options, "--condition", "all"))
    assert everything["n_bonafide"] + everything["n_spoof"] == 900
    assert ("phase", "progress") in {(row["group"], row["value"]) for row in everything["breakdown"]}
    wrong = nes2net("evaluate", la / "scores.txt", *options, "--condition", "final")
    assert wrong.code == 2 and "progress, eval, hidden_track, all" in wrong.err


@pytest.mark.parametrize("form", ["asvspoof2019", "asvspoof5", "csv", "parquet"])
def test_every_form_of_scores_gives_the_same_figures(nes2net: Any, la: Path, form: str) -> None:
    pairs = [line.split() for line in (la / "scores.txt").read_text().splitlines()]
    path = la / ("other.parquet" if form == "parquet" else "other.csv" if form == "csv" else "other.txt")
    if form == "parquet":
        table = {"utterance_id": [name for name, _ in pairs], "score": [float(score) for _, score in pairs]}
        pq.write_table(pa.table(table | {"duration": [number % 10 for number in range(900)]}), path)
    elif form == "csv":
        path.write_text("score,filename\r\n" + "".join(f"{score},{name}\r\n" for name, score in pairs))
    elif form == "asvspoof5":
        path.write_text("filename\tcm-score\n" + "".join(f"{name}\t{score}\n" for name, score in reversed(pairs)))
    else:
        path.write_text("".join(f"{name} A07 spoof {score}\n" for name, score in pairs))
    keys = ("--keys", la / "trial_metadata.txt", "--benchmark", "asvspoof2021-la", "--resamples", 100, "--json")
    figures, expected = one(nes2net("evaluate", path, *keys)), one(nes2net("evaluate", la / "scores.txt", *keys))
    durations = [row["value"] for row in figures["breakdown"] if row["group"] == "duration"]
    buckets = ["0 to 1 s", "1 to 2 s", "2 to 4 s", "4 to 8 s", "8 s and more"]
    assert durations == (buckets if form == "parquet" else [])
    figures["breakdown"] = [row for row in figures["breakdown"] if row["group"] != "duration"]
    figures["name"] = expected["name"]
    assert figures == expected


def test_plain_keys_and_own_manifests_are_keys(nes2net: Any, la: Path, corpus: Path) -> None:
    labels = {fields[1]: fields[5] for fields in map(str.split, (la / "trial_metadata.txt").read_text().splitlines())}
    (la / "keys.txt").write_text("".join(f"{name} {label}\n" for name, label in labels.items()))
    figures = one(nes2net("evaluate", la / "scores.txt", "--keys", la / "keys.txt", "--json", "--resamples", 100))
    assert figures["n_bonafide"] + figures["n_spoof"] == 900 and figures["interval_unit"] == "utterance"

    rows = (corpus / "manifest.csv").read_text().splitlines()[1:]
    (la / "own.txt").write_text("".join(f"{row.split(',')[0]} {len(row)}\n" for row in rows))
    figures = one(nes2net("evaluate", la / "own.txt", "--keys", corpus / "manifest.csv", "--json", "--resamples", 100))
    assert figures["n_spoof"] == 18 and figures["interval_unit"] == "utterance"  # only three speakers


def test_t_dcf_takes_the_organisers_asv_scores_of_2019_and_2021(nes2net: Any, la: Path) -> None:
    rng = np.random.default_rng(1)
    kinds = ["target"] * 300 + ["nontarget"] * 300 + ["spoof"] * 300
    asv = rng.normal(size=900) + np.repeat([2.0, -2.0, 1.0], 300)
    (la / "2019.txt").write_text("".join(f"A07 {kind} {score:.5f}\n" for kind, score in zip(kinds, asv)))
    folder = la / "ASV" / "ASVtorch_Kaldi"
    folder.mkdir(parents=True)
    (folder / "score.txt").write_text("".join(f"LA_1 LA_E_{n} {score:.5f}\n" for n, score in enumerate(asv)))
    trials = "".join(f"LA_1 LA_E_{n} alaw ita_tx A07 {kind} notrim eval\n" for n, kind in enumerate(kinds))
    (la / "ASV" / "trial_metadata.txt").write_text(trials)
    keys = ("--keys", la / "trial_metadata.txt", "--benchmark", "asvspoof2021-la", "--resamples", 100, "--json")
    old = one(nes2net("evaluate", la / "scores.txt", *keys, "--asv-scores", la / "2019.txt"))
    new = one(nes2net("evaluate", la / "scores.txt", *keys, "--asv-scores", folder / "score.txt"))
    assert old["min_tdcf_2021"] == new["min_tdcf_2021"] and 0 < old["min_tdcf_2019"] < 1
    assert new["asv"]["miss"] == pytest.approx(0.02, abs=0.02)

    (la / "ASV" / "trial_metadata.txt").unlink()
    run = nes2net("evaluate", la / "scores.txt", *keys, "--asv-scores", folder / "score.txt")
    assert run.code == 1 and "trial_metadata.txt, because it has no kinds of trials" in run.err


def test_an_asv_system_that_lets_no_spoof_pass_leaves_the_t_dcf_out_and_says_so(nes2net: Any, la: Path) -> None:
    kinds, rng = ["target"] * 300 + ["nontarget"] * 300 + ["spoof"] * 300, np.random.default_rng(5)
    asv = rng.normal(size=900) + np.repeat([2.0, -2.0, -50.0], 300)
    (la / "asv.txt").write_text("".join(f"A07 {kind} {score:.5f}\n" for kind, score in zip(kinds, asv)))
    keys = ("--keys", la / "trial_metadata.txt", "--benchmark", "asvspoof2021-la", "--resamples", 100, "--json")
    run = nes2net("evaluate", la / "scores.txt", *keys, "--asv-scores", la / "asv.txt")
    assert run.code == 0 and "the t-DCF needs an ASV system that a CM can help" in run.err
    assert not any(key.startswith("min_tdcf") for key in one(run)) and one(run)["asv"]["spoof_false_alarm"] == 0


def test_ctrsvdd_prints_both_published_conditions_by_its_own_costs(nes2net: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    attack = np.array([*["-"] * 60, *(f"A{n % 6 + 9:02}" for n in range(120))])  # A09 to A14
    source = np.array([("m4singer", "acesinger")[n % 3 == 0] for n in range(180)])
    scores = rng.normal(size=180) + np.where(attack == "-", 1.0, -1.0) * np.where(source == "acesinger", 0.3, 1.0)
    kinds = ["bonafide" if name == "-" else "deepfake" for name in attack]
    lines = [f"{source[n]} S{n % 9} U{n} - {attack[n]} {kinds[n]}\n" for n in range(180)]
    (tmp_path / "test.txt").write_text("".join(lines))
    (tmp_path / "scores.txt").write_text("".join(f"U{n} {score:.17g}\n" for n, score in enumerate(scores.tolist())))
    options = ("--keys", tmp_path / "test.txt", "--benchmark", "ctrsvdd", "--resamples", 100)
    figures = one(nes2net("evaluate", tmp_path / "scores.txt", *options, "--json"))
    assert figures["costs"] == {"miss": 1.0, "false_alarm": 1.0, "spoof_prior": 0.5}
    table = {row["value"]: row for row in figures["breakdown"] if row["group"] == "condition"}
    assert list(table) == ["with-acesinger", "without-acesinger"]
    for name, kept in (
        ("with-acesinger", attack != "A14"),
        ("without-acesinger", (attack != "A14") & (source != "acesinger")),
    ):
        bonafide, spoof = scores[kept & (attack == "-")], scores[kept & (attack != "-")]
        assert (table[name]["n_bonafide"], table[name]["n_spoof"]) == (bonafide.size, spoof.size)
        assert table[name]["eer"] == pytest.approx(equal_error_rate(bonafide, spoof).eer)
        points = [*scores, np.inf]
        halved = min((np.mean(bonafide < t) + np.mean(spoof >= t)) / 2 for t in points)  # as the authors print it
        assert table[name]["min_dcf"] / 2 == pytest.approx(halved)
    assert figures["eer"] == table["without-acesinger"]["eer"]  # what the organisers report
    # Without the scores of a condition, the other is printed.
    few = [n for n in range(180) if attack[n] != "A14" and source[n] != "acesinger"]
    (tmp_path / "few.txt").write_text("".join(f"U{n} {scores[n]:.17g}\n" for n in few))
    figures = one(nes2net("evaluate", tmp_path / "few.txt", *options, "--json"))
    assert [row["value"] for row in figures["breakdown"] if row["group"] == "condition"] == ["without-acesinger"]


def test_asvspoof5_has_its_fixed_asv_operating_point(nes2net: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    labels = ["bonafide"] * 50 + ["spoof"] * 150
    scores = rng.normal(size=200) + np.repeat([1.5, -1.5], [50, 150])
    keys = "".join(
        f"E_{n % 7} E_{n} {'FM'[n % 2]} C0{n % 3} - - AC1 {'A17' if label == 'spoof' else 'bonafide'} {label} -\n"
        for n, label in enumerate(labels)
    )
    (tmp_path / "ASVspoof5.eval.track_1.tsv").write_text(keys)
    (tmp_path / "scores.tsv").write_text(
        "filename\tcm-score\n" + "".join(f"E_{n}\t{score}\n" for n, score in enumerate(scores))
    )
    options = ("--keys", tmp_path / "ASVspoof5.eval.track_1.tsv", "--benchmark", "asvspoof5", "--resamples", 100)
    figures = one(nes2net("evaluate", tmp_path / "scores.tsv", *options, "--json"))
    from nes2net_hf.metrics import ASVSPOOF5_ASV

    assert figures["min_tdcf_2021"] == min_tdcf(scores[:50], scores[50:], ASVSPOOF5_ASV)  # the package's
    assert figures["min_tdcf_2019"] == min_tdcf(scores[:50], scores[50:], ASVSPOOF5_ASV, form="2019")
    assert {row["group"] for row in figures["breakdown"]} == {
        "codec",
        "gender",
    }  # a single attack is no breakdown


@pytest.mark.parametrize(
    ("scores", "keys", "message"),
    [
        ("a 1\nb 2\na 3\n", "a bonafide\nb spoof\n", "utterance a has two scores"),
        ("a 1\nb nan\n", "a bonafide\nb spoof\n", "1 scores are NaN or infinite .the first is for utterance b"),
        ("a 1\nb inf\n", "a bonafide\nb spoof\n", "NaN or infinite"),
        ("a 1\nb x\n", "a bonafide\nb spoof\n", "line 2: score 'x' is not a number"),
        ("a 1 2\n", "a bonafide\nb spoof\n", "line 1: 3 fields"),
        ("", "a bonafide\nb spoof\n", "has no scores"),
        ("a 1\n", "a bonafide\nb spoof\n", "1 of 2 trials of .* have no score .b.: score them"),
        ("a 1\nb 2\n", "a bonafide\nb bonafide\n", "has no spoofed trials"),
        ("a 1\nb 2\n", "a spoof\nb spoof\n", "has no bona fide trials"),
        ("a 1\nb 2\n", "a bonafide\nb maybe\n", "line 2: 'maybe' is not a known label"),
        ("a 1\nb 2\n", "a bonafide\nb spoof\na spoof\n", "utterance a is listed twice"),
        ("a 1\nb 2\n", "a bonafide x y\n", "line 1: 4 fields: keys must be"),
        ("a,1\nb,2\n", "a bonafide\nb spoof\n", "it needs `score`"),
    ],
)
def test_bad_files_are_one_sentence(nes2net: Any, tmp_path: Path, scores: str, keys: str, message: str) -> None:
    (tmp_path / "scores.txt").write_text(scores)
    (tmp_path / "keys.txt").write_text(keys)
    run = nes2net("evaluate", tmp_path / "scores.txt", "--keys", tmp_path / "keys.txt")
    assert run.code == 1 and not run.out
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(run.err)


@pytest.mark.parametrize("order", [1, -1])
def test_files_with_labels_are_compared_by_utterance_not_by_row(nes2net: Any, tmp_path: Path, order: int) -> None:
    rng = np.random.default_rng(7)
    rows = [(f"u{n}", ("spoof", "bonafide")[n % 2], rng.normal() + 2 * (n % 2)) for n in range(200)]
    for name, noise, step in (("a", 0.0, 1), ("b", 0.5, order)):
        lines = [f"{u},{label},{score + noise * rng.normal()}" for u, label, score in rows][::step]
        (tmp_path / f"{name}.csv").write_text("utterance_id,label,score\n" + "\n".join(lines) + "\n")
    rng = np.random.default_rng(8)
    run = nes2net("evaluate", tmp_path / "a.csv", tmp_path / "b.csv", "--json", "--resamples", 200)
    difference = json.loads(run.out)[1]["difference"]
    assert difference["high"] - difference["low"] < 0.12  # pairs match; otherwise it would be wider
    (tmp_path / "b.csv").write_text("utterance_id,label,score\nu0,spoof,1\nu1,bonafide,2\n")
    run = nes2net("evaluate", tmp_path / "a.csv", tmp_path / "b.csv", "--resamples", 200)
    assert run.code == 1 and "scores of different trials" in run.err


def test_adcf_does_not_depend_on_the_order_of_the_keys(nes2net: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    kinds = ["target", "nontarget", "spoof"] * 40
    scores = [rng.normal() + (3 if kind == "target" else 0) for kind in kinds]
    table = "utterance_id,label,score\n" + "".join(f"u{n},{k},{s}\n" for n, (k, s) in enumerate(zip(kinds, scores)))
    (tmp_path / "s.csv").write_text(table)
    keys = [f"u{n} {'spoof' if kind == 'spoof' else 'bonafide'}" for n, kind in enumerate(kinds)]
    found = set()
    for lines in (keys, keys[::-1]):
        (tmp_path / "k.txt").write_text("\n".join(lines) + "\n")
        run = nes2net("evaluate", tmp_path / "s.csv", "--keys", tmp_path / "k.txt", "--json", "--resamples", 100)
        found.add(one(run)["min_adcf"])
    assert len(found) == 1 and found.pop() < 0.5


def test_few_speakers_have_no_interval_instead_of_a_narrow_one(nes2net: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    keys, scores = ["utterance_id,label,speaker_id,source"], []
    for n in range(300):
        source, spoofed = ("many", "one")[n % 3 == 0], rng.random() < 0.5
        speaker = "alone" if source == "one" else f"s{n % 10}"
        keys.append(f"u{n},{'spoof' if spoofed else 'bonafide'},{speaker},{source}")
        scores.append(f"u{n} {rng.normal() + 1 - 2 * spoofed}")
    (tmp_path / "k.csv").write_text("\n".join(keys) + "\n")
    (tmp_path / "s.txt").write_text("\n".join(scores) + "\n")
    options = (tmp_path / "s.txt", "--keys", tmp_path / "k.csv", "--resamples", 100)
    rows = {row["value"]: row for row in one(nes2net("evaluate", *options, "--json"))["breakdown"]}
    assert rows["one"]["eer_interval"] is None and len(rows["many"]["eer_interval"]) == 2
    assert "(few speakers)" in nes2net("evaluate", *options).out


def test_integer_ids_and_files_with_suffixes_match(nes2net: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"utterance_id": [1, 2], "score": [1.0, -1.0]}), tmp_path / "s.parquet")
    (tmp_path / "k.txt").write_text("1 bonafide\n2 spoof\n")
    assert one(nes2net("evaluate", tmp_path / "s.parquet", "--keys", tmp_path / "k.txt", "--json", "--resamples", 100))
    (tmp_path / "k.csv").write_text("file,label,attack\na/1.wav,real,-\na/2.wav,fake,A1\na/3.wav,fake,A2\n")
    (tmp_path / "s.csv").write_text("file,score\na/2.wav,0\na/1.wav,1\na/3.wav,0.5\n")
    run = nes2net("evaluate", tmp_path / "s.csv", "--keys", tmp_path / "k.csv", "--json", "--resamples", 100)
    assert {row["value"] for row in one(run)["breakdown"]} == {"A1", "A2"}


def test_scores_of_unknown_trials_are_a_warning_that_counts_them(nes2net: Any, tmp_path: Path) -> None:
    (tmp_path / "scores.txt").write_text("a 1\nb -1\nc 5\nd 6\n")
    (tmp_path / "keys.txt").write_text("a bonafide\nb spoof\n")
    run = nes2net("evaluate", tmp_path / "scores.txt", "--keys", tmp_path / "keys.txt", "--resamples", 100)
    assert run.code == 0 and "2 scores in" in run.err and "(c, d)" in run.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name a file of scores"),
        (("s.txt", "--benchmark", "asvspoof5"), "--benchmark needs --keys"),
        (("s.txt", "--model", "m"), "--model needs --corpus"),
        (("s.txt", "--corpus", "own-data"), "--corpus needs --root"),
        (("s.txt", "--keys", "k", "--corpus", "own-data", "--root", "r"), "has its own keys"),
        (("s.txt", "--where", "a=b"), "--where needs --corpus"),
        (("s.txt", "--costs", "1", "0", "0.5"), "--costs: costs must be positive"),
        (("s.txt", "--resamples", "5"), "at least 100"),
    ],
)
def test_wrong_usage_exits_2(nes2net: Any, options: tuple[str, ...], message: str) -> None:
    run = nes2net("evaluate", *options)
    assert run.code == 2 and message in run.err


def test_systems_are_compared_on_the_same_trials_and_the_report_holds_all(nes2net: Any, la: Path) -> None:
    lines = [line.split() for line in (la / "scores.txt").read_text().splitlines()]
    rng = np.random.default_rng(3)
    (la / "worse.txt").write_text("".join(f"{name} {float(s) + 2 * rng.normal():.5f}\n" for name, s in lines))
    keys = ("--keys", la / "trial_metadata.txt", "--benchmark", "asvspoof2021-la", "--resamples", 200)
    report = la / "report"
    run = nes2net("evaluate", la / "scores.txt", la / "worse.txt", *keys, "--report", report)
    assert run.code == 0 and "EER of worse minus that of scores" in run.out
    for name in ("det", "scores", "calibration", "breakdown", "attacks"):
        assert (report / f"{name}.png").stat().st_size > 5000 and "<svg" in (report / f"{name}.svg").read_text()
    page, text = (report / "report.html").read_text(), (report / "report.md").read_text()
    figures = json.loads((report / "figures.json").read_text())
    assert figures[1]["difference"]["from"] == "scores"
    for content in (page, text):
        assert f"{100 * figures[0]['eer']:.2f} %" in content and f"{100 * figures[1]['eer']:.2f} %" in content
        assert "evaluate" in content and "SHA-256" in text
    assert page.count("data:image/png;base64,") == 5
    assert 'src="http' not in page and 'href="http' not in page  # it needs no network

    [first, second] = json.loads(nes2net("evaluate", la / "scores.txt", la / "worse.txt", *keys, "--json").out)
    assert "difference" not in first and second["difference"]["p_value"] < 0.05
    assert second["difference"]["estimate"] == pytest.approx(second["eer"] - first["eer"])


def test_a_model_is_scored_and_evaluated_in_one_go(
    nes2net: Any, tmp_path: Path, tiny_model_dir: Path, corpus: Path
) -> None:
    out = tmp_path / "scores.parquet"
    options = ("--corpus", "own-data", "--root", corpus / "manifest.csv", "--where", "partition=dev")
    again = ("--json", "--resamples", 100)
    figures = one(nes2net("evaluate", out, "--model", tiny_model_dir, *options, *again))
    assert (figures["n_bonafide"], figures["n_spoof"]) == (6, 6)
    assert one(nes2net("evaluate", out, *options, *again)) == figures
    run = nes2net("evaluate", out, "--model", tiny_model_dir, *options)
    assert run.code == 2 and "omit --model" in run.err


# ---------------------------------------------------------------------------------------------------------------------
# Calibration and fusion
# ---------------------------------------------------------------------------------------------------------------------


def test_calibration_finds_the_true_ratios_whatever_the_shares_of_the_classes() -> None:
    rng = np.random.default_rng(0)
    for count in (2_000, 60_000):
        bonafide, spoof = 3 * rng.normal(1, 1, 20_000) + 1, 3 * rng.normal(-1, 1, count) + 1
        found = fit_calibration(bonafide, spoof)  # the true log-likelihood ratio is 2x
        assert found.scale == pytest.approx(2 / 3, rel=0.05) and found.offset == pytest.approx(-2 / 3, abs=0.06)
        assert cllr(found.llr(bonafide), found.llr(spoof)) == pytest.approx(min_cllr(bonafide, spoof), abs=0.01)
    assert found.llr(found.score(1.5)) == pytest.approx(1.5)
    assert spoof_probability(0.0, 0.2) == pytest.approx(0.2)
    assert spoof_probability(np.log(4), 0.8) == pytest.approx(0.5)
    assert spoof_probability(900, 0.5) == 0 and spoof_probability(-900, 0.5) == 1


def test_fusion_is_no_worse_than_its_best_system() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([1.0, -1.0], 2000)
    systems = np.stack([labels + rng.normal(size=4000), 5 * labels + 6 * rng.normal(size=4000)])
    weights, offset = fit_fusion(systems[:, :2000], systems[:, 2000:])
    fused = weights @ systems + offset
    alone = [equal_error_rate(its[:2000], its[2000:]).eer for its in systems]
    assert equal_error_rate(fused[:2000], fused[2000:]).eer < min(alone)
    assert (weights > 0).all()


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Returns the folder of an untrained model."""
    from nes2net_hf import Nes2NetFeatureExtractor

    folder = tmp_path / "model"
    tiny_model().save_pretrained(folder)
    Nes2NetFeatureExtractor().save_pretrained(folder)
    return folder


def scored(path: Path, model: Path, corpus: Path) -> None:
    """Writes scores of the fixture corpus like `score_corpus`, but of a system that makes some errors."""
    rng = np.random.default_rng(4)
    rows = [line.split(",") for line in (corpus / "manifest.csv").read_text().splitlines()[1:]]
    scores = [rng.normal() + (1.0 if row[2] == "bonafide" else -1.0) for row in rows]
    what = {"corpus": "own-data", "root": str(corpus / "manifest.csv"), "all_windows": True}
    what["weights"] = fingerprint(*load_model(model, None, torch.device("cpu"), "float32")) if model.exists() else ""
    table = pa.table({"utterance_id": [row[0] for row in rows], "score": scores})
    pq.write_table(table.replace_schema_metadata({"scored": json.dumps(what)}), path)


def test_calibrate_stores_what_detect_then_says(
    nes2net: Any, tmp_path: Path, trained: Path, corpus: Path, fixture_audio_dir: Path
) -> None:
    audio = next(fixture_audio_dir.glob("*.flac"))
    plain = detect(audio, model=trained, device="cpu")[0]
    assert plain.llr is plain.spoof_probability is plain.prior is None  # no calibration, no probability

    scores = tmp_path / "scores.parquet"
    scored(scores, trained, corpus)
    options = ("--corpus", "own-data", "--root", corpus / "manifest.csv", "--scores", scores)
    run = nes2net("calibrate", trained, *options)
    assert run.code == 0 and "halves by speaker" in run.out, run.err
    stored = json.loads((trained / "config.json").read_text())
    calibration = stored["calibration"]
    assert calibration["prior"] == 0.5 and calibration["provenance"]["n_spoof"] == 18
    assert calibration["provenance"]["cllr_after"] < 1

    # This recording is longer than any of the corpus, whose half seconds are too short to judge.
    calibration["population"]["familiarity"] = False
    (trained / "config.json").write_text(json.dumps(stored))
    result = detect(audio, model=trained, device="cpu")[0]
    assert result.score == pytest.approx(plain.score)
    assert result.llr == pytest.approx(calibration["scale"] * result.score + calibration["offset"])
    assert result.spoof_probability == pytest.approx(spoof_probability(result.llr, 0.5)) and result.prior == 0.5
    assert (result.label == "spoof") == (result.spoof_probability > 0.5)

    rare = nes2net("detect", audio, "--model", trained, "--prior", 0.01, "--format", "jsonl").rows[0]
    assert rare["spoof_probability"] < result.spoof_probability and rare["prior"] == 0.01
    cautious = nes2net("detect", audio, "--model", trained, "--costs", 1, 1e6, "--format", "jsonl").rows[0]
    assert cautious["threshold"] > result.threshold  # accepting a spoof is expensive
    table = nes2net("detect", audio, "--model", trained, "--format", "table")
    assert "chance of being fake" in table.out and "in own-data" in table.out
    population = calibration["population"]
    assert (population["bonafide"]["recordings"], population["spoof"]["recordings"]) == (18, 18)
    assert population["spoof"]["by_file_codec"] == {"flac": 18} == population["bonafide"]["by_file_codec"]
    assert population["spoof"]["by_sampling_rate"] == {"16000": 18} and len(population["spoof"]["seconds"]) == 5
    assert result.standing and result.support and "support" in result.support


def test_recordings_unlike_those_of_the_calibration_get_no_probability(
    nes2net: Any, tmp_path: Path, trained: Path, corpus: Path, fixture_audio_dir: Path
) -> None:
    scores = tmp_path / "scores.parquet"
    scored(scores, trained, corpus)
    options = ("--corpus", "own-data", "--root", corpus / "manifest.csv", "--scores", scores)
    copy = tmp_path / "copy"
    for arguments in ([trained], [trained, "--out", copy]):
        assert nes2net("calibrate", *arguments, *options).code == 0
    assert (trained / "familiarity.safetensors").read_bytes() == (copy / "familiarity.safetensors").read_bytes()
    audio = next(fixture_audio_dir.glob("*.flac"))
    [unlike] = nes2net("detect", audio, "--model", trained, "--format", "jsonl").rows
    [warning] = [warning for warning in unlike["warnings"] if "unlike" in warning]
    assert warning.startswith("unlike calibration data: ") and "its duration of" in warning
    assert unlike["llr"] is unlike["spoof_probability"] is unlike["support"] is None and unlike["label"]
    (trained / "familiarity.safetensors").unlink()
    gone = nes2net("detect", audio, "--model", trained)
    assert gone.code == 2 and "has no familiarity.safetensors" in gone.err
    assert nes2net("calibrate", trained, *options).code == 0  # as the message says
    assert nes2net("detect", audio, "--model", trained).code == 0


def test_an_accepted_share_of_errors_is_stored_or_asked_for(
    nes2net: Any, tmp_path: Path, trained: Path, corpus: Path, fixture_audio_dir: Path
) -> None:
    audio = next(fixture_audio_dir.glob("*.flac"))
    scores = tmp_path / "scores.parquet"
    scored(scores, trained, corpus)
    asked = nes2net("detect", audio, "--model", trained, "--undecided", 0.2)
    assert asked.code == 2 and "run `nes2net calibrate` first" in asked.err
    options = ("--corpus", "own-data", "--root", corpus / "manifest.csv", "--scores", scores)
    few = nes2net("calibrate", trained, *options, "--undecided", 0.01)
    assert few.code == 1 and "needs at least 99 recordings of each class" in few.err
    run = nes2net("calibrate", trained, *options, "--undecided", 0.2)
    assert run.code == 0 and "accepted share of errors 0.2: of held-out trials" in run.out
    calibration = json.loads((trained / "config.json").read_text())["calibration"]
    assert calibration["undecided"] == 0.2 and 0 <= calibration["provenance"]["undecided"] <= 1
    assert "accepted share of errors 0.2" in nes2net("info", trained).out
    low, high = Population.of(calibration).band(0.2, 0.0)  # type: ignore[union-attr]
    detector = Detector(trained, device="cpu")
    assert detector.band == (low, high, 0.2) if low < high else detector.threshold == low
    assert Detector(trained, device="cpu", threshold=0.0).band is None  # a threshold decides alone
    for wrong in (["--threshold", 0], ["--costs", 1, 1]):
        both = nes2net("detect", audio, "--model", trained, "--undecided", 0.2, *wrong)
        assert both.code == 2 and "omit" in both.err


def test_a_run_is_continued_with_the_same_share_of_errors_only(
    nes2net: Any, tmp_path: Path, trained: Path, fixture_audio_dir: Path
) -> None:
    scores = np.random.default_rng(0).normal(0, 1, (2, 200))
    population = Population.of_scores("my speech", *scores).kept()
    kept = {kind: {"recordings": 200, "scores": one} for kind, one in population.items()}
    calibration = {"scale": 1.0, "offset": 0.0, "prior": 0.5, "population": {"name": "my speech", **kept}}
    config = json.loads((trained / "config.json").read_text()) | {"calibration": calibration}
    (trained / "config.json").write_text(json.dumps(config))
    audio, output = next(fixture_audio_dir.glob("*.flac")), tmp_path / "verdicts.csv"
    arguments = ("detect", audio, "--model", trained, "--output", output)
    assert nes2net(*arguments, "--undecided", 0.05).code == 0
    [row] = csv.DictReader(io.StringIO(output.read_text("utf-8-sig")))
    low, high = float(row["spoof_below"]), float(row["bonafide_above"])
    assert low < high and (low, high) == pytest.approx(Population.of(calibration).band(0.05, 0.0), abs=1e-6)  # type: ignore[union-attr]
    score = float(row["score"])
    assert row["label"] == ("spoof" if score < low else "bonafide" if score > high else "undecided")
    assert "0 judged" in nes2net(*arguments, "--undecided", 0.05, "--resume").err
    for others in (["--undecided", 0.1], ["--threshold", 0], []):
        other = nes2net(*arguments, "--resume", *others)
        assert other.code == 2 and f"spoof_below: {output} began with" in other.err, others


def test_prior_and_costs_need_a_calibration_and_no_threshold(nes2net: Any, trained: Path, tmp_path: Path) -> None:
    run = nes2net("detect", "--demo", "--model", trained, "--prior", 0.1)
    assert run.code == 2 and "is not calibrated" in run.err
    config = json.loads((trained / "config.json").read_text())
    config["calibration"] = {"scale": 1.0, "offset": 0.0, "prior": 0.5}
    (trained / "config.json").write_text(json.dumps(config))
    run = nes2net("detect", "--demo", "--model", trained, "--prior", 0.1, "--threshold", 0)
    assert run.code == 2 and "omit one of them" in run.err
    run = nes2net("detect", "--demo", "--model", trained, "--prior", 1.5)
    assert run.code == 2 and "spoof_prior must be between 0 and 1" in run.err
    config["calibration"]["scale"] = -1
    (trained / "config.json").write_text(json.dumps(config))
    run = nes2net("detect", "--demo", "--model", trained)
    assert run.code == 2 and "positive scale" in run.err


def test_calibrate_scores_whole_recordings_itself_and_writes_a_copy(
    nes2net: Any, tmp_path: Path, trained: Path, corpus: Path
) -> None:
    options = ("--corpus", "own-data", "--root", corpus / "manifest.csv", "--scores", tmp_path / "s.parquet")
    (trained / "README.md").write_text("---\nlicense: gpl-3.0\n---\n# A model\n")
    run = nes2net("calibrate", trained, *options, "--out", tmp_path / "copy")
    what = json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"scored"])
    assert what["all_windows"] and what["model"] == str(trained)
    if run.code == 0:  # a random model may rank the classes in either order
        assert json.loads((tmp_path / "copy" / "config.json").read_text())["calibration"]["scale"] > 0
        assert (tmp_path / "copy" / "model.safetensors").is_file()
        release = ("release", tmp_path / "copy", "--repo-id", "org/copy", "--dry-run", "--license", "Apache-2.0")
        assert "which is under GPL-3.0-only: choose GPL-3.0" in nes2net(*release).err  # like the model itself
    else:
        assert "reversed" in run.err or "overlap" in run.err
    assert "calibration" not in {
        key: value for key, value in json.loads((trained / "config.json").read_text()).items() if value is not None
    }


def test_calibrate_refuses_scores_of_something_else_and_classes_that_do_not_overlap(
    nes2net: Any, tmp_path: Path, trained: Path, corpus: Path
) -> None:
    options = ("--corpus", "own-data", "--root", corpus / "manifest.csv", "--scores", tmp_path / "s.parquet")
    scored(tmp_path / "s.parquet", Path("another"), corpus)
    run = nes2net("calibrate", trained, *options)
    assert run.code == 2 and "began with other weights: remove it, or name another file with --scores" in run.err

    scored(tmp_path / "s.parquet", trained, corpus)
    table = pq.read_table(tmp_path / "s.parquet")
    apart = [5.0 if "bonafide" in name else -5.0 for name in table["utterance_id"].to_pylist()]
    pq.write_table(table.set_column(1, "score", pa.array(apart)), tmp_path / "s.parquet")
    before = (trained / "config.json").read_bytes()
    run = nes2net("calibrate", trained, *options)
    assert run.code == 1 and "do not overlap" in run.err
    assert (trained / "config.json").read_bytes() == before


def test_fused_weights_apply_to_other_scores(nes2net: Any, la: Path) -> None:
    lines = [line.split() for line in (la / "scores.txt").read_text().splitlines()]
    rng = np.random.default_rng(5)
    (la / "second.txt").write_text("".join(f"{n} {float(s) + rng.normal():.5f}\n" for n, s in reversed(lines)))
    both = (la / "scores.txt", la / "second.txt")
    keys = ("--keys", la / "trial_metadata.txt", "--benchmark", "asvspoof2021-la")
    run = nes2net("fuse", *both, *keys, "--out", la / "weights.json")
    assert run.code == 0 and "fused, on the trials of the fit: EER" in run.out, run.err
    weights = json.loads((la / "weights.json").read_text())
    run = nes2net("fuse", *both, "--apply", la / "weights.json", "--out", la / "fused.txt")
    assert run.code == 0
    name, score = (la / "fused.txt").read_text().splitlines()[0].split()
    second = dict(line.split() for line in (la / "second.txt").read_text().splitlines())
    by_hand = weights["weights"][0] * float(lines[0][1]) + weights["weights"][1] * float(second[name])
    assert name == lines[0][0] and float(score) == pytest.approx(by_hand + weights["offset"])

    run = nes2net("fuse", *both, both[0], "--apply", la / "weights.json", "--out", la / "x.txt")
    assert run.code == 2 and "has 2 weights, not 3: pass one score file per weight" in run.err
    run = nes2net("fuse", both[0], *keys, "--out", la / "x.json")
    assert run.code == 2 and "two score files or more" in run.err
    shutil.copy(la / "scores.txt", la / "short.txt")
    (la / "short.txt").write_text("\n".join((la / "short.txt").read_text().splitlines()[1:]) + "\n")
    run = nes2net("fuse", both[0], la / "short.txt", "--apply", la / "weights.json", "--out", la / "x.txt")
    assert run.code == 1 and "must hold the same utterances" in run.err
