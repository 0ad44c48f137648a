"""The command line: one function per command, no logic of its own. Errors are one sentence, never a traceback."""

from __future__ import annotations

import os
import sys
import textwrap
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="nes2net",
    help="Deepfake speech detection with Nes2Net.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
corpus_app = typer.Typer(help="Benchmark corpora on your disk.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")


class Channels(str, Enum):
    auto = "auto"
    mix = "mix"
    each = "each"


class Activation(str, Enum):
    relu = "relu"
    selu = "selu"


class DType(str, Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Format(str, Enum):
    table = "table"
    jsonl = "jsonl"
    csv = "csv"


class Backend(str, Enum):
    torch = "torch"
    onnx = "onnx"


class ExportFormat(str, Enum):
    onnx = "onnx"


class ShardForm(str, Enum):
    nes2net = "nes2net"
    arena = "arena"


Split = Annotated[str | None, typer.Option(help="One partition.", show_default="all that are there")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OURS=THEIRS", help="Of your own data: which of its columns is audio, label, …"),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="THEIRS=OURS", help="Of your own data: which of its labels is bonafide, spoof."),
]
Config = Annotated[str | None, typer.Option(metavar="NAME", help="Of a dataset: one of its configurations.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="COLUMN=VALUE", help="Only such rows; of several values, any."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"nes2net_hf {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


@app.callback()
def nes2net(version: Version = False) -> None:
    """Deepfake speech detection with Nes2Net."""


@app.command()
def detect(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Audio files, folders, or - for audio on standard input.")
    ] = None,
    list_file: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="A text file naming one recording a line.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Judge the two bundled samples.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Hub id or folder.", show_default="bundled demonstration model")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Score from which speech is bona fide.", show_default="the model's own, or 0")
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(help="Of a calibrated model: prior probability of spoofing.", show_default="0.5"),
    ] = None,
    costs: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="MISS FALSE-ALARM", help="Of a calibrated model: decide at the least cost."),
    ] = None,
    channels: Annotated[
        Channels,
        typer.Option(help="Judge the mix of the channels, or each; auto: each where they have little in common."),
    ] = Channels.auto,
    track: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Audio track of films and screen recordings, from 0; or all.",
            show_default="the default one",
        ),
    ] = None,
    hop: Annotated[
        float | None, typer.Option(help="Seconds from window to window.", show_default="one window: no overlap")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows judged together.")] = 8,
    device: Annotated[str | None, typer.Option(help="cuda, cuda:1, mps, cpu.", show_default="the best there")] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the model.")] = DType.float32,
    output_format: Annotated[
        Format | None,
        typer.Option("--format", help="Form of the results.", show_default="table on a terminal, else jsonl"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write results here, as .jsonl or .csv says.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip files that --output holds; retry errors.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw score and waveform of the one file.")
    ] = None,
    backend: Annotated[
        Backend, typer.Option(help="What runs the model: onnx takes a folder of nes2net export.")
    ] = Backend.torch,
    version: Version = False,
) -> None:
    """
    Judge recordings: bona fide speech, or spoofed. Score: higher = bona fide.

    Exit codes: 0 all were judged, 1 some could not be, or a disk or memory is full, 2 an option, the model or the
    output is not possible, 130 interrupted.
    """
    from .commands.detect import DetectOptions, run_detect

    options = DetectOptions(
        paths=paths or [],
        list_file=list_file,
        demo=demo,
        model=model,
        revision=revision,
        threshold=threshold,
        prior=prior,
        costs=costs,
        channels=channels.value,
        track=track,
        hop=hop,
        batch_size=batch_size,
        device=device,
        dtype=dtype.value,
        form=output_format.value if output_format else None,
        output=output,
        resume=resume,
        plot=plot,
        backend=backend.value,
    )
    raise typer.Exit(run_detect(options))


@app.command()
def info(
    model: Annotated[
        str | None, typer.Argument(help="Hub id or folder.", show_default="bundled demonstration model")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """
    Say what a model is: parts, parameters, cost, threshold, calibration, recipe, figures, licence, checksums.

    Exit codes: 0 said, 1 standard output cannot be written, 2 the model cannot be loaded, or a file beside it cannot
    be read, 130 interrupted.
    """
    from .commands.info import run_info

    raise typer.Exit(run_info(model, revision, as_json))


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="The authors' .pth, .pt or .safetensors, or org/repo:file.pth on the Hub."),
    ],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="The folder to write.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    encoder_config: Annotated[
        Path | None,
        typer.Option(
            help="File or folder with the encoder's configuration.", show_default="XLS-R 300M's or WavLM-Large's"
        ),
    ] = None,
    activation: Annotated[
        Activation | None, typer.Option(help="Of the back-end.", show_default="told by its batch norms")
    ] = None,
    dilation: Annotated[
        int | None, typer.Option(min=1, help="Of the back-end, in frames.", show_default="the recipe's")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="All of it, but write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT where it exists.")] = False,
    verify: Annotated[
        Path | None,
        typer.Option("--verify", metavar="AUDIO", help="Load OUT in a fresh process and compare its logits."),
    ] = None,
    back: Annotated[
        bool, typer.Option("--to-official", help="The way back: IN is a folder, OUT the official .pth to write.")
    ] = False,
    original: Annotated[
        Path | None,
        typer.Option("--from", metavar="ORIGINAL.pth", help="With --to-official: where the keys of pre-training are."),
    ] = None,
) -> None:
    """
    Convert the authors' checkpoints to folders of the Hugging Face layout, or back.

    Exit codes: 0 converted, 1 it cannot be, or the disk is full, 2 an option, a model folder or OUT is not possible,
    130 interrupted.
    """
    from .commands.convert import ConvertOptions, run_convert

    options = ConvertOptions(
        source=source,
        out=out,
        revision=revision,
        encoder_config=encoder_config,
        activation=activation.value if activation else None,
        dilation=dilation,
        dry_run=dry_run,
        force=force,
        verify=verify,
        back=back,
        original=original,
    )
    raise typer.Exit(run_convert(options))


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Hub id or folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    output_format: Annotated[ExportFormat, typer.Option("--format", help="Of the graph.")] = ExportFormat.onnx,
    int8: Annotated[bool, typer.Option("--int8", help="Linear layers in 8 bits: smaller, scores move.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT where an earlier export wrote it.")] = False,
) -> None:
    """
    Write a model as one ONNX graph, held against PyTorch before it is kept. For nes2net detect --backend onnx.

    Exit codes: 0 exported, 1 it cannot be, or the disk is full, 2 an option, the model or OUT is not possible, 130
    interrupted.
    """
    from .commands.export import ExportOptions, run_export

    raise typer.Exit(run_export(ExportOptions(model, out, int8=int8, revision=revision, force=force)))


@app.command()
def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A training run's folder, or a model's.")],
    repo_id: Annotated[str, typer.Option(metavar="ORG/NAME", help="On the Hub.")],
    license: Annotated[str, typer.Option(metavar="SPDX", help="Of the weights: Apache-2.0, GPL-3.0-only, …")],
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Whose published figures the card quotes: asvspoof2021-la, …", show_default="none: your own data"
        ),
    ] = None,
    license_file: Annotated[Path | None, typer.Option(help="Its text, where the package has none.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep it there.", show_default="NAME if --dry-run, else not")
    ] = None,
    dtype: Annotated[DType, typer.Option(help="Of the weights.")] = DType.float32,
    evaluations: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluation",
            metavar="[NAME=]FIGURES.json",
            help="Of nes2net evaluate --report: measured on the benchmark, or on what NAME says.",
        ),
    ] = None,
    robustness: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of nes2net robustness, with these weights.")
    ] = None,
    space: Annotated[bool, typer.Option("--space", help="Also a Space with the page of nes2net demo.")] = False,
    datasets: Annotated[
        list[str] | None, typer.Option("--dataset", metavar="ID", help="Hub id of training data, for the card.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write and try the folder, send nothing.")] = False,
    public: Annotated[bool, typer.Option("--public", help="A new repository is for everyone to see.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FOLDER where it exists.")] = False,
) -> None:
    """
    From a run to the Hub: weights, code, recipe, figures and a card in a folder that is tried, then sent. Private.

    Exit codes: 0 released, 1 it cannot be, or the disk is full, 2 an option, the model or the folder is not possible,
    130 interrupted.
    """
    from .commands.release import ReleaseOptions, run_release

    options = ReleaseOptions(
        source=run,
        benchmark=benchmark,
        repo_id=repo_id,
        license=license,
        license_file=license_file,
        out=out,
        dtype=dtype.value,
        evaluations=evaluations or [],
        robustness=robustness,
        space=space,
        datasets=datasets or [],
        dry_run=dry_run,
        public=public,
        force=force,
    )
    raise typer.Exit(run_release(options))


@app.command()
def augment(
    source: Annotated[str, typer.Argument(metavar="IN", help="A recording, or - for standard input.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .wav or .flac, 16 kHz mono.")],
    recipe: Annotated[Path, typer.Option(help="The training recipe whose data.augmentation is heard.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same audio.")] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the spectrograms before and after.")
    ] = None,
) -> None:
    """
    Hear what training hears: a recording through the augmentation of a recipe.

    Exit codes: 0 written, 1 IN cannot be read, or the disk is full, 2 an option, the recipe or an output is not
    possible, 130 interrupted.
    """
    from .commands.augment import run_augment

    raise typer.Exit(run_augment(source, out, recipe, seed, plot))


@app.command()
def robustness(
    model: Annotated[str, typer.Argument(help="Hub id or folder.")],
    corpus: Annotated[str, typer.Option(help="asvspoof2019-la, …, own-data, or dataset.")],
    root: Annotated[
        str,
        typer.Option(help="The folder that its archives were unpacked into; manifest, Hub id, or shards."),
    ],
    split: Annotated[str | None, typer.Option(help="One partition.", show_default="the only one")] = None,
    where: Where = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Scores and results.", show_default="robustness-MODEL-CORPUS"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Utterances at most, balanced over classes and speakers.")
    ] = None,
) -> None:
    """
    Measure a model's EER on a corpus as it is, and through codecs, noise, rooms and cuts. Stopped, the same goes on.

    Exit codes: 0 measured, 1 some files could not be read, or the disk is full, 2 an option, the model, the corpus or
    the folder is not possible, 130 interrupted.
    """
    from .commands.robustness import RobustnessOptions, run_robustness

    options = RobustnessOptions(model, corpus, root, split, where or [], out, limit)
    raise typer.Exit(run_robustness(options))


@app.command()
def evaluate(
    scores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SCORES...",
            help="`utterance_id score` text, CSV, Parquet, or what detect writes; several are compared.",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="Protocol of a --benchmark, lines `utterance_id label`, or a table with a header."),
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="What --keys is of: asvspoof2021-la, asvspoof5, …")] = None,
    split: Annotated[str | None, typer.Option(help="Its partition, where the file's name does not tell.")] = None,
    condition: Annotated[
        str | None, typer.Option(help="Of the organisers, or all.", show_default="the one they report, e.g. eval")
    ] = None,
    asv_scores: Annotated[
        Path | None, typer.Option(help="The organisers' ASV scores, for the t-DCF (2019 and 2021).")
    ] = None,
    costs: Annotated[
        tuple[float, float, float] | None,
        typer.Option(
            metavar="MISS FALSE-ALARM PRIOR", help="Of the DCF; the prior is of spoof.", show_default="1 10 0.05"
        ),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Count accuracy, F1 and errors there, too.")] = None,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.md, report.html and plots there.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Score --corpus with this Hub id or folder first, into SCORES.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of the model: branch, tag or commit on the Hub.")] = None,
    corpus: Annotated[str | None, typer.Option(help="A corpus on the disk, instead of --keys.")] = None,
    root: Annotated[str | None, typer.Option(help="Its folder, manifest, Hub id, or shards.")] = None,
    where: Where = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances that --model scores together.")] = 16,
    all_windows: Annotated[
        bool, typer.Option("--all-windows", help="--model judges whole recordings, as detect does.")
    ] = False,
) -> None:
    """
    The benchmark's own figures of a score file or a model, with intervals, breakdowns and plots.

    Exit codes: 0 evaluated, 1 scores or keys cannot be, or the disk is full, 2 an option, the model, the corpus or an
    output is not possible, 130 interrupted.
    """
    from .commands.evaluate import EvaluateOptions, run_evaluate

    options = EvaluateOptions(
        scores=scores or [],
        keys=keys,
        benchmark=benchmark,
        split=split,
        condition=condition,
        asv_scores=asv_scores,
        costs=costs,
        threshold=threshold,
        resamples=resamples,
        as_json=as_json,
        report=report,
        model=model,
        revision=revision,
        corpus=corpus,
        root=root,
        where=where or [],
        batch_size=batch_size,
        all_windows=all_windows,
    )
    raise typer.Exit(run_evaluate(options))


@app.command()
def demo(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Hub id or folder; several to choose from, each with --model.",
            show_default="bundled demonstration model",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    max_size: Annotated[int, typer.Option(min=1, help="Megabytes that a file may have.")] = 200,
    max_duration: Annotated[float, typer.Option(min=1, help="Seconds that a recording may have.")] = 3600,
    allow_hosts: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="A name under which browsers find the page, such as a proxy's; * for any."),
    ] = None,
) -> None:
    """
    A page for the browser: drop or record speech; read, see and hear the verdict. Ctrl+C ends it.

    Exit codes: 0 ended, 2 an option or a model is not possible.
    """
    from .commands.demo import run_demo

    raise typer.Exit(run_demo(models or [], host, port, max_size, max_duration, allow_hosts or []))


@app.command()
def serve(
    model: Annotated[
        str | None, typer.Option(help="Hub id or folder.", show_default="bundled demonstration model")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    max_size: Annotated[int, typer.Option(min=1, help="Megabytes that a request may have.")] = 200,
    max_duration: Annotated[float, typer.Option(min=1, help="Seconds that a recording may have.")] = 3600,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait while a recording is judged.")] = 4,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that a request may take, with its upload and its waiting.")
    ] = 600,
    allow_hosts: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="A name under which clients find the server, such as a proxy's; * for any."),
    ] = None,
) -> None:
    """
    An HTTP server: POST a recording to /judge, read the verdict as JSON; GET /health. Ctrl+C ends it.

    Exit codes: 0 ended, 2 an option or a model is not possible, 130 interrupted before it served.
    """
    from .commands.serve import run_serve

    code = run_serve(model, host, port, max_size, max_duration, queue, timeout, allow_hosts or [])
    raise typer.Exit(code)


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="A folder, whose config.json is to hold it, or a Hub id with --out.")],
    corpus: Annotated[str, typer.Option(help="asvspoof2019-la, …, own-data, or dataset: its dev, not its eval.")],
    root: Annotated[str, typer.Option(help="Its folder, manifest, Hub id, or shards.")],
    split: Split = None,
    where: Where = None,
    prior: Annotated[float, typer.Option(help="Of spoof, that the fit is weighted to.")] = 0.5,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="FILE.parquet", help="Where scores are kept.", show_default="in this folder"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a calibrated copy of the model there.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows judged together.")] = 16,
) -> None:
    """
    Make scores log-likelihood ratios, so that `nes2net detect` can say a probability that means something.

    Exit codes: 0 calibrated, 1 scores cannot be, or the disk is full, 2 an option, the model, the corpus or an output
    is not possible, 130 interrupted.
    """
    from .commands.calibrate import CalibrateOptions, run_calibrate

    options = CalibrateOptions(model, revision, corpus, root, split, where or [], prior, scores, out, batch_size)
    raise typer.Exit(run_calibrate(options))


@app.command()
def fuse(
    scores: Annotated[list[Path], typer.Argument(metavar="SCORES...", help="One file for each system.")],
    keys: Annotated[Path | None, typer.Option(help="Fit on these: a protocol, or lines `utterance_id label`.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="What --keys is of: asvspoof2019-la, …")] = None,
    split: Annotated[str | None, typer.Option(help="Its partition, where the file's name does not tell.")] = None,
    prior: Annotated[float, typer.Option(help="Of spoof, that the fit is weighted to.")] = 0.5,
    apply: Annotated[
        Path | None, typer.Option(metavar="WEIGHTS.json", help="Fuse by weights that were fitted, in this order.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The weights, or with --apply the fused scores.")] = None,
) -> None:
    """
    Fuse the scores of several systems by linear logistic regression.

    Exit codes: 0 fused, 1 scores cannot be, or the disk is full, 2 an option or the output is not possible, 130
    interrupted.
    """
    from .commands.calibrate import FuseOptions, run_fuse

    raise typer.Exit(run_fuse(FuseOptions(scores, keys, benchmark, split, prior, apply, out)))


@corpus_app.command()
def check(
    name: Annotated[str, typer.Argument(help="asvspoof2019-la, …, own-data, or dataset.")],
    root: Annotated[
        str,
        typer.Option(help="The folder that its archives were unpacked into; manifest or folder; Hub id of a dataset."),
    ],
    split: Split = None,
    columns: Columns = None,
    labels: Labels = None,
    full: Annotated[bool, typer.Option("--full", help="Decode every file instead of reading its header.")] = False,
    config: Config = None,
) -> None:
    """
    Say what of a benchmark, your own data or a dataset is there, missing, unreadable or not as published.

    Exit codes: 0 whole, 1 not, 2 an option or the corpus is not possible, 130 interrupted.
    """
    from .commands.corpus import run_corpus_check

    raise typer.Exit(run_corpus_check(name, root, split, columns or [], labels or [], full, config))


@corpus_app.command()
def shard(
    name: Annotated[str, typer.Argument(help="asvspoof2019-la, …, own-data, or dataset.")],
    root: Annotated[
        str,
        typer.Option(help="The folder that its archives were unpacked into; manifest or folder; Hub id of a dataset."),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; where it holds finished shards, the rest is made.")],
    split: Split = None,
    columns: Columns = None,
    labels: Labels = None,
    flac: Annotated[bool, typer.Option("--flac", help="Recode WAV and AIFF to FLAC, with equal samples.")] = False,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Leave out what has no audio.")] = False,
    shard_size: Annotated[int, typer.Option(min=1, help="Megabytes of audio in a shard, about.")] = 500,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="ORG/NAME", help="Upload to this dataset repository, private if new."),
    ] = None,
    form: Annotated[
        ShardForm, typer.Option("--form", help="Our columns, or those of the Speech Anti-Spoofing Arena.")
    ] = ShardForm.nes2net,
    config: Config = None,
) -> None:
    """
    Write a corpus as Parquet shards that stream from a disk, the Hub or S3. Stopped, the same command goes on.

    Exit codes: 0 written, 1 the disk is full, or the Hub refuses, 2 an option, the corpus or the folder is not
    possible, 130 interrupted.
    """
    from .commands.corpus import ShardOptions, run_corpus_shard

    options = ShardOptions(
        name, root, out, split, columns or [], labels or [], flac, allow_missing, shard_size, push, form.value, config
    )
    raise typer.Exit(run_corpus_shard(options))


def main() -> None:
    """The console entry: what nobody foresaw is a sentence, too."""
    try:
        app()
    except BrokenPipeError:  # the reader went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …")
        typer.echo(f"nes2net failed unexpectedly ({reason}); please report it with the command you ran.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
