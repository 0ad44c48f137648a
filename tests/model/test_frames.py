"""The head of frames: what it gives, how it learns from segment labels, and that detection marks what is spoofed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoModelForAudioFrameClassification

from nes2net_hf import Detector, Nes2NetForAudioFrameClassification
from nes2net_hf.trainer import BrokenDataError, RecipeError, load_recipe, train
from nes2net_hf.trainer.data import WindowDataset
from nes2net_hf.trainer.losses import IGNORED, FrameLoss, pool_segments
from nes2net_hf.trainer.opening import open_split
from tests.helpers import ROOT, frame_model, tiny_config, tiny_encoder_config, tiny_recipe, write

pytest.importorskip("accelerate")


RATE = 16_000


@pytest.mark.parametrize("encoder", ["wav2vec2", "wavlm", "data2vec-audio"])
def test_padding_moves_no_frame(encoder: str, speech: list[np.ndarray]) -> None:
    model = frame_model(encoder, layer_aggregation="weighted_sum")
    waves = [torch.from_numpy(speech[0][:16_000]), torch.from_numpy(speech[1][:9_000])]
    batch = pad_sequence(waves, batch_first=True)
    mask = pad_sequence([torch.ones(len(wave), dtype=torch.long) for wave in waves], batch_first=True)
    with torch.no_grad():
        together = model(batch, attention_mask=mask).logits
        for row, wave in enumerate(waves):
            alone = model(wave[None]).logits[0]
            assert alone.shape == ((len(wave) - 400) // 320 + 1, 2)
            assert torch.allclose(together[row, : len(alone)], alone, atol=1e-5)


def test_it_loads_by_its_auto_class_and_refuses_pooling_with_weights(tmp_path: Path, speech: list[np.ndarray]) -> None:
    model = frame_model(class_weights=[0.1, 0.9])
    model.save_pretrained(tmp_path)
    assert "AutoModelForAudioFrameClassification" in json.loads((tmp_path / "config.json").read_text())["auto_map"]
    again = AutoModelForAudioFrameClassification.from_pretrained(tmp_path)
    inputs = torch.from_numpy(speech[0][:16_000])[None]
    labels = torch.tensor([[1] * 20 + [0] * 10 + [IGNORED] * 25])  # more labels than frames: the encoder drops a rest
    with torch.no_grad():
        output = again(inputs, labels=labels)
        assert torch.allclose(output.logits, model(inputs).logits, atol=1e-6)
    weight = torch.tensor([0.1, 0.9])
    expected = torch.nn.functional.cross_entropy(output.logits[0, :30], labels[0, :30], weight=weight)
    assert float(output.loss) == pytest.approx(float(expected), abs=1e-6)
    with pytest.raises(ValueError, match="pooling must be 'mean' where frames are classified"):
        Nes2NetForAudioFrameClassification(tiny_config(pooling="attentive_statistics"))


def test_segments_are_as_bona_fide_as_their_least_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 10, 2, generator=generator)
    labels = torch.randint(0, 2, (3, 10), generator=generator)
    labels[1, 7:], labels[2] = IGNORED, IGNORED
    chosen, truth = pool_segments(logits, labels, 4)
    expected: list[tuple[list[float], int]] = []
    for row in range(3):
        for start in range(0, 10, 4):
            frames = [t for t in range(start, min(start + 4, 10)) if labels[row, t] != IGNORED]
            if frames:
                least = min(frames, key=lambda t, row=row: float(logits[row, t, 1] - logits[row, t, 0]))
                expected.append((logits[row, least].tolist(), min(int(labels[row, t]) for t in frames)))
    assert chosen.tolist() == [pair for pair, _ in expected] and truth.tolist() == [label for _, label in expected]
    several = FrameLoss((1.0, 1.0), [1, 4], whole_utterance=True)
    means = [torch.nn.functional.cross_entropy(*pool_segments(logits, labels, factor)) for factor in (1, 4, 10)]
    mean = float(several(logits, labels) / several.weight(labels))
    assert mean == pytest.approx(float(sum(means)) / 3, abs=1e-6)
    counted = labels != IGNORED
    assert float(means[0]) == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits[counted], labels[counted])), abs=1e-6
    )


@pytest.fixture(scope="module")
def partialspoof(speech: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PartialSpoof as published: speech, in half of the utterances with a stretch of which only the sign is left."""
    root = tmp_path_factory.mktemp("partialspoof") / "database"
    (root / "segment_labels").mkdir(parents=True)
    (root / "protocols").mkdir()
    for partition, count in (("train", 12), ("dev", 6)):
        folder = root / partition / "con_wav"
        folder.mkdir(parents=True)
        lines, segments = [], {}
        for number in range(count):
            wave = speech[number % 5][8_000 : 8_000 + 28_800].copy()
            labels = np.ones(90, int)
            if number % 2:
                first = 15 + 5 * (number % 6)
                labels[first : first + 30] = 0
                stretch = slice(320 * first, 320 * (first + 30))
                wave[stretch] = 0.1 * np.sign(wave[stretch])
            name = f"CON_{partition[0].upper()}_{number:07}"
            soundfile.write(folder / f"{name}.wav", wave, RATE)
            lines.append(f"LA_{number:04} {name} - {'CON spoof' if number % 2 else '- bonafide'}")
            segments[name] = np.array([str(label) for label in labels])
        (root / "protocols" / f"PartialSpoof.LA.cm.{partition}.trl.txt").write_text("\n".join(lines) + "\n")
        labels_file = root / "segment_labels" / f"{partition}_seglab_0.02.npy"
        np.save(labels_file, segments, allow_pickle=True)  # type: ignore[arg-type]
    return root


def recipe_of(root: Path, output: Path, **fields: Any) -> dict:
    data = {"corpus": "partialspoof", "root": str(root), "train": {"split": "train"}, "dev": {"split": "dev"}}
    recipe = tiny_recipe(root, output, data={**data, "window_length": 16_000}, **fields)
    recipe["model"]["head"] = "frames"
    recipe["loss"] = {"resolutions": [20, 160], "whole_utterance": True}
    return recipe


def test_labels_follow_crops_and_repetition(partialspoof: Path, tmp_path: Path) -> None:
    data = load_recipe(write(tmp_path / "recipe.yaml", recipe_of(partialspoof, tmp_path / "run"))).data
    rows = open_split(data, "train", of_frames=True)
    segments = rows[1]["segment_labels"]["20ms"]
    first = WindowDataset(rows, data, "dev", of_frames=True)
    item = first[0, 1]
    assert item[1].tolist() == segments[:49]
    assert first.collate([first[0, 0], item])["labels"].shape == (2, 49)
    waveform, labels, _ = WindowDataset(rows, data, "train", seed=5, of_frames=True)[3, 1]
    whole = soundfile.read(rows[1]["audio"]["path"], dtype="float32")[0]
    starts = range(whole.size - 16_000 + 1)
    [start] = [start for start in starts if np.array_equal(whole[start : start + 16_000], waveform)]
    assert labels.tolist() == [segments[(start + 320 * frame + 200) // 320] for frame in range(49)]
    data.window_length = 64_600  # the utterance of 28,800 samples is repeated
    _, labels, _ = WindowDataset(rows, data, "dev", of_frames=True)[0, 1]
    assert len(labels) == 201 and labels.tolist() == [segments[(320 * f + 200) % 28_800 // 320] for f in range(201)]


def test_it_learns_and_detection_marks_the_spoofed_stretch(partialspoof: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "recipe.yaml", recipe_of(partialspoof, tmp_path / "run", epochs=25)))
    recipe.optimiser.learning_rate = 3e-3
    best = train(recipe)
    figures = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert min(line["dev_eer"] for line in figures) < 0.1
    detector = Detector(best)
    folder = partialspoof / "dev/con_wav"
    spoofed, genuine = detector.stream([folder / "CON_D_0000001.wav", folder / "CON_D_0000000.wav"])
    assert spoofed.spoofed
    longest = max(spoofed.spoofed, key=lambda stretch: stretch.end - stretch.start)
    assert longest.start == pytest.approx(0.4, abs=0.15) and longest.end == pytest.approx(1.0, abs=0.15)
    assert longest.score < detector.threshold and spoofed.label == "spoof"
    assert spoofed.score == min(window.score for window in spoofed.windows)
    # Of the genuine one, little is marked.
    assert sum(stretch.end - stretch.start for stretch in genuine.spoofed) < 0.2 * genuine.duration
    assert spoofed.to_dict()["spoofed"][0].keys() == {"start", "end", "score"}


def test_the_shipped_recipe_of_frames_runs(partialspoof: Path, tmp_path: Path) -> None:
    AutoModel.from_config(tiny_encoder_config()).save_pretrained(tmp_path / "encoder")
    overrides = [
        f"model.pretrained={tmp_path / 'encoder'}", f"data.root={partialspoof}", f"output={tmp_path / 'run'}",
        "epochs=1", "batch_size=4", "data.workers=0", "trackers=[]",
    ]  # fmt: skip
    best = train(load_recipe(ROOT / "training/configs/partialspoof_frames.yaml", overrides))
    assert json.loads((best / "config.json").read_text())["architectures"] == ["Nes2NetForAudioFrameClassification"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.augmentation=[{name: speed}]", "speed shifts frames away from their labels"),
        ("loss.resolutions=[30]", r"must be multiples of 20 ms, got \[30\]"),
        ("loss.name=focal", "focal does not work with model.head=frames: use cross_entropy"),
    ],
)
def test_what_a_head_of_frames_cannot_do(override: str, message: str, partialspoof: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", recipe_of(partialspoof, tmp_path / "run"))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, [override])


def test_utterances_without_segment_labels_are_named(partialspoof: Path, tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "database"
    shutil.copytree(partialspoof, bare, ignore=shutil.ignore_patterns("segment_labels"))
    path = write(tmp_path / "recipe.yaml", recipe_of(bare, tmp_path / "run"))
    with pytest.raises(
        BrokenDataError, match=r"utterance CON_T_\d+ has no 20 ms segment labels: unpack the corpus.s labels too"
    ):
        train(load_recipe(path, ["data.max_broken=2"]))
