"""Official checkpoints as models: converted once, found again, and refused where the file does not say enough."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nes2net_hf import Nes2NetForAudioClassification
from nes2net_hf.conversion import convert
from nes2net_hf.errors import ModelError
from nes2net_hf.pretrained import cache
from nes2net_hf.pretrained.cache import check_model, entries, find, locate
from nes2net_hf.pretrained.published import published, recognised
from nes2net_hf.samples import BONAFIDE
from nes2net_hf.trainer.model import build_model
from nes2net_hf.trainer.recipe import RecipeError, load_recipe
from tests.helpers import FIXTURES, ROOT, at
from tests.loopback_hub import Fault, LoopbackHub, Repo

GOLDEN = FIXTURES / "checkpoints" / "e2e_xlsr_nes2netx_mean.pth"
PUBLISHED = published()["asv21-df"]
REPO, FILE = str(PUBLISHED.source).split(":")


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    """The configuration of the golden checkpoint's encoder, which is smaller than the published one."""
    options = json.loads(GOLDEN.with_suffix(".json").read_text(encoding="utf-8"))
    (tmp_path / "encoder.json").write_text(json.dumps(options["hf_config"]), encoding="utf-8")
    return f"encoder_config={tmp_path / 'encoder.json'}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def place(*_: str) -> Path:
        (tmp_path / "cache").mkdir(exist_ok=True)
        return tmp_path / "cache"

    monkeypatch.setattr(cache, "cached_assets_path", place)


def test_a_file_is_converted_once_and_scores_as_its_folder(
    encoder: str, tmp_path: Path, nes2net: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{GOLDEN}:dilation=2,{encoder}"
    first = nes2net("detect", "--model", name, "--format", "jsonl", BONAFIDE)
    assert first.code == 0 and json.loads(first.out)["model"] == name
    assert "was converted once" in caplog.text and "Nes2Net on fairseq's XLS-R" in caplog.text
    assert "--" not in caplog.text.split("\n", 1)[1]  # the options of another command
    caplog.clear()
    convert(GOLDEN, tmp_path / "folder", dilation=2, encoder_config=encoder.split("=")[1])
    folder = nes2net("detect", "--model", tmp_path / "folder", "--format", "jsonl", BONAFIDE)
    again = nes2net("detect", "--model", name, "--format", "jsonl", BONAFIDE)
    assert again.out == first.out and "converted" not in caplog.text
    assert json.loads(folder.out)["windows"] == json.loads(first.out)["windows"]
    [entry] = entries()
    assert (entry.source, entry.commit, entry.stated["dilation"]) == (str(GOLDEN), None, 2)
    assert find(name) == (str(entry.folder), None) and nes2net("info", name).code == 0
    other = locate(f"{GOLDEN}:dilation=1,activation=selu,{encoder}")[0]  # other values, another entry
    config = json.loads(Path(other, "config.json").read_text(encoding="utf-8"))
    assert (config["dilation"], config["hidden_act"], len(entries())) == (1, "selu", 2)
    listed = nes2net("cache")
    assert listed.code == 0 and listed.out.count(str(GOLDEN)) == 2 and str(other) in listed.out
    assert nes2net("cache", Path(other).name, "--clear").code == 0 and entries() == [entry]
    assert nes2net("cache", "nothing").code == 2
    assert nes2net("cache", "--clear").code == 0 and entries() == []
    assert nes2net("cache").out == "The cache is empty.\n" and find(name) == (name, None)


def test_training_starts_from_a_checkpoint(encoder: str, tmp_path: Path) -> None:
    name = f"{GOLDEN}:dilation=2,{encoder}"
    recipe = load_recipe(ROOT / "training/configs/own_data.yaml", [f"model.pretrained={name}", f"output={tmp_path}"])
    trained, kept = build_model(recipe), Nes2NetForAudioClassification.from_pretrained(locate(name)[0])
    assert trained.config.dilation == 2 and len(entries()) == 1
    weights = trained.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in kept.state_dict().items())
    with pytest.raises(
        RecipeError, match=r"model\.pretrained: gone\.pth cannot be loaded: checkpoint gone\.pth does not"
    ):
        build_model(load_recipe(ROOT / "training/configs/own_data.yaml", ["model.pretrained=gone.pth"]))


def test_what_is_half_written_or_damaged_is_no_entry(encoder: str, tmp_path: Path) -> None:
    name = f"{GOLDEN}:dilation=2,{encoder}"
    folder = Path(locate(name)[0])
    shutil.copytree(folder, folder.with_name(f".{folder.name}.part"))
    assert len(entries()) == 1
    (folder / cache.NOTE).write_text("{}")
    assert entries() == [] and Path(locate(name)[0]) == folder and len(entries()) == 1


def test_a_changed_file_is_converted_again(encoder: str, tmp_path: Path) -> None:
    tensors = torch.load(GOLDEN, weights_only=True)
    path = tmp_path / "best.pth"
    torch.save(tensors, path)
    name = f"{path}:dilation=2,{encoder}"
    places = [locate(name)[0]]
    tensors["Nested_Res2Net_TDNN.fc.bias"] += 1
    torch.save(tensors, path)
    places.append(locate(name)[0])
    assert places[0] != places[1] and len(entries()) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{GOLDEN}", "state it, as in {name}:dilation=2"),
        (f"{GOLDEN}:dilation=0", "'dilation=0' must be dilation=N"),
        (f"{GOLDEN}:dilation=2,activation=gelu", "'activation=gelu' must be"),
        (f"{GOLDEN}:dilation=2,encoder_config=nowhere", "encoder configuration nowhere does not exist"),
        (f"{GOLDEN}:dilation=2", "name the checkpoint's own configuration with encoder_config=…"),
        ("nowhere.pth", "checkpoint nowhere.pth does not exist"),
        ("org/repo:notes.txt", "must be a file that ends in .pth"),
        (f"{BONAFIDE}", "is a file: name a folder"),
        ("ctrsvdd-sea", "download it from https://drive.google.com/"),
        ("nowhere:dilation=2", "must be a file that ends in .pth"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_a_sentence(name: str, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        locate(name)
    assert words.format(name=name) in str(caught.value) and "\n" not in str(caught.value) and not entries()


def test_values_that_nothing_shows_are_never_assumed(encoder: str, tmp_path: Path) -> None:
    """Batch norms that were never trained do not show the activation; a bare encoder is no detector."""
    tensors = torch.load(GOLDEN, weights_only=True)
    for key, tensor in tensors.items():
        if key.endswith("running_mean"):
            tensor.zero_()
    torch.save(tensors, tmp_path / "fresh.pth")
    with pytest.raises(ModelError, match=r"state it, as in .*fresh.pth:dilation=2,activation=relu"):
        locate(f"{tmp_path / 'fresh.pth'}:dilation=2,{encoder}")
    locate(f"{tmp_path / 'fresh.pth'}:dilation=2,activation=relu,{encoder}")
    front = "ssl_model.model."
    bare = {key.removeprefix(front): tensor for key, tensor in tensors.items() if key.startswith(front)}
    torch.save(bare, tmp_path / "bare.pth")
    with pytest.raises(ModelError, match="is a bare encoder"):
        locate(f"{tmp_path / 'bare.pth'}:dilation=2,{encoder}")
    assert [entry.source for entry in entries()] == [str(tmp_path / "fresh.pth")]


def test_published_files_are_recognised_by_place_or_name(encoder: str, tmp_path: Path) -> None:
    assert recognised(f"{REPO}:{FILE}") is PUBLISHED and recognised(f"downloads/{FILE}") is PUBLISHED
    assert recognised(f"someone/else:{FILE}") is None and recognised("best.pth") is None
    path = tmp_path / FILE
    path.write_bytes(GOLDEN.read_bytes())
    config = json.loads(Path(locate(f"{path}:{encoder}")[0], "config.json").read_text(encoding="utf-8"))
    assert (config["dilation"], config["hidden_act"]) == (PUBLISHED.dilation, PUBLISHED.activation)
    stated = locate(f"{path}:dilation=1,{encoder}")[0]  # what is said counts
    assert json.loads(Path(stated, "config.json").read_text(encoding="utf-8"))["dilation"] == 1


def test_the_table_of_published_checkpoints(nes2net: Any) -> None:
    listed = nes2net("models")
    assert listed.code == 0 and max(map(len, listed.out.splitlines())) <= 80
    for name, one in published().items():
        assert f"\n{name}\n" in f"\n{listed.out}" and (one.source or one.page) in listed.out
        with nullcontext() if one.source else pytest.raises(ModelError, match="download it from"):
            check_model(name)
    assert "ready to use" not in listed.out


def test_another_process_that_converts_is_waited_for(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second finds what the first has made, and does not convert again."""
    from threading import Thread

    from nes2net_hf.conversion import converting

    calls = []
    prepare = converting.prepare
    monkeypatch.setattr(converting, "prepare", lambda *given: calls.append(given) or prepare(*given))
    found: list[str] = []
    name = f"{GOLDEN}:dilation=2,{encoder}"
    threads = [Thread(target=lambda: found.append(locate(name)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and len(set(found)) == 1 and len(calls) == 1


# --- the Hub


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.repos[REPO] = Repo(private=False)
        hub.repos[REPO].commit("main", {FILE: GOLDEN.read_bytes()})
        yield hub


def judge(hub: LoopbackHub, scratch: Path, *options: str, encoder: str) -> subprocess.CompletedProcess[str]:
    name = f"{REPO}:{FILE}:{encoder}"
    return at(hub, scratch, "-m", "nes2net_cli", "detect", "--model", name, *options, str(BONAFIDE))


@pytest.mark.slow
def test_one_line_downloads_converts_and_judges(hub: LoopbackHub, encoder: str, tmp_path: Path) -> None:
    first = judge(hub, tmp_path, encoder=encoder)
    assert first.returncode == 0 and "was converted once" in first.stderr and "published asv21-df" in first.stderr
    [line] = first.stdout.splitlines()
    assert json.loads(line)["error"] is None
    # Again: nothing is downloaded or converted.
    hub.calls.clear()
    again = judge(hub, tmp_path, encoder=encoder)
    assert again.stdout == first.stdout and "converted" not in again.stderr
    assert {method for method, _ in hub.calls} == {"HEAD"}
    # Another commit is another model, and the old one is still there.
    old = hub.repos[REPO].names["main"]
    tensors = torch.load(GOLDEN, weights_only=True)
    tensors["Nested_Res2Net_TDNN.fc.bias"] += torch.tensor([0.0, 1.0])
    torch.save(tensors, tmp_path / "new.pth")
    hub.repos[REPO].commit("main", {FILE: (tmp_path / "new.pth").read_bytes()})
    moved = judge(hub, tmp_path, encoder=encoder)
    assert moved.returncode == 0 and "was converted once" in moved.stderr
    difference = json.loads(moved.stdout)["score"] - json.loads(first.stdout)["score"]
    assert np.isclose(difference, 1, atol=1e-4)
    pinned = judge(hub, tmp_path, "--revision", old, encoder=encoder)
    assert json.loads(pinned.stdout)["score"] == json.loads(first.stdout)["score"] and "once" not in pinned.stderr
    # Another commit with the same file is the same model.
    hub.repos[REPO].commit("main", {FILE: (tmp_path / "new.pth").read_bytes(), "README.md": b"new"})
    hub.calls.clear()
    same = judge(hub, tmp_path, encoder=encoder)
    assert same.stdout == moved.stdout and {method for method, _ in hub.calls} == {"HEAD"}
    # Without a network, the newest that was called main.
    (tmp_path / "hf/hub").rename(tmp_path / "gone")
    offline = LoopbackHub()  # never answers
    offline.endpoint = "http://127.0.0.1:9"
    alone = judge(offline, tmp_path, encoder=encoder)
    assert alone.stdout == moved.stdout, alone.stderr
    missing = judge(hub, tmp_path, "--revision", "nope", encoder=encoder)
    assert missing.returncode == 2 and "no such revision" in missing.stderr
    del hub.repos[REPO]
    gone = judge(hub, tmp_path, encoder=encoder)
    assert gone.returncode == 2 and "could not be downloaded" in gone.stderr and not gone.stdout


@pytest.mark.slow
def test_a_broken_download_is_a_sentence_and_the_next_one_goes_on(
    hub: LoopbackHub, encoder: str, tmp_path: Path
) -> None:
    hub.faults.append(Fault("resolve", drop_at=0, methods=("GET",)))
    broken = judge(hub, tmp_path, encoder=encoder)
    assert broken.returncode == 2 and "could not be downloaded" in broken.stderr and not broken.stdout
    hub.faults.clear()
    whole = judge(hub, tmp_path, encoder=encoder)
    assert whole.returncode == 0, whole.stderr
    wrong = bytearray(GOLDEN.read_bytes())
    wrong[400_000] ^= 1
    hub.repos[REPO].commit("other", {FILE: GOLDEN.read_bytes() + b"longer"})
    hub.faults.append(Fault("resolve", content=bytes(wrong), methods=("GET",)))
    damaged = judge(hub, tmp_path, "--revision", "other", encoder=encoder)
    assert damaged.returncode == 2 and "Traceback" not in damaged.stderr and not damaged.stdout


@pytest.mark.slow
def test_two_processes_share_one_conversion(hub: LoopbackHub, encoder: str, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: judge(hub, tmp_path, encoder=encoder), range(2)))
    assert [answer.returncode for answer in answers] == [0, 0] and answers[0].stdout == answers[1].stdout
    assert sorted("was converted once" in answer.stderr for answer in answers) == [False, True]
