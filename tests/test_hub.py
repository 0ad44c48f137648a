"""Errors at the Hub are one sentence at every entry point. Stalled requests end, and downloads resume."""

from __future__ import annotations

import errno
import logging
import re
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import close_session, constants, get_session
from huggingface_hub.utils import logging as hub_logging

from nes2net_hf import hub as hub_module
from nes2net_hf.corpora import CorpusError, load_corpus
from nes2net_hf.corpora.shards.write import push_shards
from nes2net_hf.errors import ConversionError, ModelError, PushError, ReleaseError
from nes2net_hf.hub import bounded_requests, hub_reason, prepare_push
from nes2net_hf.pretrained.load import load_model
from nes2net_hf.release.release import push
from tests.helpers import tiny_config, tiny_graph
from tests.loopback_hub import TOKEN, Fault, LoopbackHub, Repo

MODEL, DATASET = "org/tiny", "org/speech"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model_dir: Path) -> Iterator[LoopbackHub]:
    """Returns the Hub of this process, with a model; there is no waiting between two attempts."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'nes2net_hf[train]'")
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
    for variable in ("HF_TOKEN", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with LoopbackHub() as hub:
        for name, value in {
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DOWNLOAD_TIMEOUT": 0.3,
            "HF_HUB_ETAG_TIMEOUT": 0.3,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "hf" / "token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
        huggingface_hub.HfFileSystem.clear_instance_cache()
        hub.repos[MODEL] = Repo(private=False)
        hub.repos[MODEL].commit("main", {path.name: path.read_bytes() for path in tiny_model_dir.iterdir()})
        hub.repos[f"datasets/{DATASET}"] = Repo(private=False)
        hub.repos[f"datasets/{DATASET}"].commit("main", {"README.md": b"# speech\n"})
        yield hub


def load(model: str = MODEL, revision: str | None = None) -> Any:
    return load_model(model, revision, torch.device("cpu"), "float32")


def refusal(model: str = MODEL, revision: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        load(model, revision)
    sentence = str(caught.value)
    assert sentence.startswith(f"model {model}") and "\n" not in sentence
    assert re.fullmatch(r"[^.]*(\.\w[^.]*)*\.", sentence), f"more than one sentence: {sentence}"
    return sentence


WAIT = "the Hub's rate limit is reached: try again in"
ANSWERS = {
    "503": (Fault("", 503), "not available (503 Service Unavailable): try again in a few minutes"),
    "502": (Fault("", 502, body=b"<html>Bad gateway</html>"), "not available (502 Bad Gateway)"),
    "500": (Fault("", 500), "not available (500 Internal Server Error)"),
    "503 that says when": (Fault("", 503, {"Retry-After": "90"}), "try again in 90 s"),
    "429": (Fault("", 429), f"{WAIT} a few minutes"),
    "429 with seconds": (Fault("", 429, {"Retry-After": "1"}), f"{WAIT} 1 s"),
    "429 with minutes": (Fault("", 429, {"Retry-After": "600"}), f"{WAIT} 10 minutes, or log in"),
    "429 with the Hub's header": (Fault("", 429, {"RateLimit": '"api";r=0;t=55'}), f"{WAIT} 55 s"),
    "429 with a date": (Fault("", 429, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}), " minutes, or log in"),
    "403": (Fault("", 403), "does not let you read it: request access"),
    "disabled": (
        Fault("", 403, {"X-Error-Message": "Access to this resource is disabled."}),
        "the Hub has disabled it",
    ),
    "404 of a mirror": (Fault("", 404), "no such repository, revision or file (404)"),
    "a page to log in": (
        Fault("", 200, {}, b"<html>Welcome to the hotel</html>"),
        "is not a Hub, or its answer is invalid",
    ),
    "a redirect elsewhere": (
        Fault("", 302, {"Location": "http://127.0.0.1:9/"}),
        "is not a Hub, or its answer is invalid",
    ),
    "451": (
        Fault("", 451, {"X-Error-Message": "Not here."}),
        "refused the request (451, Not here)",
    ),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_of_the_hub_is_a_sentence(hub: LoopbackHub, answer: str) -> None:
    fault, words = ANSWERS[answer]
    hub.faults.append(fault)
    assert words in refusal()


def test_what_is_not_there_is_named(hub: LoopbackHub) -> None:
    assert "there is no such repository on the Hub, or it is private: check the id, or log in" in refusal("org/none")
    assert "it has no such revision (v9): check the branch" in refusal(revision="v9")
    hub.faults.append(Fault("/preprocessor_config.json", 404, {"X-Error-Code": "EntryNotFound"}))
    assert "preprocessor_config.json" in refusal()
    hub.faults.clear()
    hub.repos[MODEL].commit("bare", {"README.md": b"# nothing\n"})
    assert refusal(revision="bare") == f"model {MODEL} is not a Nes2Net model: it has no config.json."


def test_tokens_and_access(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos[MODEL].gated = True
    assert "access to it is restricted: request access on its page" in refusal()
    hub.repos[MODEL].gated, hub.repos[MODEL].private = False, True
    assert "or it is private: check the id, or log in" in refusal()
    monkeypatch.setenv("HF_TOKEN", "an-old-one")
    assert "the Hub refused the token: log in with `hf auth login` again" in refusal()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load()
    monkeypatch.setenv("HF_TOKEN", "Zugangsschlüssel")
    assert "the token has invalid characters" in refusal("org/other")


def test_a_rate_limit_is_told_and_not_slept_through(hub: LoopbackHub) -> None:
    hub.faults.append(Fault("", 429, {"Retry-After": "120"}))
    refusal()
    assert len(hub.calls) <= 4  # each file would be tried six times


def test_a_short_fault_is_waited_out(hub: LoopbackHub) -> None:
    hub.faults.append(Fault("config.json", 503, times=2))
    assert load()


def test_no_network_no_certificate_and_no_address(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint, words in (
        ("http://127.0.0.1:9", "the Hub cannot be reached: check the network, or pass a local folder"),
        (hub.endpoint.replace("http:", "https:"), "certificate cannot be verified"),
        ("ftp://127.0.0.1", "ftp://127.0.0.1 is not the address of a Hub: check HF_ENDPOINT"),
    ):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert words in refusal()
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert "and the proxy in HTTPS_PROXY" in str(hub_reason(ssl.SSLError("handshake")))


def test_offline_a_cached_model_loads_and_another_is_a_sentence(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.calls.clear()
    assert load() and not hub.calls
    assert "offline mode is on and it is not in the cache: unset HF_HUB_OFFLINE" in refusal("org/none")


def test_a_cached_model_loads_while_the_hub_is_out_of_order(hub: LoopbackHub) -> None:
    load()
    hub.faults.append(Fault("", 503))
    assert load()


def test_a_graph_is_judged_with_from_the_hub_and_then_from_the_cache(
    hub: LoopbackHub, nes2net: Any, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    graph = tiny_graph(tmp_path / "graph", tiny_config(threshold=0.25))
    hub.repos["org/graph"] = Repo(private=False)
    hub.repos["org/graph"].commit("v1", {path.name: path.read_bytes() for path in graph.iterdir()})
    arguments = ("detect", "--demo", "--backend", "onnx", "--model", "org/graph", "--revision", "v1")
    for fault in ([], [Fault("", 503)]):
        hub.faults = fault
        run = nes2net(*arguments)
        assert run.code == 0 and run.err == "" and [row["threshold"] for row in run.rows] == [0.25, 0.25]


def test_another_models_graph_is_not_downloaded(hub: LoopbackHub, nes2net: Any) -> None:
    pytest.importorskip("onnxruntime")
    for name, files, words in (
        ("org/bert", {"config.json": b'{"model_type": "bert"}'}, "its model_type is 'bert', not 'nes2net'."),
        ("org/bare", {}, "it has no config.json."),
    ):
        hub.repos[name] = Repo(private=False)
        hub.repos[name].commit("main", {"model.onnx": b"0" * 1000, **files})
        run = nes2net("detect", "--demo", "--backend", "onnx", "--model", name)
        assert run.code == 2 and run.err == f"Error: model {name} is not a Nes2Net model: {words}\n"
    assert not [path for _, path in hub.calls if "model.onnx" in path]


@pytest.mark.skipif(sys.platform == "win32", reason="the size of files cannot be limited there")
def test_a_disk_that_takes_no_more_is_named_with_the_cache(hub: LoopbackHub) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        sentence = refusal()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"it cannot be stored in the cache at {constants.HF_HUB_CACHE}: " in sentence and "free space" in sentence


def test_a_full_disk_is_named_with_the_cache(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", write)
    assert f"it cannot be stored in the cache at {constants.HF_HUB_CACHE}: the disk is full; free space" in refusal()


def test_a_cache_that_is_a_file_is_named(hub: LoopbackHub) -> None:
    Path(constants.HF_HOME).parent.mkdir(exist_ok=True)
    Path(constants.HF_HOME).write_text("no folder")
    assert "it cannot be stored in the cache at" in refusal()


# ---------------------------------------------------------------------------------------------------------------------
# Downloads
# ---------------------------------------------------------------------------------------------------------------------

WEIGHTS = "/resolve/.*safetensors"


@pytest.mark.parametrize("fault", [{"stall_at": 100_000}, {"drop_at": 100_000}])
def test_a_download_that_stops_goes_on_where_it_was(hub: LoopbackHub, fault: dict[str, Any]) -> None:
    hub.faults.append(Fault(WEIGHTS, methods=("GET",), times=1, **fault))
    assert load()
    assert hub.ranges == ["bytes=100000-"]


@pytest.mark.parametrize("fault", [{"stall_at": 0}, {"drop_at": 0}])
def test_a_download_that_stays_away_ends_and_the_next_run_goes_on(hub: LoopbackHub, fault: dict[str, Any]) -> None:
    hub.faults += [
        Fault(WEIGHTS, methods=("GET",), times=1, stall_at=70_000),
        Fault(WEIGHTS, methods=("GET",), **fault),
    ]
    began = time.monotonic()
    sentence = refusal()
    assert time.monotonic() - began < 20
    words = "sent nothing for 0.3 s, several times in a row" if "stall_at" in fault else "broke: try again"
    assert words in sentence
    hub.faults.clear()
    hub.ranges.clear()
    assert load() and hub.ranges == ["bytes=70000-"]
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.part"))


def test_a_hub_that_never_answers_is_given_up(hub: LoopbackHub) -> None:
    hub.faults.append(Fault("", stall_at=0))
    began = time.monotonic()
    assert "the Hub sent nothing for 0.3 s" in refusal()
    assert time.monotonic() - began < 20


def test_a_hub_without_parts_of_files_begins_again(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.append(Fault(WEIGHTS, methods=("GET",), times=1, stall_at=100_000))
    monkeypatch.setattr(LoopbackHub, "has_ranges", False)
    assert load()


@pytest.mark.parametrize("content", [b"x" * 1000, b""], ids=["short", "empty"])
def test_what_came_broken_is_not_kept(hub: LoopbackHub, content: bytes) -> None:
    hub.faults.append(Fault(WEIGHTS, methods=("GET",), content=content))
    assert "the download from the Hub is incomplete or damaged: try again" in refusal()
    hub.faults.clear()
    assert load()


def test_other_bytes_of_the_same_length_are_not_believed(hub: LoopbackHub) -> None:
    weights = hub.files(MODEL)["model.safetensors"]
    hub.faults.append(Fault(WEIGHTS, methods=("GET",), content=weights[:-9] + b"\0" * 9))
    assert "the download from the Hub is incomplete or damaged: try again" in refusal()


def test_a_damaged_cache_names_the_command_that_clears_it(hub: LoopbackHub) -> None:
    load()
    [weights] = Path(constants.HF_HUB_CACHE).rglob("snapshots/*/model.safetensors")
    weights.resolve().write_bytes(b"\xff" * 1000)
    assert f"in the cache is damaged: clear it with `hf cache rm model/{MODEL}`" in refusal()


def test_other_requests_are_left_as_they_were(hub: LoopbackHub) -> None:
    before, loggers = get_session().event_hooks, [logging.getLogger(name) for name in LOGGERS]
    with bounded_requests(), bounded_requests(), pytest.raises(ZeroDivisionError):
        assert all(logger.filters for logger in loggers)
        raise ZeroDivisionError
    assert get_session().event_hooks == before
    assert not any(logger.filters or logger.level for logger in loggers)


LOGGERS = ("huggingface_hub.utils._http", "huggingface_hub.file_download")
WAITING = "no answer yet, trying again"


@pytest.mark.parametrize("verbosity", [logging.WARNING, logging.ERROR], ids=["python", "command line"])
@pytest.mark.parametrize("fault", ["no network", "503", "silence"])
def test_waiting_is_said_once_and_soon(
    hub: LoopbackHub, fault: str, verbosity: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub_logging.set_verbosity(verbosity)
    monkeypatch.setattr(hub_module, "PATIENCE", 0.005)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)  # as in other programs
    if fault == "no network":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    else:
        hub.faults.append(Fault("", 503) if fault == "503" else Fault("", stall_at=0))
    try:
        refusal()
    finally:
        hub_logging.set_verbosity(logging.WARNING)
    said = [record.getMessage() for record in caplog.records if record.name.startswith(("nes2net", "huggingface"))]
    assert said == [f"Waiting for the Hub at {constants.ENDPOINT}: no answer yet, trying again for up to two minutes."]


def test_a_hub_that_answers_is_not_waited_for_aloud(
    hub: LoopbackHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.append(Fault("config.json", 503, times=2))
    load()
    assert WAITING not in caplog.text


def test_after_a_broken_connection_requests_are_still_bounded(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bounded_requests():
        close_session()  # huggingface_hub does so after a failed connection, before its message
        logging.getLogger(LOGGERS[0]).warning("Retrying in 1s [Retry 1/5].")
        hub.faults.append(Fault("", 429, {"Retry-After": "120"}))
        with pytest.raises(huggingface_hub.errors.HfHubHTTPError):
            huggingface_hub.HfApi().model_info(MODEL)
    assert len(hub.calls) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Entry points
# ---------------------------------------------------------------------------------------------------------------------


def test_commands_say_it_in_one_line(hub: LoopbackHub, nes2net: Any, tmp_path: Path) -> None:
    hub.faults.append(Fault("", 429, {"Retry-After": "300"}))
    for command in (
        ("detect", "--demo", "--model", MODEL),
        ("info", MODEL),
        ("convert", f"{MODEL}:best.pth", tmp_path / "out"),
        ("corpus", "check", "dataset", "--root", DATASET),
    ):
        run = nes2net(*command)
        assert run.code in (1, 2) and run.out == ""
        assert run.err.count("\n") == 1 and f"{WAIT} 5 minutes" in run.err, run.err
        assert (DATASET if "corpus" in command else MODEL) in run.err


def test_a_file_to_convert(hub: LoopbackHub, tmp_path: Path) -> None:
    from nes2net_hf.conversion import convert

    for name, words in ((MODEL, r"no such file \(best.pth\): check its name"), ("org/none", "no such repository")):
        with pytest.raises(ConversionError, match=words):
            convert(f"{name}:best.pth", tmp_path / "out")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("", 503), "is not available"),
        (Fault("", 429, {"Retry-After": "300"}), f"{WAIT} 5 minutes"),
        (Fault("", 401, {"X-Error-Message": "Invalid credentials in Authorization header"}), "refused the token"),
    ],
)
@pytest.mark.parametrize(("name", "root"), [("own-data", f"hf://datasets/{DATASET}"), ("dataset", DATASET)])
def test_a_corpus_on_the_hub(hub: LoopbackHub, fault: Fault, words: str, name: str, root: str) -> None:
    hub.faults.append(fault)
    with pytest.raises(CorpusError, match=re.escape(root)) as caught:
        load_corpus(name, "train", root=root)
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "root"), [("own-data", "hf://datasets/org/none"), ("dataset", "org/none")])
def test_a_corpus_that_is_not_on_the_hub(hub: LoopbackHub, name: str, root: str) -> None:
    with pytest.raises(CorpusError, match=f"{root} .*no such repository on the Hub, or it is private"):
        load_corpus(name, "train", root=root)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("", 503), "is not available"),
        (Fault("/commit/", 429, {"Retry-After": "300"}), f"{WAIT} 5 minutes"),
        (Fault("/commit/", 403), "the Hub refused the token: log in with `hf auth login`"),
        (Fault("/commit/", drop_at=0), "the connection to the Hub broke"),
        (Fault("/commit/", stall_at=0), "the Hub sent nothing"),
        (Fault("create", 200, {}, b"<html>Welcome</html>"), "is not a Hub, or its answer is invalid"),
    ],
)
def test_what_is_sent(
    hub: LoopbackHub, fault: Fault, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WRITING", 0.3)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.faults.append(fault)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("# Shards or a model")
    with pytest.raises(PushError, match=r"could not be pushed to org/new: .*; the shards are kept\.$") as shards:
        push_shards(tmp_path / "out", "org/new")
    with pytest.raises(ReleaseError, match=r"org/fresh could not be sent: ") as release:
        push(tmp_path / "out", "org/fresh", public=False)
    assert words in str(shards.value) and words in str(release.value)


def test_a_push_is_prepared_before_the_work(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for kind, folder in (("model", ""), ("dataset", "datasets/"), ("space", "spaces/")):
        prepare_push("org/new", kind)
        prepare_push("org/new", kind)
        assert hub.repos[f"{folder}org/new"].private
    monkeypatch.setenv("HF_TOKEN", "an-old-one")
    with pytest.raises(PushError, match=r"^nothing can be pushed to org/new: the Hub refused the token: [^.]*\.$"):
        prepare_push("org/new")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        PushError, match=r"^nothing can be pushed to org/new: the Hub cannot be reached: check the netw"
    ):
        prepare_push("org/new")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match=r"org/new: offline mode is on: unset HF_HUB_OFFLINE\.$"):
        prepare_push("org/new")


def test_shards_are_not_made_where_they_cannot_be_pushed(
    hub: LoopbackHub, nes2net: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    out = tmp_path / "shards"
    run = nes2net(
        "corpus", "shard", "own-data", "--root", corpus / "manifest.csv", "--out", out, "--push", "org/speech"
    )
    assert run.code == 1 and run.out == "" and not out.exists()
    assert run.err == "Error: nothing can be pushed to org/speech: the Hub cannot be reached: check the network.\n"


def test_a_gated_dataset_and_its_revisions(hub: LoopbackHub) -> None:
    hub.repos[f"datasets/{DATASET}"].gated = True
    with pytest.raises(CorpusError, match="access to it is restricted"):
        load_corpus("dataset", "train", root=DATASET)
    hub.repos[f"datasets/{DATASET}"].gated = False
    with pytest.raises(CorpusError, match="it has no such revision"):
        load_corpus("dataset", "train", root=DATASET, revision="v9")


def test_a_chain_without_the_hub_says_nothing() -> None:
    assert hub_reason(ValueError("no")) is None
    assert hub_reason(OSError(errno.ENOSPC, "full", "/data/out")) is None
