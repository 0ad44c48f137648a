"""Options that several commands share, and functions that parse their values."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def _print_version(wanted: bool) -> None:
    if wanted:
        from nes2net_hf import __version__

        typer.echo(f"nes2net_hf {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]

# Models
_BUNDLED = "bundled demonstration model"
MODEL = "Folder, Hub id, short name (nes2net models) or official checkpoint of the model."
Model = Annotated[str | None, typer.Option(help=MODEL, show_default=_BUNDLED)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the Hub.")]
ModelArgument = Annotated[str, typer.Argument(help=MODEL)]
StoredPrecision = Literal["float32", "bfloat16", "float16"]
Precision = Literal["float32", "bfloat16", "float16", "int8", "auto"]

# Corpora
_BENCHMARKS = "Name of a benchmark (asvspoof2019-la, …), own-data, or dataset."
Corpus = Annotated[str, typer.Option(help=_BENCHMARKS)]
CorpusArgument = Annotated[str, typer.Argument(help=_BENCHMARKS)]
Root = Annotated[
    str,
    typer.Option(help="Where the corpus is: unpacked archives, a manifest, a Hub dataset id, or a folder of shards."),
]
Split = Annotated[str | None, typer.Option(help="Partition to read.", show_default="all that exist")]
OnlySplit = Annotated[str | None, typer.Option("--split", help="Partition to read.", show_default="the only one")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="COLUMN=VALUE", help="Use only these rows. Repeat it for more values or columns."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OURS=THEIRS", help="For your own data: your column for audio, label, …"),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="THEIRS=OURS", help="For your own data: your label for bonafide or spoof."),
]
Config = Annotated[str | None, typer.Option(metavar="NAME", help="Configuration of the dataset.")]

# Servers
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines connect.")]
MaxDuration = Annotated[float, typer.Option(min=1, help="Maximum duration of a recording, in seconds.")]
AllowHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", help="Also answer requests for this host name, such as a proxy's; * allows every name."
    ),
]

# Output
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def pairs(option: str, values: list[str] | None) -> dict[str, str] | None:
    """
    Parses `["audio=wav"]` into `{"audio": "wav"}`. Without values it returns None: columns and labels then go by name.

    Raises:
        UsageError: a value does not have this form.
    """
    from nes2net_hf.errors import UsageError

    for value in values or []:
        if not all(value.partition("=")):
            form = "OURS=THEIRS" if option == "--column" else "THEIRS=OURS"
            raise UsageError(f"{option} {value!r} must have the form {form}.")
    return dict(value.split("=", 1) for value in values or []) or None


def wanted(values: list[str] | None) -> dict[str, list[str]]:
    """
    Parses `--where`: `["codec=alaw", "codec=gsm"]` → `{"codec": ["alaw", "gsm"]}`.

    Raises:
        UsageError: a value does not have this form.
    """
    from nes2net_hf.errors import UsageError

    rows: dict[str, list[str]] = {}
    for text in values or []:
        column, _, value = text.partition("=")
        if not column or not value:
            raise UsageError(f"--where {text!r} must have the form COLUMN=VALUE.")
        rows.setdefault(column, []).append(value)
    return rows
