"""Precisions: the fastest is found by measurement, int8 keeps verdicts, and results name the precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nes2net_hf.audio import read_audio
from nes2net_hf.detection import Detector, advice
from nes2net_hf.errors import ModelError
from nes2net_hf.pretrained import precision
from nes2net_hf.pretrained.int8 import Int8Linear
from nes2net_hf.pretrained.load import DEMO_MODEL, load_model
from nes2net_hf.samples import BONAFIDE, SPOOF

CPU = torch.device("cpu")


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Sets what a measurement finds; a cache of its own, and nothing measured yet."""
    monkeypatch.setattr(precision.constants, "HF_HOME", str(tmp_path / "cache"))
    precision.speeds.cache_clear()

    def set_them(**values: float) -> None:
        precision.speeds.cache_clear()
        found = {"float32": 1.0, "bfloat16": 0.1, "float16": 0.1, "int8": 0.5} | values
        monkeypatch.setattr(precision, "_measure", lambda: found)

    yield set_them
    precision.speeds.cache_clear()


def test_auto_takes_what_is_clearly_the_fastest(speeds: Any) -> None:
    for found, chosen in (
        ({"bfloat16": 2.4}, "bfloat16"),
        ({"bfloat16": 1.9, "int8": 2.5}, "int8"),
        ({"float16": 1.15}, "float32"),  # not worth other scores
        ({}, "float32"),
    ):
        speeds(**found)
        precision.speeds.cache_clear()
        (Path(precision.constants.HF_HOME) / "nes2net_hf" / "speeds.json").unlink(missing_ok=True)
        assert precision.settle_dtype("auto", CPU) == chosen
        assert precision.settle_dtype("bfloat16", CPU) == "bfloat16"


def test_the_measurement_is_kept(speeds: Any) -> None:
    speeds(int8=3.0)
    assert precision.speeds()["int8"] == 3.0
    speeds(int8=2.0)
    assert precision.speeds()["int8"] == 3.0
    file = Path(precision.constants.HF_HOME) / "nes2net_hf" / "speeds.json"
    [[key, _]] = json.loads(file.read_text()).items()
    assert precision.processor() in key and torch.__version__ in key
    for broken in ("{", "[]", '{"x": 1}', json.dumps({key: {"float32": "fast"}})):
        file.write_text(broken)
        precision.speeds.cache_clear()
        assert precision.speeds()["int8"] == 2.0


def test_the_measurement_finds_the_speed_of_this_machine() -> None:
    measured = precision._measure()
    assert measured.keys() == set(precision.DTYPES) and measured["float32"] == 1 and min(measured.values()) > 0


def test_a_slow_precision_is_used_with_a_warning(speeds: Any, caplog: pytest.LogCaptureFixture) -> None:
    speeds(bfloat16=0.125)
    load_model(DEMO_MODEL, None, CPU, "bfloat16")
    assert caplog.messages == ["bfloat16 takes 8 times as long as float32 on this CPU: choose float32 or auto"]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ModelError, match="int8 runs on a CPU"):
        precision.settle_dtype("int8", torch.device("cuda"))
    with pytest.raises(ModelError, match="dtype must be one of float32, bfloat16, float16, int8, auto, got 'int4'"):
        precision.settle_dtype("int4", CPU)


def test_an_int8_layer_is_close_and_its_rows_do_not_depend_on_each_other() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(128, 96), torch.randn(3, 200, 128)
    x[0, 0] *= 1_000  # a loud row must not make the others coarse
    x[1, 1] = 0
    with torch.inference_mode():
        plain, corrected = Int8Linear(linear), Int8Linear(linear)
        plain._measure(x.reshape(-1, 128))
        layer = plain.settle()
        expected, actual = linear(x), layer(x)
        assert (actual - expected)[1:].abs().max() < 0.05 and actual.shape == expected.shape
        assert torch.equal(layer(x[1:2, 5:6]), actual[1:2, 5:6])
        corrected(x)
        shift, rest = ((one.settle()(x) - expected).mean((0, 1)).abs().max() for one in (layer, corrected))
        assert rest < shift / 10


@pytest.mark.parametrize("linear", [nn.Linear(128, 96), nn.Linear(128, 96, bias=False)])
def test_large_features_do_not_make_the_others_coarse_in_int8(linear: nn.Linear) -> None:
    """As in Whisper, where a few features are ten times as large as the rest, and others have a large mean."""
    x = torch.randn(400, 128, generator=torch.Generator().manual_seed(0))
    x[:, 3] *= 30
    x[:, 7] += 50
    x[:, 9] = 0
    with torch.inference_mode():
        expected, layer = linear(x), Int8Linear(linear)
        layer(x)
        assert (layer.settle()(x) - expected).abs().max() < 0.05 * expected.std()  # 0.11 without centres and scales


def test_int8_keeps_the_scores_of_real_speech(fixture_audio_dir: Path) -> None:
    paths = sorted(fixture_audio_dir.glob("*.flac"))
    waves = torch.from_numpy(np.stack([np.resize(read_audio(path), 64_600) for path in paths]))
    exact, _ = load_model(DEMO_MODEL, None, CPU, "float32")
    network, _ = load_model(DEMO_MODEL, None, CPU, "int8")
    assert sum(isinstance(module, Int8Linear) for module in network.modules()) >= 6
    with torch.inference_mode():
        expected, actual = (model.score(model(waves).logits) for model in (exact, network))
        alone = network.score(network(waves[3:4]).logits)
    assert 0 < (actual - expected).abs().max() < 5e-2
    assert torch.allclose(alone, actual[3:4], atol=2e-6)


def test_results_name_the_precision_and_resume_keeps_to_it(nes2net: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run = nes2net("detect", BONAFIDE, "--dtype", "int8", "--output", out)
    assert run.code == 0 and json.loads(out.read_text())["dtype"] == "int8"
    run = nes2net("detect", BONAFIDE, SPOOF, "--output", out, "--resume")
    assert run.code == 2 and f'dtype: {out} began with "int8", not "float32"' in run.err
    row = json.loads(out.read_text())
    del row["dtype"]  # as 0.1.0 wrote it
    out.write_text(json.dumps(row) + "\n")
    assert nes2net("detect", BONAFIDE, SPOOF, "--output", out, "--resume").code == 0


def test_a_long_run_ends_with_the_faster_choice(
    nes2net: Any, speeds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nes2net_cli.detect as command

    monkeypatch.setattr(command, "_LONG", 0.0)
    monkeypatch.setattr(advice, "WORTH_IT", 0.0)  # the demonstration model is too small to gain
    for fastest, said in (("int8", True), ("float32", False)):
        speeds(int8=2.0 if said else 0.5)
        precision.speeds.cache_clear()
        (Path(precision.constants.HF_HOME) / "nes2net_hf" / "speeds.json").unlink(missing_ok=True)
        run = nes2net("detect", BONAFIDE, SPOOF)
        assert run.code == 0 and (f"With --dtype {fastest}, this model runs" in run.err) == said
    detector = Detector()
    assert advice.faster_choice(detector) is None  # it has judged nothing
