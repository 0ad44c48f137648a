"""The features of encoders that do not read waveforms: those of transformers' extractors, without wasted silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    SeamlessM4TFeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from nes2net_hf import Nes2NetForAudioClassification
from nes2net_hf.modeling_nes2net import KaldiLogMel, WhisperLogMel
from tests.helpers import frame_model, saved, tiny_config, tiny_encoder_config, tiny_model

RATE = 16_000


def test_w2v_bert_reads_what_its_own_extractor_computes(speech: list[np.ndarray]) -> None:
    extractor, features, config = (
        SeamlessM4TFeatureExtractor(padding_value=1),
        KaldiLogMel(),
        tiny_config("wav2vec2-bert"),
    )
    for wave in [*speech, speech[0][:8_000], speech[1][:8_160]]:  # an even and an odd number of frames
        theirs = extractor(wave, sampling_rate=RATE, return_tensors="pt")
        frames = int(theirs["attention_mask"].sum())
        ours = features(torch.from_numpy(wave)[None], None, config)
        assert ours.shape == (1, frames, 160) and frames == config.frames(len(wave))
        assert (ours - theirs["input_features"][:, :frames]).abs().max() <= 1e-4


@pytest.mark.parametrize("bands", [80, 128])
def test_whisper_reads_what_its_own_extractor_computes(bands: int, speech: list[np.ndarray]) -> None:
    extractor, features, config = (
        WhisperFeatureExtractor(feature_size=bands),
        WhisperLogMel(bands),
        tiny_config("whisper"),
    )
    thirty_seconds = np.resize(np.concatenate(speech), 480_000)
    for wave in [*speech[:20], thirty_seconds]:
        theirs = extractor(wave, sampling_rate=RATE, return_tensors="pt")["input_features"]
        frames = config.frames(len(wave))
        ours = features(torch.from_numpy(wave)[None], None, config)[..., :3000]
        assert ours.shape == (1, bands, min(2 * frames + 1, 3000)) and frames == len(wave) // 320
        assert (ours - theirs[..., : ours.shape[2]]).abs().max() <= 1e-4


def test_the_frames_of_64600_samples_are_those_of_wav2vec() -> None:
    for encoder in ("wav2vec2", "wav2vec2-bert", "whisper"):
        config = tiny_config(encoder)
        assert config.min_samples == (560 if encoder == "wav2vec2-bert" else 400)
        assert config.frames(64_600) == 201 and config.frame_samples == 320
        assert config.frames(torch.tensor([64_600, config.min_samples])).tolist() == [201, 1]


@pytest.mark.parametrize("encoder", ["wav2vec2-bert", "whisper"])
def test_the_shortest_inputs_get_a_score_alone_and_padded(encoder: str, speech: list[np.ndarray]) -> None:
    model = tiny_model(encoder)
    waves = [
        torch.from_numpy(speech[index][20_000 : 20_000 + length]) for index, length in enumerate((560, 9_000, 719))
    ]
    batch = torch.full((3, 9_000), 0.7)  # what stands in the padding does not matter
    mask = torch.zeros(3, 9_000, dtype=torch.long)
    for row, wave in enumerate(waves):
        batch[row, : len(wave)], mask[row, : len(wave)] = wave, 1
    with torch.inference_mode():
        together = model(batch, attention_mask=mask).logits
        alone = torch.cat([model(wave[None]).logits for wave in waves])
    assert together.isfinite().all()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_whisper_gives_the_states_of_transformers_where_the_recording_fills_it(speech: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    theirs = WhisperModel(tiny_encoder_config("whisper", max_source_positions=200)).encoder.eval()  # 4 s for 30
    config = tiny_config("whisper")
    config.encoder_config.max_source_positions = 200
    model = Nes2NetForAudioClassification(config).eval()
    model.nes2net.encoder.load_state_dict(theirs.state_dict())
    wave = torch.from_numpy(speech[0][:64_000])[None]
    extractor = WhisperFeatureExtractor(chunk_length=4)
    inputs = extractor(speech[0][:64_000], sampling_rate=RATE, return_tensors="pt")["input_features"]
    with torch.inference_mode():
        expected = theirs(inputs).last_hidden_state
        states = model(wave, output_hidden_states=True).hidden_states
    assert len(states) == 3
    torch.testing.assert_close(states[-1], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="output_attentions is not supported with a whisper encoder"):
        model(wave, output_attentions=True)
    with pytest.raises(ValueError, match="too long: 64001 samples, a whisper encoder reads at most 64000"):
        model(torch.zeros(1, 64_001))


@pytest.mark.parametrize("kind", [WhisperModel, WhisperForConditionalGeneration])
def test_whisper_is_loaded_without_its_decoder_whatever_saved_it(kind: Any, tmp_path: Path) -> None:
    whole = kind(WhisperConfig(**tiny_encoder_config("whisper").to_dict()))
    whole.save_pretrained(tmp_path)
    fields: dict[str, Any] = {"outer_scale": 4, "inner_scale": 4}
    model = Nes2NetForAudioClassification.from_encoder_pretrained(str(tmp_path), **fields)
    theirs = whole.get_encoder().state_dict()
    ours = model.nes2net.encoder.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_weights_that_an_encoder_lacks_are_an_error(tmp_path: Path) -> None:
    WhisperModel(tiny_encoder_config("whisper")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks 15 weights of its encoder, such as layers\.2\."):
        Nes2NetForAudioClassification.from_encoder_pretrained(
            str(tmp_path), encoder_overrides={"encoder_layers": 3}, outer_scale=4, inner_scale=4
        )


@pytest.mark.parametrize("encoder", ["wav2vec2-bert", "whisper"])
def test_half_precision_and_autocast_leave_the_features_alone(encoder: str, speech: list[np.ndarray]) -> None:
    model = tiny_model(encoder)
    wave = torch.from_numpy(speech[0][:16_000])[None]
    expected = model.nes2net.features(wave, None, model.config)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.nes2net.features(wave, None, model.config), expected)
    half = model.to(torch.bfloat16)
    assert torch.equal(half.nes2net.features(wave, None, model.config), expected)


@pytest.mark.parametrize("encoder", ["wav2vec2-bert", "whisper"])
def test_freezing_and_frames(encoder: str) -> None:
    model = tiny_model(encoder)
    model.freeze_feature_encoder()
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    convolutions = {f"nes2net.encoder.conv{one}.{part}" for one in (1, 2) for part in ("weight", "bias")}
    positions = {"nes2net.encoder.embed_positions.weight"}  # fixed in transformers
    assert frozen == (convolutions | positions if encoder == "whisper" else set())
    frames = frame_model(encoder)
    assert frames(torch.zeros(1, 8_000)).logits.shape == (1, frames.config.frames(8_000), 2)


def test_detect_refuses_windows_that_whisper_cannot_read(
    nes2net: Any, tmp_path: Path, fixture_audio_dir: Path
) -> None:
    model = saved(tiny_model("whisper"), tmp_path / "model", window_length=480_001)
    run = nes2net("detect", fixture_audio_dir / "test-lpc-0037.flac", "--model", model, "--device", "cpu")
    assert run.code == 2 and "window_length must be at most 480000 samples" in run.err
    model = saved(tiny_model("whisper"), tmp_path / "good")
    run = nes2net("detect", fixture_audio_dir / "test-lpc-0037.flac", "--model", model, "--device", "cpu")
    assert run.code == 0 and run.rows[0]["windows"]
