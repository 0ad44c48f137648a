"""`nes2net layers`: what each layer separates, for held-out speakers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from nes2net_hf.evaluation.layers import _eer, _halves
from tests.helpers import saved, tiny_encoder_config, tiny_model

pytest.importorskip("datasets")


def test_a_probe_finds_what_a_layer_separates_and_nothing_in_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    noise = torch.randn(400, 16, generator=generator)
    shifted = noise + 3 * labels[:, None]
    first = torch.arange(400) % 4 < 2
    assert _eer(shifted, labels, first) < 0.01
    assert 0.35 < _eer(noise, labels, first) < 0.65


def test_halves_are_of_speakers_where_both_hold_both_classes() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    first, by = _halves(labels, ["a", "a", "b", "b", "c", "c"])
    assert by == "speaker" and first.tolist() == [True, True, False, False, True, True]
    for speakers in (["a", "b", "a", "b", "a", "b"], [None, "a", "b", "c", "d", "e"]):
        first, by = _halves(labels, speakers)  # type: ignore[arg-type]
        assert by == "utterance" and labels[first].tolist() == [0, 1, 0, 1]


def test_the_command_tells_layers_and_weights(nes2net: Any, corpus: Path, tmp_path: Path) -> None:
    options = ("--corpus", "own-data", "--root", corpus / "manifest.csv")
    network = tiny_model(layer_aggregation="weighted_sum", encoder_layers=[0, 2])
    with torch.no_grad():
        network.nes2net.aggregation.layer_weights.copy_(torch.tensor([0.0, np.log(3)]))
    model = saved(network, tmp_path / "model", window_length=8_000)
    [said] = nes2net("layers", model, *options, "--json").rows
    assert [layer["number"] for layer in said["layers"]] == [0, 1, 2] and said["halves_by"] == "speaker"
    assert [layer["weight"] for layer in said["layers"]] == [pytest.approx(0.25), None, pytest.approx(0.75)]
    assert all(0 <= layer["eer"] <= 0.5 for layer in said["layers"])
    assert (said["bonafide"], said["spoof"], said["unreadable"]) == (18, 18, 0)
    run = nes2net("layers", model, *options, "--limit", 6)
    assert run.code == 0 and "probes on 6 bona fide and 6 spoofed utterances" in run.out
    assert run.out == nes2net("layers", model, *options, "--limit", 6).out  # always the same draw

    AutoModel.from_config(tiny_encoder_config("whisper")).save_pretrained(tmp_path / "encoder")
    run = nes2net("layers", tmp_path / "encoder", *options, "--where", "partition=dev")
    assert run.code == 0 and "lowest EER: layers 0, 1, 2" in run.out and "6 bona fide" in run.out


def test_what_cannot_be_probed_is_a_sentence(nes2net: Any, corpus: Path, tmp_path: Path) -> None:
    options = ("--corpus", "own-data", "--root", corpus / "manifest.csv")
    run = nes2net("layers", tmp_path / "none", *options)
    assert run.code == 2 and "does not exist" in run.err
    model = saved(tiny_model(), tmp_path / "model", window_length=8_000)
    run = nes2net("layers", model, *options, "--where", "utterance_id=dev-spoof-1")
    assert run.code == 1 and "at least four utterances of each class, got 0 bona fide and 1 spoofed" in run.err
