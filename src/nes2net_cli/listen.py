"""`nes2net listen`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .console import as_utf8, be_quiet, ending, need, say
from .options import Model, Precision, Revision

if TYPE_CHECKING:
    from nes2net_hf.audio.live import LiveSource
    from nes2net_hf.detection import Detector, Result
    from nes2net_hf.detection.live import LiveDetector, LiveVerdict


def listen(
    model: Model = None,
    revision: Revision = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME|N|default", help="Microphone to hear, instead of standard input.")
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(metavar="HZ", help="Standard input is headerless 16-bit PCM, mono, little-endian, at this rate."),
    ] = None,
    hop: Annotated[float, typer.Option(help="Seconds from one verdict to the next.")] = 0.5,
    errors: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="BONAFIDE SPOOF",
            help="With a calibrated model: accepted shares of bona fide called spoof, and of spoof called bona fide.",
        ),
    ] = (0.05, 0.05),
    threshold: Annotated[
        float | None,
        typer.Option(help="Lowest score that counts as bona fide.", show_default="the model's own, or 0"),
    ] = None,
    dtype: Annotated[
        Precision, typer.Option(help="Precision of the model. auto: the fastest on this machine.")
    ] = "float32",
    output_format: Annotated[
        Literal["line", "jsonl"] | None,
        typer.Option("--format", help="Format of the results.", show_default="line on a terminal, else jsonl"),
    ] = None,
) -> int:
    """
    Judge speech while it is spoken: standard input, such as a call, or a microphone. WAV, Ogg, FLAC, MP3, Matroska and
    MPEG-TS are recognised.

    A verdict follows every half second, from the first second of sound on. When the sound ends, the whole is judged as
    `nes2net detect` judges a file. If the model is slower than the sound, verdicts are skipped and counted.

    Examples:
      arecord -f S16_LE -r 16000 | nes2net listen
      ffmpeg -i rtsp://camera/audio -f wav - | nes2net listen --format jsonl

    Exit codes:
      0    the sound ended, or Ctrl+C ended it, and was judged
      1    the source cannot be read, or the whole could not be judged
      2    an option or the model is wrong
      130  interrupted before the sound began
    """
    with ExitStack() as stack, ending() as end:
        from nes2net_hf.detection import Detector
        from nes2net_hf.detection.live import LiveDetector
        from nes2net_hf.errors import AudioError, UsageError

        be_quiet()
        as_utf8(sys.stdout)
        if device is not None and rate is not None:
            raise UsageError("--rate describes standard input, and --device hears a microphone: omit one of them.")
        detector = Detector(model, revision=revision, threshold=threshold, dtype=dtype, channels="mix")
        if detector.model.config.calibration is None:
            say("The model is not calibrated, so there is no running verdict: run nes2net calibrate.")
        form = output_format or ("line" if sys.stdout.isatty() else "jsonl")
        source = _source(device, rate)
        live = stack.enter_context(
            LiveDetector(
                detector,
                source.sampling_rate,
                channels=source.channels,
                hop=hop,
                errors=errors,
                skip=True,
                name=source.name,
            )
        )
        show = _show_line if form == "line" else _show_json
        failure = None
        with closing(source), suppress(KeyboardInterrupt):
            try:
                for chunk in source:
                    for verdict in live.push(chunk):
                        show(verdict)
            except AudioError as error:  # what was heard before it is still judged
                failure = error
        result = live.finish()
        if source.lost:
            result.warnings.append(f"{source.lost:.2f} s of the sound were lost")
        _show_whole(result, live, detector, form)
        if failure is not None:
            raise failure
        end.code = 0 if result.error is None else 1
    return end.code


def _source(device: str | None, rate: int | None) -> LiveSource:
    from nes2net_hf.audio.live import ContainerSource, MicrophoneSource, PcmSource
    from nes2net_hf.errors import UsageError

    if device is not None:
        need("sounddevice", "live", "--device")
        chosen = None if device == "default" else int(device) if device.isdecimal() else device
        return MicrophoneSource(chosen)
    if sys.stdin.isatty():
        raise UsageError("nothing to hear: pipe sound into standard input, or name a microphone with --device.")
    return ContainerSource(sys.stdin.buffer) if rate is None else PcmSource(sys.stdin.buffer, rate)


def _show_json(verdict: LiveVerdict) -> None:
    from dataclasses import asdict

    _print({"type": "window", **asdict(verdict)})


def _print(row: dict[str, Any]) -> None:
    from nes2net_hf.detection.results import rounded

    print(json.dumps(rounded(row), ensure_ascii=False), flush=True)


def _show_line(verdict: LiveVerdict) -> None:
    from nes2net_hf.detection import clock

    score = "silence" if verdict.score is None else f"score {verdict.score:6.2f} {verdict.label}"
    state = "" if verdict.state is None else f"so far: {verdict.state}"
    late = f"{verdict.skipped} skipped" if verdict.skipped else ""
    print(f"\r{clock(verdict.time):>9}  {score:<24}  {state:<19}  {late:<12}", end="", flush=True)


def _show_whole(result: Result, live: LiveDetector, detector: Detector, form: str) -> None:
    if form == "jsonl":
        state = None if live.test is None else live.test.state
        _print({"type": "final", "state": state, **result.to_dict()})
        return
    from rich.console import Console

    from nes2net_hf.detection.writers import TableWriter

    print()
    TableWriter(Console(), detector.calibration is not None).write(result)
