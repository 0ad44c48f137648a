"""The waveform stem: its frames fit the encoder's at any length, padding does not enter them, and it learns."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from nes2net_hf import Nes2NetForAudioClassification
from tests.helpers import tiny_model
from tests.model.test_modeling import ragged, waveforms

STEM = [8, 8, 12, 16, 16]
ENCODERS = ("whisper", "wav2vec2", "wav2vec2-bert", "data2vec-audio")  # three ways to count frames; by length


@pytest.mark.parametrize("encoder", ENCODERS)
def test_padding_does_not_change_the_score(encoder: str) -> None:
    model = tiny_model(encoder, waveform_stem=STEM)
    utterances, batch, mask = ragged([9000, 4321, 640, 12345], padding=0.3)
    with torch.inference_mode():
        together = model(batch, attention_mask=mask).logits
        alone = torch.cat([model(utterance[None]).logits for utterance in utterances])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_padding_does_not_enter_a_training_step() -> None:
    tight = tiny_model("whisper", waveform_stem=STEM).train()
    loose = copy.deepcopy(tight)
    _, batch, mask = ragged([9000, 4321, 12345])
    for model, padding in ((tight, 0), (loose, 8000)):
        padded, its_mask = (torch.nn.functional.pad(x, (0, padding)) for x in (batch, mask))
        model(padded, attention_mask=its_mask).logits.square().mean().backward()
    for (name, one), (_, other) in zip(tight.named_parameters(), loose.named_parameters(), strict=True):
        if one.grad is not None:
            assert (one.grad - other.grad).abs().max() <= 2e-4 * max(1.0, one.grad.abs().max().item()), name
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tight.nes2net.stem.parameters())


@pytest.mark.parametrize("samples", [400, 639, 640, 641, 959, 960, 64_600])
@pytest.mark.parametrize("encoder", ["whisper", "wav2vec2"])
def test_each_frame_hears_the_samples_at_its_time(encoder: str, samples: int) -> None:
    model = tiny_model(encoder, waveform_stem=STEM).nes2net
    frames = int(model.config.frames(samples))
    silence = torch.zeros(1, samples)
    click = silence.clone()
    click[0, samples // 2] = 1.0
    with torch.inference_mode():
        heard = [model.stem(x, None, frames) for x in (silence, click)]
    changed = (heard[1] - heard[0]).abs().amax((0, 2)).nonzero().flatten()
    assert heard[0].shape == (1, frames, 64)
    # Frame t reads from sample 320 t - 290 up to, but without, sample 320 t + 610.
    around = [t for t in range(frames) if 320 * t - 290 <= samples // 2 < 320 * t + 610]
    assert set(changed.tolist()) <= set(around) and (samples // 2) // 320 in [*changed.tolist(), frames]


def test_it_hears_phase_which_the_encoder_of_log_mel_features_does_not() -> None:
    x = waveforms(1, 16_000)
    for stem, moved in ((None, False), (STEM, True)):
        model = tiny_model("whisper", waveform_stem=stem)
        with torch.inference_mode():
            change = (model(x).logits - model(-x).logits).abs().max().item()
        assert (change > 1e-4) == moved


def test_a_saved_model_keeps_its_stem(tmp_path: Path) -> None:
    model = tiny_model("whisper", waveform_stem=STEM)
    model.save_pretrained(tmp_path)
    loaded, report = Nes2NetForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and loaded.config.waveform_stem == STEM
    x = waveforms()
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x).logits, model(x).logits, atol=1e-6, rtol=1e-6)


def test_a_stem_cannot_work_without_the_waveform() -> None:
    model = tiny_model("whisper", waveform_stem=STEM)
    with pytest.raises(ValueError, match="waveform_stem needs input_values"):
        model(encoder_hidden_states=torch.zeros(1, 1, 20, 64))


def test_a_frozen_encoder_leaves_the_stem_to_learn() -> None:
    model = tiny_model("whisper", waveform_stem=STEM)
    model.freeze_encoder()
    assert all(p.requires_grad for p in model.nes2net.stem.parameters())
    assert not any(p.requires_grad for p in model.nes2net.encoder.parameters())
