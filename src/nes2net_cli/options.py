"""Options that several commands take, each declared once, and what their values mean."""

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
Model = Annotated[str | None, typer.Option(help="Hub id or folder.", show_default=_BUNDLED)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the Hub.")]
ModelArgument = Annotated[str, typer.Argument(help="Hub id or folder.")]
Precision = Literal["float32", "bfloat16", "float16"]

# Corpora
_BENCHMARKS = "asvspoof2019-la, …, own-data, or dataset."
Corpus = Annotated[str, typer.Option(help=_BENCHMARKS)]
CorpusArgument = Annotated[str, typer.Argument(help=_BENCHMARKS)]
Root = Annotated[
    str, typer.Option(help="Folder with the unpacked archives, manifest, Hub id of a dataset, or folder of shards.")
]
Split = Annotated[str | None, typer.Option(help="Partition to read.", show_default="all that are there")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="COLUMN=VALUE", help="Keep these rows only; a column may be given several values."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OURS=THEIRS", help="Your own data: the name of its column for audio, label, …"),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="THEIRS=OURS", help="Your own data: which of its labels is bonafide or spoof."),
]
Config = Annotated[str | None, typer.Option(metavar="NAME", help="Configuration of a dataset.")]

# Servers
Host = Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 lets other machines connect.")]
MaxDuration = Annotated[float, typer.Option(min=1, help="Maximum duration of a recording, in seconds.")]
AllowHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", help="Name under which clients reach the server, such as a proxy's; * allows every name."
    ),
]

# Output
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def pairs(option: str, values: list[str] | None) -> dict[str, str] | None:
    """
    `["audio=wav"]` → `{"audio": "wav"}`; None if there are no values: then columns and labels go by their names.

    Raises:
        UsageError: a value has another form.
    """
    from nes2net_hf.errors import UsageError

    for value in values or []:
        if not all(value.partition("=")):
            form = "OURS=THEIRS" if option == "--column" else "THEIRS=OURS"
            raise UsageError(f"{option} {value!r}: it has the form {form}.")
    return dict(value.split("=", 1) for value in values or []) or None


def wanted(values: list[str] | None) -> dict[str, list[str]]:
    """
    The rows of `--where`: `["codec=alaw", "codec=gsm"]` → `{"codec": ["alaw", "gsm"]}`.

    Raises:
        UsageError: a value has another form.
    """
    from nes2net_hf.errors import UsageError

    rows: dict[str, list[str]] = {}
    for text in values or []:
        column, _, value = text.partition("=")
        if not column or not value:
            raise UsageError(f"--where {text!r}: it has the form COLUMN=VALUE.")
        rows.setdefault(column, []).append(value)
    return rows
