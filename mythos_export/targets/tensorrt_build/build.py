"""Compiles one ONNX file into TensorRT engines: checks the request, runs the worker, keeps what it wrote.

    result = build(BuildRequest(onnx, engines_folder, tuple(profiles_for(...))), progress=print)

The engine files appear under their names only when all of them are complete; a build that fails leaves none.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .environment import Backend, choose_backend
from .errors import TensorRTBuildError, TensorRTInternalError, TensorRTRequestError
from .graph import check_graph, load_graph
from .header import HEADER_BYTES, check_header
from .limits import explain, group_sms
from .options import BuildRequest, BuildResult, Engine
from .process import Finished, run_worker

#: `progress(phase, fraction)`: "parse", "build sm 80,86,89,120", "write sm ..."; fraction None where it is unknown.
Progress = Callable[[str, float | None], None]

_TAIL_LINES = 8


def build(request: BuildRequest, progress: Progress | None = None) -> BuildResult:
    """Builds every engine of `request`.

    Raises `TensorRTRequestError` (2) for what cannot be built, `TensorRTMissingError` (3) without a TensorRT, and
    `TensorRTInternalError` (3) if TensorRT fails, crashes or runs out of time.
    """
    backend = choose_backend(wanted=request.backend)
    sms = backend.targets(request.sms, request.precision)
    check_graph(load_graph(request.onnx), request.onnx, precision=request.precision, sms=sms, rtx=backend.rtx)
    for folder in (request.output, *([request.log.parent] if request.log is not None else [])):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TensorRTRequestError(f"cannot make the folder {folder} ({error}); choose another one") from error
    groups = group_sms(sms)
    with _partial_files([request.output / engine_name(backend.module, group) for group in groups]) as partial:
        engines = [{"path": str(partial[index]), "sms": list(group)} for index, group in enumerate(groups)]
        end, log_lines, log = _run(request, backend, engines, progress)
        if end.final is None or end.final["event"] != "result":
            raise _failure(request, backend, end, log_lines, log)
        final = end.final
        headers = [_header(backend, path, group) for path, group in zip(partial, groups, strict=True)]
        sizes = [path.stat().st_size for path in partial]
        targets = [request.output / engine_name(backend.module, group) for group in groups]
        for source, target in zip(partial, targets, strict=True):
            os.replace(source, target)
    return BuildResult(
        backend=backend.module,
        version=final["version"],
        precision=request.precision,
        engines=tuple(
            Engine(target, group, size, seconds, header.hex())
            for target, group, size, seconds, header in zip(
                targets, groups, sizes, final["seconds"], headers, strict=True
            )
        ),
        profiles=request.profiles,
        layers=final["layers"],
        parse_seconds=final["parse_seconds"],
        warnings=final["warnings"],
    )


def engine_name(module: str, sms: tuple[int, ...]) -> str:
    """File name of an engine: `tensorrt_rtx-sm80-86-89-120.engine`."""
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


def _run(
    request: BuildRequest, backend: Backend, engines: list[dict[str, Any]], progress: Progress | None
) -> tuple[Finished, list[str], Path | None]:
    """Runs the worker; returns its end, the lines of its log, and where the log is (None: it was not kept)."""
    job = {
        "module": backend.module,
        "onnx": str(request.onnx.resolve()),
        "engines": engines,
        "profiles": [profile.to_json() for profile in request.profiles],
        "plugins": str(request.plugins.resolve()) if request.plugins is not None else None,
        "optimization_level": request.optimization_level,
        "workspace_bytes": request.workspace_bytes,
        "verbose": request.verbose,
    }

    def on_event(event: dict[str, Any]) -> None:
        if progress is not None:
            progress(event["phase"], event["fraction"])

    with tempfile.TemporaryDirectory(prefix="mythos-tensorrt-") as folder:
        job_file = Path(folder) / "job.json"
        job_file.write_text(json.dumps(job), encoding="utf-8")
        log = request.log or _temporary_log()
        keep = request.log is not None
        try:
            with log.open("w+b") as stream:
                end = run_worker(
                    [str(job_file)],
                    module=backend.module,
                    log=stream,
                    timeout_s=request.timeout_s,
                    on_event=on_event,
                )
            keep = keep or end.final is None or end.final["event"] != "result"
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        finally:
            if not keep:
                log.unlink(missing_ok=True)
    return end, lines, log if keep else None


def _temporary_log() -> Path:
    handle, name = tempfile.mkstemp(prefix="mythos-tensorrt-", suffix=".log")
    os.close(handle)
    return Path(name)


def _failure(
    request: BuildRequest, backend: Backend, end: Finished, log_lines: list[str], log: Path | None
) -> TensorRTBuildError:
    """The one readable error for a worker that ended without engines."""
    phase = end.phase or "start"
    tail = tuple(line for line in log_lines if line.strip())[-_TAIL_LINES:]
    where = f" The whole log: {log}" if log is not None else ""
    if end.final is None:
        text = f"{backend.title} {end.describe()} in phase {phase!r} of {request.onnx.name}."
        if end.timed_out:
            text += f" The limit was {request.timeout_s:g} s; raise it, or build fewer SMs or smaller ranges."
        elif end.returncode == -11 and phase.startswith("build"):
            text += (
                " A known cause: a Slice in the Loop body that ends where the input's data says; slice by shapes only, "
                "or mask."
            )
        lines = "".join(f"\n    {line}" for line in tail) or "\n    (the log is empty)"
        text += f"\n  Last lines of its log:{lines}\n {where}"
        return TensorRTInternalError(text, phase=phase, returncode=end.returncode, log=log, log_tail=tail)

    details = [detail.strip() for detail in end.final["details"] if detail.strip()]
    shown = "".join(f"\n    {detail}" for detail in details[-_TAIL_LINES:])
    if not shown and tail:
        shown = "".join(f"\n    {line}" for line in tail)
    text = f"{backend.title}, phase {phase!r} of {request.onnx.name}: {end.final['message']}.{shown}"
    limit = explain("\n".join(details))
    if limit is not None:
        return TensorRTRequestError(f"{text}\n  This means: cannot build {limit}\n {where}")
    return TensorRTInternalError(f"{text}\n {where}", phase=phase, returncode=end.returncode, log=log, log_tail=tail)
