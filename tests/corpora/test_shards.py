"""Shards return every row and every sample, and making them can be stopped and continued."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("datasets")

from datasets import load_dataset

from nes2net_hf.audio import read_audio
from nes2net_hf.cards import sources
from nes2net_hf.corpora import FEATURES, CorpusError, load_corpus
from nes2net_hf.corpora.loading import open_rows
from nes2net_hf.corpora.shards.read import ShardedRows, find_shards
from nes2net_hf.corpora.shards.write import push_shards, shard_corpus, to_flac
from nes2net_hf.errors import OutputError
from tests.helpers import FIXTURES

COLUMNS = ("utterance_id", "audio", "label")
SHARD_BYTES = 500_000  # half a megabyte, so that the fixtures fill several shards


@pytest.fixture(scope="module")
def la(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ASVspoof 2019 LA train and dev in the archive's layout, with 60 and 4 utterances of the fixtures' speech."""
    root = tmp_path_factory.mktemp("la")
    voices = sorted((FIXTURES / "audio").glob("*.flac"))
    protocols = root / "LA/ASVspoof2019_LA_cm_protocols"
    protocols.mkdir(parents=True)
    for partition, kind, count in (("train", "trn", 60), ("dev", "trl", 4)):
        flac = root / f"LA/ASVspoof2019_LA_{partition}/flac"
        flac.mkdir(parents=True)
        lines = []
        for number in range(count):
            name = f"LA_{partition[0].upper()}_{1_000_000 + number}"
            shutil.copy(voices[number % len(voices)], flac / f"{name}.flac")
            attack, key = ("-", "bonafide") if number % 3 == 0 else (f"A0{number % 6 + 1}", "spoof")
            lines.append(f"LA_{number % 5:04} {name} - {attack} {key}")
        (protocols / f"ASVspoof2019.LA.cm.{partition}.{kind}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def shards(la: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    written = shard_corpus("asvspoof2019-la", out, root=str(la), shard_bytes=SHARD_BYTES)
    assert len(written) > 3
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "audio"}


@pytest.mark.parametrize("split", ["train", "dev"])
def test_shards_stream_back_every_row_and_every_byte(split: str, la: Path, shards: Path) -> None:
    before = load_corpus("asvspoof2019-la", split, root=la)
    streamed = load_dataset(str(shards), split=split, streaming=True)  # the card assigns files to splits
    assert streamed.features == FEATURES
    for after in (streamed, load_corpus("asvspoof2019-la", split, root=shards, streaming=True)):
        rows = list(after)
        assert [said(row) for row in rows] == [said(row) for row in before]
        for row, source in zip(rows, before, strict=True):
            path = Path(source["audio"]["path"])
            assert row["audio"] == {"bytes": path.read_bytes(), "path": path.name}
            assert np.array_equal(read_audio(row["audio"]["bytes"]), read_audio(path))


def test_rows_of_shards_are_drawn_by_number_with_few_groups_in_memory(la: Path, shards: Path) -> None:
    table = open_rows("asvspoof2019-la", "train", root=la, columns_read=COLUMNS)
    rows = open_rows("asvspoof2019-la", "train", root=shards, columns_read=COLUMNS)
    assert isinstance(rows, ShardedRows) and len(rows) == len(table) == rows.group_sizes.sum() == 60
    assert rows.labels.tolist() == table.labels.tolist()
    for index in np.random.default_rng(0).permutation(60):
        row, source = rows[index], table[index]
        assert row["utterance_id"] == source["utterance_id"] and set(row) == set(COLUMNS)
        assert row["audio"]["bytes"] == Path(source["audio"]["path"]).read_bytes()
        assert len(rows._held) <= 2
    chosen = open_rows("asvspoof2019-la", "train", root=shards, columns_read=COLUMNS, where={"attack": ["A02", "A03"]})
    assert [chosen[index]["utterance_id"] for index in range(len(chosen))] == [
        row["utterance_id"]
        for row in load_corpus("asvspoof2019-la", "train", root=shards, where={"attack": ["A02", "A03"]})
    ]
    with pytest.raises(CorpusError, match="no utterance of asvspoof2019-la is left"):
        open_rows("asvspoof2019-la", "train", root=shards, columns_read=COLUMNS, where={"attack": "A19"})


@pytest.mark.slow
def test_a_killed_run_loses_only_time(la: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import os, signal, sys; from pathlib import Path; from nes2net_hf.corpora.shards.write import shard_corpus\n"
        "done = 0\n"
        "def progress(rows):\n"
        "    global done; done += rows\n"
        "    if done > 25: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"shard_corpus('asvspoof2019-la', Path(sys.argv[1]), root=sys.argv[2], shard_bytes={SHARD_BYTES},"
        " progress=progress)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(out), str(la)], check=False)
    assert killed.returncode == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in out.glob("data/*.parquet")}
    assert 0 < len(finished) < len(list(shards.glob("data/*.parquet"))) and list(out.glob("data/*.part"))
    shard_corpus("asvspoof2019-la", out, root=str(la), shard_bytes=SHARD_BYTES)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # not written again
    assert content(out) == content(shards)


def test_a_damaged_shard_is_written_again(la: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    damaged = sorted(out.glob("data/*.parquet"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-1000] + bytes(1000))
    shard_corpus("asvspoof2019-la", out, root=str(la), shard_bytes=SHARD_BYTES)
    assert content(out) == content(shards)


def test_what_is_wrong_with_shards_is_said(la: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="other files or options of train: remove it, or name another folder"):
        shard_corpus("asvspoof2019-la", shards, root=str(la), shard_bytes=SHARD_BYTES, flac=True)
    with pytest.raises(CorpusError, match=r"no shards of split 'eval': choose from dev, train"):
        load_corpus("asvspoof2019-la", "eval", root=shards)
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    first, second = sorted(out.glob("data/train-*.parquet"))[:2]
    second.write_bytes(second.read_bytes()[:2000])
    with pytest.raises(
        CorpusError, match=rf"{second.name} cannot be read as a shard .*: copy, download or make it again"
    ):
        open_rows("asvspoof2019-la", "train", root=out, columns_read=COLUMNS)
    first.unlink()
    with pytest.raises(CorpusError, match=rf"1 of \d+ shards of train are missing \({first.name}\)"):
        find_shards(out)
    with pytest.raises(CorpusError, match="has no shards in"):
        load_corpus("asvspoof2019-la", "train", root=f"file://{la}")
    (out / "shards.json").write_text("{")
    with pytest.raises(CorpusError, match=r"shards\.json is damaged .*: remove it to write all shards again"):
        shard_corpus("asvspoof2019-la", out, root=str(la))


def test_a_url_of_fsspec_is_read_where_it_lies(shards: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in shards.glob("data/*.parquet"):
        memory.pipe(f"/bucket/data/{path.name}", path.read_bytes())
    rows = open_rows("asvspoof2019-la", "dev", root="memory://bucket", columns_read=COLUMNS)
    assert [rows[index]["utterance_id"] for index in range(len(rows))] == [f"LA_D_{1_000_000 + n}" for n in range(4)]


def test_the_card_says_what_is_there(shards: Path) -> None:
    card = (shards / "README.md").read_text()
    assert (
        "path: data/train-*.parquet" in card and "| train | 60 | 20 | 40 |" in card and "| dev | 4 | 2 | 2 |" in card
    )
    assert (sources() / "corpus.md").is_file()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8"])
def test_flac_holds_the_same_samples(subtype: str, speech: list[np.ndarray]) -> None:
    wave = io.BytesIO()
    soundfile.write(wave, np.stack([speech[0], 0.5 * speech[0]], 1), 22_050, format="WAV", subtype=subtype)
    flac = to_flac(wave.getvalue(), "a.wav")
    assert flac is not None and flac.startswith(b"fLaC") and len(flac) < len(wave.getvalue())
    (before, rate), (after, again) = (soundfile.read(io.BytesIO(file)) for file in (wave.getvalue(), flac))
    assert rate == again == 22_050 and np.array_equal(before, after)


def test_what_flac_cannot_hold_keeps_its_bytes(speech: list[np.ndarray], tmp_path: Path) -> None:
    wave = io.BytesIO()
    soundfile.write(wave, speech[0], 16_000, format="WAV", subtype="FLOAT")
    assert to_flac(wave.getvalue(), "a.wav") is None and to_flac(b"no audio", "b.wav") is None
    (tmp_path / "mine/real").mkdir(parents=True)
    (tmp_path / "mine/fake").mkdir()
    soundfile.write(tmp_path / "mine/real/a.wav", speech[0], 16_000, subtype="PCM_16")
    (tmp_path / "mine/fake/b.wav").write_bytes(wave.getvalue())
    [shard] = shard_corpus("own-data", tmp_path / "out", root=str(tmp_path / "mine"), flac=True)
    assert shard.name == "train-00000-of-00001.parquet"
    rows = {row["utterance_id"]: row for row in load_corpus("own-data", root=tmp_path / "out")}
    assert rows["real/a"]["audio"]["path"] == "a.flac" and rows["real/a"]["audio"]["bytes"].startswith(b"fLaC")
    assert rows["fake/b"]["audio"] == {"path": "b.wav", "bytes": wave.getvalue()}
    assert np.array_equal(read_audio(rows["real/a"]["audio"]["bytes"]), read_audio(tmp_path / "mine/real/a.wav"))


def test_a_dataset_that_is_not_ours_is_no_shard(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    foreign = load_dataset(str(shards), split="dev").rename_column("label", "key")
    foreign.to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    rows = load_corpus("dataset", "train", root=tmp_path, columns={"label": "key"})
    assert rows["label"] == [1, 0, 0, 1]
    [shard] = shard_corpus("dataset", tmp_path / "ours", root=str(tmp_path), split="train", columns={"label": "key"})
    again = load_corpus("dataset", "train", root=tmp_path / "ours")
    assert list(again) == list(rows) and shard.name == "train-00000-of-00001.parquet"
    with pytest.raises(CorpusError, match="has no shards in"):
        load_corpus("asvspoof2019-la", "train", root=tmp_path)


def test_push_makes_a_private_dataset(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any, dict[str, Any]]] = []

    class Api:
        def create_repo(self, repo_id: str, **options: Any) -> str:
            calls.append(("create", repo_id, options))
            return f"https://huggingface.co/datasets/{repo_id}"

        def upload_folder(self, **options: Any) -> None:
            calls.append(("upload", options.pop("repo_id"), options))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert push_shards(shards, "org/la") == "https://huggingface.co/datasets/org/la"
    (_, _, created), (_, repo, uploaded) = calls
    assert created["repo_type"] == "dataset" and created["private"] and created["exist_ok"]
    assert (repo, uploaded["folder_path"], uploaded["repo_type"]) == ("org/la", shards, "dataset")


def test_the_command_makes_shards_and_names_what_is_wrong(la: Path, tmp_path: Path, nes2net: Any) -> None:
    options = ("corpus", "shard", "asvspoof2019-la", "--root", la, "--out", tmp_path / "out", "--split", "dev")
    done = nes2net(*options)
    assert (done.code, done.err) == (0, "") and "1 shards, 0.00 GB" in done.out
    offline = nes2net(*options, "--push", "org/la")
    assert offline.code == 1 and "nothing can be pushed to org/la: " in offline.err
    wrong = nes2net("corpus", "shard", "own-data", "--root", la, "--out", tmp_path / "other", "--label", "fake")
    assert wrong.code == 2 and "--label 'fake' must have the form THEIRS=OURS" in wrong.err
