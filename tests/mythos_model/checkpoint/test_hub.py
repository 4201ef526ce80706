"""A model on the hub, asked of a server on this machine's loopback address."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from mythos_model.checkpoint import hub, read_checkpoint
from mythos_model.errors import CheckpointError

pytest.importorskip("huggingface_hub")

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3)}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "model.safetensors": save(STATE),
    "config.json": b'{"model_type": "ouro"}',
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"not asked for",
    "modeling_ouro.py": b"raise SystemExit",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs: a model's description, its listing, its files."""

    asked: list[str] = []

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if path.startswith("/api/models/owner/name/tree/"):
            self._json([{"type": "file", "path": n, "size": len(c), "oid": _oid(c)} for n, c in FILES.items()])
        elif path in ("/api/models/owner/name", "/api/models/owner/name/revision/main"):
            self._json({"id": "owner/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]})
        elif path.startswith("/owner/name/resolve/") and path.rpartition("/")[2] in FILES:
            content = FILES[path.rpartition("/")[2]]
            self.send_response(200)
            for header, value in (("ETag", f'"{_oid(content)}"'), ("X-Repo-Commit", COMMIT)):
                self.send_header(header, value)
            self._end(content)
        else:
            self.send_response(404)
            self._end(b"")

    do_HEAD = do_GET

    def _json(self, value: object) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self._end(json.dumps(value).encode())

    def _end(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    from huggingface_hub import constants

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Hub.asked.clear()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_is_downloaded_once_and_found_offline(endpoint: http.server.ThreadingHTTPServer) -> None:
    for reference in ("owner/name", "hf://owner/name", Path("hf://owner/name@main")):
        raw = read_checkpoint(reference)
        assert torch.equal(raw.tensors["a.weight"], STATE["a.weight"]) and raw.config == {"model_type": "ouro"}
    assert raw.beside("tokenizer.json") is not None
    downloads = [path for path in Hub.asked if "/resolve/" in path]
    assert downloads and not any(path.endswith((".py", ".bin")) for path in downloads)
    endpoint.shutdown()
    endpoint.server_close()
    assert read_checkpoint("owner/name").folder == raw.folder
    with pytest.raises(CheckpointError, match="cannot be reached") as caught:
        read_checkpoint("owner/other")
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


def test_what_the_hub_does_not_give_is_one_line(endpoint: http.server.ThreadingHTTPServer) -> None:
    for reference, status in (("owner/absent", "404"), ("owner/name@nobranch", "404")):
        with pytest.raises(CheckpointError, match=status) as caught:
            read_checkpoint(reference)
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="hf://owner/name@revision"):
        read_checkpoint("hf://owner")


def test_what_looks_like_a_path_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    for local in ("build/modle", "runs/step_10.pt", "a/b/c", "name", "/a/b", "../a", "./a", ""):
        assert not hub.is_reference(local)
    for remote in ("owner/name", "ByteDance/Ouro-1.4B", "hf://owner/name", "hf:/owner/name"):
        assert hub.is_reference(remote)
