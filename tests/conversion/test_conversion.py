"""Official checkpoints become folders with the official scores. If they cannot, one sentence says why."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, Wav2Vec2Config, pipeline

from nes2net_hf import Detector, Nes2NetConfig, Nes2NetFeatureExtractor, Nes2NetForAudioClassification, Nes2NetModel
from nes2net_hf.configuration_nes2net import XLSR_300M
from nes2net_hf.conversion import ConversionError, convert, to_official
from nes2net_hf.conversion.converting import prepare
from nes2net_hf.conversion.reading import Checkpoint
from nes2net_hf.conversion.systems import read_encoder_config
from nes2net_hf.errors import OutputError
from nes2net_hf.pretrained.fast import speed_up
from tests.helpers import FIXTURES, tiny_model
from tests.official import close
from tests.recordings import voice

CHECKPOINTS = FIXTURES / "checkpoints"
GOLDEN = sorted(path.stem for path in CHECKPOINTS.glob("*.pth"))
XLSR, UNILM, S3PRL = "e2e_xlsr_nes2netx_mean", "e2e_wavlm_unilm_nes2netx", "e2e_wavlm_s3prl_sea_nes2net"
COMMAND = [sys.executable, "-m", "nes2net_cli", "convert"]


@pytest.fixture(scope="module")
def encoder_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function that writes the `--encoder-config` file of a golden checkpoint."""
    folder = tmp_path_factory.mktemp("encoders")

    def write(name: str) -> Path:
        options = json.loads((CHECKPOINTS / f"{name}.json").read_text(encoding="utf-8"))
        path = folder / f"{name}.json"
        path.write_text(json.dumps(options["hf_config"]), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def converted(encoder_config: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the folders of the three golden checkpoints."""
    folders = {}
    for name in GOLDEN:
        folders[name] = tmp_path_factory.mktemp("converted") / name
        convert(CHECKPOINTS / f"{name}.pth", folders[name], encoder_config=encoder_config(name))
    return folders


def state_dict(name: str = XLSR) -> dict[str, torch.Tensor]:
    return dict(torch.load(CHECKPOINTS / f"{name}.pth", weights_only=True))


def golden_inputs(name: str, wave: str) -> torch.Tensor:
    """Returns the waveform as the official front end passes it on: layer-normalised in s3prl, raw in the others."""
    waves = np.load(CHECKPOINTS / f"{name}.npz")[wave]
    extractor = Nes2NetFeatureExtractor(length_policy="whole", do_normalize=name == S3PRL)
    return extractor(list(waves), sampling_rate=16_000, return_tensors="pt")["input_values"]


@pytest.mark.parametrize("wave", ["wav", "wav1"])
@pytest.mark.parametrize("change", [lambda model: model, speed_up], ids=["plain", "sped up"])
@pytest.mark.parametrize("name", GOLDEN)
@torch.inference_mode()
def test_logits_and_features_are_the_official_ones(
    converted: dict[str, Path], name: str, change: Callable[[Any], Any], wave: str
) -> None:
    model = change(Nes2NetForAudioClassification.from_pretrained(converted[name]).eval())
    expected = np.load(CHECKPOINTS / f"{name}.npz")
    inputs = golden_inputs(name, wave)

    def official(logits: torch.Tensor) -> torch.Tensor:
        return model.score(logits).unsqueeze(-1) if model.config.classifier_outputs == 1 else logits

    close(official(model(inputs).logits), expected[f"{wave}_logits"])
    for row in range(len(inputs)):
        close(official(model(inputs[row : row + 1]).logits), expected[f"{wave}_logits"][row : row + 1])
    close(model.nes2net.encode(inputs)[0], expected[f"{wave}_ssl"])


@pytest.mark.parametrize("name", GOLDEN)
def test_a_folder_carries_its_recipe_code_and_card(converted: dict[str, Path], name: str) -> None:
    config = Nes2NetConfig.from_pretrained(converted[name])
    extractor = Nes2NetFeatureExtractor.from_pretrained(converted[name])
    one_logit = name == S3PRL
    assert config.dilation == (2 if name == XLSR else 1)
    assert config.classifier_outputs == (1 if one_logit else 2)
    assert config.score == ("log_odds" if one_logit else "bonafide_logit")
    assert config.class_weights == (None if one_logit else [0.1, 0.9])
    assert (extractor.length_policy, extractor.do_normalize) == (("whole", True) if one_logit else ("first", False))
    assert not config.encoder_config.apply_spec_augment and config.encoder_config.layerdrop == 0
    assert {path.suffix for path in converted[name].iterdir()} == {".json", ".md", ".py", ".safetensors"}
    card = (converted[name] / "README.md").read_text(encoding="utf-8")
    assert Checkpoint(CHECKPOINTS / f"{name}.pth", {}).sha256 in card
    assert "Not reproduced here" in card and "liu2025nes2net" in card and str(CHECKPOINTS) not in card
    assert "{{" not in card and "{%" not in card


def test_cards_hold_the_published_figures_of_their_family(converted: dict[str, Path]) -> None:
    card = (converted[XLSR] / "README.md").read_text(encoding="utf-8")
    assert "| eval: Nes2Net-X | 1.65 | 1.91 |" in card
    assert "| whole utterances, one at a time: Nes2Net | 5.80 | 7.06 |" in card
    assert "SELU | 2.28 | 2.69 |" in (converted[S3PRL] / "README.md").read_text(encoding="utf-8")
    assert "omitted rather than guessed" in (converted[UNILM] / "README.md").read_text(encoding="utf-8")


def test_the_pipeline_and_detection_take_the_folder(converted: dict[str, Path], speech: list[np.ndarray]) -> None:
    for name in GOLDEN:
        model = Nes2NetForAudioClassification.from_pretrained(converted[name]).eval()
        extractor = Nes2NetFeatureExtractor.from_pretrained(converted[name])
        waveform = max(speech, key=len)
        with torch.inference_mode():
            inputs = extractor(waveform, sampling_rate=16_000, return_tensors="pt")["input_values"]
            logits = model(inputs).logits[0]
        classify = pipeline("audio-classification", model=str(converted[name]))
        rows = {row["label"]: row["score"] for row in classify(waveform, function_to_apply="none")}
        assert [rows["spoof"], rows["bonafide"]] == pytest.approx(logits.tolist(), abs=1e-5)
        [result] = Detector(converted[name], device="cpu").stream((waveform[:64_000], 16_000))
        assert result.error is None and len(result.windows) == 1


def test_without_a_threshold_a_bona_fide_logit_is_labelled_by_its_log_odds(tmp_path: Path) -> None:
    model = tiny_model(score="bonafide_logit")
    with torch.no_grad():  # both logits far above zero, with spoof higher
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([9.0, 5.0]))
    model.save_pretrained(tmp_path)
    Nes2NetFeatureExtractor().save_pretrained(tmp_path)
    source = (voice(2), 16_000)
    [result] = Detector(tmp_path, device="cpu").stream(source)
    assert (result.score, result.label, result.threshold) == (5.0, "spoof", None)
    [given] = Detector(tmp_path, device="cpu", threshold=4.0).stream(source)
    assert (given.label, given.threshold) == ("bonafide", 4.0)


@pytest.mark.parametrize("form", ["model_state_dict", "state_dict", "model", "module.", ".safetensors", "legacy"])
def test_every_usual_form_of_file_is_read(
    form: str, tmp_path: Path, encoder_config: Callable[[str], Path], converted: dict[str, Path]
) -> None:
    tensors, path = state_dict(), tmp_path / "checkpoint.pth"
    if form == "module.":
        torch.save({f"module.{key}": tensor for key, tensor in tensors.items()}, path)
    elif form == ".safetensors":
        path = path.with_suffix(".safetensors")
        save_file(tensors, path)
    elif form == "legacy":
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({form: tensors, "epoch": 3}, path)
    lines: list[str] = []
    convert(path, tmp_path / "out", encoder_config=encoder_config(XLSR), report=lines.append)
    assert (tmp_path / "out/model.safetensors").read_bytes() == (converted[XLSR] / "model.safetensors").read_bytes()
    assert ("note" in [line.split()[0] for line in lines]) == (form == "legacy")


@pytest.mark.parametrize("name", sorted(path.stem for path in (FIXTURES / "official_keys").glob("*.txt")))
def test_all_eight_full_size_systems_are_recognised_and_every_key_is_used(name: str) -> None:
    tensors = {}
    for line in (FIXTURES / "official_keys" / f"{name}.txt").read_text().splitlines():
        key, shape, dtype = line.split("\t")
        tensors[key] = torch.zeros((), dtype=getattr(torch, dtype)).expand(
            json.loads(shape.strip("()").join("[]").replace(",]", "]"))
        )
    lines: list[str] = []
    made = prepare(Checkpoint(Path(name), tensors), report=lines.append)
    config = made.config
    assert config.backend_variant == ("nes2net" if name.endswith("sea_nes2net") else "nes2net_x")
    expected = {"sea": "squeeze_excitation", "ws": "weighted_sum", "attm": "attentive_merging"}
    assert config.layer_aggregation == next((value for part, value in expected.items() if f"_{part}_" in name), "last")
    assert config.pooling == ("attentive_statistics" if name.endswith("astp") else "mean")
    assert config.dilation == (2 if name.startswith("xlsr") else 1)
    assert (config.outer_scale, config.inner_scale, config.se_reduction, config.kernel_size) == (8, 8, 1, 3)
    assert len(made.tensors) + len(made.dropped) == len(tensors)
    assert len(made.dropped) == (7 if name.startswith("xlsr") else 0)
    assert any("never trained" in line for line in lines)  # the weights are zeros


def test_carried_encoder_configurations_are_those_of_the_model_file() -> None:
    xlsr = read_encoder_config("xlsr-300m")
    assert {key: xlsr[key] for key in XLSR_300M} == XLSR_300M
    default = Wav2Vec2Config()
    assert [xlsr["conv_dim"], xlsr["conv_kernel"], xlsr["conv_stride"]] == [
        list(default.conv_dim),
        list(default.conv_kernel),
        list(default.conv_stride),
    ]


def test_selu_is_told_by_negative_running_means_and_can_be_overruled(encoder_config: Callable[[str], Path]) -> None:
    tensors = state_dict()
    for key, tensor in tensors.items():
        if key.endswith("running_mean"):
            tensors[key] = tensor - 0.7
    given = {"encoder_config": encoder_config(XLSR)}
    checkpoint = Checkpoint(Path("selu.pth"), tensors)
    assert prepare(checkpoint, **given).config.hidden_act == "selu"
    lines: list[str] = []
    assert prepare(checkpoint, **given, activation="relu", report=lines.append).config.hidden_act == "relu"
    assert any("indicate selu" in line for line in lines)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_way_back_is_bit_identical(converted: dict[str, Path], name: str, tmp_path: Path) -> None:
    original = CHECKPOINTS / f"{name}.pth"
    lines: list[str] = []
    to_official(converted[name], tmp_path / "bare.pth", report=lines.append)
    to_official(converted[name], tmp_path / "whole.pth", original=original)
    theirs, bare = state_dict(name), torch.load(tmp_path / "bare.pth", weights_only=True)
    whole = torch.load(tmp_path / "whole.pth", weights_only=True)
    assert list(whole) == list(theirs)
    for key, tensor in theirs.items():
        assert whole[key].dtype == tensor.dtype and torch.equal(whole[key], tensor)
        assert key not in bare or (bare[key].dtype == tensor.dtype and torch.equal(bare[key], tensor))
    absent = set(theirs) - set(bare)
    assert len(absent) == (7 if name == XLSR else 0)
    assert any(line.startswith("absent") for line in lines) == bool(absent)


def test_the_way_back_refuses_what_has_no_official_form(converted: dict[str, Path], tmp_path: Path) -> None:
    tiny_model("hubert").save_pretrained(tmp_path / "hubert")
    with pytest.raises(ConversionError, match="hubert encoder"):
        to_official(tmp_path / "hubert", tmp_path / "out.pth")
    with pytest.raises(ConversionError, match="is a different system"):
        to_official(converted[XLSR], tmp_path / "out.pth", original=CHECKPOINTS / f"{UNILM}.pth")
    assert not (tmp_path / "out.pth").exists()
    (tmp_path / "out.pth").write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        to_official(converted[XLSR], tmp_path / "out.pth")


@pytest.mark.parametrize("name", [XLSR, UNILM])
@torch.inference_mode()
def test_bare_encoders_become_folders_to_train_from(
    name: str, tmp_path: Path, encoder_config: Callable[[str], Path], converted: dict[str, Path]
) -> None:
    prefix = "ssl_model.model."
    tensors = {key.removeprefix(prefix): tensor for key, tensor in state_dict(name).items() if key.startswith(prefix)}
    # fairseq's own file has the weights and its settings, as argparse objects.
    torch.save(
        {"args": Namespace(arch="wav2vec2", lr=[0.1]), "cfg": None, "model": tensors}, tmp_path / "xlsr2_300m.pt"
    )
    lines: list[str] = []
    options = {"encoder_config": encoder_config(name), "report": lines.append}
    assert convert(tmp_path / "xlsr2_300m.pt", tmp_path / "encoder", **options) is None
    whole = Nes2NetModel.from_pretrained(converted[name]).eval()
    encoder = AutoModel.from_pretrained(tmp_path / "encoder").eval()
    inputs = golden_inputs(name, "wav")
    assert torch.equal(encoder(inputs).last_hidden_state, whole.encoder(inputs).last_hidden_state)
    with pytest.raises(ConversionError, match="is a bare encoder: activation, dilation and verify"):
        convert(tmp_path / "xlsr2_300m.pt", None, encoder_config=encoder_config(name), dilation=2)
    started = Nes2NetForAudioClassification.from_encoder_pretrained(
        str(tmp_path / "encoder"), outer_scale=4, inner_scale=4
    )
    assert torch.equal(started.nes2net.encoder.encoder.layer_norm.weight, encoder.encoder.layer_norm.weight)


class Malicious:
    """Writes a file when unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.victim),))


def broken_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Returns each kind of problem → the file and a part of the expected message."""
    whole = (CHECKPOINTS / f"{XLSR}.pth").read_bytes()
    files: dict[str, tuple[Path, str]] = {}

    def add(kind: str, message: str, name: str = "", content: bytes | None = None) -> Path:
        path = folder / (name or f"{kind}.pth")
        if content is not None:
            path.write_bytes(content)
        files[kind] = (path, message)
        return path

    torch.save({"model": state_dict(), "hook": Malicious(folder / "owned")}, add("malicious", "would run code"))
    add(
        "malicious-legacy",
        "would run code|no checkpoint|none at all",
        content=pickle.dumps(Malicious(folder / "owned")),
    )
    add("truncated", "copy or download it again", content=whole[: len(whole) // 2])
    add("truncated-safetensors", "truncated safetensors", "t.safetensors", _safetensors()[:20_000])
    with zipfile.ZipFile(add("zip", "zip file without a checkpoint"), "w") as file:
        file.writestr("readme.txt", "hello")
    add("text", "is a text file, not a PyTorch or safetensors checkpoint", content=b"<html>404</html>")
    add("empty", "zero bytes", content=b"")
    add("missing", "does not exist")
    torch.save([1, 2, 3], add("list", "not a state dict"))
    torch.save({"epoch": 3, "lr": 0.1}, add("no-weights", "is not a state dict: its entry 'epoch' is a int"))
    torch.save({"fc.weight": torch.zeros(2, 2)}, add("other-model", r"other-model\.pth: it has no Nes2Net back-end"))
    (folder / "folder").mkdir()
    add("folder", "is a folder", "folder")
    return files


def _safetensors() -> bytes:
    from safetensors.torch import save

    return save(state_dict())


BROKEN = ["malicious", "malicious-legacy", "truncated", "truncated-safetensors", "zip", "text", "empty", "missing"]
BROKEN += ["list", "no-weights", "other-model", "folder"]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_no_checkpoint_is_a_sentence_and_nothing_is_run_or_written(kind: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    files = broken_files(tmp_path / "in")
    assert set(files) == set(BROKEN)
    path, message = files[kind]
    with pytest.raises(ConversionError, match=message) as caught:
        convert(path, tmp_path / "out" / "model")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not (tmp_path / "in" / "owned").exists()
    assert not list((tmp_path / "out").iterdir())


def test_wrong_keys_are_listed(tmp_path: Path, encoder_config: Callable[[str], Path]) -> None:
    tensors = state_dict()
    del tensors["ssl_model.model.encoder.layers.1.fc1.bias"]
    tensors["Nested_Res2Net_TDNN.surplus"] = torch.zeros(3)
    tensors["Nested_Res2Net_TDNN.bn.bias"] = torch.zeros(5)
    torch.save(tensors, tmp_path / "wrong.pth")
    with pytest.raises(ConversionError) as caught:
        convert(tmp_path / "wrong.pth", tmp_path / "out", encoder_config=encoder_config(XLSR))
    first, *lines = str(caught.value).splitlines()
    assert "1 missing key and 1 unexpected key and 1 mis-shaped key; nothing was written." in first
    assert [line.split()[0] for line in lines] == ["missing:", "unexpected:", "mis-shaped:"]
    assert "encoder.layers.1.fc1.bias" in lines[0] and "(5,) instead of (64,)" in lines[2]
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.pth"]


def test_a_wrong_or_missing_encoder_configuration_is_named(
    tmp_path: Path, encoder_config: Callable[[str], Path]
) -> None:
    source = CHECKPOINTS / f"{XLSR}.pth"
    with pytest.raises(ConversionError, match=r"hidden_size 64, but the configuration \(XLS-R 300M's\) says 1024"):
        convert(source, None)
    with pytest.raises(ConversionError, match="conv_bias True"):
        convert(source, None, encoder_config=encoder_config(UNILM))
    wavlm = tmp_path / "wavlm.json"
    wavlm.write_text(json.dumps({"model_type": "wavlm"}))
    with pytest.raises(ConversionError, match="is of type 'wavlm', but this checkpoint needs 'wav2vec2'"):
        convert(source, None, encoder_config=wavlm)
    for content, message in (("{", "not a JSON file"), ("[]", "fields of a configuration")):
        wavlm.write_text(content)
        with pytest.raises(ConversionError, match=message):
            convert(source, None, encoder_config=wavlm)


def test_a_target_is_replaced_only_by_force_and_only_where_it_is_a_model(
    tmp_path: Path, encoder_config: Callable[[str], Path]
) -> None:
    options: dict[str, Any] = {"encoder_config": encoder_config(XLSR)}
    source, out = CHECKPOINTS / f"{XLSR}.pth", tmp_path / "out"
    convert(source, out, **options)
    (out / "note.txt").write_text("old")
    with pytest.raises(OutputError, match="--force"):
        convert(source, out, **options)
    convert(source, out, **options, force=True)
    assert not (out / "note.txt").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("")
    with pytest.raises(OutputError, match="has no model"):
        convert(source, tmp_path / "photos", **options, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_a_failing_conversion_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, encoder_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = CHECKPOINTS / f"{XLSR}.pth", tmp_path / "out"
    convert(source, out, encoder_config=encoder_config(XLSR))
    before = (out / "model.safetensors").read_bytes()

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nes2net_hf.conversion.converting.write_card", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(source, out, encoder_config=encoder_config(XLSR), force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "model.safetensors").read_bytes() == before


def test_a_file_on_the_hub_is_downloaded_when_named(
    tmp_path: Path, encoder_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def download(repo: str, file: str, revision: str | None) -> str:
        asked.append((repo, file, revision))
        return str(CHECKPOINTS / f"{XLSR}.pth")

    monkeypatch.setattr("nes2net_hf.conversion.download.hf_hub_download", download)
    options: dict[str, Any] = {"encoder_config": encoder_config(XLSR), "revision": "v1"}
    convert("org/nes2net:sub/best.pth", tmp_path / "out", **options)
    assert asked == [("org/nes2net", "sub/best.pth", "v1")]
    assert "`org/nes2net:sub/best.pth` on the Hub" in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    monkeypatch.undo()
    with pytest.raises(ConversionError, match=r"could not be downloaded: (offline mode|the Hub cannot be reached)"):
        convert("org/nes2net:best.pth", None)
    with pytest.raises(ConversionError, match="--revision is only for a file on the Hub"):
        convert(CHECKPOINTS / f"{XLSR}.pth", None, revision="v1")


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.slow
def test_the_command_converts_verifies_and_goes_back(
    tmp_path: Path, encoder_config: Callable[[str], Path], fixture_audio_dir: Path
) -> None:
    source, audio = CHECKPOINTS / f"{UNILM}.pth", next(fixture_audio_dir.glob("*.flac"))
    done = run(source, tmp_path / "out", "--encoder-config", encoder_config(UNILM), "--verify", audio)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "system", "encoder", "back-end", "head", "input", "assumed", "assumed", "verified", "written"
    ]  # fmt: skip
    back = run("--to-official", tmp_path / "out", tmp_path / "back.pth")
    assert back.returncode == 0 and (tmp_path / "back.pth").is_file()


def test_the_command_says_what_is_wrong_in_a_sentence(
    tmp_path: Path, encoder_config: Callable[[str], Path], nes2net: Any
) -> None:
    source = CHECKPOINTS / f"{XLSR}.pth"
    for arguments, code, message in (
        ((source,), 2, "OUT is missing"),
        ((source, tmp_path / "o", "--from", source), 2, "--from needs --to-official"),
        ((source, tmp_path / "o", "--activation", "gelu"), 2, "gelu"),
        ((source, tmp_path / "o"), 1, "--encoder-config"),
        ((source, tmp_path / "no" / "o", "--encoder-config", encoder_config(XLSR)), 2, "folder"),
    ):
        done = nes2net("convert", *arguments)
        assert done.code == code and message in " ".join(done.err.split())
    dry = nes2net("convert", source, "--dry-run", "--encoder-config", encoder_config(XLSR))
    assert dry.code == 0 and dry.out.splitlines()[-1] == "nothing was written (dry run)"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_folder_that_gives_other_logits_does_not_verify(
    tmp_path: Path, encoder_config: Callable[[str], Path], fixture_audio_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nes2net_hf.conversion.converting import write

    def spoilt(converted: Any, folder: Path, source: Any) -> None:
        write(converted, folder, source)
        other = tmp_path / "other"
        converted.model().save_pretrained(other)
        model = Nes2NetForAudioClassification.from_pretrained(other)
        model.classifier.bias.data += 0.5
        model.save_pretrained(folder)
        shutil.rmtree(other)

    monkeypatch.setattr("nes2net_hf.conversion.converting.write", spoilt)
    audio = next(fixture_audio_dir.glob("*.flac"))
    with pytest.raises(ConversionError, match="the written folder gives the logits"):
        convert(CHECKPOINTS / f"{XLSR}.pth", tmp_path / "out", encoder_config=encoder_config(XLSR), verify=audio)
    assert not list(tmp_path.iterdir())
