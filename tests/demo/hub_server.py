"""A hub on 127.0.0.1 for the tests: repositories at revisions, gates, and every kind of failure."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "testtokentesttoken"


@dataclass
class Repo:
    """A repository of the fake hub."""

    files: dict[str, bytes]
    revision: str = REVISION
    gated: bool = False
    granted: bool = False
    lfs: set[str] = field(default_factory=set)
    answers: str = ""
    """The commit it says it answers from, when that is another one."""


@dataclass
class FakeHub:
    """What the server serves, and what it was asked."""

    repos: dict[str, Repo] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)
    """Path fragment -> what to do to the next requests.

    ``503`` (any status; ``503+7`` with Retry-After: 7), ``slow`` (the answer begins late),
    ``short`` (half a body, then the end), ``stall`` (half a body, then silence), ``drip`` (the body
    byte by byte, each in time), ``close`` (no answer).
    """
    refuses_tokens: bool = False
    """Every token is one that expired."""
    redirects: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, str, bool]] = field(default_factory=list)
    """(method, path, was a token sent)."""
    url: str = ""

    def gets(self, fragment: str = "") -> list[str]:
        """Paths that were asked for with GET."""
        return [path for method, path, _ in self.seen if method == "GET" and fragment in path]

    def next_failure(self, path: str, method: str) -> str:
        """Take the next planned failure for a path; ``GET:`` limits it to downloads."""
        for fragment, planned in self.failures.items():
            if fragment in path and planned:
                if planned[0].startswith("GET:") and method != "GET":
                    continue
                return planned.pop(0).removeprefix("GET:")
        return ""


def git_blob(data: bytes) -> str:
    """Git's id of a content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers like the hub does, as far as its client library looks."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.split("?")[0]
        token = self.headers.get("Authorization", "")
        self.hub.seen.append((self.command, path, bool(token)))
        failure = self.hub.next_failure(path, self.command)
        if token and self.hub.refuses_tokens:
            words = "Invalid credentials in Authorization header"
            return self._send(401, b"{}", {"X-Error-Message": words})
        status, _, after = failure.partition("+")
        if status.isdigit():
            return self._send(int(status), b"{}", {"Retry-After": after} if after else None)
        if failure == "slow":
            threading.Event().wait(1.5)
        if failure == "close":
            self.close_connection = True
            return None
        if path in self.hub.redirects:
            return self._send(302, b"", {"Location": self.hub.redirects[path]})
        if path in self.hub.plain:
            return self._send(200, self.hub.plain[path], how=failure)
        return self._repository(path, token, failure)

    def _repository(self, path: str, token: str, failure: str) -> None:
        name, rest = self._split(path)
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if repo.gated and not (repo.granted and token == f"Bearer {TOKEN}"):
            code = 403 if token else 401
            return self._send(code, b"{}", {"X-Error-Code": "GatedRepo"})
        if rest == "auth-check":
            return self._send(200, b"{}")
        if not rest.startswith("resolve/"):
            return self._send(200, json.dumps({"id": name, "sha": repo.revision}).encode())
        _, revision, file = rest.split("/", 2)
        if revision not in (repo.revision, "main"):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        data = repo.files.get(file)
        if data is None:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(data).hexdigest() if file in repo.lfs else git_blob(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repo.answers or repo.revision}
        return self._send(200, data, headers, how=failure)

    @staticmethod
    def _split(path: str) -> tuple[str, str]:
        parts = path.strip("/").split("/")
        if parts[:1] == ["api"]:
            parts = parts[2:]
        elif parts[:1] == ["datasets"]:
            parts = parts[1:]
        return "/".join(parts[:2]), "/".join(parts[2:])

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        how: str = "",
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self._body(body, how)
        if how in ("short", "stall", "drip"):
            self.close_connection = True

    def _body(self, body: bytes, how: str) -> None:
        with contextlib.suppress(OSError):  # the other side gave up, as it should
            if how == "drip":
                for place in range(min(len(body), 200)):
                    self.wfile.write(body[place : place + 1])
                    threading.Event().wait(0.02)
                return
            self.wfile.write(body[: len(body) // 2] if how in ("short", "stall") else body)
            self.wfile.flush()
            if how == "stall":
                threading.Event().wait(1.5)


def serve(hub: FakeHub) -> ThreadingHTTPServer:
    """Start the server on a free port; the caller shuts it down."""
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server
