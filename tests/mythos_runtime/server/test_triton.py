"""`mythos package triton-model-repository`, served by a real tritonserver and asked over HTTP and gRPC.

The server and its clients come with nvidia-pytriton, which wants numpy 1: an environment of its own, in the folder that
TRITON_ENVIRONMENT names (`make triton` fills build/triton).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

import mythos_runtime
from mythos_runtime.cli import mythos
from mythos_runtime.engine import Request, open_engine
from mythos_runtime.engine.options import EngineOptions

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "tests" / "triton_client.py"
NAME = "small"


def packaged(bundle: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(mythos, ["package", "triton-model-repository", str(bundle), str(out), *options])


def test_a_repository_is_written_once(small: Path, tmp_path: Path) -> None:
    options = ["--name", NAME, "--memory", "64MiB", "--most-loops", "5"]
    assert packaged(small, tmp_path, *options).exit_code == 0
    config = (tmp_path / NAME / "config.pbtxt").read_text()
    assert 'name: "small"' in config and "decoupled: true" in config
    assert '{ key: "memory", value: { string_value: "67108864" } }' in config and '"threads"' not in config
    copied = mythos_runtime.read_manifest(tmp_path / NAME / "1" / "bundle")
    assert copied == mythos_runtime.read_manifest(small)
    again = packaged(small, tmp_path, *options)
    assert again.exit_code == 2 and "exists; give another name with --name" in again.stderr
    for name in ("..", "a/b"):
        assert "is no name for a model" in packaged(small, tmp_path, "--name", name).stderr


@dataclass(frozen=True)
class Triton:
    http_port: int
    grpc_port: int
    python: Path

    def ask(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """What came of the requests, over gRPC."""
        ports = [str(self.http_port), str(self.grpc_port)]
        program = [str(self.python), str(CLIENT), *ports, NAME, json.dumps(requests)]
        done = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def triton(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    environment = Path(os.environ.get("TRITON_ENVIRONMENT", ROOT / "build" / "triton"))
    packages = environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    server = packages / "pytriton" / "tritonserver"
    if not server.exists():
        pytest.skip(f"no nvidia-pytriton in {environment}: make triton")
    folder = tmp_path_factory.mktemp("triton")
    assert packaged(small, folder / "models", "--name", NAME, "--memory", "64MiB", "--threads", "1").exit_code == 0
    shutil.copytree(
        server / "backends", folder / "backends", ignore=shutil.ignore_patterns("triton_python_backend_stub")
    )
    stub = (
        server / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}" / "triton_python_backend_stub"
    )
    shutil.copy(stub, folder / "backends" / "python")
    venv.create(folder / "python", symlinks=True)  # what the backend runs in: this environment, and no PYTHONPATH
    inside = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "python")}))
    seen = [Path(mythos_runtime.__file__).parents[1], Path(sysconfig.get_path("purelib"))]
    (inside / "seen.pth").write_text("".join(f"{path}\n" for path in seen))
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    libraries = [packages / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR"))]
    variables = os.environ | {
        "PATH": f"{folder / 'python' / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
    }
    arguments = {
        "model-repository": folder / "models",
        "backend-directory": folder / "backends",
        "http-address": "127.0.0.1",
        "grpc-address": "127.0.0.1",
        "http-port": ports[0],
        "grpc-port": ports[1],
        "allow-metrics": "false",
        "exit-timeout-secs": 10,
    }
    program = [str(server / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in arguments.items())]
    log = folder / "log"
    with open(log, "wb") as output, subprocess.Popen(program, env=variables, stdout=output, stderr=output) as process:
        try:
            until = time.monotonic() + 120
            while not _ready(ports[0]):
                assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
                time.sleep(0.2)
            yield Triton(ports[0], ports[1], environment / "bin" / "python")
        finally:
            process.terminate()
            process.wait(60)
    said = log.read_text()
    assert "Traceback" not in said and "PyCapsule" not in said


def _ready(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.slow
def test_over_grpc(triton: Triton, small: Path) -> None:
    engine = open_engine(small, EngineOptions(memory=16 << 20))
    running = engine.submit(Request(list(b"why? "), 12))
    while engine.busy:
        engine.tick()
    settings = {"settings": json.dumps({"temperature": 0, "max_tokens": 12})}
    drawn = {"settings": json.dumps({"temperature": 1, "seed": 7, "max_tokens": 24, "max_loops": 4})}
    ids, text, first, second, *wrong = triton.ask(
        {"ids": list(b"why? "), "parameters": settings},
        {"text": "why? ", "parameters": settings},
        {"text": "naïve", "parameters": drawn},
        {"text": "naïve", "parameters": drawn},
        {"text": "x", "parameters": {"max_tokens": 0}},
        {"text": "x", "parameters": {"colour": "red"}},
        {"ids": [70000], "parameters": {}},
        {"text": "x", "parameters": {"n": 2}},
    )
    assert (ids["token_ids"], ids["depth"]) == (running.tokens, running.depth)
    assert ids == text and ids["responses"] == 12 and ids["finished"] == 2
    assert first == second and max(first["depth"]) == 4
    words = ["greater than or equal to 1", "colour", "vocabulary has the ids", "n should be 1"]
    assert all(word in each["error"] for word, each in zip(words, wrong, strict=True)), wrong


@pytest.mark.slow
def test_over_http(triton: Triton) -> None:
    """Triton's own streaming over HTTP, which makes scalars of single values."""
    body = {"input_ids": list(b"why? "), "parameters": {"max_tokens": 6, "settings": '{"temperature": 0}'}}
    url = f"http://127.0.0.1:{triton.http_port}/v2/models/{NAME}/generate_stream"
    answer = httpx2.post(url, json=body, timeout=60)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    (expected,) = triton.ask({"ids": body["input_ids"], "parameters": body["parameters"]})
    assert [event["token_ids"] for event in events] == expected["token_ids"]
    assert [event["depth"] for event in events] == expected["depth"] and events[-1]["finished"] == 2
