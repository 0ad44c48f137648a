"""
The web page of `nes2net demo` (needs the extra `demo`). It judges recordings with `Detector`, and shows and plays the
verdicts.

    serve([None])                   # the bundled model, on this machine only, until Ctrl+C
    build_page(["org/model"])       # only the gradio.Blocks
"""

from __future__ import annotations

import copy
import functools
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported, so that it contacts nobody

import gradio as gr
from starlette.middleware import Middleware

from ..detection import ALL_TRACKS, DEMO_NOTICE, DetectionError, Detector, Result
from ..detection.recordings import CANCELLING, DIFFERING
from ..detection.words import clock, sentence
from ..detection.words import verdict as in_words
from ..detection.writers import CsvWriter
from ..pretrained.bases import describe_model
from ..pretrained.load import DEMO_MODEL, ModelError
from .guard import PageGuard
from .verdict import FILES, make_playable, remarks, render

# Column → type, and width in per cent of the table.
COLUMNS: dict[str, tuple[Any, int]] = {
    "no": ("number", 6),
    "file": ("str", 19),
    "verdict": ("str", 10),
    "score": ("number", 8),
    "from threshold": ("number", 10),
    "lowest window": ("number", 10),
    "at": ("str", 8),
    "length": ("str", 8),
    "remarks": ("str", 21),
}
MAX_SECONDS, MAX_MEGABYTES = 3600.0, 200  # of a recording, of its file
KEPT = 3600  # minimum seconds that uploads stay on disk; at most a sixth longer
LIMITS = (
    "A detector knows the attacks it was trained on and some similar ones. New generators, languages, codecs and "
    "microphones change its scores. A score is neither a probability nor proof."
)
# For files with several audio tracks or channels.
TRACKS = [("the default track", "default"), ("each track", ALL_TRACKS)]
CHANNELS = [("each channel if they differ much", "auto"), ("the mix", "mix"), ("each channel", "each")]
PRIVACY = "The machine that serves this page judges the recordings, and deletes them after about an hour."
# From gradio's own files. Its default uses the semibold font, whose file lacks most letters.
FONT = (gr.themes.LocalFont("Source Sans Pro", (400, 700)), "sans-serif")
# Handlebars braces are not used for the value, because their output is evaluated as a template again.
VERDICT = """${value ? value.html : '<p class="quiet">The verdict appears here.</p>'}
${value && value.audio ? `<audio controls src="${value.audio.url}"></audio>` : ""}"""


def build_page(models: Sequence[str | None] = (None,), max_duration: float = MAX_SECONDS) -> gr.Blocks:
    """
    Builds the page. A model is loaded when it first judges a recording.

    Args:
        models: Hub ids and folders to choose from, None for the bundled demonstration model; the first is selected.
        max_duration: maximum length of a recording in seconds, measured while decoding, not by its header.
    """
    known = {DEMO_MODEL.name if model is None else model: model for model in models}
    load = functools.cache(lambda name: Detector(known[name], max_duration=max_duration))

    def on_input(
        files: list[str] | None,
        recording: str | None,
        name: str,
        tracks: str,
        channels: str = "auto",
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Any:
        paths = [*(files or []), *([recording] if recording else [])]

        def tell(done: int, seconds: float) -> None:
            progress((done, len(paths)), desc=f"{clock(seconds)} of audio judged", unit="recordings")

        try:
            judged = judge(paths, lambda: choosing(load(name), tracks, channels), tell)
        except (ModelError, DetectionError) as error:
            hidden = gr.update(visible=False)
            return [], hidden, hidden, show("", Result("", error=str(error)))
        results = [result for _, result in judged]
        rows = [row(number, result) for number, result in enumerate(results, 1)]
        return (
            judged,
            gr.update(value=rows, visible=len(rows) > 1),
            gr.update(value=write_csv(results) if results else None, visible=bool(results)),
            show(*judged[0]) if judged else None,
        )

    def on_select(judged: list[tuple[str, Result]], event: gr.SelectData) -> Any:
        return show(*judged[int(event.row_value[0]) - 1])  # the table may be sorted, so the number identifies the row

    with gr.Blocks(title="Nes2Net", analytics_enabled=False, delete_cache=(KEPT // 6, KEPT)) as page:
        gr.Markdown("# Bona fide or spoofed?\nDrop recordings of speech, or record some. Nes2Net judges them.")
        notice = gr.Markdown(describe(models[0]), elem_classes="notice")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                model = gr.Dropdown(list(known), value=next(iter(known)), label="Model", interactive=len(known) > 1)
                files = gr.File(label="Audio or video files", file_count="multiple", height=170)
                recording = gr.Audio(
                    label="Or record", sources=["microphone"], type="filepath", editable=False, buttons=[]
                )
                tracks = gr.Radio(TRACKS, value="default", label="Audio tracks to judge", visible=False)
                channels = gr.Radio(CHANNELS, value="auto", label="Channels to judge", visible=False)
                gr.Markdown(PRIVACY, elem_classes="quiet")
            with gr.Column(scale=3, min_width=320):
                verdict = gr.HTML(
                    html_template=VERDICT,
                    js_on_load=(FILES / "player.js").read_text(encoding="utf-8"),
                    apply_default_css=False,
                )
        table = gr.Dataframe(
            headers=list(COLUMNS),
            datatype=[kind for kind, _ in COLUMNS.values()],
            column_widths=[f"{width}%" for _, width in COLUMNS.values()],
            label="All recordings (click a row to see its verdict)",
            interactive=False,
            visible=False,
            wrap=True,
            max_height=700,
        )
        download = gr.DownloadButton("Download the verdicts as CSV", visible=False, size="md")

        judged: Any = gr.State([])
        model.change(lambda name: describe(known[name]), model, notice, api_visibility="private")
        gr.on(
            [files.change, recording.change, model.change, tracks.input, channels.input],
            on_input,
            [files, recording, model, tracks, channels],
            [judged, table, download, verdict],
            api_name="judge",
        )
        judged.change(choices, judged, [tracks, channels], api_visibility="private")
        table.select(on_select, judged, verdict, api_visibility="private")
    return page


def choosing(detector: Detector, tracks: str, channels: str) -> Detector:
    """Returns the detector with the selected audio tracks (the default one or all) and channels."""
    chosen = copy.copy(detector)
    chosen.track, chosen.channels = None if tracks == "default" else ALL_TRACKS, channels
    return chosen


def choices(judged: Sequence[tuple[str, Result]]) -> list[Any]:
    """Returns updates that show the choices of audio tracks and channels, if a recording has several."""
    results = [result for _, result in judged]
    tracks = any(result.track is not None for result in results)
    channels = any(result.channel is not None or {CANCELLING, DIFFERING} & set(result.warnings) for result in results)
    return [gr.update(visible=True) if one else gr.skip() for one in (tracks, channels)]


def judge(
    paths: Sequence[str], load: Callable[[], Detector], tell: Callable[[int, float], object]
) -> list[tuple[str, Result]]:
    """
    Judges uploaded files. Results have the names of the uploads, without the server's folders.

    Args:
        load: returns the model; only called if there is something to judge.
        tell: called with the number of recordings done and the seconds of audio judged so far.

    Returns:
        Pairs of path and result; a file has several if each of its audio tracks or channels is judged.

    Raises:
        ModelError: the model cannot be loaded.
        DetectionError: the model ran out of memory.
    """
    judged: list[tuple[str, Result]] = []
    seconds = 0.0

    def on_batch(more: float) -> None:
        nonlocal seconds
        seconds += more
        tell(len({path for path, _ in judged}), seconds)

    for result in load().stream(paths, on_batch) if paths else ():
        path = result.file
        result.file = Path(path).name
        result.error = result.error and result.error.replace(path, result.file)
        judged.append((path, result))
    return judged


def show(path: str, result: Result) -> dict[str, Any]:
    """Returns the content of the verdict: `html`, and `audio` to play unless there is an error."""
    if result.error is None and not os.path.exists(path):
        result = Result(result.file, error=f"{result.file} has been deleted: upload it again.")
    if result.error is not None:
        return {"html": render(result), "audio": None}
    playable = _new_file("heard.wav")
    html = render(result, make_playable(path, playable, result.track, result.channel))
    return {"html": html, "audio": gr.FileData(path=str(playable)).model_dump()}


def row(number: int, result: Result) -> list[str | float | None]:
    """Returns a result as a row of the table, with numbers that can be sorted."""
    if result.score is None or result.min_window_score is None:
        return [number, result.name, in_words(result), None, None, None, "", "", result.error]
    far = None if result.threshold is None else round(result.score - result.threshold, 2)
    scores = [round(result.score, 2), far, round(result.min_window_score, 2)]
    times = [clock(result.min_window_start or 0), clock(result.duration or 0)]
    return [
        number,
        result.name,
        in_words(result),
        *scores,
        *times,
        " ".join(remarks(result)),
    ]


def write_csv(results: Sequence[Result]) -> str:
    """Writes a file with the columns of `nes2net detect --format csv`; returns its path."""
    path = _new_file("verdicts.csv")
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = CsvWriter(file)
        for result in results:
            writer.write(result)
    return str(path)


def describe(model: str | None) -> str:
    """Returns what users must know about a model, as Markdown: the limits in its card, or those of all models."""
    about = describe_model(str(DEMO_MODEL if model is None else model))
    notice = ""
    if about.demonstration:
        notice = f"**{sentence(DEMO_NOTICE)}** For a real model, ask the person who runs this page.\n\n"
    if not about.limits:
        return notice + LIMITS
    return notice + "Its model card says:\n\n" + "\n".join(f"- {limit}" for limit in about.limits)


def serve(
    models: Sequence[str | None] = (None,),
    host: str | None = "127.0.0.1",
    port: int | None = 7860,
    max_size: int = MAX_MEGABYTES,
    max_duration: float = MAX_SECONDS,
    allow_hosts: Sequence[str] = (),
) -> None:
    """
    Serves the page until it is interrupted or terminated, then deletes all uploads.

    Args:
        models: as in `build_page`.
        host, port: None uses gradio's environment variables, which a Space sets.
        max_size: maximum size of a file in megabytes.
        max_duration: maximum length of a recording in seconds.
        allow_hosts: other host names under which browsers reach the page, such as a proxy's; `*` allows all. A Space
            needs none, because its proxy checks them.

    Raises:
        OSError: host and port cannot be bound.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="nes2net-demo-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = launch(build_page(models, max_duration), host, port, max_size, allow_hosts)
        print(f"Open {page.local_url} in a browser; press Ctrl+C to stop.", flush=True)
        page.block_thread()


def launch(
    page: gr.Blocks, host: str | None, port: int | None, max_size: int, allow_hosts: Sequence[str] = ()
) -> gr.Blocks:
    """Starts the server in its own thread."""
    bound = host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"  # like gradio
    in_space = os.environ.get("SPACE_ID") or os.environ.get("SPACE_HOST")
    guard = [] if in_space else [Middleware(PageGuard, bound=bound, more=allow_hosts)]
    os.environ["GRADIO_NUM_WORKERS"] = "0"  # workers would serve files at other ports, without the guard
    page.launch(
        server_name=host,
        server_port=port,
        max_file_size=f"{max_size}mb",
        css_paths=FILES / "page.css",
        theme=gr.themes.Default(font=FONT, font_mono=FONT),
        share=False,
        app_kwargs={"middleware": guard},
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        quiet=True,
        inline=False,
        prevent_thread_lock=True,
    )
    return page


def _new_file(name: str) -> Path:
    """Returns a path in a new folder among the uploads. Files are served only from there."""
    place = gr.utils.get_upload_folder()
    os.makedirs(place, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=place)) / name
