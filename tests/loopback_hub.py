"""
A Hub on 127.0.0.1 that answers the HTTP calls huggingface_hub makes to create, fill and read models, data sets and
Spaces; and, where it is told to, that refuses, stalls, breaks off and answers nonsense as the Hub and what lies on the
way to it do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "token-of-the-loopback-hub"
_LARGE = (".safetensors", ".pth", ".png")  # what the Hub would keep in its large-file storage
_REPO = r"(?P<repo>((spaces|datasets)/)?[\w.-]+/[\w.-]+)"


@dataclass
class Fault:
    """What goes wrong with the requests whose path the pattern is found in, `times` times."""

    pattern: str
    status: int = 0
    """Answered with these headers and this body; 0 where the file itself comes, but not as it should:"""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stall_at: int | None = None
    """Nothing comes after so many bytes, and the connection stays open."""
    drop_at: int | None = None
    """The connection is closed after so many bytes."""
    content: bytes | None = None
    """Another content, of another length where it has one."""
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT")
    times: int = 1_000


@dataclass
class Repo:
    """Its commits, each with all of its files, and what names them."""

    private: bool
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)

    def commit(self, revision: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{revision} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = files
        self.names[revision] = oid
        return oid

    def find(self, revision: str) -> str | None:
        return self.names.get(revision, revision if revision in self.commits else None)


class LoopbackHub:
    """`with LoopbackHub() as hub` serves at `hub.endpoint`; `hub.calls` are the requests, `hub.repos` what it has."""

    has_ranges = True

    def __init__(self, drop_uploads: int = 0) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        """What was asked for of files in part."""
        self.faults: list[Fault] = []
        self.closed = threading.Event()
        self.drop_uploads = drop_uploads
        """Uploads of large files whose connection breaks before the rest go through."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repos[repo].find(revision)
        assert found is not None
        return self.repos[repo].commits[found]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.calls.append((self.command, path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._fault = next((fault for fault in self.hub.faults if self._meets(fault, path)), None)
        if self._fault is not None:
            self._fault.times -= 1
            if self._fault.status:
                self._send(self._fault.body, self._fault.status, self._fault.headers)
                return
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                answer(self, body, **match.groupdict())
                return
        self._json({"error": f"the loopback Hub knows no {self.command} {path}"}, 404)

    def _meets(self, fault: Fault, path: str) -> bool:
        return fault.times > 0 and self.command in fault.methods and re.search(fault.pattern, path) is not None

    @property
    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        fault = self._fault
        if self.command == "HEAD" and (fault is None or fault.stall_at is None):
            return
        if fault is not None and (fault.stall_at is not None or fault.drop_at is not None):
            self.wfile.write(content[: fault.stall_at if fault.stall_at is not None else fault.drop_at])
            self.wfile.flush()
            if fault.stall_at is not None:
                self.hub.closed.wait(600)
            self.close_connection = True
            return
        self.wfile.write(content)

    def _json(self, content: Any, status: int = 200, code: str | None = None) -> None:
        headers = {"Content-Type": "application/json"} | ({"X-Error-Code": code} if code else {})
        self._send(json.dumps(content).encode(), status, headers)

    def _refused(self) -> bool:
        """Whether one who may not write was told so."""
        if not self._is_known:
            self._json({"error": "Invalid username or password."}, 401)
        return not self._is_known

    def _readable(self, repo: str, revision: str) -> tuple[Repo, str] | None:
        """The repository and the commit, or an answer that there is none."""
        place = self.hub.repos.get(repo)
        token = self.headers.get("Authorization")
        if token is not None and not self._is_known:
            headers = {"X-Error-Message": "Invalid credentials in Authorization header"}
            self._send(b"", 401, headers)
            return None
        if place is None or (place.private and not self._is_known):
            self._json({"error": "Repository not found"}, 404 if self._is_known else 401, "RepoNotFound")
            return None
        if place.gated and "/resolve/" in self.path:
            self._json({"error": "Access is restricted"}, 403 if self._is_known else 401, "GatedRepo")
            return None
        oid = place.find(revision)
        if oid is None:
            self._json({"error": f"Invalid rev id: {revision}"}, 404, "RevisionNotFound")
            return None
        return place, oid

    def create(self, body: bytes) -> None:
        if self._refused():
            return
        asked = json.loads(body)
        kind = {"space": "spaces/", "dataset": "datasets/"}.get(asked.get("type"), "")
        repo = kind + f"{asked['organization']}/{asked['name']}"
        there = repo in self.hub.repos
        if not there:
            private = asked.get("private") is True or asked.get("visibility") == "private"
            self.hub.repos[repo] = Repo(private)
            self.hub.repos[repo].commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": f"{self.hub.endpoint}/{repo}", "id": repo}, 409 if there else 200)

    def check_card(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def info(self, body: bytes, repo: str, revision: str | None = None) -> None:
        found = self._readable(repo, revision or "main")
        if found:
            place, oid = found
            name = re.sub("^(spaces|datasets)/", "", repo)
            files = [_sibling(file, content) for file, content in sorted(place.commits[oid].items())]
            self._json(
                {"id": name, "modelId": name, "sha": oid, "private": place.private, "siblings": files, "tags": []}
            )

    def tree(self, body: bytes, repo: str, revision: str, folder: str | None = None) -> None:
        found = self._readable(repo, revision)
        if found:
            files = found[0].commits[found[1]]
            start = f"{folder}/" if folder else ""
            self._json([_entry(name, content) for name, content in sorted(files.items()) if name.startswith(start)])

    def paths(self, body: bytes, repo: str, revision: str) -> None:
        found = self._readable(repo, revision)
        if found:
            files = found[0].commits[found[1]]
            asked = parse_qs(body.decode()).get("paths", [])
            self._json([_entry(name, files[name]) for name in asked if name in files])

    def tag(self, body: bytes, repo: str, revision: str) -> None:
        if not self._refused():
            place = self.hub.repos[repo]
            place.names[json.loads(body)["tag"]] = place.names[revision]
            self._json({})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        if self._refused() or self._readable(repo, revision) is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def batch(self, body: bytes, repo: str) -> None:
        if self._refused():
            return
        objects = []
        for wanted in json.loads(body)["objects"]:
            answer: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                href = f"{self.hub.endpoint}/objects/{wanted['oid']}"
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> None:
        if self.hub.drop_uploads:
            self.hub.drop_uploads -= 1
            self.close_connection = True  # without an answer
            return
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._send(b"")

    def verify(self, body: bytes, oid: str) -> None:
        self._json({}, 200 if len(self.hub.objects[oid]) == json.loads(body)["size"] else 422)

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        if self._refused() or (found := self._readable(repo, revision)) is None:
            return
        place, before = found
        files = dict(place.commits[before])
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        oid = place.commit(revision, files)
        self._json({"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{oid}", "commitOid": oid})

    def resolve(self, body: bytes, repo: str, revision: str, name: str) -> None:
        found = self._readable(repo, revision)
        if not found:
            return
        place, oid = found
        content = place.commits[oid].get(name)
        if content is None:
            self._send(b"", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid})
            return
        headers = {"ETag": f'"{_etag(name, content)}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if self._fault is not None and self._fault.content is not None and self.command == "GET":
            content = self._fault.content
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None or not self.hub.has_ranges:
            self._send(content, headers=headers)
            return
        self.hub.ranges.append(wanted[0])
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(content[first : last + 1], 206, headers)


def _etag(name: str, content: bytes) -> str:
    """As git and the large-file storage name a content."""
    if name.endswith(_LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _etag(name, content)}
    if name.endswith(_LARGE):
        entry["lfs"] = {"oid": entry["oid"], "size": len(content), "pointerSize": 134}
    return entry


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    entry = _entry(name, content)
    return {
        "rfilename": name,
        "size": entry["size"],
        "blobId": "0" * 40,
        "lfs": _lfs(entry) if "lfs" in entry else None,
    }


def _lfs(entry: dict[str, Any]) -> dict[str, Any]:
    return {"sha256": entry["oid"], "size": entry["size"], "pointerSize": 134}


_MODEL = rf"/api/(models/|(?=(spaces|datasets)/)){_REPO}"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.check_card),
    ("GET", rf"{_MODEL}(/revision/{_REVISION})?", _Handler.info),
    ("POST", rf"{_MODEL}/paths-info/{_REVISION}", _Handler.paths),
    ("GET", rf"{_MODEL}/tree/{_REVISION}(/(?P<folder>.+))?", _Handler.tree),
    ("POST", rf"{_MODEL}/tag/{_REVISION}", _Handler.tag),
    ("POST", rf"{_MODEL}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", rf"{_MODEL}/commit/{_REVISION}", _Handler.commit),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/objects/(?P<oid>\w+)", _Handler.upload),
    ("POST", r"/objects/(?P<oid>\w+)/verify", _Handler.verify),
    ("GET HEAD", rf"/{_REPO}/resolve/{_REVISION}/(?P<name>.+)", _Handler.resolve),
]
