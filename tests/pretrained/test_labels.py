"""Labels may have any order, names and number: transformers' example script works, and every score is right."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

import nes2net_hf
from nes2net_hf import (
    Nes2NetConfig,
    Nes2NetFeatureExtractor,
    Nes2NetForAudioClassification,
    Nes2NetForAudioFrameClassification,
    detect,
)
from nes2net_hf.conversion.to_official import to_official
from nes2net_hf.pretrained.export import export
from nes2net_hf.pretrained.load import DEMO_MODEL
from nes2net_hf.pretrained.onnx import OnnxModel
from tests.helpers import tiny_config, tiny_encoder_config, tiny_model

RATE = 16_000
SAMPLES = {label: Path(nes2net_hf.__file__).parent / "samples" / f"{label}.flac" for label in ("bonafide", "spoof")}
ALPHABETICAL = {0: "bonafide", 1: "spoof"}
KINDS = {0: "Bona-Fide", 1: "text to speech", 2: "conversion"}


def voices() -> dict[str, np.ndarray]:
    return {label: soundfile.read(path, dtype="float32")[0] for label, path in SAMPLES.items()}


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    """The bundled bona fide and spoofed recordings as model input (2, S)."""
    extractor = Nes2NetFeatureExtractor.from_pretrained(DEMO_MODEL)
    return extractor(list(voices().values()), sampling_rate=RATE, return_tensors="pt")["input_values"]


# What the example script does ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[("bonafide", "spoof"), ("fake", "real")], ids=["alphabetical", "usual"])
def class_folders(request: Any, fixture_audio_dir: Path, tmp_path_factory: Any) -> tuple[Path, str]:
    """One-second pieces in a folder per class, as `datasets` reads them; and the name of the bona fide folder."""
    root, (first, second) = tmp_path_factory.mktemp("classes"), request.param
    names = {"bonafide": first, "spoof": second} if first == "bonafide" else {"bonafide": second, "spoof": first}
    with open(fixture_audio_dir / "manifest.csv", encoding="utf-8") as file:
        sources = [(fixture_audio_dir / row["path"], row["label"]) for row in csv.DictReader(file)]
    for path, label in [*sources, *((path, label) for label, path in SAMPLES.items())]:
        waveform, rate = soundfile.read(path, dtype="float32")
        for start in range(0, len(waveform) - rate, 2 * rate):
            target = root / "train" / names[label] / f"{path.stem}-{start}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(target, waveform[start : start + rate], rate)
    return root, names["bonafide"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: Any) -> Path:
    """The demonstration model with windows of one second."""
    folder = tmp_path_factory.mktemp("source") / "demo"
    shutil.copytree(DEMO_MODEL, folder)
    extractor = Nes2NetFeatureExtractor.from_pretrained(folder)
    extractor.window_length = RATE
    extractor.save_pretrained(folder)
    return folder


def fine_tune(source: Path, data: Path, out: Path) -> Trainer:
    """Makes the calls of transformers' examples/pytorch/audio-classification/run_audio_classification.py in order."""
    # Like load_dataset("audiofolder"), but without decoding, which would need torchcodec.
    paths = sorted(data.rglob("*.wav"))
    classes = datasets.ClassLabel(names=sorted({path.parent.name for path in paths}))
    columns = {"audio": list(map(str, paths)), "label": [path.parent.name for path in paths]}
    features = datasets.Features({"audio": datasets.Value("string"), "label": classes})
    raw = datasets.DatasetDict(train=datasets.Dataset.from_dict(columns, features=features))
    extractor = AutoFeatureExtractor.from_pretrained(
        source, return_attention_mask=True, cache_dir=None, revision="main", token=None, trust_remote_code=False
    )
    main_input = extractor.model_input_names[0]

    def transform(batch: dict[str, Any]) -> dict[str, Any]:
        waves = [soundfile.read(path)[0] for path in batch["audio"]]
        inputs = extractor(waves, sampling_rate=extractor.sampling_rate)
        return {main_input: inputs.get(main_input), "labels": list(batch["label"])}

    labels = raw["train"].features["label"].names
    label2id, id2label = {}, {}
    for i, label in enumerate(labels):
        label2id[label] = str(i)
        id2label[str(i)] = label

    config = AutoConfig.from_pretrained(
        source, num_labels=len(labels), label2id=label2id, id2label=id2label, finetuning_task="audio-classification",
        cache_dir=None, revision="main", token=None, trust_remote_code=False,
    )  # fmt: skip
    model = AutoModelForAudioClassification.from_pretrained(
        source, config=config, cache_dir=None, revision="main", token=None, trust_remote_code=False,
        ignore_mismatched_sizes=False,
    )  # fmt: skip
    model.freeze_feature_encoder()
    raw["train"].set_transform(transform, output_all_columns=False)

    def compute_metrics(predicted: Any) -> dict[str, float]:
        return {"accuracy": float((np.argmax(predicted.predictions, axis=1) == predicted.label_ids).mean())}

    arguments = TrainingArguments(
        output_dir=str(out), remove_unused_columns=False, per_device_train_batch_size=16, learning_rate=1e-3,
        num_train_epochs=6, report_to=[], use_cpu=True, save_strategy="no", logging_steps=10, label_names=["labels"],
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=arguments, train_dataset=raw["train"], eval_dataset=raw["train"],
        compute_metrics=compute_metrics, processing_class=extractor,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=None)
    trainer.save_model()
    trainer.save_metrics("eval", trainer.evaluate())
    trainer.create_model_card(finetuned_from=str(source), tasks="audio-classification", tags=["audio-classification"])
    return trainer


@pytest.mark.slow
def test_the_example_script_fine_tunes_a_folder(
    class_folders: Any, source: Path, tmp_path: Path, nes2net: Any
) -> None:
    data, bonafide = class_folders
    out = tmp_path / "tuned"
    trainer = fine_tune(source, data, out)
    frozen = [name for name, weight in trainer.model.named_parameters() if not weight.requires_grad]
    convolutions = ("encoder.feature_extractor", "encoder.conv")  # of wav2vec 2.0, and of Whisper
    assert frozen and all(any(part in name for part in convolutions) for name in frozen)
    metrics = json.loads((out / "eval_results.json").read_text(encoding="utf-8"))
    assert metrics["eval_accuracy"] > 0.7
    config = Nes2NetConfig.from_pretrained(out)
    assert config.id2label[config.bonafide_index] == bonafide and config.num_labels == 2
    assert config.threshold is config.calibration is None  # both were fitted to the old weights

    judged = detect(list(SAMPLES.values()), model=out)
    assert [result.label for result in judged] == ["bonafide", "spoof"]
    classify = pipeline("audio-classification", model=str(out), device="cpu")
    tops = {label: classify(waveform)[0]["label"] for label, waveform in voices().items()}
    assert tops["bonafide"] == bonafide and tops["spoof"] != bonafide

    manifest = tmp_path / "mine.csv"
    lines = [f"{path},{path.parent.name}" for path in sorted(data.rglob("*.wav"))]
    manifest.write_text("\n".join(["audio,label", *lines]) + "\n", encoding="utf-8")
    run = nes2net(
        "evaluate", tmp_path / "scores.txt", "--model", out, "--corpus", "own-data", "--root", manifest, "--json",
        "--resamples", 100,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert json.loads(run.out.splitlines()[-1])["eer"] < 0.3


# Which logit is which -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [ALPHABETICAL, {0: "spoof", 1: "bonafide"}, {0: "FAKE", 1: "Bona Fide"}], ids=str)
def test_a_folder_loaded_with_other_labels_keeps_its_scores(labels: dict[int, str], windows: torch.Tensor) -> None:
    usual = Nes2NetForAudioClassification.from_pretrained(DEMO_MODEL)
    as_text = {str(index): label for index, label in labels.items()}
    other = AutoModelForAudioClassification.from_pretrained(DEMO_MODEL, id2label=as_text)
    assert other.config.id2label == labels and other.config.label2id == {b: a for a, b in labels.items()}
    with torch.inference_mode():
        expected, logits = usual(windows).logits, other(windows).logits
        torch.testing.assert_close(other.score(logits), usual.score(expected))
        torch.testing.assert_close(other.two_classes(logits), expected)
        assert other.score(logits)[0] > 0 > other.score(logits)[1]
        truth = [other.config.bonafide_index, 1 - other.config.bonafide_index]
        assert float(other(windows, labels=torch.tensor(truth)).loss) < 0.4
    assert int(logits[0].argmax()) == other.config.bonafide_index


@pytest.mark.parametrize("score", ["log_odds", "bonafide_logit"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_every_way_of_scoring_has_the_same_direction_in_either_order(
    score: str, outputs: int, windows: torch.Tensor, tmp_path: Path
) -> None:
    usual = tiny_model(score=score, classifier_outputs=outputs, class_weights=(0.1, 0.9))
    usual.save_pretrained(tmp_path)
    other = Nes2NetForAudioClassification.from_pretrained(tmp_path, id2label=ALPHABETICAL).eval()
    with torch.inference_mode():
        before = usual(windows, labels=torch.tensor([1, 0]))
        after = other(windows, labels=torch.tensor([0, 1]))
    torch.testing.assert_close(after.logits, before.logits.flip(-1))
    torch.testing.assert_close(other.score(after.logits), usual.score(before.logits))
    torch.testing.assert_close(after.loss, before.loss)  # weighted by class, not by position


def test_several_kinds_of_spoof_are_scored_as_any_of_them(windows: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = Nes2NetForAudioClassification(tiny_config(id2label=KINDS, class_weights=(0.2, 0.8))).eval()
    assert model.config.classifier_outputs == model.config.num_labels == 3 and model.config.bonafide_index == 0
    with torch.inference_mode():
        output = model(windows, labels=torch.tensor([0, 2]))
    p = output.logits.double().softmax(-1)
    torch.testing.assert_close(model.score(output.logits).double(), p[:, 0].log() - p[:, 1:].sum(-1).log())
    weights = torch.tensor([0.8, 0.2, 0.2])
    loss = torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 2]), weight=weights)
    torch.testing.assert_close(output.loss, loss)
    model.config.score = "bonafide_logit"
    assert torch.equal(model.score(output.logits), output.logits[:, 0])


def test_detection_names_the_likeliest_kind_of_spoof(nes2net: Any, tmp_path: Path) -> None:
    model = Nes2NetForAudioClassification(tiny_config(id2label=KINDS)).eval()
    with torch.no_grad():  # the last kind always wins
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([-3.0, 1.0, 2.0]))
    model.save_pretrained(tmp_path)
    Nes2NetFeatureExtractor().save_pretrained(tmp_path)
    arguments = ("detect", next(iter(SAMPLES.values())), "--model", tmp_path, "--device", "cpu")
    [row] = nes2net(*arguments).rows
    assert (row["label"], row["attack"]) == ("spoof", KINDS[2])
    assert f"most like {KINDS[2]}" in nes2net(*arguments, "--format", "table").out
    header, line = nes2net(*arguments, "--format", "csv").out.splitlines()
    assert line.split(",")[header.split(",").index("attack")] == KINDS[2]


@pytest.mark.slow
@pytest.mark.parametrize("labels", [ALPHABETICAL, KINDS], ids=["two", "three"])
def test_detection_and_the_exported_graph_say_bonafide_and_spoof(labels: dict, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = Nes2NetForAudioClassification(tiny_config(id2label=labels)).eval()
    folder, graph = tmp_path / "model", tmp_path / "graph"
    with torch.no_grad():  # bona fide always wins
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([3.0, -1.0, 0.5][: len(labels)]))
    expected = 3.0 - math.log(sum(math.exp(logit) for logit in [-1.0, 0.5][: len(labels) - 1]))
    model.save_pretrained(folder)
    Nes2NetFeatureExtractor().save_pretrained(folder)
    export(folder, graph)
    assert OnnxModel(graph).logits(np.zeros((1, RATE), np.float32)).shape == (1, len(labels))
    for place, backend in ((folder, "torch"), (graph, "onnx")):
        for result in detect(list(SAMPLES.values()), model=place, backend=backend):
            assert result.label == "bonafide" and result.score == pytest.approx(expected, abs=1e-5)


def test_frames_have_the_same_direction_in_either_order(windows: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    usual = Nes2NetForAudioFrameClassification(tiny_config(class_weights=(0.1, 0.9))).eval()
    usual.save_pretrained(tmp_path)
    other = Nes2NetForAudioFrameClassification.from_pretrained(tmp_path, id2label=ALPHABETICAL).eval()
    with torch.inference_mode():
        logits = usual(windows).logits
        truth = torch.arange(logits[..., 0].numel()).view(logits.shape[:2]) % 2
        before, after = usual(windows, labels=truth), other(windows, labels=1 - truth)
    torch.testing.assert_close(other.score(after.logits), usual.score(before.logits))
    torch.testing.assert_close(after.loss, before.loss)


def test_the_way_back_to_an_official_checkpoint_has_the_official_order(tmp_path: Path) -> None:
    encoder = tiny_encoder_config()
    usual = Nes2NetForAudioClassification(Nes2NetConfig(encoder_config=encoder, outer_scale=4, inner_scale=4))
    usual.save_pretrained(tmp_path / "usual")
    other = Nes2NetForAudioClassification.from_pretrained(tmp_path / "usual", id2label=ALPHABETICAL)
    other.save_pretrained(tmp_path / "other")
    for name in ("usual", "other"):
        to_official(tmp_path / name, tmp_path / f"{name}.pth")
    first, second = (torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("usual", "other"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# What a configuration takes -----------------------------------------------------------------------------------------


def test_labels_with_text_as_keys_are_normalised_wherever_they_are_set() -> None:
    config = tiny_config(id2label={"0": "bonafide", "1": "spoof"}, label2id={"bonafide": "0", "spoof": "1"})
    assert config.id2label == ALPHABETICAL and config.label2id == {"bonafide": 0, "spoof": 1}
    config.id2label, config.label2id = {"0": "spoof", "1": "real"}, {"spoof": "0", "real": "1"}
    config.check()
    assert config.id2label == {0: "spoof", 1: "real"} and config.bonafide_index == 1


@pytest.mark.parametrize("name", ["bonafide", "Bona-Fide", "bona fide", "BONA_FIDE", "genuine", "real", "Human"])
def test_bona_fide_is_known_by_its_names(name: str) -> None:
    assert tiny_config(id2label={0: name, 1: "anything"}).bonafide_index == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id2label": {0: "cat", 1: "dog"}}, "id2label must have exactly one class for bona fide speech"),
        ({"id2label": {0: "real", 1: "human"}}, "id2label must have exactly one class for bona fide speech"),
        ({"num_labels": 3}, "id2label must have exactly one class .* got 'LABEL_0, LABEL_1, LABEL_2'"),
        ({"id2label": {0: "bonafide"}}, "id2label must name classes 0, 1 and so on, at least two"),
        ({"id2label": {0: "spoof", 2: "bonafide"}}, "id2label must name classes 0, 1 and so on"),
        ({"id2label": {0: "spoof", 1: "spoof", 2: "real"}}, "id2label must name classes 0, 1 and so on"),
        ({"label2id": {"spoof": 1, "bonafide": 0}}, "label2id must be the inverse of id2label"),
        ({"id2label": KINDS, "classifier_outputs": 1}, "classifier_outputs must be 3 with 3 labels"),
    ],
)
def test_labels_that_do_not_say_what_is_bona_fide_are_errors(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**fields)


def test_a_head_of_other_labels_is_new(tmp_path: Path) -> None:
    tiny_model(classifier_outputs=1).save_pretrained(tmp_path)
    names = {str(index): label for index, label in KINDS.items()}
    model = AutoModelForAudioClassification.from_pretrained(
        tmp_path, num_labels=3, id2label=names, ignore_mismatched_sizes=True
    )
    assert model.classifier.out_features == 3 and model.config.id2label == KINDS
    with pytest.raises(ValueError, match=r"the shapes in config\.json differ from those of the weights"):
        AutoModelForAudioClassification.from_pretrained(tmp_path, num_labels=3, id2label=names)
