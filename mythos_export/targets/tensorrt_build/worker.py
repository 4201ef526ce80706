"""TensorRT in a process of its own (`mythos_export.workers`): its parser and builder can abort or crash theirs.

One code path serves TensorRT-RTX (module `tensorrt_rtx`) and full TensorRT (module `tensorrt`): only `_set_targets`
differs. The full one builds for the GPU of the machine; no machine with one has run it yet.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from types import ModuleType
from typing import Any

from mythos_export.errors import ToolFailed
from mythos_export.progress import Progress
from mythos_runtime.tensorrt.plugins import refusal, register_plugins

Job = dict[str, Any]


class TensorRT:
    """What the worker is asked for."""

    def __init__(self, report: Progress) -> None:
        self.report = report

    def probe(self, module: str) -> Job:
        """Imports TensorRT and asks for a builder, which is the first thing that fails where a stub is installed."""
        trt = importlib.import_module(module)
        if trt.Builder(trt.Logger(trt.Logger.ERROR)) is None:
            raise ToolFailed("TensorRT gave no builder")
        return {"version": trt.__version__}

    def build(self, module: str, onnx: str, engines: list[Job], plugins: bool, profiles: list[Job]) -> Job:
        """Parses once and writes every engine {path, sms} to its path."""
        self.report("parse")
        trt = importlib.import_module(module)
        logger = make_logger(trt)
        builder = trt.Builder(logger)
        if plugins:
            register_plugins(trt, "--plugins")
        started = time.monotonic()
        network = parse(trt, logger, builder, onnx)
        parse_seconds = time.monotonic() - started
        seconds = []
        for number, engine in enumerate(engines):

            def report(phase: str, part: float | None = None, done: int = number) -> None:
                self.report(phase, None if part is None else (done + part) / len(engines))

            seconds.append(build_engine(trt, logger, builder, network, profiles, engine, report))
        return {
            "version": trt.__version__,
            "layers": network.num_layers,
            "parse_seconds": parse_seconds,
            "warnings": logger.warnings,
            "seconds": seconds,
        }


def make_logger(trt: ModuleType) -> Any:
    """A TensorRT logger that writes to stderr, counts warnings and keeps errors."""

    class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings = 0

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                self.warnings += 1
            if int(severity) <= int(trt.ILogger.Severity.INFO):
                print(f"[{str(severity).rpartition('.')[2]}] {message}", file=sys.stderr, flush=True)

    return Logger()


class PhaseFraction:
    """How far a tree of phases is, from TensorRT's start / step / finish calls: 0..1, never going back."""

    def __init__(self) -> None:
        self._stack: list[list[Any]] = []  # [name, number of steps, steps done], outermost first
        self._best = 0.0

    def start(self, name: str, steps: int) -> None:
        self._stack.append([name, max(1, steps), 0])

    def step(self, name: str) -> None:
        for entry in reversed(self._stack):
            if entry[0] == name:
                entry[2] += 1
                return

    def finish(self, name: str) -> None:
        for index in reversed(range(len(self._stack))):
            if self._stack[index][0] == name:
                del self._stack[index:]
                return

    def value(self) -> float:
        fraction = 0.0
        for _, steps, done in reversed(self._stack):
            fraction = min(1.0, (done + fraction) / steps)
        self._best = max(self._best, fraction)
        return self._best


def make_monitor(trt: ModuleType, report: Progress, phase: str) -> Any:
    """A progress monitor that reports `phase` whenever it moved by a hundredth. It works without a GPU too."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._fraction = PhaseFraction()
            self._sent = 0.0
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._fraction.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._fraction.step(phase_name)
                self._report()
            return True

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._fraction.finish(phase_name)

        def _report(self) -> None:
            value = self._fraction.value()
            if value - self._sent >= 0.01:
                self._sent = value
                report(phase, round(value, 3))

    return Monitor()


def parse(trt: ModuleType, logger: Any, builder: Any, path: str) -> Any:
    """The network of an ONNX file, strongly typed. Raises `ToolFailed` with the parser's errors, nodes named."""
    flags = trt.NetworkDefinitionCreationFlag
    strongly_typed = getattr(flags, "STRONGLY_TYPED", None)  # a TensorRT without the flag knows no other kind
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(path):
        return network
    details = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name, operator = error.node_name(), error.node_operator()
        where = f"node {name or '(unnamed)'} ({operator}): " if operator else ""
        details.append(f"{where}{error.desc()}")
    raise ToolFailed(f"TensorRT's parser refused the ONNX file{refusal()}", details=tuple(details or logger.errors))


def add_profiles(builder: Any, network: Any, config: Any, profiles: list[Job]) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for spec in profiles:
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            if tensor.is_shape_tensor:
                if tensor.name not in spec["values"]:
                    raise ToolFailed(f"TensorRT needs the range of values of input {tensor.name}, a shape tensor")
                profile.set_shape_input(tensor.name, *([value] for value in spec["values"][tensor.name]))
            elif -1 in tuple(tensor.shape):
                if tensor.name not in spec["shapes"]:
                    raise ToolFailed(f"profile {spec['name']} has no shapes for input {tensor.name}")
                profile.set_shape(tensor.name, *(tuple(shape) for shape in spec["shapes"][tensor.name]))
        if config.add_optimization_profile(profile) < 0:
            raise ToolFailed(f"TensorRT refused the profile {spec['name']}", details=(json.dumps(spec),))


def _set_targets(trt: ModuleType, config: Any, sms: list[int]) -> None:
    """The one difference: TensorRT-RTX is told its targets, full TensorRT builds for the GPU that is present."""
    if trt.__name__ != "tensorrt_rtx":
        return
    config.num_compute_capabilities = len(sms)
    for index, sm in enumerate(sms):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), index)


def build_engine(
    trt: ModuleType, logger: Any, builder: Any, network: Any, profiles: list[Job], engine: Job, report: Progress
) -> float:
    """Builds one engine and writes it to `engine["path"]`; returns the seconds that the build took."""
    label = ",".join(str(sm) for sm in engine["sms"])
    phase = f"build sm {label}"
    report(phase, 0.0)
    config = builder.create_builder_config()
    _set_targets(trt, config, engine["sms"])
    add_profiles(builder, network, config, profiles)
    config.progress_monitor = monitor = make_monitor(trt, report, phase)
    logger.errors.clear()
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - started
    del monitor  # it has to outlive the build, and nothing else
    if plan is None:
        raise ToolFailed(f"TensorRT could not build the engine for SM {label}{refusal()}", details=tuple(logger.errors))
    report(phase, 1.0)
    report(f"write sm {label}")
    with open(engine["path"], "wb") as file:
        file.write(memoryview(plan))
        file.flush()
        os.fsync(file.fileno())
    return seconds
