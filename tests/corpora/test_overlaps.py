"""A corpus does not judge a model that trained on it, and shared sources and licences are said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

import pyarrow as pa
import pyarrow.parquet as pq

from nes2net_hf.corpora import CORPORA, CorpusError, Part, check_apart, overlap_warning, shared_sources
from nes2net_hf.corpus_facts import read_corpus_facts, training_corpora, training_parts


@pytest.mark.parametrize(
    ("train", "judged"),
    [
        (Part("asvspoof2019-la", "train"), Part("asvspoof2019-la", "train", "/elsewhere")),
        (Part("mlaad"), Part("mlaad", "all")),
        (Part("wavefake", where={"label": "spoof"}), Part("wavefake")),
        (Part("wavefake", where={"Label": ["spoof"]}), Part("wavefake", where={"label": "spoof"})),
        (Part("own-data", None, "mine.csv"), Part("own-data", None, "./mine.csv")),
        (Part("fake-or-real", "train", condition="for-norm"), Part("fake-or-real", "train")),
    ],
)
def test_rows_that_train_do_not_judge(train: Part, judged: Part) -> None:
    with pytest.raises(CorpusError, match=rf"^{judged.corpus}.* is in the training data, .*: choose another"):
        check_apart([Part("spoofceleb", "train"), train], judged)


@pytest.mark.parametrize(
    ("train", "judged"),
    [
        (Part("asvspoof2019-la", "train"), Part("asvspoof2019-la", "dev")),
        (Part("codecfake-wu", "train"), Part("codecfake-xie", "train")),
        (Part("mlaad", where={"language": "de"}), Part("mlaad", where={"language": ["en", "fr"]})),
        (Part("own-data", None, "mine.csv"), Part("own-data", None, "yours.csv")),
        (Part("own-data", where={"partition": "train"}), Part("own-data", where={"partition": "dev"})),
    ],
)  # fmt: skip
def test_other_rows_may(train: Part, judged: Part) -> None:
    check_apart([train], judged)
    check_apart([], judged)


def test_shared_sources_are_named() -> None:
    assert shared_sources(["dfadd", "wavefake", "codecfake-wu"], "asvspoof2021-la") == {
        "VCTK": ["dfadd", "codecfake-wu"]
    }
    both = shared_sources(["mlaad", "asvspoof2019-la"], "codecfake-xie")
    assert both == {"VCTK": ["asvspoof2019-la"], "LibriVox": ["mlaad"]}
    assert shared_sources(["asvspoof2019-la", "partialspoof"], "asvspoof2021-df") == {}  # speakers are kept apart
    assert shared_sources(["own-data", "mlaad"], "own-data") == shared_sources(["mlaad"], "mlaad") == {}
    warning = overlap_warning(["mlaad", "asvspoof2019-la"], "codecfake-xie")
    assert warning is not None and "VCTK (in asvspoof2019-la); LibriVox (in mlaad)" in warning
    assert overlap_warning(["spoofceleb"], "in-the-wild") is None


def test_training_corpora_of_recipes() -> None:
    assert training_corpora({"data": {"corpus": "ctrsvdd", "train": {"corpus": None, "corpora": {}}}}) == ["ctrsvdd"]
    mixed = {"dfadd": None, "german": {"corpus": "mlaad", "weight": 2.0}, "english": {"corpus": "mlaad"}}
    assert training_corpora({"data": {"corpus": "x", "train": {"corpora": mixed}}}) == ["dfadd", "mlaad"]
    assert training_corpora({}) == ["own-data"]
    where = {"split": "train", "root": None, "condition": None, "where": {"attack": "x"}}
    recipe = {"data": {"corpus": "own-data", "root": "a.csv", "train": {"corpus": "dfadd", **where}}}
    assert training_parts(recipe) == [{"corpus": "dfadd", **where, "root": "a.csv"}]


def test_every_corpus_has_its_facts() -> None:
    facts = read_corpus_facts()
    assert set(facts) == set(CORPORA)
    for name, fact in facts.items():
        assert fact.title == CORPORA[name].title or name in ("asvspoof5",), name
        assert fact.licence or fact.weights == "unclear", name
        assert (fact.certainty is None) == (fact.licence is None), name
    assert {name for name, fact in facts.items() if not fact.repackage} == {"codecfake-xie", "add2022", "add2023"}
    assert facts["mlaad"].weights == "non-commercial"


def test_check_prints_the_licence_and_shards_without_derivatives_stay_here(
    tmp_path: Path, fixture_audio_dir: Path, nes2net: Any
) -> None:
    (tmp_path / "track3test").mkdir()
    voice = next(fixture_audio_dir.glob("*.flac"))
    (tmp_path / "track3test/ADD_E3_00000001.wav").write_bytes(voice.read_bytes())
    (tmp_path / "track3_R1_label.txt").write_text("ADD_E3_00000001.wav genuine\n")
    done = nes2net("corpus", "check", "add2022", "--root", tmp_path)
    assert done.code == 0, done.err
    report = " ".join(done.out.split())
    assert (
        "add2022 eval: no problem found; how many" in report
        and "licence CC BY-NC-ND 4.0 (read at its source)" in report
    )
    assert "it is unclear whether weights trained on it may be published" in report
    assert "do not pass on shards" in report
    refused = nes2net("corpus", "shard", "add2022", "--root", tmp_path, "--out", tmp_path / "s", "--push", "org/add")
    assert refused.code == 2 and not (tmp_path / "s").exists()
    assert re.search(r"--push: the licence of ADD 2022.* is CC BY-NC-ND 4\.0, which allows no deriv", refused.err)
    kept = nes2net("corpus", "shard", "add2022", "--root", tmp_path, "--out", tmp_path / "s")
    assert kept.code == 0 and len(json.loads((tmp_path / "s/shards.json").read_text())) == 1


def test_evaluation_warns_of_sources_that_training_shared(tmp_path: Path, nes2net: Any) -> None:
    (tmp_path / "run/best").mkdir(parents=True)
    (tmp_path / "run/recipe.yaml").write_text("data: {train: {corpora: {mlaad: {}, spoofceleb: {}}}}\n")
    scored = {"model": str(tmp_path / "run/best"), "revision": None, "corpus": "llamapartialspoof"}
    ids = [f"u{number}" for number in range(40)]
    table = pa.table({"utterance_id": ids, "score": [float(number % 7) for number in range(40)]})
    pq.write_table(table.replace_schema_metadata({"scored": json.dumps(scored)}), tmp_path / "s.parquet")
    lines = [f"{name} {'spoof' if number % 2 else 'bonafide'}" for number, name in enumerate(ids)]
    (tmp_path / "keys.txt").write_text("\n".join(lines))
    warning = (
        "Warning: s: llamapartialspoof was made from the same recordings as training corpora: LibriVox (in mlaad)."
    )
    arguments = ("evaluate", tmp_path / "s.parquet", "--keys", tmp_path / "keys.txt", "--resamples", "100")
    done = nes2net(*arguments)
    assert done.code == 0 and warning in " ".join(done.err.split())
    (tmp_path / "run/recipe.yaml").write_text("data: {corpus: llamapartialspoof, hold_out: 0.2}")
    trained = "s: llamapartialspoof, split eval is in the training data"
    assert trained in " ".join(nes2net(*arguments).err.split())
    (tmp_path / "run/recipe.yaml").unlink()
    assert "training" not in nes2net(*arguments).err
