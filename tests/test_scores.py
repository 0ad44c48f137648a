"""A file's score, and how many frames it has."""

from __future__ import annotations

import pytest

from nes2net_hf.scores import frame_samples, frames_within, judges_frames, of_file
from tests.helpers import tiny_config


def test_an_utterance_model_takes_the_mean_of_windows_and_a_frame_model_the_lowest_frame() -> None:
    assert of_file([1.0, 2.0, 6.0], of_frames=False) == 3.0
    assert of_file([1.0, -2.0, 6.0], of_frames=True) == -2.0


def test_the_architecture_says_what_a_model_judges() -> None:
    config = tiny_config()
    assert not judges_frames(config)
    config.architectures = ["Nes2NetForAudioFrameClassification"]
    assert judges_frames(config)


@pytest.mark.parametrize(
    ("stride", "samples", "frames"),
    [((5, 2, 2, 2, 2, 2, 2), 64_600, 202), ((5, 2, 2, 2, 2, 2, 2), 1, 1), ((5, 2, 2, 2, 2, 2, 1), 64_600, 404)],
)
def test_frames_follow_the_encoders_own_hop(stride: tuple[int, ...], samples: int, frames: int) -> None:
    config = tiny_config()
    config.encoder_config.conv_stride = list(stride)
    assert frame_samples(config) == {202: 320, 1: 320, 404: 160}[frames]
    assert frames_within(samples, config) == frames
