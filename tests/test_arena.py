"""The Speech Anti-Spoofing Arena: a model driven as its runner drives it, over a dataset in its form."""

from __future__ import annotations

import abc
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import yaml

import nes2net_hf.arena
from nes2net_hf import Nes2NetFeatureExtractor
from nes2net_hf.arena import Nes2NetArena
from nes2net_hf.audio import AudioError
from nes2net_hf.errors import OutputError
from nes2net_hf.pretrained.load import DEMO_MODEL, ModelError
from tests.helpers import FIXTURES, tiny_config

pytest.importorskip("datasets")
pytest.importorskip("accelerate")

import pyarrow.parquet as pq
from datasets import Audio, ClassLabel, Features, Value, load_dataset

from nes2net_hf.corpora import CorpusError, load_corpus
from nes2net_hf.corpora.shards.write import shard_corpus
from nes2net_hf.evaluation.scoring import score_corpus

BONAFIDE, SPOOF = 0, 1  # there


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the fixtures' recordings, at their full length, partition by partition; one of them a WAV."""
    root = tmp_path_factory.mktemp("voices")
    (root / "audio").mkdir()
    lines = ["utterance_id,path,label,speaker_id,attack,codec,partition"]
    for number, source in enumerate(sorted((FIXTURES / "audio").glob("*.flac"))):
        name = f"audio/v{number}.{'wav' if number == 1 else 'flac'}"
        if name.endswith("wav"):
            soundfile.write(root / name, *soundfile.read(source), subtype="PCM_16")
        else:
            shutil.copy(source, root / name)
        label, attack = ("bonafide", "") if number % 2 else ("spoof", f"A0{number}")
        lines.append(f"v{number},{name},{label},sprecher-ä,{attack},,{'dev' if number == 0 else 'eval'}")
    (root / "data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "data.csv"


@pytest.fixture
def dataset(corpus: Path, tmp_path: Path, nes2net: Any) -> Path:
    """The dev partition of the `corpus` fixture in the Arena's form, made by the command."""
    out = tmp_path / "HalfSeconds_DEV"
    made = nes2net(
        "corpus", "shard", "own-data", "--root", corpus / "manifest.csv", "--out", out, "--split", "dev",
        "--form", "arena",
    )  # fmt: skip
    assert (made.code, made.err) == (0, "") and "1 shards" in made.out
    return out


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """As the Arena reads a folder, but for the decoding."""
    features = Features(
        {
            "path": Value("string"),
            "audio": Audio(sampling_rate=None, decode=False),
            "label": Value("int64"),
            "notes": Value("string"),
        }
    )
    files = sorted(map(str, folder.glob("data/test-*.parquet")))
    return list(load_dataset("parquet", data_files={"train": files}, split="train", streaming=True, features=features))


def run(model: Nes2NetArena, folder: Path) -> dict[str, float]:
    """What the Arena's runner does: load once, batches with a short one at the end, unload."""
    scores: dict[str, float] = {}
    rows = rows_of(folder)
    model.load()
    for start in range(0, len(rows), model.batch_size):
        batch = rows[start : start + model.batch_size]
        decoded = [soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32") for row in batch]
        assert {rate for _, rate in decoded} == {model.expected_sample_rate}
        judged = model.score_batch([audio for audio, _ in decoded], [rate for _, rate in decoded])
        assert len(judged) == len(batch) and all(type(score) is float for score in judged)
        scores |= {json.loads(row["notes"])["utterance_id"]: score for row, score in zip(batch, judged, strict=True)}
    model.unload()
    return scores


def scored(model: Path, out: Path, **corpus: Any) -> dict[str, float]:
    """What training/score.py writes."""
    score_corpus(str(model), out, batch_size=4, **corpus)
    return {name: float(score) for name, score in (line.rsplit(" ", 1) for line in out.read_text().splitlines())}


@pytest.fixture
def whole_model_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A model that judges whole utterances."""
    shutil.copytree(tiny_model_dir, tmp_path / "whole")
    Nes2NetFeatureExtractor(length_policy="whole", do_normalize=True).save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize("policy", ["first", "whole"])
def test_the_arena_gets_the_scores_that_score_py_writes(
    policy: str, dataset: Path, corpus: Path, tiny_model_dir: Path, whole_model_dir: Path, tmp_path: Path
) -> None:
    model = tiny_model_dir if policy == "first" else whole_model_dir
    scores = run(Nes2NetArena(model, device="cpu"), dataset)
    where = {"partition": "dev"}
    ours = scored(model, tmp_path / "ours.txt", corpus="own-data", root=str(corpus / "manifest.csv"), where=where)
    assert len(scores) == 12 and scores.keys() == ours.keys() and len(set(scores.values())) > 6
    assert scores == pytest.approx(ours, abs=1e-4)
    columns = {"utterance_id": "path"}
    again = scored(
        model, tmp_path / "again.txt", corpus="dataset", root=str(dataset), split="test", columns=columns
    )  # and of the same folder, read by us
    assert {Path(name).stem: score for name, score in again.items()} == pytest.approx(ours, abs=1e-4)


@pytest.mark.parametrize("policy", ["first", "whole"])
def test_a_score_does_not_depend_on_its_batch(
    policy: str, speech: list[np.ndarray], tiny_model_dir: Path, whole_model_dir: Path
) -> None:
    model = Nes2NetArena(tiny_model_dir if policy == "first" else whole_model_dir, device="cpu")
    model.load()
    audios = [speech[number % 3][: 1_000 + 9_000 * number] for number in range(model.batch_size)]
    together = model.score_batch(audios, [16_000] * len(audios))
    alone = [model.score_batch([audio], [16_000])[0] for audio in audios]
    assert together == pytest.approx(alone, abs=1e-4) and np.ptp(together) > 1e-2


def test_the_demonstration_model_is_the_default_and_higher_is_bona_fide() -> None:
    assert (Nes2NetArena.name, Nes2NetArena.expected_sample_rate, Nes2NetArena.batch_size) == ("Nes2Net", 16_000, 16)
    model = Nes2NetArena()  # as the Arena's command makes it
    assert model.model == DEMO_MODEL and model._network is None  # nothing heavy before load()
    model.load()
    samples = Path(nes2net_hf.arena.__file__).parent / "samples"
    (bonafide, rate), (spoof, _) = (
        soundfile.read(samples / f"{kind}.flac", dtype="float32") for kind in ("bonafide", "spoof")
    )
    high, low = model.score_batch([bonafide, spoof], [rate, rate])
    assert high > low


def test_other_rates_are_resampled_as_files_are(
    speech: list[np.ndarray], tiny_model_dir: Path, tmp_path: Path
) -> None:
    model = Nes2NetArena(tiny_model_dir, device="cpu")
    model.load()
    rates = [8_000, 44_100, 48_000, 16_000]
    audios = [soxr.resample(speech[0], 16_000, rate).astype(np.float32) for rate in rates]
    scores = model.score_batch(audios, np.array(rates))
    lines = ["path,label"]
    for rate, audio in zip(rates, audios, strict=True):
        soundfile.write(tmp_path / f"{rate}.wav", audio, rate, subtype="FLOAT")
        lines.append(f"{rate}.wav,real")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    ours = scored(tiny_model_dir, tmp_path / "scores.txt", corpus="own-data", root=str(tmp_path / "data.csv"))
    assert scores == pytest.approx(list(ours.values()), abs=1e-4)
    assert scores[1:3] == pytest.approx([scores[3]] * 2, abs=0.02)  # it is the same speech
    assert model.score_batch([audios[1]], [16_000])[0] != pytest.approx(scores[3], abs=0.02)  # a wrong rate is heard


@pytest.mark.parametrize(
    ("audio", "rate", "sentence"),
    [
        (np.zeros(0, np.float32), 16_000, r"audios\[1\] is empty"),
        (np.zeros(16_000, np.float32), 16_000, r"audios\[1\] is silent"),
        (np.full(16_000, np.nan, np.float32), 16_000, r"audios\[1\] has NaN or infinite samples, the first at 0.00"),
        (np.full(300, 0.5, np.float32), 16_000, r"audios\[1\] is too short: it lasts 18.8 ms"),
        (
            np.full(16_000, 0.5, np.float32),
            0,
            r"audios\[1\] is sampled at 0 Hz, outside the supported 8000 to 192000 Hz",
        ),
        (np.full((2, 2, 900), 0.5, np.float32), 16_000, r"audios\[1\] has shape \(2, 2, 900\)"),
        (np.full(16_000, "x"), 16_000, r"audios\[1\] is <U1: convert it to float32"),
    ],
)
def test_bad_audio_is_refused_with_a_sentence(
    audio: np.ndarray, rate: int, sentence: str, speech: list[np.ndarray], tiny_model_dir: Path
) -> None:
    model = Nes2NetArena(tiny_model_dir, device="cpu")
    model.load()
    with pytest.raises(AudioError, match=rf"^{sentence}"):
        model.score_batch([speech[0], audio], [16_000, rate])
    assert len(model.score_batch([speech[0]], [16_000])) == 1  # the runner tries them one by one then


def test_wrong_calls_and_wrong_models_are_refused_with_a_sentence(tiny_model_dir: Path, tmp_path: Path) -> None:
    from nes2net_hf import Nes2NetForAudioFrameClassification

    model = Nes2NetArena(tiny_model_dir, device="cpu")
    with pytest.raises(ModelError, match=r"not loaded: call load\(\)"):
        model.score_batch([np.ones(16_000, np.float32)], [16_000])
    model.load()
    for audios, srs in (([], []), ([np.ones(16_000, np.float32)], [])):
        with pytest.raises(AudioError, match=rf"the same length and not be empty, got {len(audios)} and 0\.$"):
            model.score_batch(audios, srs)
    model.unload()
    with pytest.raises(ModelError, match=r"not loaded: call load\(\)"):
        model.score_batch([np.ones(16_000, np.float32)], [16_000])
    with pytest.raises(ModelError, match="does not exist"):
        Nes2NetArena(tmp_path / "nowhere").load()
    Nes2NetForAudioFrameClassification(tiny_config()).save_pretrained(tmp_path / "frames")
    Nes2NetFeatureExtractor().save_pretrained(tmp_path / "frames")
    with pytest.raises(ModelError, match="judges frames, but the Arena needs utterance scores"):
        Nes2NetArena(tmp_path / "frames", device="cpu").load()


class Interface(abc.ABC):
    """Stands in for the class of the Arena's package."""

    name = "unnamed"
    expected_sample_rate = 16_000
    batch_size = 1

    @abc.abstractmethod
    def load(self) -> None: ...

    @abc.abstractmethod
    def score_batch(self, audios: list[np.ndarray], srs: list[int]) -> list[float]: ...


@pytest.fixture(params=["its module model", "its top"])
def with_package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """The adapter's class, defined where `speech_spoof_bench` is installed."""
    package = ModuleType("speech_spoof_bench")
    place = package
    if request.param == "its module model":
        package.__path__ = []  # type: ignore[attr-defined]
        place = ModuleType("speech_spoof_bench.model")
        monkeypatch.setitem(sys.modules, place.__name__, place)
    place.AntiSpoofingModel = Interface  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    yield importlib.reload(nes2net_hf.arena).Nes2NetArena
    monkeypatch.undo()
    importlib.reload(nes2net_hf.arena)


def test_with_its_package_it_is_one_of_its_models(
    with_package: type, speech: list[np.ndarray], tiny_model_dir: Path
) -> None:
    assert issubclass(with_package, Interface) and not issubclass(Nes2NetArena, Interface)

    class Mine(with_package):  # type: ignore[misc, valid-type]
        name = "my-nes2net"

        def __init__(self) -> None:
            super().__init__(tiny_model_dir, device="cpu")

    model, alone = Mine(), Nes2NetArena(tiny_model_dir, device="cpu")
    for each in (model, alone):
        each.load()
    assert model.score_batch(speech[:2], [16_000] * 2) == alone.score_batch(speech[:2], [16_000] * 2)
    assert (model.name, model.batch_size, with_package.name) == ("my-nes2net", 16, "Nes2Net")


def test_the_dataset_has_the_arenas_form(dataset: Path, corpus: Path) -> None:
    [shard] = dataset.glob("data/*")
    assert shard.name == "test-00000-of-00001.parquet"
    said = load_dataset("parquet", data_files=str(shard), split="train", streaming=True).features
    assert list(said) == ["path", "audio", "label", "notes"]
    assert said["audio"] == Audio(sampling_rate=16_000) and said["label"] == ClassLabel(names=["bonafide", "spoof"])
    rows = rows_of(dataset)
    assert len({row["path"] for row in rows}) == len(rows) == 12
    before = {row["utterance_id"]: row for row in load_corpus("own-data", root=corpus / "manifest.csv")}
    for row in rows:
        notes = json.loads(row["notes"])
        source = before[notes["utterance_id"]]
        assert row["label"] == (BONAFIDE if "bonafide" in notes["utterance_id"] else SPOOF) == 1 - source["label"]
        path = Path(source["audio"]["path"])
        assert row["audio"] == {"bytes": path.read_bytes(), "path": path.name} and row["path"] == path.name
        known = {"utterance_id": path.stem, "speaker_id": source["speaker_id"], "source": "test", "partition": "dev"}
        assert notes == known | ({} if row["label"] == BONAFIDE else {"attack": "reversal"})
    content = yaml.safe_load((dataset / "eval.yaml").read_text())
    assert content["name"] == "HalfSeconds_DEV" and "12 utterances, 6 bona fide and 6 spoof" in content["description"]
    [task] = content["tasks"]
    assert (task["split"], task["metrics"]) == ("test", ["eer_percent"])
    assert task["field_spec"] == {"input": "audio", "target": "label"}
    card = yaml.safe_load((dataset / "README.md").read_text().split("---")[1])
    asked = ["license", "language", "pretty_name", "task_categories", "size_categories", "configs", "tags", "arxiv"]
    assert card.keys() >= set(asked) and "arena-ready" in card["tags"]
    [config] = card["configs"]
    assert config["data_files"] == [{"split": "test", "path": "data/test-*.parquet"}]


@pytest.mark.parametrize("streaming", [False, True])
def test_our_reader_maps_its_labels_by_name(streaming: bool, dataset: Path) -> None:
    columns = {"utterance_id": "path"}
    rows = list(load_corpus("dataset", "test", root=dataset, columns=columns, streaming=streaming))
    assert len(rows) == 12
    for row in rows:
        assert row["label"] == (1 if "bonafide" in row["utterance_id"] else 0)
        assert row["audio"]["bytes"].startswith(b"fLaC")
    where = {"label": "bonafide"}
    kept = list(load_corpus("dataset", "test", root=dataset, columns=columns, streaming=streaming, where=where))
    assert len(kept) == 6 and all("bonafide" in row["utterance_id"] for row in kept)


def test_recordings_keep_their_bytes_and_there_and_back_is_the_same(voices: Path, tmp_path: Path) -> None:
    shard_corpus("own-data", tmp_path / "there", root=str(voices), split="eval", form="arena")
    rows = rows_of(tmp_path / "there")
    assert {row["path"].rsplit(".")[-1] for row in rows} == {"flac", "wav"}
    for row in rows:
        assert row["audio"]["bytes"] == (voices.parent / "audio" / row["path"]).read_bytes()
        assert json.loads(row["notes"])["speaker_id"] == "sprecher-ä"
    shard_corpus("dataset", tmp_path / "back", root=str(tmp_path / "there"), split="test")
    back = load_corpus("dataset", root=tmp_path / "back")
    before = load_corpus("own-data", root=voices, where={"partition": "eval"})
    assert back["label"] == before["label"]
    assert [row["bytes"] for row in back["audio"]] == [Path(row["path"]).read_bytes() for row in before["audio"]]
    shard_corpus("dataset", tmp_path / "flac", root=str(tmp_path / "there"), split="test", form="arena", flac=True)
    assert all(row["path"].endswith(".flac") for row in rows_of(tmp_path / "flac"))


def test_segment_labels_go_into_the_notes() -> None:
    from nes2net_hf.corpora.schema import make_row
    from nes2net_hf.corpora.shards.arena import to_arena

    row = make_row("CON_1", "spoof") | {"audio": {"bytes": b"", "path": "CON_1.wav"}}
    assert to_arena(row)["notes"] == '{"utterance_id": "CON_1"}'
    segments = {"10ms": [1, 0]}
    assert json.loads(to_arena(row | {"segment_labels": segments})["notes"])["segment_labels"] == segments
    nameless = to_arena(row | {"utterance_id": "utt.1", "audio": {"bytes": b"", "path": "utt.1"}})
    assert nameless["path"] == "utt.1"


@pytest.mark.slow
def test_a_kill_in_the_middle_costs_nothing_but_time(corpus: Path, tmp_path: Path) -> None:
    manifest = str(corpus / "manifest.csv")
    options: dict[str, Any] = {"split": "train", "form": "arena", "shard_bytes": 40_000}
    written = shard_corpus("own-data", tmp_path / "at once" / "Set", root=manifest, **options)
    assert len(written) == 4
    out = tmp_path / "killed" / "Set"
    code = (
        "import os, signal, sys; from pathlib import Path; from nes2net_hf.corpora.shards.write import shard_corpus\n"
        "done = 0\n"
        "def progress(rows):\n"
        "    global done; done += rows\n"
        "    if done > 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"shard_corpus('own-data', Path(sys.argv[1]), root=sys.argv[2], progress=progress, **{options!r})"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", code, str(out), manifest], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in out.glob("data/*.parquet")}
    assert 0 < len(finished) < len(written) and not (out / "eval.yaml").exists()
    shard_corpus("own-data", out, root=manifest, **options)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # not made again
    whole, again = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "at once" / "Set", out)
    )
    assert again == whole


def test_what_was_filled_in_stays_and_forms_are_not_mixed(voices: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard_corpus("own-data", out, root=str(voices), split="eval", form="arena")
    for name in ("README.md", "eval.yaml"):
        (out / name).write_text((out / name).read_text().replace("license: unknown", "license: mit") + "\n# mine\n")
    filled = {name: (out / name).read_text() for name in ("README.md", "eval.yaml")}
    shard_corpus("own-data", out, root=str(voices), split="eval", form="arena")
    assert {name: (out / name).read_text() for name in filled} == filled
    with pytest.raises(OutputError, match=r'form: .* began with "arena", not "nes2net"'):
        shard_corpus("own-data", out, root=str(voices), split="eval")
    with pytest.raises(OutputError, match="other files or options of test: remove it, or name another folder"):
        shard_corpus("own-data", out, root=str(voices), split="dev", form="arena")
    with pytest.raises(CorpusError, match="form must be one of nes2net, arena, got 'theirs'"):
        shard_corpus("own-data", out, root=str(voices), form="theirs")


def test_a_partition_of_own_data_can_be_chosen_in_our_form_too(voices: Path, tmp_path: Path) -> None:
    [shard] = shard_corpus("own-data", tmp_path / "out", root=str(voices), split="dev")
    assert shard.name == "dev-00000-of-00001.parquet" and pq.read_metadata(shard).num_rows == 1
    [again] = shard_corpus("own-data", tmp_path / "again", root=str(tmp_path / "out"), split="dev", form="arena")
    assert [row["path"] for row in rows_of(tmp_path / "again")] == ["v0.flac"] and again.name.startswith("test-")
    with pytest.raises(CorpusError, match="no utterance of own-data is left"):
        shard_corpus("own-data", tmp_path / "none", root=str(voices), split="test")


def test_the_command_says_what_the_arena_cannot_take(voices: Path, tmp_path: Path, nes2net: Any) -> None:
    command = ("corpus", "shard", "own-data", "--out", tmp_path / "out", "--form", "arena", "--root")
    several = nes2net(*command, voices)
    assert several.code == 2
    assert (
        several.err
        == "Error: --split: the Arena's form has one split, but own-data has dev, eval: choose one of them.\n"
    )
    spaced = voices.parent / "spaced.csv"
    spaced.write_text("path,label,utterance_id\naudio/v0.flac,real,utt 0\n")
    refused = nes2net(*command, spaced)
    assert refused.code == 2 and "utterance_id 'utt 0' is empty or contains white space" in refused.err
    twice = load_corpus("own-data", root=voices).rename_column("partition", "set")
    twice.to_parquet(tmp_path / "theirs/data/train-00000-of-00001.parquet")
    refused = nes2net(
        "corpus", "shard", "dataset", "--out", tmp_path / "out", "--form", "arena", "--root", tmp_path / "theirs",
        "--split", "train", "--column", "utterance_id=speaker_id",
    )  # fmt: skip
    assert refused.code == 2 and "utterance_id 'sprecher-ä' occurs twice" in refused.err
