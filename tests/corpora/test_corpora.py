"""Every benchmark is read from its published files in the same columns, or the error says what is wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("datasets")

import pyarrow as pa
from datasets import Audio, ClassLabel, Dataset, Features, IterableDataset, Value
from datasets.table import InMemoryTable

from nes2net_hf.audio import read_audio
from nes2net_hf.corpora import CORPORA, FEATURES, NAMES, CorpusError, load_corpus
from nes2net_hf.corpora.labels import map_label
from tests.corpora.test_trees import LAYOUTS

SHARED = os.environ.get("NES2NET_SHARED")

# The layout of each benchmark's unpacked archives: protocol → lines, and the place of each line's audio.
PROTOCOLS: dict[str, tuple[str, str | None, dict[str, list[str]], str]] = {
    "asvspoof2019-la": (
        "LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.train.trn.txt",
        "train",
        {"lines": ["LA_0079 LA_T_1138215 - - bonafide", "LA_0097 LA_T_1581266 - A06 spoof"]},
        "LA/ASVspoof2019_LA_train/flac/{1}.flac",
    ),
    "asvspoof2021-la": (
        "keys/LA/CM/trial_metadata.txt",
        None,
        {
            "lines": [
                "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval",
                "LA_0009 LA_E_8589971 alaw loc_tx A07 spoof notrim progress",
                "LA_0011 LA_E_0000001 none - bonafide bonafide trim hidden_track",
            ]
        },
        "ASVspoof2021_LA_eval/flac/{1}.flac",
    ),
    "asvspoof2021-df": (
        "keys/DF/CM/trial_metadata.txt",
        "eval",
        {
            "lines": [
                "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -",
                "TEF2 DF_E_2000013 low_m4a vcc2020 Task1-team20 spoof notrim eval neural_vocoder_nonautoregressive "
                "Task1 team20 FF E",
                "LA_0024 DF_E_2000012 nocodec asvspoof bonafide bonafide notrim eval bonafide - - - -",
            ]
        },
        "ASVspoof2021_DF_eval/flac/{1}.flac",
    ),
    "asvspoof5": (
        "ASVspoof5_protocols/ASVspoof5.dev.track_1.tsv",
        "dev",
        {
            "lines": [
                "D_4461 D_0000000169 F - - - AC1 A14 spoof -",
                "D_0461 D_0000000190 M C03 2 5 - bonafide bonafide -",
            ]
        },
        "ASVspoof5_dev/flac_D/{1}.flac",
    ),
    "in-the-wild": (
        "release_in_the_wild/meta.csv",
        None,
        {"lines": ["file,speaker,label", "0.wav,Alec Guinness,spoof", '1.wav,"Guinness, Alec",bona-fide']},
        "release_in_the_wild/{0}",
    ),
    "partialspoof": (
        "database/protocols/PartialSpoof_LA_cm_protocols/PartialSpoof.LA.cm.dev.trl.txt",
        "dev",
        {"lines": ["LA_0079 LA_D_1138215 - - bonafide", "LA_0079 CON_D_0000029 - CON spoof"]},
        "database/dev/con_wav/{1}.wav",
    ),
    "ctrsvdd": (
        "test.txt",
        "test",
        {
            "lines": [
                "m4singer CtrSVDD_0001 CtrSVDD_0001_T_0000001 - - bonafide",
                "m4singer CtrSVDD_0001 CtrSVDD_0001_T_0000002 - A09 deepfake",
                "acesinger CtrSVDD_0002 CtrSVDD_0002_T_0000003 - A10 deepfake",
                "m4singer CtrSVDD_0001 CtrSVDD_0001_T_0000004 - A14 deepfake",
            ]
        },
        "test_set/{2}.flac",
    ),
}


@pytest.fixture
def build(tmp_path: Path, fixture_audio_dir: Path) -> Callable[..., Path]:
    """Lays out a benchmark with real speech; `lines` and the protocol's bytes may be replaced."""
    voices = sorted(fixture_audio_dir.glob("*.flac"))

    def make(name: str, encode: Callable[[str], bytes] = str.encode) -> Path:
        protocol, _, content, pattern = PROTOCOLS[name]
        path = tmp_path / name / protocol
        path.parent.mkdir(parents=True)
        path.write_bytes(encode("\n".join(content["lines"]) + "\n"))
        lines = content["lines"][1:] if protocol.endswith(".csv") else content["lines"]
        for number, line in enumerate(lines):
            audio = tmp_path / name / pattern.format(*line.replace(",", " ").split())
            audio.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(voices[number], audio)
        return tmp_path / name

    return make


def rows_of(name: str, root: Path, **options: Any) -> dict[str, dict[str, Any]]:
    dataset = load_corpus(name, PROTOCOLS[name][1], root=root, **options)
    assert dataset.features == FEATURES
    return {row["utterance_id"]: row for row in dataset}


def said(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row without its audio and nulls."""
    segments = row["segment_labels"]
    assert segments is None or not any(segments.values())
    return {key: value for key, value in row.items() if key not in ("audio", "segment_labels") and value is not None}


EXPECTED: dict[str, dict[str, dict[str, Any]]] = {
    "asvspoof2019-la": {
        "LA_T_1138215": {"label": 1, "speaker_id": "LA_0079", "partition": "train"},
        "LA_T_1581266": {"label": 0, "speaker_id": "LA_0097", "partition": "train", "attack": "A06"},
    },
    "asvspoof2021-la": {
        "LA_E_8589971": {
            "label": 0, "speaker_id": "LA_0009", "codec": "alaw", "transmission": "loc_tx", "attack": "A07",
            "trim": "notrim", "phase": "progress", "partition": "eval",
        },
        "LA_E_0000001": {
            "label": 1, "speaker_id": "LA_0011", "codec": "none", "trim": "trim", "phase": "hidden_track",
            "partition": "eval",
        },
    },
    "asvspoof2021-df": {
        "DF_E_2000013": {
            "label": 0, "speaker_id": "TEF2", "codec": "low_m4a", "source": "vcc2020", "attack": "Task1-team20",
            "trim": "notrim", "phase": "eval", "vocoder": "neural_vocoder_nonautoregressive", "gender": "FF",
            "language": "E", "partition": "eval",
        },
        "DF_E_2000012": {
            "label": 1, "speaker_id": "LA_0024", "codec": "nocodec", "source": "asvspoof", "trim": "notrim",
            "phase": "eval", "partition": "eval",
        },
    },
    "asvspoof5": {
        "D_0000000169": {"label": 0, "speaker_id": "D_4461", "gender": "f", "attack": "A14", "partition": "dev"},
        "D_0000000190": {
            "label": 1, "speaker_id": "D_0461", "gender": "m", "codec": "C03", "codec_setting": "2", "partition": "dev"
        },
    },
    "in-the-wild": {
        "0": {"label": 0, "speaker_id": "Alec Guinness", "partition": "eval"},
        "1": {"label": 1, "speaker_id": "Guinness, Alec", "partition": "eval"},
    },
    "partialspoof": {
        "LA_D_1138215": {"label": 1, "speaker_id": "LA_0079", "partition": "dev"},
        "CON_D_0000029": {"label": 0, "speaker_id": "LA_0079", "attack": "CON", "partition": "dev"},
    },
    "ctrsvdd": {
        "CtrSVDD_0001_T_0000001": {
            "label": 1, "speaker_id": "CtrSVDD_0001", "source": "m4singer", "partition": "test"
        },
        "CtrSVDD_0002_T_0000003": {
            "label": 0, "speaker_id": "CtrSVDD_0002", "source": "acesinger", "attack": "A10", "partition": "test"
        },
    },
}  # fmt: skip


def test_all_are_there() -> None:
    assert set(PROTOCOLS) == set(EXPECTED)
    assert {*PROTOCOLS, *LAYOUTS} == set(CORPORA)
    assert [*NAMES] == [*CORPORA, "own-data", "dataset"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_rows_of_the_published_layout(name: str, build: Callable[..., Path]) -> None:
    rows = rows_of(name, build(name))
    for utterance, expected in EXPECTED[name].items():
        assert said(rows[utterance]) == {"utterance_id": utterance, **expected}
    for row in rows.values():
        assert row["audio"]["bytes"] is None and read_audio(row["audio"]["path"]).size > 16_000


@pytest.mark.parametrize("name", PROTOCOLS)
def test_line_ends_byte_order_marks_and_nesting_make_no_difference(name: str, build: Callable[..., Path]) -> None:
    root = build(name, lambda text: ("\ufeff" + text.replace("\n", " \r\n") + "\r\n").encode())
    deeper = root.parent / "deeper" / "data"
    deeper.parent.mkdir()
    root.rename(deeper)
    for utterance, expected in EXPECTED[name].items():
        assert said(rows_of(name, deeper.parent)[utterance]) == {"utterance_id": utterance, **expected}


def test_streaming_gives_the_same_rows(build: Callable[..., Path]) -> None:
    root = build("asvspoof5")
    streamed = load_corpus("asvspoof5", "dev", root=root, streaming=True)
    assert isinstance(streamed, IterableDataset)
    assert list(streamed) == list(load_corpus("asvspoof5", "dev", root=root))


def test_conditions_of_the_organisers_and_columns_choose_rows(build: Callable[..., Path]) -> None:
    ctrsvdd = build("ctrsvdd")
    counts = {
        condition: len(rows_of("ctrsvdd", ctrsvdd, condition=condition)) for condition in CORPORA["ctrsvdd"].conditions
    }
    assert counts == {"with-acesinger": 3, "without-acesinger": 2}
    root = build("asvspoof2021-la")
    assert [*rows_of("asvspoof2021-la", root, condition="progress")] == ["LA_E_8589971"]
    assert [*rows_of("asvspoof2021-la", root, where={"phase": ["eval", "hidden_track"], "label": "bonafide"})] == [
        "LA_E_0000001"
    ]
    assert [*rows_of("asvspoof2021-df", build("asvspoof2021-df"), where={"source": "vcc2020"})] == ["DF_E_2000013"]


def test_missing_audio_is_an_error_that_counts_and_names_it_or_is_left_out(build: Callable[..., Path]) -> None:
    root = build("asvspoof2019-la")
    (root / "LA/ASVspoof2019_LA_train/flac/LA_T_1581266.flac").unlink()
    with pytest.raises(CorpusError, match=r"the audio of 1 of 2 utterances is missing \(LA_T_1581266\)"):
        load_corpus("asvspoof2019-la", "train", root=root)
    assert [*rows_of("asvspoof2019-la", root, allow_missing=True)] == ["LA_T_1138215"]
    shutil.rmtree(root / "LA/ASVspoof2019_LA_train")
    with pytest.raises(CorpusError, match="no utterance of asvspoof2019-la is left"):
        load_corpus("asvspoof2019-la", "train", root=root, allow_missing=True)


def test_audio_of_one_name_in_two_places_is_taken_from_the_published_folder(build: Callable[..., Path]) -> None:
    root = build("asvspoof5")
    copy = root / "ASVspoof5_dev" / "a_copy" / "D_0000000169.wav"
    copy.parent.mkdir()
    copy.write_bytes(b"")
    assert Path(rows_of("asvspoof5", root)["D_0000000169"]["audio"]["path"]).parent.name == "flac_D"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("LA_0079 LA_T_1138215 - - bonafide", "LA_T_1138215 is listed twice"),
        ("LA_0079 LA_T_9 - - genuin", r"trn.txt, line 3: 'genuin' is not a known label"),
        ("LA_0079 LA_T_9", r"trn.txt, line 3: 2 fields instead of 5 \(speaker, utterance, -, attack, key\)"),
    ],
)
def test_wrong_lines_are_named(line: str, message: str, build: Callable[..., Path]) -> None:
    root = build("asvspoof2019-la", lambda text: (text + line + "\n").encode())
    with pytest.raises(CorpusError, match=message):
        load_corpus("asvspoof2019-la", "train", root=root)


def test_what_is_asked_wrongly_is_named(build: Callable[..., Path], tmp_path: Path) -> None:
    root = build("asvspoof2019-la")
    asked: list[tuple[dict[str, Any], str]] = [
        ({"name": "asvspoof2019"}, "did you mean asvspoof2019-la"),
        ({"split": "test"}, "split must be one of train, dev, eval"),
        ({"split": "dev"}, r"has no ASVspoof2019\.LA\.cm\.dev\.trl\.txt in any of its folders: unpack LA\.zip"),
        ({"root": tmp_path / "nowhere"}, "is not a folder"),
        ({"condition": "progress"}, "condition: asvspoof2019-la has no conditions"),
        ({"where": {"atack": "A01"}}, "there is no column 'atack'"),
        ({"label_map": {0: "spoof"}}, "label_map are only for 'own-data' and 'dataset'"),
        ({"revision": "main"}, "only a 'dataset' takes these options"),
    ]
    for options, message in asked:
        with pytest.raises(CorpusError, match=message):
            load_corpus(**{"name": "asvspoof2019-la", "split": "train", "root": root, **options})


def test_segment_labels_come_from_pickles_that_can_only_make_arrays(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    root = build("partialspoof")
    folder = root / "database/segment_labels"
    folder.mkdir()
    labels = {"CON_D_0000029": np.array(["1", "0", "0"]), "LA_D_1138215": np.array(["1", "1"])}
    np.save(folder / "dev_seglab_0.16.npy", labels, allow_pickle=True)  # type: ignore[arg-type]
    rows = rows_of("partialspoof", root)
    assert rows["CON_D_0000029"]["segment_labels"]["160ms"] == [1, 0, 0]
    assert not rows["CON_D_0000029"]["segment_labels"]["10ms"]

    class Malicious:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "owned"),))

    np.save(folder / "dev_seglab_0.16.npy", np.array(Malicious(), dtype=object), allow_pickle=True)
    with pytest.raises(CorpusError, match=r"mkdir is not part of an array"):
        rows_of("partialspoof", root)
    assert not (tmp_path / "owned").exists()
    (folder / "dev_seglab_0.16.npy").write_bytes(pickle.dumps(labels))
    with pytest.raises(CorpusError, match="does not contain PartialSpoof's segment labels"):
        rows_of("partialspoof", root)


@pytest.mark.parametrize(
    ("word", "label"),
    [
        *((word, "bonafide") for word in ("bonafide", "bona-fide", "Bona Fide", "REAL", "genuine")),
        *((word, "spoof") for word in ("spoof", "deepfake", "fake")),
    ],
)
def test_labels_are_mapped_by_name(word: str, label: str) -> None:
    assert map_label(word, "here") == label


@pytest.mark.parametrize("value", [0, 1, "0", "1", True, None, "", "unknown"])
def test_what_is_no_name_is_never_guessed(value: Any) -> None:
    with pytest.raises(CorpusError, match=r"here: .* label_map"):
        map_label(value, "here")
    assert map_label(value, "here", {value: "spoof"}) == "spoof"
    with pytest.raises(CorpusError, match="does not map"):
        map_label(value, "here", {"other": "spoof"})


def test_own_data_by_manifest(fixture_audio_dir: Path, tmp_path: Path) -> None:
    voices = sorted(fixture_audio_dir.glob("*.flac"))[:2]
    for number, voice in enumerate(voices):
        shutil.copy(voice, tmp_path / f"{number}.flac")
    fields = [
        {"file": "0.flac", "label": "real", "speaker_id": "anna"},
        {"file": "1.flac", "label": "fake", "speaker_id": ""},
    ]
    (tmp_path / "data.csv").write_text("\ufefffile, label,speaker_id\r\n0.flac,real,anna\r\n1.flac,fake,\r\n")
    (tmp_path / "data.tsv").write_text("file\tlabel\tspeaker_id\n0.flac\treal\tanna\n1.flac\tfake\t\n")
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, fields)))
    for form in ("csv", "tsv", "jsonl"):
        rows = list(load_corpus("own-data", root=tmp_path / f"data.{form}"))
        assert [(row["utterance_id"], row["label"], row["speaker_id"]) for row in rows] == [
            ("0", 1, "anna"),
            ("1", 0, None),
        ]
        assert rows[1]["audio"]["path"] == str(tmp_path / "1.flac")
    (tmp_path / "mine.csv").write_text("wav,is_fake\n0.flac,0\n1.flac,1\n")
    options: dict[str, Any] = {"root": tmp_path / "mine.csv", "columns": {"audio": "wav", "label": "is_fake"}}
    with pytest.raises(CorpusError, match=r"mine.csv, line 2: '0' is not a known label"):
        load_corpus("own-data", **options)
    rows = list(load_corpus("own-data", **options, label_map={0: "bonafide", 1: "spoof"}, where={"label": "spoof"}))
    assert [row["utterance_id"] for row in rows] == ["1"]
    with pytest.raises(CorpusError, match=r"cannot tell which column is the audio \(it has wav, is_fake\)"):
        load_corpus("own-data", root=tmp_path / "mine.csv")


def test_own_data_by_folders(fixture_audio_dir: Path, tmp_path: Path) -> None:
    voices = sorted(fixture_audio_dir.glob("*.flac"))[:3]
    for folder, voice in zip(("Real", "fake", "fake/piper"), voices, strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(voice, tmp_path / folder / "a.flac")
    rows = {row["utterance_id"]: row["label"] for row in load_corpus("own-data", root=tmp_path)}
    assert {Path(key).as_posix(): label for key, label in rows.items()} == {
        "Real/a": 1,
        "fake/a": 0,
        "fake/piper/a": 0,
    }
    (tmp_path / "other").mkdir()
    with pytest.raises(CorpusError, match="'other' is not a known label"):
        load_corpus("own-data", root=tmp_path)


@pytest.mark.parametrize("streaming", [False, True])
def test_any_dataset_of_the_datasets_library(streaming: bool, fixture_audio_dir: Path, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(fixture_audio_dir.glob("*.flac"))[:4]]
    audio = Audio(sampling_rate=16_000, decode=False)
    named = Features({"speech": audio, "key": ClassLabel(names=["bonafide", "spoof"]), "who": Value("string")})
    audios = [{"bytes": None, "path": path} for path in paths]
    table = {"speech": audios, "key": [0, 1, 1, 0], "who": ["a", "b", "c", "d"]}
    Dataset(InMemoryTable(pa.table(table, schema=named.arrow_schema))).to_parquet(tmp_path / "named.parquet")
    numbers = Features({"audio": audio, "label": Value("int64")})
    bare = {"audio": audios, "label": [0, 1, 1, 0]}
    Dataset(InMemoryTable(pa.table(bare, schema=numbers.arrow_schema))).to_parquet(tmp_path / "bare.parquet")

    def load(file: str, **options: Any) -> list[dict[str, Any]]:
        return list(
            load_corpus(
                "dataset", "train", root="parquet", data_files=str(tmp_path / file), streaming=streaming, **options
            )
        )

    columns = {"audio": "speech", "label": "key", "speaker_id": "who"}
    rows = load("named.parquet", columns=columns)  # this dataset's own label of bona fide is 0
    assert [row["label"] for row in rows] == [1, 0, 0, 1]
    assert [row["speaker_id"] for row in rows] == ["a", "b", "c", "d"]
    assert all(set(row) == set(FEATURES) for row in rows)
    source = rows[0]["audio"]["bytes"] or rows[0]["audio"]["path"]
    assert np.array_equal(read_audio(source), read_audio(paths[0]))
    assert len(load("named.parquet", columns=columns, where={"speaker_id": ["a", "b"]})) == 2
    with pytest.raises(CorpusError, match="0 is not a known label"):
        load("bare.parquet")
    assert [row["label"] for row in load("bare.parquet", label_map={0: "spoof", 1: "bonafide"})] == [0, 1, 1, 0]
    with pytest.raises(
        CorpusError, match=r"cannot tell which column is the audio \(it has speech, key, who\): name it with columns"
    ):
        load("named.parquet")


def test_a_whole_2019_train_protocol_is_loaded_in_two_seconds(tmp_path: Path) -> None:
    protocol = tmp_path / PROTOCOLS["asvspoof2019-la"][0]
    protocol.parent.mkdir(parents=True)
    attacks = ["-", *(f"A{number:02}" for number in range(1, 7))]
    lines = [
        f"LA_{79 + number % 20:04} LA_T_{number:07} - {attacks[number % 7]} {'spoof' if number % 7 else 'bonafide'}"
        for number in range(25_380)
    ]
    protocol.write_text("\n".join(lines))
    flac = tmp_path / "LA/ASVspoof2019_LA_train/flac"
    flac.mkdir(parents=True)
    for number in range(25_380):
        (flac / f"LA_T_{number:07}.flac").touch()
    start = time.process_time()  # process time, so that other load on the machine does not count
    dataset = load_corpus("asvspoof2019-la", "train", root=tmp_path)
    assert time.process_time() - start < 2
    assert len(dataset) == CORPORA["asvspoof2019-la"].counts["train"]  # type: ignore[arg-type]
    assert Counter(dataset["label"]) == {0: 25_380 - 3_626, 1: 3_626}


@pytest.mark.skipif(SHARED is None, reason="NES2NET_SHARED does not name the folder with the protocol excerpts")
@pytest.mark.parametrize(
    ("excerpt", "name", "split", "protocol"),
    [
        ("ASVspoof2019.LA.cm.train.trn", "asvspoof2019-la", "train", "ASVspoof2019.LA.cm.train.trn.txt"),
        ("ASVspoof2019.LA.cm.dev.trl", "asvspoof2019-la", "dev", "ASVspoof2019.LA.cm.dev.trl.txt"),
        ("ASVspoof2019.LA.cm.eval.trl", "asvspoof2019-la", "eval", "ASVspoof2019.LA.cm.eval.trl.txt"),
        ("ASVspoof2021.LA.trial_metadata", "asvspoof2021-la", "eval", "keys/CM/trial_metadata.txt"),
        ("ASVspoof2021.DF.trial_metadata", "asvspoof2021-df", "eval", "keys/DF/CM/trial_metadata.txt"),
        ("ASVspoof5.dev.track_1", "asvspoof5", "dev", "ASVspoof5.dev.track_1.tsv"),
        ("In-the-Wild.meta", "in-the-wild", "eval", "meta.csv"),
    ],
)
def test_real_protocol_lines_parse_whole(excerpt: str, name: str, split: str, protocol: str, tmp_path: Path) -> None:
    from nes2net_hf.corpora.loading import read_rows

    [source] = Path(str(SHARED), "protocols").glob(f"{excerpt}.excerpt.*")
    (tmp_path / protocol).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, tmp_path / protocol)
    lines = source.read_text().splitlines()
    rows = list(read_rows(name, split, root=tmp_path))
    assert len(rows) == len(lines) - (protocol == "meta.csv")
    assert sum(row["label"] for row in rows) == sum("bonafide" in line or "bona-fide" in line for line in lines)
    assert all(row["attack"] != "bonafide" and row["audio"] is None for row in rows)


def test_check_says_what_is_missing_unreadable_doubled_and_wrong(build: Callable[..., Path], nes2net: Any) -> None:
    more = ["LA_0097 LA_T_0000001 - A01 spoof", "LA_0097 LA_T_0000002 - A01 spoof", "LA_0097 LA_T_1581266 - A06 spoof"]
    more += ["LA_0097 LA_T_0000003 - A02 spoofed?", "LA_0097 LA_T_0000004"]
    root = build(
        "asvspoof2019-la", lambda text: ("\ufeff" + text + "\n".join(more) + "\n").replace("\n", "\r\n").encode()
    )
    flac = root / "LA/ASVspoof2019_LA_train/flac"
    whole = (flac / "LA_T_1581266.flac").read_bytes()
    (flac / "LA_T_0000001.flac").write_bytes(whole[: len(whole) // 2])
    (root / "backup").mkdir()
    (root / "backup/LA_T_1581266.flac").write_bytes(whole)
    done = nes2net("corpus", "check", "asvspoof2019-la", "--root", root, "--full")
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[0] == "asvspoof2019-la train: not as published"
    assert "7 lines (25,380 published): 1 bonafide, 3 spoof" in lines[1]
    assert "3 files found" in lines[2] and "A01 2, A06 1" in lines[3]
    report = "\n".join(" ".join(line.split()) for line in lines[4:])
    assert "missing 1\nLA_T_0000002\n" in report
    assert "unreadable 1\n" in report and "LA_T_0000001.flac is truncated or damaged" in report
    assert (
        "wrong line 2\n" in report
        and "line 6: 'spoofed?' is not a known label" in report
        and "line 7: 2 fields" in report
    )
    assert "listed twice 1\nLA_T_1581266\n" in report
    assert "found twice 1\nLA_T_1581266 (2 files: " in report


def test_check_of_what_is_whole_and_of_what_is_nothing(
    build: Callable[..., Path], tmp_path: Path, nes2net: Any
) -> None:
    from nes2net_hf.corpora import check_corpus

    [found] = check_corpus("ctrsvdd", build("ctrsvdd"))
    assert (found.lines, found.found, found.partition) == (4, 4, "test")
    assert not any((found.missing, found.unreadable, found.wrong_lines, found.doubled_lines, found.doubled_files))
    assert found.conditions == {"with-acesinger": (3, 67_579), "without-acesinger": (2, 64_734)}
    assert found.seconds > 10 and not found.is_whole  # four trials are fewer than published
    [found] = check_corpus("partialspoof", build("partialspoof"), "dev")
    found.published = found.lines
    assert found.is_whole
    (tmp_path / "nothing").mkdir()
    for arguments, message in (
        (("asvspoof5", "--root", tmp_path / "nothing"), "has no ASVspoof5.train.tsv"),
        (("asvspof5", "--root", tmp_path), "did you mean asvspoof5?"),
        (("asvspoof5", "--root", tmp_path, "--split", "test"), "split must be one of train, dev, eval"),
    ):
        done = nes2net("corpus", "check", *arguments)
        assert done.code == 2 and message in done.err


def test_check_of_own_data(fixture_audio_dir: Path, tmp_path: Path, nes2net: Any) -> None:
    voices = sorted(fixture_audio_dir.glob("*.flac"))
    lines = ["wav,fake", f"{voices[0]},0", f"{voices[1]},1", "gone.flac,1", f"{voices[2]},2", ",0"]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    maps = ("--column", "audio=wav", "--column", "label=fake", "--label", "0=bonafide", "--label", "1=spoof")
    done = nes2net("corpus", "check", "own-data", "--root", tmp_path / "mine.csv", *maps)
    assert (done.code, done.err) == (1, "")
    report = "\n".join(" ".join(line.split()) for line in done.out.splitlines())
    assert "protocol 5 lines: 1 bonafide, 2 spoof" in report and "audio 2 files found" in report
    assert "missing 1\ngone\n" in report and "wrong line 2\n" in report
    assert "line 5: --label does not map '2'" in report and "line 6: column 'wav' is empty" in report
    (tmp_path / "mine.csv").write_text("\n".join(lines[:3]))
    done = nes2net("corpus", "check", "own-data", "--root", tmp_path / "mine.csv", *maps, "--full")
    assert (done.code, done.out.splitlines()[0]) == (0, "own-data all: complete")
