"""Real builds with TensorRT-RTX (skipped where it is not installed), and a worker that dies or hangs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from mythos_export.errors import TargetError, ToolFailed
from mythos_export.targets.tensorrt_build import (
    BuildRequest,
    Profile,
    Range,
    build,
    graph_inputs,
    load_graph,
    profiles_for,
)
from mythos_export.targets.tensorrt_build import build as build_function
from mythos_export.targets.tensorrt_build.environment import Backend, library_folder
from mythos_export.targets.tensorrt_build.header import check_header, read_header

MakeOnnx = Callable[..., Path]
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (pip: tensorrt-rtx-cu13)"
)
BUILD_MODULE = sys.modules[build_function.__module__]


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logs of builds that fail stay: here."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def make_profiles(path: Path) -> tuple[Profile, ...]:
    return tuple(
        profiles_for(
            graph_inputs(load_graph(path)),
            batch=Range(1, 1, 4),
            tokens=Range(1, 16, 32),
            context=Range(0, 32, 64),
            loops=Range(1, 4, 8),
        )
    )


def make_request(path: Path, **changes: object) -> BuildRequest:
    options: dict[str, object] = {"output": path.parent / "engines", "sms": (89,)}
    return BuildRequest(onnx=path, profiles=make_profiles(path), **{**options, **changes})  # type: ignore[arg-type]


def left_behind(request: BuildRequest) -> list[str]:
    return sorted(path.name for path in request.output.glob("*")) if request.output.exists() else []


@needs_rtx
def test_build_with_turing_apart(looped_onnx: MakeOnnx) -> None:
    request = make_request(looped_onnx(), sms=(120, 75, 80))
    seen: list[tuple[str, float | None]] = []
    result = build(request, lambda phase, part=None: seen.append((phase, part)))

    assert left_behind(request) == ["tensorrt_rtx-sm75.engine", "tensorrt_rtx-sm80-120.engine"]
    assert result.state == "built, not executed"
    assert [engine.sms for engine in result.engines] == [(80, 120), (75,)]
    for engine in result.engines:
        assert engine.bytes == engine.path.stat().st_size > 0
        assert read_header(engine.path).sms == engine.sms
    assert json.loads(json.dumps(result.to_json()))["engines"][0]["file"] == "tensorrt_rtx-sm80-120.engine"
    assert str(request.output) not in json.dumps(result.to_json())

    assert list(dict.fromkeys(phase for phase, _ in seen)) == [
        "parse",
        "build sm 80,120",
        "write sm 80,120",
        "build sm 75",
        "write sm 75",
    ]
    parts = [part for _, part in seen if part is not None]
    assert parts == sorted(parts) and parts[0] == 0.0 and 0.5 in parts and parts[-1] == 1.0 and len(parts) > 6


@needs_rtx
@pytest.mark.parametrize("padding", [0, 1, 3, 6])
def test_weights_are_read_at_any_alignment(looped_onnx: MakeOnnx, padding: int) -> None:
    (engine,) = build(make_request(looped_onnx(header_padding=padding))).engines
    assert engine.bytes > 0


@needs_rtx
def test_fp32(looped_onnx: MakeOnnx) -> None:
    assert build(make_request(looped_onnx(element="float"), precision="fp32")).precision == "fp32"


@needs_rtx
def test_custom_operator_is_reported_with_its_node(looped_onnx: MakeOnnx, tmp_path: Path) -> None:
    def name_it(model: onnx.ModelProto) -> None:
        loop = next(node for node in model.graph.node if node.op_type == "Loop")
        next(node for node in loop.attribute[0].g.node if node.op_type == "moe").name = "recurrent/moe"

    request = make_request(looped_onnx(body="h2 = mythos.moe(h)", edit=name_it))
    with pytest.raises(TargetError, match=r"node recurrent/moe \(moe\)") as caught:
        build(request)
    assert "lower the node to standard ONNX operators" in str(caught.value)
    log = str(caught.value).rpartition("The whole log: ")[2]
    assert Path(log).is_relative_to(tmp_path) and "Plugin not found" in Path(log).read_text()
    assert left_behind(request) == []


@needs_rtx
def test_slice_by_the_loop_counter_is_explained(looped_onnx: MakeOnnx, tmp_path: Path) -> None:
    body = """
    first = Unsqueeze(i, ax_0)
    last = Add(first, one)
    piece = Slice(past_loop, first, last, ax_0)
    piece_sum = ReduceSum<keepdims = 1>(piece)
    piece_row = Reshape(piece_sum, ax_1)
    h2 = Add(h, piece_row)
    """.replace(
        "first = Uns", "ax_0 = Constant<value = int64[1] {0}>()\n ax_1 = Constant<value = int64[1] {1}>()\n first = Uns"
    )
    request = make_request(looped_onnx(body=body))
    with pytest.raises(TargetError, match=r"Gather\(axis=0, index\)"):
        build(request)
    assert left_behind(request) == []


@needs_rtx
def test_header_check_refuses_what_is_no_engine(looped_onnx: MakeOnnx, tmp_path: Path) -> None:
    result = build(make_request(looped_onnx()))
    (engine,) = result.engines
    with pytest.raises(ToolFailed, match="targets"):
        check_header(engine.path, (80,), result.version)
    cut = tmp_path / "cut.engine"
    cut.write_bytes(engine.path.read_bytes()[:-1])
    with pytest.raises(ToolFailed, match=r"states .* bytes and has"):
        check_header(cut, (89,), result.version)
    cut.write_bytes(b"ONNX" * 32)
    with pytest.raises(ToolFailed, match="vtrt"):
        read_header(cut)


@needs_rtx
def test_the_parsers_library_is_found_by_the_name_it_asks_for() -> None:
    load = "import ctypes, tensorrt_rtx; ctypes.CDLL('libtensorrt_rtx.so')"
    with library_folder("tensorrt_rtx") as folder:
        assert folder is not None
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
        subprocess.run([sys.executable, "-c", load], env=environment, check=True, timeout=120)
    assert not folder.exists()


def test_full_tensorrt_needs_no_library_folder() -> None:
    with library_folder("tensorrt") as folder:
        assert folder is None


def pretend_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """The worker imports a `tensorrt_rtx` that runs `code` (this process keeps what it has)."""
    folder = tmp_path / "pretend"
    folder.mkdir()
    (folder / "tensorrt_rtx.py").write_text(f"import os, sys, time\n{code}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(BUILD_MODULE, "choose_backend", lambda: Backend("tensorrt_rtx", "0.0", None))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "print('terminate called', file=sys.stderr, flush=True)\nos.abort()",
            r"phase 'parse' of model.onnx: its process aborted \(SIGABRT\)(.|\n)*terminate",
        ),
        ("raise ValueError('bad libraries')", "ValueError: bad libraries"),
    ],
    ids=["abort", "exception"],
)
def test_a_dying_worker_becomes_one_error(
    looped_onnx: MakeOnnx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    pretend_tensorrt(tmp_path, monkeypatch, code)
    request = make_request(looped_onnx())
    with pytest.raises(ToolFailed, match=says) as caught:
        build(request)
    assert caught.value.exit_code == 3 and caught.value.phase == "parse"
    assert left_behind(request) == []


def test_a_worker_that_hangs_is_stopped(looped_onnx: MakeOnnx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_tensorrt(tmp_path, monkeypatch, "time.sleep(600)")
    request = make_request(looped_onnx(), timeout_s=1.5)
    with pytest.raises(ToolFailed, match=r"ran out of time(.|\n)*The limit was 1.5 s"):
        build(request)
    assert left_behind(request) == []


def test_an_exception_of_the_callback_stops_the_worker(
    looped_onnx: MakeOnnx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_tensorrt(tmp_path, monkeypatch, "time.sleep(600)")

    def cancel(phase: str, part: float | None = None) -> None:
        raise KeyboardInterrupt

    request = make_request(looped_onnx())
    with pytest.raises(KeyboardInterrupt):
        build(request, cancel)
    assert left_behind(request) == []


def test_output_that_is_no_folder(looped_onnx: MakeOnnx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BUILD_MODULE, "choose_backend", lambda: Backend("tensorrt_rtx", "0.0", None))
    path = looped_onnx()
    with pytest.raises(TargetError, match="cannot make the folder"):
        build(make_request(path, output=path))


def test_requests_that_cannot_be_built_never_start_a_worker(
    looped_onnx: MakeOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BUILD_MODULE, "choose_backend", lambda: Backend("tensorrt_rtx", "0.0", None))
    monkeypatch.setattr(BUILD_MODULE, "tensorrt_worker", lambda *a, **k: pytest.fail("a worker was started"))
    path = looped_onnx()
    cases: list[tuple[dict[str, object], str]] = [({"sms": (90,)}, "H100"), ({"precision": "fp32"}, "FLOAT16 cache")]
    for changes, says in cases:
        with pytest.raises(TargetError, match=says):
            build(make_request(path, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"precision": "fp8"}, {"sms": ()}, {"timeout_s": 0.0}],
    ids=str,
)
def test_requests_that_make_no_sense(looped_onnx: MakeOnnx, changes: dict[str, object]) -> None:
    with pytest.raises(TargetError):
        make_request(looped_onnx(), **changes)
