"""A run loses nothing when it is killed, stopped or fails, on one process or two."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate")

from nes2net_hf.errors import OutputError
from nes2net_hf.trainer import BrokenDataError, RecipeError, TrainingFailed, TrainingStopped, load_recipe, train
from nes2net_hf.trainer.checkpoints import saved_states
from nes2net_hf.trainer.loop import Trainer
from tests.helpers import ROOT, data_of, kill, launch, tiny_recipe, write

AUGMENTATION = [{"name": "rawboost", "number": 5}, {"name": "speed", "probability": 0.5}]


def recipe_of(corpus: Path, output: Path, **fields: Any) -> dict:
    data = data_of(corpus, window_length=4000, augmentation=AUGMENTATION, **fields.pop("data", {}))
    recipe = tiny_recipe(corpus, output, data=data, epochs=3, **fields)
    recipe["model"]["encoder"] |= {"hidden_dropout": 0.1, "feat_proj_dropout": 0.1, "activation_dropout": 0.1}
    return recipe


def run_of(path: Path, *overrides: str) -> Path:
    return train(load_recipe(path, overrides))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of three epochs with six steps each."""
    folder = tmp_path_factory.mktemp("whole")
    run_of(write(folder / "recipe.yaml", recipe_of(corpus, folder / "run")))
    return folder / "run"


class Kill(Exception):
    """Simulates a kill: no code of the trainer runs after it."""


@contextmanager
def killed_at(place: int) -> Iterator[None]:
    """Within it, training must be killed at the beginning of the step after `place` steps."""
    step = Trainer._step

    def cut(self: Trainer, batch: Any) -> Any:
        if self.progress.step == place:
            raise Kill
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Kill):
        patch.setattr(Trainer, "_step", cut)
        yield


@pytest.mark.parametrize(
    "places", [(1, 7, 13), *(pytest.param(one, marks=pytest.mark.slow) for one in [(6, 12), (17,)])]
)
def test_a_run_that_was_cut_off_ends_with_the_same_bits(
    places: tuple[int, ...],
    whole_run: Path,
    corpus: Path,
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run"))
    recipe = load_recipe(path, ["checkpoints.every_steps=2"])
    for place in places:
        with killed_at(place):
            train(recipe, resume=True)
    train(recipe, resume=True)
    for name in ("epochs/epoch-0003", "best"):
        assert same(tmp_path / "run" / name, whole_run / name)
    assert (tmp_path / "run/steps.jsonl").read_text() == (whole_run / "steps.jsonl").read_text()
    figures = [[{k: v for k, v in line.items() if k != "seconds"} for line in lines(run / "metrics.jsonl")]
               for run in (tmp_path / "run", whole_run)]  # fmt: skip
    assert figures[0] == figures[1]
    assert len(saved_states(tmp_path / "run")) == 2  # only the last ones are kept


def test_a_run_that_was_cut_off_while_dev_was_judged_ends_with_the_same_bits(
    whole_run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(
        write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run")), ["checkpoints.every_steps=3"]
    )

    def cut(self: Trainer, epoch: int) -> Any:
        raise Kill

    monkeypatch.setattr(Trainer, "_validate", cut)
    with pytest.raises(Kill):
        train(recipe)
    monkeypatch.undo()
    train(recipe, resume=True)
    assert (tmp_path / "run/steps.jsonl").read_text() == (whole_run / "steps.jsonl").read_text()
    assert same(tmp_path / "run/epochs/epoch-0003", whole_run / "epochs/epoch-0003")


@pytest.mark.slow
def test_an_encoder_frozen_at_first_learns_later_with_the_same_bits_after_a_stop(corpus: Path, tmp_path: Path) -> None:
    """Frozen for two epochs of two steps each, it trains as an encoder that is always frozen, and then moves."""

    def run(name: str, *overrides: str, resume: bool = False) -> Path:
        path = write(tmp_path / f"{name}.yaml", recipe_of(corpus, tmp_path / name) | {"batch_size": 12})
        train(load_recipe(path, ["checkpoints.every_steps=1", *overrides]), resume=resume)
        return tmp_path / name

    whole = run("whole", "model.freeze_epochs=2")
    always = run("always", "model.freeze=encoder")
    losses = [[line["loss"] for line in lines(output / "steps.jsonl")] for output in (whole, always)]
    assert losses[0][:5] == pytest.approx(losses[1][:5], abs=1e-6) and losses[0][5] != losses[1][5]
    first, second, third = (weights(whole / f"epochs/epoch-{epoch:04}") for epoch in (1, 2, 3))
    encoder = [key for key in first if key.startswith("nes2net.encoder.") and "masked_spec_embed" not in key]
    assert all(torch.equal(first[key], second[key]) for key in encoder)
    assert not any(torch.equal(second[key], third[key]) for key in encoder if key.endswith("dense.weight"))
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])

    for place in (3, 4, 5):  # before the thaw, at it and after it
        with killed_at(place):
            run("cut", "model.freeze_epochs=2", resume=True)
    cut_off = run("cut", "model.freeze_epochs=2", resume=True)
    assert same(cut_off / "epochs/epoch-0003", whole / "epochs/epoch-0003")
    assert (cut_off / "steps.jsonl").read_text() == (whole / "steps.jsonl").read_text()
    with pytest.raises(RecipeError, match=r"model\.freeze_epochs: 2 has no effect if model\.freeze=encoder"):
        run("both", "model.freeze_epochs=2", "model.freeze=encoder")


def wait_for_step(output: Path, step: int, process: subprocess.Popen[str]) -> None:
    file = output / "steps.jsonl"
    while not (file.exists() and len(file.read_text().splitlines()) >= step):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.slow
def test_kill_9_three_times_and_then_the_same_bits(whole_run: Path, corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run"))
    rng = random.Random(time.time_ns())
    for low in (1, 6, 11):
        process = launch("train.py", "--config", path, "--resume", "checkpoints.every_steps=1")
        wait_for_step(tmp_path / "run", rng.randrange(low, low + 5), process)
        kill(process)
    done = launch("train.py", "--config", path, "--resume", "checkpoints.every_steps=1")
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert "resumed from" in out
    # The order of sums depends on the launch, so the uninterrupted run is launched in the same way.
    process = launch("train.py", "--config", write(tmp_path / "again.yaml", recipe_of(corpus, tmp_path / "again")))
    process.communicate()
    assert same(tmp_path / "run/best", tmp_path / "again/best")
    assert (tmp_path / "run/steps.jsonl").read_text() == (tmp_path / "again/steps.jsonl").read_text()


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_go_on(corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run") | {"epochs": 500})
    process = launch("train.py", "--config", path, "data.workers=2")
    wait_for_step(tmp_path / "run", 3, process)
    # A cluster sends the signal to all processes of a job.
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert "is saved in" in err and "add --resume to the same command to continue" in err and "Traceback" not in err
    [*_, last] = saved_states(tmp_path / "run")
    steps = lines(tmp_path / "run/steps.jsonl")
    assert last.name == f"step-{steps[-1]['step']:08}"


def test_a_signal_stops_after_the_step_with_everything_saved(corpus: Path, tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run")))
    trainer = Trainer(recipe, resume=False)
    handler = signal.getsignal(signal.SIGTERM)
    message = r"training stopped at step 1 in epoch 1 and is saved in .*step-00000001: add"
    with pytest.raises(TrainingStopped, match=message), trainer.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        trainer.run(None)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [state.name for state in saved_states(tmp_path / "run")] == ["step-00000001"]


def test_a_loss_that_is_no_number_stops_before_the_weights_are_spoilt(corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run"))
    recipe = load_recipe(path, ["optimiser.learning_rate=1e30", "checkpoints.every_steps=1"])
    with pytest.raises(TrainingFailed, match=r"the loss became (nan|inf) in step \d+, so the step was not taken"):
        train(recipe)
    [*_, last] = saved_states(tmp_path / "run")
    assert lines(tmp_path / "run/steps.jsonl")[-1]["step"] == json.loads((last / "trainer.json").read_text())["step"]


def test_a_full_disk_and_no_memory_are_said_in_a_sentence(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run"))
    recipe = load_recipe(path, ["checkpoints.every_steps=2"])

    def full(accelerator: Any, folder: Path, state: Any) -> None:
        if state["step"] >= 4:
            raise OSError(28, "No space left on device", str(folder))
        real(accelerator, folder, state)

    from nes2net_hf.trainer import loop

    real = loop.save_state
    monkeypatch.setattr(loop, "save_state", full)
    with pytest.raises(
        TrainingFailed,
        match=r"step 4 cannot be saved \(No space left on device: .*the last checkpoint, .*step-00000002",
    ):
        train(recipe)
    monkeypatch.undo()

    def hungry(self: Trainer, batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "_step", hungry)
    with pytest.raises(TrainingFailed, match=r"out of memory in step 3: increase passes, .*step-00000002"):
        train(recipe, resume=True)


def test_broken_files_are_skipped_and_then_stop_the_run(corpus: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "corpus"
    shutil.copytree(corpus, copy)
    for number in range(3):
        (copy / f"audio/train-spoof-{number}.flac").write_bytes(b"fLaC")
    path = write(tmp_path / "recipe.yaml", recipe_of(copy, tmp_path / "run"))
    run_of(path)
    with pytest.raises(BrokenDataError, match=r"3 utterances could not be read, more than data.max_broken=2: .*flac"):
        run_of(path, "data.max_broken=2", f"output={tmp_path / 'other'}")
    (copy / "audio/dev-spoof-1.flac").write_bytes(b"fLaC")
    with pytest.raises(BrokenDataError, match=r"dev-spoof-1\.flac is truncated or damaged"):
        run_of(path, f"output={tmp_path / 'third'}")


def test_a_run_is_neither_overwritten_nor_resumed_with_another_recipe(whole_run: Path) -> None:
    path = whole_run / "recipe.yaml"
    with pytest.raises(RecipeError, match="already has a run: add --resume to continue it"):
        run_of(path)
    with pytest.raises(OutputError, match=r"optimiser\.learning_rate: .* began with 0.001, not"):
        train(load_recipe(path, ["optimiser.learning_rate=1"]), resume=True)
    # An absent setting is not a false or empty one.
    for change in ("model.encoder.new_field=false", "data.train.where.language=xx", "data.train.where.language=''"):
        with pytest.raises(OutputError, match=r"began with none, not"):
            train(load_recipe(path, [change]), resume=True)
    before = (whole_run / "steps.jsonl").read_text()
    train(load_recipe(path, ["checkpoints.keep_last=1"]), resume=True)  # the run is complete, so nothing happens
    assert (whole_run / "steps.jsonl").read_text() == before and len(saved_states(whole_run)) >= 1


def test_passes_add_up_to_the_whole_batch(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With weighted classes and a batch that are divided unevenly over the passes."""
    results = []
    for passes in (1, 2):
        recipe = recipe_of(corpus, tmp_path / str(passes)) | {"passes": passes}
        recipe["model"]["config"]["class_weights"] = [0.1, 0.9]
        trainer = Trainer(load_recipe(write(tmp_path / "recipe.yaml", recipe)), resume=False)
        trainer.model.eval()  # batch norm would see each pass separately
        dataset = trainer.data.train_set
        batch = dataset.collate([dataset[0, row] for row in (0, 1, 3)])
        gradients: dict[str, torch.Tensor] = {}

        def take(trainer: Trainer = trainer, gradients: dict[str, torch.Tensor] = gradients) -> None:
            learning = [(name, p) for name, p in trainer.model.named_parameters() if p.requires_grad]
            gradients.update((name, parameter.grad.clone()) for name, parameter in learning)

        monkeypatch.setattr(trainer.optimiser, "step", take)
        loss, *_ = trainer._step(batch)
        results.append((loss, gradients))
    (one, first), (two, second) = results
    assert one == pytest.approx(two, abs=1e-6) and len(first) > 50
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_training_stops_when_dev_has_not_been_better(corpus: Path, tmp_path: Path) -> None:
    recipe = recipe_of(corpus, tmp_path / "run", validation={"select": "dev_eer", "patience": 2})
    recipe["epochs"] = 50
    recipe["checkpoints"] = {"keep_best": 2}
    run_of(write(tmp_path / "recipe.yaml", recipe))
    figures = lines(tmp_path / "run/metrics.jsonl")
    best = min(range(len(figures)), key=lambda index: figures[index]["dev_eer"])
    assert len(figures) == best + 3 < 50
    kept = sorted(path.name for path in (tmp_path / "run/epochs").iterdir())
    assert len(kept) == 2 and figures[best]["epoch"] in {int(name[-4:]) for name in kept}
    assert same(tmp_path / "run/best", tmp_path / "run/epochs" / f"epoch-{figures[best]['epoch']:04}")


def test_whole_utterances_are_trained_on(corpus: Path, tmp_path: Path) -> None:
    import soundfile

    for number, path in enumerate(sorted(corpus.glob("audio/train-*.flac"))):
        wave = soundfile.read(path)[0]
        (tmp_path / "audio").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "audio" / path.name, wave[: 4000 + 150 * number], 16_000)
    for path in corpus.glob("audio/dev-*.flac"):
        (tmp_path / "audio" / path.name).symlink_to(path)
    (tmp_path / "manifest.csv").write_text((corpus / "manifest.csv").read_text())
    recipe = tiny_recipe(corpus, tmp_path / "run", data=data_of(tmp_path, crop="whole", evaluate="whole"))
    trainer = Trainer(load_recipe(write(tmp_path / "recipe.yaml", recipe)), resume=False)
    shapes = [(tuple(batch["input_values"].shape), "attention_mask" in batch) for batch in trainer.stream]
    assert all(shape[1] < 8000 for shape, _ in shapes) and any(masked for _, masked in shapes)
    trainer.stream.load_state_dict({"epoch": 0, "batch": 0, "broken": []})
    trainer.run(None)
    extractor = json.loads((tmp_path / "run/best/preprocessor_config.json").read_text())
    assert extractor["length_policy"] == "whole"


def test_a_run_ends_well_where_matplotlib_is_not_installed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "matplotlib" else find(name, *more)
    )
    run_of(write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run")), "epochs=1")
    assert not (tmp_path / "run/curves.png").exists() and (tmp_path / "run/best").is_dir()


@pytest.mark.slow
def test_a_checkpoint_is_due_by_the_clock(corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run"))
    recipe = load_recipe(path, ["checkpoints.every_minutes=1e-9", "checkpoints.keep_last=100"])
    train(recipe)
    assert [state.name for state in saved_states(tmp_path / "run")] == [f"step-{step:08}" for step in range(1, 19)]


@pytest.mark.slow
def test_a_compiled_model_is_saved_as_any_other(corpus: Path, tmp_path: Path) -> None:
    from nes2net_hf import Nes2NetForAudioClassification

    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run"))
    best = run_of(path, "model.compile=true", "epochs=1")
    _, report = Nes2NetForAudioClassification.from_pretrained(best, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_trackers_that_are_not_there_are_said(corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run"))
    for tracker, message in (
        ("clearml", "trackers: not all of clearml are installed here"),
        ("paper", "trackers: .*paper"),
    ):
        with pytest.raises(RecipeError, match=message):
            run_of(path, f"trackers=[{tracker}]")


def test_each_better_model_is_pushed_and_a_failure_stops_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pushed: list[tuple[str, Path, list[str]]] = []

    class Api:
        def create_repo(self, repo_id: str, private: bool, exist_ok: bool, **more: Any) -> None:
            assert private and exist_ok

        def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str, **more: Any) -> None:
            if pushed:
                raise ConnectionError("the line is dead")
            pushed.append((commit_message, folder_path, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    recipe = recipe_of(corpus, tmp_path / "run", validation={"select": "dev_loss"})
    path = write(tmp_path / "recipe.yaml", recipe)
    train(load_recipe(path), push_to_hub="org/nes2net")
    [(message, folder, files)] = pushed
    assert message == "epoch 1" and folder == tmp_path / "run/best"
    assert {"model.safetensors", "config.json", "modeling_nes2net.py", "preprocessor_config.json"} <= set(files)
    losses = [line["dev_loss"] for line in lines(tmp_path / "run/metrics.jsonl")]
    assert ("could not be uploaded to org/nes2net: the line is dead" in caplog.text) == (min(losses) < losses[0])


@pytest.mark.slow
def test_two_processes_train_as_one(corpus: Path, tmp_path: Path) -> None:
    """
    Two processes with half the batch each have the losses of one, without dropout and with joint batch norm. For one
    epoch: Adam scales rounding errors to full steps, so that two runs part tenfold in each further step.
    """
    curves = []
    for processes in (1, 2):
        recipe = tiny_recipe(corpus, tmp_path / str(processes), data=data_of(corpus, window_length=4000), epochs=1)
        recipe |= {"batch_size": 8, "validation": {"augmented": True, "loss": "batch_means", "loss_batch": 5}}
        recipe["model"] |= {"synchronize_batch_norm": True}
        recipe["model"]["config"] |= {"class_weights": [0.1, 0.9]}
        process = launch("train.py", "--config", write(tmp_path / f"{processes}.yaml", recipe), processes=processes)
        _, err = process.communicate()
        assert process.returncode == 0, err
        steps = lines(tmp_path / str(processes) / "steps.jsonl")
        curves.append(([line["loss"] for line in steps], lines(tmp_path / str(processes) / "metrics.jsonl")))
    (one, epochs_of_one), (two, epochs_of_two) = curves
    assert len(one) == 3 and one == pytest.approx(two, abs=1e-5)
    for first, second in zip(epochs_of_one, epochs_of_two, strict=True):
        assert first["dev_eer"] == pytest.approx(second["dev_eer"], abs=1e-6)
        # The gradient of biases before a norm is only rounding errors, which Adam scales to full steps. The loss in
        # training does not depend on them; the running means of batch norm follow later.
        for loss in ("dev_loss", "dev_loss_augmented"):
            assert first[loss] == pytest.approx(second[loss], abs=5e-4)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_with_everything_saved(corpus: Path, tmp_path: Path) -> None:
    import psutil

    path = write(tmp_path / "recipe.yaml", recipe_of(corpus, tmp_path / "run") | {"epochs": 500})
    process = launch("train.py", "--config", path, processes=2)
    wait_for_step(tmp_path / "run", 3, process)
    [*_, last] = [one for one in psutil.Process(process.pid).children() if "train.py" in " ".join(one.cmdline())]
    last.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0 and err.count("is saved in") == 2 and "Traceback" not in err
    [*_, state] = saved_states(tmp_path / "run")
    assert state.name == f"step-{lines(tmp_path / 'run/steps.jsonl')[-1]['step']:08}"


@pytest.mark.slow
def test_two_processes_that_were_killed_continue_as_before(corpus: Path, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        path = write(tmp_path / f"{name}.yaml", recipe_of(corpus, tmp_path / name))
        process = launch("train.py", "--config", path, "--resume", "checkpoints.every_steps=2", processes=2)
        if name == "killed":
            wait_for_step(tmp_path / name, 9, process)
            kill(process)
            process = launch("train.py", "--config", path, "--resume", "checkpoints.every_steps=2", processes=2)
        _, err = process.communicate()
        assert process.returncode == 0, err
    whole, killed = (lines(tmp_path / name / "steps.jsonl") for name in ("whole", "killed"))
    assert [line["loss"] for line in whole] == pytest.approx([line["loss"] for line in killed], abs=1e-6)
    a, b = weights(tmp_path / "whole/epochs/epoch-0003"), weights(tmp_path / "killed/epochs/epoch-0003")
    assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a)


SHARDED = """
import json, os, sys
import torch
from torch import distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from tests.helpers import tiny_config
from nes2net_hf import Nes2NetForAudioClassification
from nes2net_hf.modeling_nes2net import MaskedBatchNorm

dist.init_process_group("gloo")
torch.manual_seed(0)
model = Nes2NetForAudioClassification(tiny_config(class_weights=[0.1, 0.9]))
model.nes2net.encoder.masked_spec_embed.requires_grad_(False)
for module in model.modules():
    if isinstance(module, MaskedBatchNorm):
        module.synchronized = True
if sys.argv[1] == "fsdp":
    for layer in model.nes2net.encoder.encoder.layers:
        fully_shard(layer)
    fully_shard(model)
else:
    model = DistributedDataParallel(model)
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
losses = []
for step in range(5):
    generator = torch.Generator().manual_seed(10 * step + dist.get_rank())
    waves = torch.randn(4, 4000, generator=generator)
    loss = model(waves, labels=torch.tensor([0, 1, 0, 1])).loss
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    losses.append(loss.item())
print(json.dumps(losses)) if dist.get_rank() == 0 else None
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_model_that_processes_share_among_them_trains_as_copies_of_it(tmp_path: Path) -> None:
    """Compares torch's fully_shard (FSDP2) with DDP on two gloo processes; accelerate supports it only on GPUs."""
    (tmp_path / "steps.py").write_text(SHARDED)
    curves = []
    for kind in ("ddp", "fsdp"):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, str(tmp_path / "steps.py"), kind], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        curves.append(json.loads(done.stdout))
    assert len(curves[0]) == 5 and curves[0] == pytest.approx(curves[1], abs=1e-5)
