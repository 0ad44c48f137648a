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


def _print_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"nes2net_hf {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
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
    channels: Annotated[
        Channels, typer.Option(help="Judge the mix of the channels, or each (calls: one speaker per channel).")
    ] = Channels.mix,
    hop: Annotated[
        float | None, typer.Option(help="Seconds from window to window.", show_default="one window: side by side")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows judged together.")] = 8,
    device: Annotated[str | None, typer.Option(help="cuda, cuda:1, mps, cpu.", show_default="the best there")] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the model.")] = DType.float32,
    output_format: Annotated[
        Format | None,
        typer.Option("--format", help="Form of the results.", show_default="table on a terminal, else jsonl"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write results here (.csv: CSV, else JSON Lines).")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip files that --output holds; retry errors.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw score and waveform of the one file.")
    ] = None,
    version: Version = False,
) -> None:
    """
    Judge recordings: bona fide speech, or spoofed. Score: higher = bona fide.

    Exit codes: 0 all were judged, 1 some could not be, 2 wrong usage, 130 interrupted.
    """
    from .commands.detect import DetectOptions, run_detect

    options = DetectOptions(
        paths=paths or [],
        list_file=list_file,
        demo=demo,
        model=model,
        revision=revision,
        threshold=threshold,
        channels=channels.value,
        hop=hop,
        batch_size=batch_size,
        device=device,
        dtype=dtype.value,
        form=output_format.value if output_format else None,
        output=output,
        resume=resume,
        plot=plot,
    )
    raise typer.Exit(run_detect(options))


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

    Exit codes: 0 converted, 1 it cannot be, 2 wrong usage, 130 interrupted.
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
def augment(
    source: Annotated[str, typer.Argument(metavar="IN", help="A recording of any format, or - for standard input.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .wav or .flac, 16 kHz mono.")],
    recipe: Annotated[Path, typer.Option(help="The training recipe whose data.augmentation is heard.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same audio.")] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the spectrograms before and after.")
    ] = None,
) -> None:
    """
    Hear what training hears: a recording through the augmentation of a recipe.

    Exit codes: 0 written, 1 it could not be, 2 wrong usage.
    """
    from .commands.augment import run_augment

    raise typer.Exit(run_augment(source, out, recipe, seed, plot))


Split = Annotated[str | None, typer.Option(help="One partition.", show_default="all that are there")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OURS=THEIRS", help="Of your own data: which of its columns is audio, label, …"),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="THEIRS=OURS", help="Of your own data: which of its labels is bonafide, spoof."),
]


@corpus_app.command()
def check(
    name: Annotated[str, typer.Argument(help="asvspoof2019-la, asvspoof2021-df, asvspoof5, …")],
    root: Annotated[Path, typer.Option(help="The folder that its archives were unpacked into.")],
    split: Split = None,
    columns: Columns = None,
    labels: Labels = None,
    full: Annotated[bool, typer.Option("--full", help="Decode every file instead of reading its header.")] = False,
) -> None:
    """
    Say what of a benchmark or of your own data is there, missing, unreadable or not as published.

    Exit codes: 0 whole, 1 not, 2 wrong usage, 130 interrupted.
    """
    from .commands.corpus import run_corpus_check

    raise typer.Exit(run_corpus_check(name, root, split, columns or [], labels or [], full))


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
) -> None:
    """
    Write a corpus as Parquet shards that stream from a disk, the Hub or S3. Stopped, the same command goes on.

    Exit codes: 0 written, 1 it could not be, 2 wrong usage, 130 interrupted.
    """
    from .commands.corpus import ShardOptions, run_corpus_shard

    options = ShardOptions(name, root, out, split, columns or [], labels or [], flac, allow_missing, shard_size, push)
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
