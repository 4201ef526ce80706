"""Compiles one ONNX file into TensorRT engines: checks the request, runs the worker, keeps what it wrote.

    result = build(BuildRequest(onnx, engines_folder, tuple(profiles_for(...))), progress=print)

The engine files appear under their names only when all of them are complete; a build that fails leaves none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mythos_export.errors import ExportError, TargetError, ToolFailed
from mythos_export.progress import Progress, silent

from .environment import Backend, choose_backend, tensorrt_worker
from .graph import check_graph, load_graph
from .header import HEADER_BYTES, check_header
from .limits import explain, group_sms
from .options import BuildRequest, BuildResult, Engine


def build(request: BuildRequest, progress: Progress = silent) -> BuildResult:
    """Builds every engine of `request`.

    `progress` is told "parse", "build sm 86,89,120", "write sm ...", and the part of all engines that is done.

    Raises `TargetError` for what cannot be built, `ToolMissing` without a TensorRT, and `ToolFailed` if TensorRT fails,
    crashes or runs out of time; the message then names a file with TensorRT's whole log.
    """
    backend = choose_backend()
    sms = backend.targets(request.sms, request.precision)
    check_graph(load_graph(request.onnx), request.onnx, precision=request.precision, sms=sms, rtx=backend.rtx)
    try:
        request.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"cannot make the folder {request.output} ({error}); choose another one") from error
    groups = group_sms(sms)
    targets = [request.output / engine_name(backend.module, group) for group in groups]
    with _partial_files(targets) as partial:
        engines = [{"path": str(path), "sms": list(group)} for path, group in zip(partial, groups, strict=True)]
        answer = _run(request, backend, engines, progress)
        headers = [_header(backend, path, group) for path, group in zip(partial, groups, strict=True)]
        sizes = [path.stat().st_size for path in partial]
        for source, target in zip(partial, targets, strict=True):
            os.replace(source, target)
    return BuildResult(
        backend=backend.module,
        version=answer["version"],
        precision=request.precision,
        engines=tuple(
            Engine(target, group, size, seconds, header.hex())
            for target, group, size, seconds, header in zip(
                targets, groups, sizes, answer["seconds"], headers, strict=True
            )
        ),
        profiles=request.profiles,
        layers=answer["layers"],
        parse_seconds=answer["parse_seconds"],
        warnings=answer["warnings"],
    )


def engine_name(module: str, sms: tuple[int, ...]) -> str:
    """File name of an engine: `tensorrt_rtx-sm86-89-120.engine`."""
    return f"{module}-sm{'-'.join(str(sm) for sm in sms)}.engine"


def _header(backend: Backend, path: Path, sms: tuple[int, ...]) -> bytes:
    """The first bytes of an engine, checked where its layout is known (TensorRT-RTX)."""
    if backend.rtx:
        return check_header(path, sms, backend.version).raw
    with path.open("rb") as file:
        return file.read(HEADER_BYTES)


@contextlib.contextmanager
def _partial_files(targets: list[Path]) -> Iterator[list[Path]]:
    """Names beside the targets to write to; whatever still has such a name at the end is removed."""
    partial = [target.with_name(f".{target.name}.{os.getpid()}.partial") for target in targets]
    try:
        yield partial
    finally:
        for path in partial:
            path.unlink(missing_ok=True)


def _run(request: BuildRequest, backend: Backend, engines: list[dict[str, Any]], progress: Progress) -> dict[str, Any]:
    """The worker's answer. Its log stays, in the system's temporary folder, only if there is none."""
    handle, name = tempfile.mkstemp(prefix="mythos-tensorrt-", suffix=".log")
    os.close(handle)
    log = Path(name)
    try:
        with tensorrt_worker(backend.module, log) as worker:
            answer = worker.ask(
                "build",
                timeout_s=request.timeout_s,
                progress=progress,
                module=backend.module,
                onnx=str(request.onnx.resolve()),
                engines=engines,
                profiles=[profile.to_json() for profile in request.profiles],
                plugins=request.plugins,
            )
    except ToolFailed as error:
        raise _failure(request, backend, error, log) from error
    except BaseException:
        log.unlink()
        raise
    log.unlink()
    return answer


def _failure(request: BuildRequest, backend: Backend, error: ToolFailed, log: Path) -> ExportError:
    """The one readable error for a worker that gave no engines."""
    phase = error.phase or "start"
    text = f"{backend.title}, phase {phase!r} of {request.onnx.name}: {error}"
    if error.timed_out:
        text += f"\n  The limit was {request.timeout_s:g} s; build fewer SMs or smaller ranges."
    elif error.returncode == -signal.SIGSEGV and phase.startswith("build"):
        text += (
            "\n  A known cause: a Slice in the Loop body that ends where the input's data says; slice by shapes only, "
            "or mask."
        )
    limit = explain("\n".join(error.details))
    if limit is not None:
        return TargetError(f"{text}\n  This means: cannot build {limit}\n  The whole log: {log}")
    return ToolFailed(f"{text}\n  The whole log: {log}", phase=phase, returncode=error.returncode)
