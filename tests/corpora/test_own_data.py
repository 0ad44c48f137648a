"""Real-life manifests, folders and datasets are read, or the error says what is wrong and how to fix it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Value
from datasets.table import InMemoryTable

from nes2net_hf.corpora import CorpusError, check_corpus, load_corpus
from nes2net_hf.corpora.utterances import read_utterance
from nes2net_hf.errors import offering, option

SAMPLES = Path(__file__).parents[2] / "src/nes2net_hf/samples"
ROWS = [{"path": "wavs/b.flac", "label": "real"}, {"path": "wavs/s.flac", "label": "fake"}]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two recordings in `wavs`."""
    (tmp_path / "wavs").mkdir()
    shutil.copy(SAMPLES / "bonafide.flac", tmp_path / "wavs/b.flac")
    shutil.copy(SAMPLES / "spoof.flac", tmp_path / "wavs/s.flac")
    return tmp_path


def read(root: Path, **options: Any) -> list[tuple[str, int]]:
    dataset = load_corpus("own-data", root=root, **options)
    for row in dataset:
        assert os.path.isfile(row["audio"]["path"])
    return [(row["utterance_id"], row["label"]) for row in dataset]


MANIFESTS: dict[str, bytes] = {
    "array.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=4).replace("\n", "\r\n").encode(),
    "mark.json": b"\xef\xbb\xbf \n" + json.dumps(ROWS).encode(),
    "wide.json": json.dumps(ROWS).encode("utf-16"),
    "lines.json": "\n".join(map(json.dumps, ROWS)).encode(),
    "lines.jsonl": ("\r\n\r\n".join(map(json.dumps, ROWS)) + "\r\n").encode(),
    "array.jsonl": json.dumps(ROWS).encode(),
    "columns.json": json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}).encode(),
    "cases.json": json.dumps([{"Path": row["path"], "LABEL": row["label"]} for row in ROWS]).encode(),
    "unnamed": json.dumps(ROWS).encode(),
    "crlf.csv": b"path,label\r\nwavs/b.flac,real\r\nwavs/s.flac,fake\r\n",
    "cr.csv": b"path,label\rwavs/b.flac,real\rwavs/s.flac,fake\r",
    "commas.csv": b"path,label,,\nwavs/b.flac,real,\n\n,,\nwavs/s.flac,fake,,,\n \n",
    "quoted.csv": b'"path", "label"\n"wavs/b.flac", "real"\n"wavs/s.flac","fake"\n',
    "cases.csv": b"\xef\xbb\xbfFile Name , LABEL\nwavs/b.flac, Real\nwavs/s.flac, FAKE\n",
    "semicolons.csv": b"path;label\nwavs/b.flac;real\nwavs/s.flac;fake\n",
    "tabs.csv": b"path\tlabel\nwavs/b.flac\treal\nwavs/s.flac\tfake\n",
    "excel.txt": "Path\tLabel\r\nwavs/b.flac\treal\r\nwavs/s.flac\tfake\r\n".encode("utf-16"),
    "tabs.tsv": b"label\tpath\t\nreal\twavs/b.flac\t\nfake\twavs/s.flac\t\n",
    "spaces.txt": b"path   label\nwavs/b.flac real\nwavs/s.flac fake\n",
    "windows.csv": b"path,label\r\nwavs\\b.flac,real\r\n.\\wavs\\s.flac,fake\r\n",
    "class.csv": b"audio,Class\nwavs/b.flac,bona-fide\nwavs/s.flac,Deep Fake\n",
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_of_every_form_are_read(name: str, place: Path, nes2net: Any) -> None:
    (place / name).write_bytes(MANIFESTS[name])
    assert read(place / name) == [("wavs/b", 1), ("wavs/s", 0)]
    done = nes2net("corpus", "check", "own-data", "--root", place / name)
    assert (done.code, done.err) == (0, "") and "2 lines: 1 bonafide, 1 spoof" in done.out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"path": "wavs/b.flac"', r"a.json is not valid JSON \(Expecting ',' delimiter"),
        ("a.json", b'{"data": {"path": "wavs/b.flac"}}', "a.json is not a manifest: make it an array"),
        ("a.json", b'{"path": ["wavs/b.flac"], "label": []}', "a.json is not a manifest"),
        ("a.json", b"[1, 2]", "a.json is not a manifest"),
        ("a.json", b"[" * 100_000, "a.json is not valid JSON"),
        ("a.json", b'[{"path": "wavs/b.flac", "label": "real"}, 3]', "a.json, row 2: not a JSON object"),
        (
            "a.json",
            b'[{"path": {"a": 1}, "label": "real"}]',
            "a.json, row 1: column 'path' has {'a': 1}, which is not the path",
        ),
        ("a.json", b'[{"path": ".", "label": "real"}]', "row 1: column 'path' has '.', which is not the path"),
        ("a.json", b'[{"path": "a.wav", "label": "real"}, {"Path": "b"}]', "'path' and 'Path' have the same name"),
        ("a.csv", b"path,Label,label\na.wav,real,1\n", "a.csv: columns 'Label' and 'label' have the same name"),
        ("a.csv", b"path,label,label\na.wav,real,1\n", "columns 'label' and 'label' have the same name"),
        ("a.csv", b"path,label\na,b.wav,real\n", "a.csv, line 2: 3 fields instead of 2: put quotation marks"),
        ("a.csv", b'path,label\n"a.wav,real\nb.wav,fake\n', "a.csv, line 3: a quotation mark is not closed"),
        ("a.csv", "path,label\n".encode("utf-16-le"), "a.csv is not a text file in UTF-8"),
        ("a.csv", b"path,label\na.wav\n", "a.csv, line 2: '' is not a known label"),
        ("a.csv", b"path,label\n\n,real\n", "a.csv, line 3: column 'path' is empty"),
    ],
)
def test_manifests_that_are_wrong_are_named_with_a_fix(name: str, content: bytes, message: str, place: Path) -> None:
    (place / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        load_corpus("own-data", root=place / name)


def test_columns_labels_and_choices_match_in_any_letter_case(place: Path, nes2net: Any) -> None:
    (place / "m.csv").write_text("Wav,Is_Fake,Speaker ID,CODEC\nwavs/b.flac,0,anna,alaw\nwavs/s.flac,1,bob,gsm\n")
    options: dict[str, Any] = {"columns": {"Audio": "WAV", "label": "is_fake"}, "label_map": {0: "real", "1": "Spoof"}}
    assert read(place / "m.csv", **options, where={"Speaker_ID": "anna"}) == [("wavs/b", 1)]
    assert read(place / "m.csv", **options, where={"LABEL": ["Fake"], "codec": "gsm"}) == [("wavs/s", 0)]
    maps = ("--column", "AUDIO=wav", "--column", "Label = is fake", "--label", "0=bonafide", "--label", "1=SPOOF")
    assert nes2net("corpus", "check", "own-data", "--root", place / "m.csv", *maps).code == 0
    for wrong, message in (
        ({"columns": {"speaker": "anna"}}, "columns: there is no column 'speaker': choose from audio, label"),
        ({"columns": {"audio": "wav", "label": "is_fake", "attack": "by"}}, "m.csv has no column 'by' for attack"),
        ({"where": {"Atack": "A1"}}, "where: there is no column 'Atack'"),
        ({"where": {"label": "1"}}, "where: '1' is not a known label"),
    ):
        with pytest.raises(CorpusError, match=message):
            read(place / "m.csv", **{**options, **wrong})
    (place / "true.json").write_text(json.dumps([{"path": "wavs/b.flac", "label": True}]))
    assert read(place / "true.json", label_map={"true": "bonafide"}) == [("wavs/b", 1)]


def test_hints_name_options_where_a_command_runs_and_arguments_in_python(place: Path, nes2net: Any) -> None:
    (place / "m.csv").write_text("wav,fake\nwavs/b.flac,0\n")
    check = ("corpus", "check", "own-data", "--root", place / "m.csv")
    assert "name it with --column audio=…" in nes2net(*check).err
    columns = ("--column", "audio=wav", "--column", "label=fake")
    assert "map it with --label 0=…" in nes2net(*check, *columns).out
    assert "--label does not map '0'" in nes2net(*check, *columns, "--label", "1=spoof").out
    assert "--split: your own data has no splits" in nes2net(*check, "--split", "dev").err
    assert (
        "--split must be one of train" in nes2net("corpus", "check", "asvspoof5", "--root", place, "--split", "x").err
    )
    assert "--config: only a 'dataset'" in nes2net(*check, "--config", "a").err
    shard = ("corpus", "shard", "own-data", "--root", place / "m.csv", "--out", place / "out", "--label", "0=real")
    (place / "m.csv").write_text("wav,fake\nnowhere.flac,0\n")
    assert "or skip these utterances with --allow-missing." in nes2net(*shard, *columns).err
    (place / "m.csv").write_text("audio,label\nwavs/b.flac,0\n")
    (place / "s.txt").write_text("wavs/b 1\n")
    scored = nes2net("evaluate", place / "s.txt", "--corpus", "own-data", "--root", place / "m.csv")
    assert scored.code and "label_map={'0': '…'} in Python" in scored.err  # the command has no option for it
    for message, wrong in (("name it with columns={'audio': '…'}", {"columns": None}), ("label_map={'0': '…'}", {})):
        (place / "m.csv").write_text("wav,fake\nwavs/b.flac,0\n")
        with pytest.raises(CorpusError) as caught:
            read(place / "m.csv", **{"columns": {"audio": "wav", "label": "fake"}, **wrong})
        assert message in str(caught.value) and "--" not in str(caught.value)
    with offering("allow_missing"):
        assert (option("allow_missing"), option("split")) == ("--allow-missing", "split in Python")
    assert option("allow_missing") == "allow_missing"


@pytest.mark.parametrize("content", [b"path,label\r\n", b"", b"\xef\xbb\xbf", b"[]", b"\n\n", b"path,label\n,,\n\n"])
def test_a_manifest_without_rows_is_not_whole(content: bytes, tmp_path: Path, nes2net: Any) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    done = nes2net("corpus", "check", "own-data", "--root", tmp_path / "m.csv")
    assert (done.code, done.out.splitlines()[0]) == (1, "own-data all: no usable rows")
    with pytest.raises(CorpusError, match="no utterance of own-data is left: it has no rows"):
        load_corpus("own-data", root=tmp_path / "m.csv")


def test_folders_without_rows_are_not_whole(place: Path, nes2net: Any) -> None:
    for folder in ("none", "two/real", "two/fake", "other/real"):
        (place / folder).mkdir(parents=True)
    (place / "other/real/notes.txt").touch()
    for folder in ("none", "two", "other", "wavs", "."):
        done = nes2net("corpus", "check", "own-data", "--root", place / folder)
        assert done.code == 1 and done.out.startswith("own-data all: no usable rows"), folder
    assert nes2net("corpus", "check", "own-data", "--root", place / "nowhere").code == 2
    (place / "ctrsvdd").mkdir()
    (place / "ctrsvdd/test.txt").touch()
    done = nes2net("corpus", "check", "ctrsvdd", "--root", place / "ctrsvdd", "--split", "test")
    assert done.code == 1 and done.out.startswith("ctrsvdd test: no usable rows")


def test_class_folders_behind_links_and_such_that_cannot_be_listed(
    place: Path, monkeypatch: pytest.MonkeyPatch, nes2net: Any
) -> None:
    for name in ("corpus/real", "corpus/fake/closed", "elsewhere/deep"):
        (place / name).mkdir(parents=True)
    shutil.copy(SAMPLES / "bonafide.flac", place / "corpus/real/a.flac")
    shutil.copy(SAMPLES / "spoof.flac", place / "elsewhere/deep/b.flac")
    (place / "corpus/fake/link").symlink_to(place / "elsewhere")
    (place / "corpus/fake/real").symlink_to("../real")  # its recordings keep the label of their own folder
    (place / "corpus/real/loop").symlink_to(place / "corpus")
    (place / "corpus/loop").symlink_to(".")
    (place / "elsewhere/deep/loop").symlink_to("..")
    check = ("corpus", "check", "own-data", "--root", place / "corpus")
    assert read(place / "corpus") == [("fake/link/deep/b", 0), ("real/a", 1)]
    assert nes2net(*check).code == 0
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    done = nes2net(*check)
    assert done.code == 1 and "1 bonafide, 1 spoof" in done.out
    assert f"unreadable   1\n    {place / 'corpus/fake/closed'} cannot be listed (Permission denied)." in done.out
    with pytest.raises(CorpusError, match=r"closed cannot be listed \(Permission denied\)"):
        read(place / "corpus")
    (place / "corpus/LA").mkdir()
    (place / "corpus/LA/loop").symlink_to("..")
    os.mkfifo(place / "corpus/LA/LA_T_1.flac")
    (place / "corpus/LA/ASVspoof2019.LA.cm.train.trn.txt").write_text("s LA_T_1 - - bonafide\n")
    done = nes2net("corpus", "check", "asvspoof2019-la", "--root", place / "corpus")
    assert done.code == 1 and "missing      1" in done.out and "unreadable   2" in done.out


def test_a_protocol_may_begin_with_a_header(place: Path) -> None:
    (place / "ASVspoof2019.LA.cm.train.trn.txt").write_text(
        "Speaker File - Attack KEY\ns b - - bonafide\ns s - A1 spoof\n"
    )
    assert [row["label"] for row in load_corpus("asvspoof2019-la", "train", root=place)] == [1, 0]


@pytest.fixture(scope="module")
def datasets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets in the forms that the library stores on disk."""
    root = tmp_path_factory.mktemp("datasets")
    voices = {"real": SAMPLES / "bonafide.flac", "fake": SAMPLES / "spoof.flac"}
    for split in ("train", "test"):
        for name, voice in voices.items():
            (root / "audio" / split / name).mkdir(parents=True)
            shutil.copy(voice, root / "audio" / split / name)
    (root / "metadata").mkdir()
    for voice in voices.values():
        shutil.copy(voice, root / "metadata")
    (root / "metadata/metadata.csv").write_text("file_name,Key,Gender\nbonafide.flac,bona-fide,f\nspoof.flac,spoof,\n")
    features = Features(
        {"Audio": Audio(decode=False), "KEY": ClassLabel(names=["bonafide", "spoof"]), "Utterance_ID": Value("string")}
    )
    audio = [{"bytes": voice.read_bytes(), "path": voice.name} for voice in voices.values()]
    rows = {"Audio": [*audio, {"bytes": b"no audio", "path": "c.flac"}, None], "KEY": [0, 1, -1, 1]}
    table = pa.table({**rows, "Utterance_ID": ["a", "b", "c", "d"]}, schema=features.arrow_schema)
    whole = Dataset(InMemoryTable(table.slice(0, 2)))
    whole.save_to_disk(root / "saved")
    DatasetDict({"dev": whole, "eval": whole}).save_to_disk(root / "splits")
    for folder in ("parquet", "broken", "zero", "plain", "configs/one", "configs/two", "nothing"):
        (root / folder).mkdir(parents=True)
    pq.write_table(table.slice(0, 2), root / "parquet/train.parquet")
    pq.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), root / "broken/train.parquet")
    pq.write_table(table.slice(0, 0), root / "zero/train.parquet")
    pq.write_table(pa.table({"audio": audio, "label": [0, 1]}), root / "plain/data.parquet")
    for number, folder in enumerate(("one", "two")):
        pq.write_table(table.slice(number, 1), root / "configs" / folder / "data.parquet")
    (root / "configs/README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_files: one/*\n- config_name: two\n  data_files: two/*\n---\n"
    )
    return root


@pytest.fixture
def check(datasets_dir: Path, nes2net: Any) -> Callable[..., Any]:
    return lambda name, *options: nes2net("corpus", "check", "dataset", "--root", datasets_dir / name, *options)


@pytest.mark.parametrize(
    ("name", "options", "splits"),
    [
        ("audio", (), ["train", "test"]),
        ("audio", ("--split", "test", "--full"), ["test"]),
        ("metadata", (), ["train"]),
        ("parquet", (), ["train"]),
        ("parquet", ("--column", "label=Key", "--column", "AUDIO=audio"), ["train"]),
        ("parquet/train.parquet", (), ["train"]),
        ("saved", (), ["train"]),
        ("splits", (), ["dev", "eval"]),
        ("splits", ("--split", "eval"), ["eval"]),
        ("plain", ("--label", "0=bonafide", "--label", "1=spoof"), ["train"]),
    ],
)
def test_any_dataset_is_checked(name: str, options: tuple[str, ...], splits: list[str], check: Any) -> None:
    done = check(name, *options)
    assert (done.code, done.err) == (0, "")
    assert [line for line in done.out.splitlines() if line[0] != " "] == [
        f"dataset {split}: complete" for split in splits
    ]
    assert done.out.count("2 lines: 1 bonafide, 1 spoof") == done.out.count("2 files found") == len(splits)


def test_a_dataset_that_is_not_whole(check: Any) -> None:
    done = check("broken")
    report = " ".join(done.out.split())
    assert done.code == 1 and "dataset train: not as published protocol 4 lines: 1 bonafide, 2 spoof" in report
    assert "missing 1 d" in report and "wrong line 1" in report and "row 2: -1 is not a known label" in report
    done = check("plain")
    assert done.code == 1 and "wrong line   2" in done.out and "map it with --label 0=…" in done.out
    for name in ("zero", "nothing"):
        done = check(name)
        assert done.code == 1 and f"{name} has no rows" in done.err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("configs", (), "['one', 'two'], with --config"),
        ("configs", ("--config", "three"), "'three' not found"),
        ("saved", ("--split", "dev"), "--split: dataset"),
        ("saved", ("--config", "one"), "saved with save_to_disk"),
        ("audio", ("--split", "dev"), 'Unknown split "dev"'),
        ("parquet", ("--column", "attack=by"), "has no column 'by' for attack (it has Audio, KEY, Utterance_ID)"),
        ("parquet", ("--column", "audio=key"), "column 'KEY' is not audio"),
        ("nowhere", (), "nowhere does not exist"),
    ],
)
def test_what_is_asked_wrongly_of_a_dataset(name: str, options: tuple[str, ...], message: str, check: Any) -> None:
    done = check(name, *options)
    assert done.code == 2 and not done.out and done.err.startswith("Error: ") and message in done.err


def test_datasets_of_every_form_are_loaded_and_sharded(datasets_dir: Path, tmp_path: Path, nes2net: Any) -> None:
    [row] = load_corpus("dataset", root=datasets_dir / "configs", config="two")
    assert (row["utterance_id"], row["label"]) == ("b", 0) and read_utterance(row).size > 16_000
    rows = list(load_corpus("dataset", root=datasets_dir / "metadata", where={"gender": "f"}))
    assert [row["label"] for row in rows] == [1] and read_utterance(rows[0]).size > 16_000
    with pytest.raises(CorpusError, match=r"split: dataset .* has train, test: name one of them"):
        load_corpus("dataset", root=datasets_dir / "audio")
    assert len(load_corpus("dataset", "dev", root=datasets_dir / "splits")) == 2
    assert len(list(load_corpus("dataset", root=datasets_dir / "saved", streaming=True))) == 2
    out = tmp_path / "shards"
    assert nes2net("corpus", "shard", "dataset", "--root", datasets_dir / "audio", "--out", out).code == 0
    for root in (out, out.as_uri()):
        done = nes2net("corpus", "check", "dataset", "--root", root)
        assert done.code == 0 and done.out.count(": complete") == 2
    [one] = check_corpus("dataset", out.as_uri(), "test")
    assert (one.partition, one.lines, one.is_whole) == ("test", 2, True)
