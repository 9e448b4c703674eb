"""The Hub, played by a server of this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants


class PlayedHub:
    """One repository, ``us/model``, at one commit at a time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.commit = "c" * 40
        self.files = {"config.json": b'{"a": 1}', "README.md": b"---\nlicense: mit\n---\n"}
        self.tells_contents = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        hub: PlayedHub = self.server.hub
        hub.asked.append(self.path)
        path, _, query = self.path.partition("?")
        parts = path.strip("/").split("/", 4)
        if path.startswith("/api/models/us/model"):
            if parts[4:] and parts[4].removeprefix("revision/") not in ("main", hub.commit):
                return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
            siblings: list[dict[str, str]] = [{"rfilename": name} for name in hub.files]
            if "blobs=" in query and hub.tells_contents:
                for one in siblings:
                    one["blobId"] = hashlib.sha1(hub.files[one["rfilename"]]).hexdigest()
            facts = {"id": "us/model", "sha": hub.commit, "siblings": siblings}
            kind = {"Content-Type": "application/json"}
            return self.send(200, json.dumps(facts).encode(), kind, body)
        if parts[:3] == ["us", "model", "resolve"] and parts[4] in hub.files:
            data = hub.files[parts[4]]
            tag = hashlib.sha1(data).hexdigest()
            return self.send(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": hub.commit}, body)
        if "gated" in self.path:
            return self.send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
        return self.send(401, b"", {"X-Error-Code": "RepoNotFound"}, body)

    def send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedHub]:
    played = PlayedHub()
    monkeypatch.setattr(constants, "ENDPOINT", played.endpoint)
    template = played.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield played
    played.stop()
