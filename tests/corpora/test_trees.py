"""Benchmarks whose folders or tables say what a recording is: small invented trees in the published layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from nes2net_hf.corpora import CORPORA, CorpusError, check_corpus, load_corpus
from nes2net_hf.corpora.loading import read_rows
from nes2net_hf.errors import EvaluationError
from nes2net_hf.evaluation import read_keys


@dataclass
class Layout:
    """
    A corpus on disk.

    Args:
        rows: partition → utterance → what its row says, besides its id.
        audio: paths of all recordings.
        texts: path → content of protocols and other texts.
    """

    rows: dict[str, dict[str, dict[str, Any]]]
    audio: list[str]
    texts: dict[str, str] = field(default_factory=dict)


_MLAAD = "path|original_file|language|is_original_language|duration|training_data|model_name|architecture|transcript"

LAYOUTS = {
    "mlaad": Layout(
        {
            "all": {
                "fake/de/xtts_v2/a_01": {"label": 0, "attack": "xtts_v2", "language": "de"},
                "fake/de/vits/a_01": {"label": 0, "attack": "vits", "language": "de"},
                "fake/zh-cn/vits/b": {"label": 0, "attack": "vits", "language": "zh-cn"},
                "de_DE/by_book/female/eva/buch/wavs/a_01": {
                    "label": 1, "speaker_id": "eva", "gender": "f", "language": "de"
                },
                "en_UK/by_book/male/tom/book/wavs/b": {
                    "label": 1, "speaker_id": "tom", "gender": "m", "language": "en"
                },
            }
        },
        [
            "MLAAD/fake/de/xtts_v2/a_01.wav", "MLAAD/fake/de/vits/a_01.wav", "MLAAD/fake/zh-cn/vits/b.wav",
            "de_DE/by_book/female/eva/buch/wavs/a_01.wav", "en_UK/by_book/male/tom/book/wavs/b.wav",
        ],
        {
            # A transcript may begin with a quotation mark that nothing closes.
            "MLAAD/fake/de/xtts_v2/meta.csv": f"{_MLAAD}\n./fake/de/xtts_v2/a_01.wav|a|de|True|3.1|x|X|a|\"Ja\n",
            "MLAAD/fake/de/vits/meta.csv": f"{_MLAAD}|reference_speaker\n"
            "./fake/de/vits/a_01.wav|a.wav|de|True|3.1|x|VITS|a|Ja|s\n",
            "MLAAD/fake/zh-cn/vits/meta.csv": f"{_MLAAD}\n./fake/zh-cn/vits/b.wav|b.wav|zh-cn|True|3.1|x|VITS|a|-\n",
        },
    ),
    "spoofceleb": Layout(
        {
            "train": {
                "a00/id10001/x-00001": {"label": 1, "speaker_id": "id10001"},
                "a07/id10001/x-00001": {"label": 0, "speaker_id": "id10001", "attack": "a07"},
            },
            "dev": {"a00/id10002/x-00001": {"label": 1, "speaker_id": "id10002"}},
        },
        [
            "spoofceleb/flac/train/a00/id10001/x-00001.flac", "spoofceleb/flac/train/a07/id10001/x-00001.flac",
            "spoofceleb/flac/development/a00/id10002/x-00001.flac",
        ],
        {
            "spoofceleb/metadata/train.csv": "file,speaker,attack\na00/id10001/x-00001.flac,id10001,a00\n"
            "a07/id10001/x-00001.flac,id10001,a07\n",
            "spoofceleb/metadata/development.csv": "file,speaker,attack\na00/id10002/x-00001.flac,id10002,a00\n",
        },
    ),
    "wavefake": Layout(
        {
            "all": {
                "ljspeech_melgan/LJ001-0001_gen": {"label": 0, "attack": "ljspeech_melgan"},
                "ljspeech_waveglow/LJ001-0001_gen": {"label": 0, "attack": "ljspeech_waveglow"},
                "jsut_parallel_wavegan/BASIC5000_0001_gen": {"label": 0, "attack": "jsut_parallel_wavegan"},
                "LJSpeech-1.1/wavs/LJ001-0001": {"label": 1, "speaker_id": "LJSpeech"},
                "jsut_ver1.1/basic5000/wav/BASIC5000_0001": {"label": 1, "speaker_id": "JSUT"},
            }
        },
        [
            "generated_audio/ljspeech_melgan/LJ001-0001_gen.wav",
            "generated_audio/ljspeech_waveglow/LJ001-0001_gen.wav",
            "generated_audio/jsut_parallel_wavegan/BASIC5000_0001_gen.wav", "LJSpeech-1.1/wavs/LJ001-0001.wav",
            "jsut_ver1.1/basic5000/wav/BASIC5000_0001.wav", "else/where.wav",
        ],
    ),
    "dfadd": Layout(
        {
            "train": {
                "DATASET_VCTK_BONAFIDE/train/p226_001_mic1": {"label": 1, "speaker_id": "p226"},
                "DATASET_GradTTS/train/p226_001_grad": {"label": 0, "speaker_id": "p226", "attack": "GradTTS"},
            },
            "dev": {"DATASET_GradTTS/valid/p227_001_grad": {"label": 0, "speaker_id": "p227", "attack": "GradTTS"}},
            "eval": {
                "DATASET_PflowTTS/test/p228_001_pflow": {"label": 0, "speaker_id": "p228", "attack": "PflowTTS"}
            },
        },
        [
            "DATASET_VCTK_BONAFIDE/train/p226_001_mic1.wav", "DATASET_GradTTS/train/p226_001_grad.wav",
            "DATASET_GradTTS/valid/p227_001_grad.wav", "DATASET_PflowTTS/test/p228_001_pflow.wav",
        ],
    ),
    "codecfake-wu": Layout(
        {
            "train": {"p225_001": {"label": 1, "speaker_id": "p225"}},
            "dev": {"encodec+p226_001": {"label": 0, "speaker_id": "p226", "attack": "encodec"}},
            "eval": {"valle+p228_001": {"label": 0, "speaker_id": "p228", "attack": "valle"}},
        },
        ["genuine/p225_001.wav", "encodec/encodec+p226_001.wav", "valle/valle+p228_001.wav"],
        {
            "datalist.csv": "wavpath,label,speaker,codec\ngenuine/p225_001.wav,genuine,p225,genuine\n"
            "encodec/encodec+p226_001.wav,spoof,p226,encodec\nvalle/valle+p228_001.wav,spoof,p228,valle\n"
        },
    ),
    "codecfake-xie": Layout(
        {
            "train": {"F01_p226_001": {"label": 0, "attack": "F01"}, "p226_001": {"label": 1}},
            "C1": {"p228_001": {"label": 1}},
            "C2": {"p228_001": {"label": 1}, "F02_p228_001": {"label": 0, "attack": "F02"}},
            "A3": {"A3_001": {"label": 0, "attack": "F01"}},
        },
        [
            "train/F01_p226_001.wav", "train/p226_001.wav", "C1/p228_001.wav", "C2/p228_001.wav",
            "C2/F02_p228_001.wav", "A3_fake/A3_001.wav",
        ],
        {
            "label/train.txt": "F01_p226_001.wav fake 1\np226_001.wav real 0\n",
            "label/C1.txt": "p228_001.wav real 0\n",
            "label/C2.txt": "p228_001.wav real 0\nF02_p228_001.wav fake 2\n",
            "label/A3_label.txt": "A3_001.wav fake 1\n",
        },
    ),
    "fake-or-real": Layout(
        {
            "train": {
                "for-norm/training/real/file1": {"label": 1, "source": "for-norm"},
                "for-norm/training/fake/file1": {"label": 0, "source": "for-norm"},
                "for-2seconds/training/fake/file1": {"label": 0, "source": "for-2sec"},
            },
            "eval": {
                "for-original/testing/real/file2": {"label": 1, "source": "for-original"},
                "for-rerecorded/testing/real/file2": {"label": 1, "source": "for-rerec"},
            },
        },
        [
            "for-norm/for-norm/training/real/file1.wav", "for-norm/for-norm/training/fake/file1.wav",
            "for-2seconds/training/fake/file1.wav", "for-original/testing/real/file2.mp3",
            "for-rerecorded/testing/real/file2.wav",
        ],
    ),
    "deepfake-eval-2024": Layout(
        {"train": {"call. 1": {"label": 1}}, "eval": {"b": {"label": 0}}},
        ["audio-data/call. 1.mp3", "audio-data/b.m4a", "audio-data/c.wav", "audio-data/d.wav"],
        {
            "audio-metadata-publish.csv": "Filename,Date,Ground Truth,Public Comments,Finetuning Set\n"
            'call. 1.mp3,2024-05-01,Real,"One, two,\nthree",Train\nb.m4a,2024-05-01,Fake,,Test\n'
            "c.wav,2024-05-01,Unknown,,Test\nd.wav,2024-05-01,Fake,,\n"
        },
    ),
    "llamapartialspoof": Layout(
        {
            "eval": {
                "dev-clean_1272_128104_000001_000000": {"label": 1},
                "dev01-xttsv2-full_1272_7": {"label": 0, "attack": "xttsv2-full", "speaker_id": "1272"},
                "dev01-yourtts-partial-cf_1462_7": {"label": 0, "attack": "yourtts-partial-cf", "speaker_id": "1462"},
            }
        },
        [
            "R01TTS.0.a/dev-clean_1272_128104_000001_000000.wav", "R01TTS.0.a/dev01-xttsv2-full_1272_7.wav",
            "R01TTS.0.b/dev01-yourtts-partial-cf_1462_7.wav",
        ],
        {
            "label_R01TTS.0.a.txt": "dev-clean_1272_128104_000001_000000 4.2 bonafide 0.0-4.2-bonafide\n"
            "dev01-xttsv2-full_1272_7 4.0 spoof 0.0-4.0-spoof\n",
            "label_R01TTS.0.b.txt": "dev01-yourtts-partial-cf_1462_7 4.0 spoof 0.0-2.0-bonafide 2.0-4.0-spoof\n",
        },
    ),
    "add2022": Layout(
        {"eval": {"ADD_E3_00000001": {"label": 1}, "ADD_E3_00000002": {"label": 0}}},
        ["track3test/ADD_E3_00000001.wav", "track3test/ADD_E3_00000002.wav"],
        {"track3_R1_label.txt": "ADD_E3_00000001.wav genuine\nADD_E3_00000002.wav fake\n"},
    ),
    "add2023": Layout(
        {
            "train": {"ADD2023_T1.2_T_00000001": {"label": 0}},
            "dev": {"ADD2023_T1.2_D_00000001": {"label": 1}},
            "eval": {"ADD2023_T1.2R2_E_00000001": {"label": 0}},
        },
        [
            "track1.2/train/wav/ADD2023_T1.2_T_00000001.wav", "track1.2/dev/wav/ADD2023_T1.2_D_00000001.wav",
            "Track1.2/testR2/wav/ADD2023_T1.2R2_E_00000001.wav",
        ],
        {
            "track1.2/train/label.txt": "ADD2023_T1.2_T_00000001.wav fake\n",
            "track1.2/dev/label.txt": "ADD2023_T1.2_D_00000001.wav genuine\n",
            "Track1.2/testR2/label.txt": "ADD2023_T1.2R2_E_00000001.wav fake\n",
            "Track1.2/testR2/log.txt": "",
        },
    ),
}  # fmt: skip
PARTS = [(name, partition) for name, layout in LAYOUTS.items() for partition in layout.rows]


@pytest.fixture
def lay_out(tmp_path: Path, fixture_audio_dir: Path) -> Callable[[str], Path]:
    """Writes a corpus with real speech, whose files keep the suffixes of the layout; returns its root."""
    voices = sorted(fixture_audio_dir.glob("*.flac"))

    def write(name: str) -> Path:
        root = tmp_path / name
        for place, text in LAYOUTS[name].texts.items():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_text(text, encoding="utf-8")
        for number, place in enumerate(LAYOUTS[name].audio):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(voices[number], root / place)
        return root

    return write


def said(row: dict[str, Any]) -> dict[str, Any]:
    left_out = ("utterance_id", "audio", "segment_labels", "partition")
    return {key: value for key, value in row.items() if key not in left_out and value is not None}


@pytest.mark.parametrize(("name", "partition"), PARTS)
def test_rows_of_the_published_layout(name: str, partition: str, lay_out: Callable[[str], Path]) -> None:
    rows = {row["utterance_id"]: row for row in load_corpus(name, partition, root=lay_out(name))}
    assert {utterance: said(row) for utterance, row in rows.items()} == LAYOUTS[name].rows[partition]
    assert {row["partition"] for row in rows.values()} == {None if partition == "all" else partition}
    paths = [row["audio"]["path"] for row in rows.values()]
    assert len(set(paths)) == len(rows)
    for row in rows.values():  # the very file, where one stem occurs in several folders
        assert Path(row["audio"]["path"]).with_suffix("").as_posix().endswith("/" + row["utterance_id"])
        folders = set(CORPORA[name].folders[partition])
        assert not folders or "/" in row["utterance_id"] or folders & set(Path(row["audio"]["path"]).parts)


@pytest.mark.parametrize("name", LAYOUTS)
def test_check_finds_every_partition_and_file(name: str, lay_out: Callable[[str], Path]) -> None:
    checks = {check.partition: check for check in check_corpus(name, lay_out(name))}
    assert set(checks) == set(LAYOUTS[name].rows) and set(checks) <= set(CORPORA[name].partitions)
    for partition, check in checks.items():
        expected = LAYOUTS[name].rows[partition]
        assert check.lines == check.found == len(expected) and check.seconds > 0
        assert not any((check.missing, check.unreadable, check.wrong_lines, check.doubled_lines))
        assert not check.doubled_files  # C1 and C2 of Codecfake (Xie) have different files of one name
        assert check.published == CORPORA[name].counts.get(partition)


def test_a_file_of_another_folder_is_not_taken_for_a_missing_one(lay_out: Callable[[str], Path]) -> None:
    root = lay_out("spoofceleb")
    (root / "spoofceleb/flac/train/a07/id10001/x-00001.flac").unlink()  # the same stem is in a00
    with pytest.raises(CorpusError, match=r"1 of 2 utterances is missing \(a07/id10001/x-00001\)"):
        load_corpus("spoofceleb", "train", root=root)


def test_the_root_may_be_a_folder_of_the_layout(lay_out: Callable[[str], Path], monkeypatch: Any) -> None:
    root = lay_out("fake-or-real") / "for-norm/for-norm"
    assert len(load_corpus("fake-or-real", "train", root=root)) == 2
    monkeypatch.chdir(root / "training")
    assert len(load_corpus("fake-or-real", "train", root=".")) == 2


def test_versions_of_fake_or_real_are_conditions(lay_out: Callable[[str], Path]) -> None:
    root = lay_out("fake-or-real")
    assert len(load_corpus("fake-or-real", "train", root=root, condition="for-norm")) == 2
    [check] = check_corpus("fake-or-real", root, "eval")
    assert check.conditions["for-norm"] == (0, 4_528) and check.conditions["for-rerec"] == (1, None)
    assert check.is_whole  # for-norm was not unpacked
    shutil.move(root / "for-rerecorded", root / "for-norm/for-norm-testing")
    shutil.move(root / "for-norm/for-norm-testing/testing", root / "for-norm/for-norm/testing")
    [check] = check_corpus("fake-or-real", root, "eval")
    assert check.conditions["for-norm"] == (1, 4_528) and not check.is_whole


def test_copies_are_reported_and_listed_once(lay_out: Callable[[str], Path]) -> None:
    root = lay_out("dfadd")
    shutil.copytree(root / "DATASET_GradTTS", root / "backup/DATASET_GradTTS")
    assert len(load_corpus("dfadd", "train", root=root)) == 2
    [check] = check_corpus("dfadd", root, "train")
    [copy] = check.doubled_files
    assert copy.startswith("DATASET_GradTTS/train/p226_001_grad (2 files")


@pytest.mark.parametrize(
    ("name", "place", "text", "message"),
    [
        ("spoofceleb", "spoofceleb/metadata/train.csv", "file,speaker\nx.flac,id1\n", "has no column 'attack'"),
        (
            "spoofceleb",
            "spoofceleb/metadata/train.csv",
            "file,speaker,attack\nx.flac,id1,bonafide\n",
            r"train.csv, line 2: attack 'bonafide' is not a00 \(bona fide\) or a01 to a23",
        ),
        ("add2023", "track1.2/train/label.txt", "a.wav maybe\n", "label.txt, line 1: 'maybe' is not a known label"),
        ("codecfake-xie", "label/train.txt", "a.wav real\n", r"2 fields instead of 3 \(file, label, codec\)"),
        (
            "deepfake-eval-2024",
            "audio-metadata-publish.csv",
            "Filename,Ground Truth,Finetuning Set\na.mp3,Perhaps,Train\n",
            "line 2: 'Perhaps' is not a known label",
        ),
    ],
)
def test_wrong_tables_are_named(
    name: str, place: str, text: str, message: str, lay_out: Callable[[str], Path]
) -> None:
    root = lay_out(name)
    (root / place).write_text(text)
    with pytest.raises(CorpusError, match=message):
        list(read_rows(name, "train", root=root))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_of_something_else_says_what_to_unpack(name: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.wav").touch()
    with pytest.raises(CorpusError, match=r"has no .* in any of its folders: .*there\.$"):
        list(check_corpus(name, tmp_path))


def test_keys_come_from_protocols_or_folders(lay_out: Callable[[str], Path]) -> None:
    root = lay_out("spoofceleb")
    keys = read_keys(root / "spoofceleb/metadata/development.csv", "spoofceleb")
    assert list(keys.ids) == ["a00/id10002/x-00001"]
    assert len(read_keys(lay_out("wavefake"), "wavefake")) == 5
    for name, place in (("add2023", "track1.2/train/label.txt"), ("deepfake-eval-2024", "audio-metadata-publish.csv")):
        root = lay_out(name)
        with pytest.raises(EvaluationError, match="set split to its partition"):
            read_keys(root / place, name)
        assert len(read_keys(root / place, name, "train")) == 1
    with pytest.raises(EvaluationError, match="WaveFake with LJSpeech and JSUT has no protocol file: name the folder"):
        read_keys(root / place, "wavefake")
