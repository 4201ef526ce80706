"""Keeps the process in which the interpreter runs, and asks it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from mythos_export.errors import ParityError
from mythos_export.targets.tensorrt_build.process import library_folder, worker_environment

WORKER = "mythos_export.verify.tensorrt_network.worker"


@dataclass(frozen=True)
class Answered:
    """The arrays of one run: around the loop, of every iteration (stacked), and of the one iteration asked for."""

    around: Mapping[str, np.ndarray]
    kept: Mapping[str, np.ndarray]
    whole: Mapping[str, np.ndarray]


class NetworkProcess:
    """TensorRT's reading of an ONNX file, ready to be run.

    >>> with NetworkProcess("tensorrt_rtx", path) as network:
    ...     network.run(inputs, keep=["h_next"]).kept["h_next"]

    Attributes:
        kinds: layer types and how many of each the network has.
    """

    def __init__(self, module: str, onnx: Path) -> None:
        """Parse.

        Raises:
            ParityError: TensorRT refuses the file or crashes, or the network has a layer that is not known here.
        """
        self._onnx = onnx
        self._stack = contextlib.ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mythos-network-")))
        library = self._stack.enter_context(library_folder(module))
        self._log = self._stack.enter_context((self._folder / "log").open("w+b"))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER, module, str(onnx.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=worker_environment(library),
        )
        try:
            ready = self._event()
        except BaseException:
            self.close()
            raise
        self.kinds: dict[str, int] = ready["kinds"]

    def run(self, inputs: Mapping[str, np.ndarray], keep: Collection[str] = (), whole: int | None = None) -> Answered:
        """Run once; see `interpreter.run`. Raises ParityError where a layer cannot be computed: the process is over."""
        source, target = self._folder / "inputs.npz", self._folder / "outputs.npz"
        np.savez(source, **inputs)  # type: ignore[arg-type]
        request = {"inputs": str(source), "outputs": str(target), "keep": list(keep), "whole": whole}
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a process that died says why below
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        self._event()
        parts: dict[str, dict[str, np.ndarray]] = {"around": {}, "kept": {}, "whole": {}}
        with np.load(target) as file:
            for name in file.files:
                part, _, tensor = name.partition("/")
                parts[part][tensor] = file[name]
        return Answered(**parts)

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _event(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.endswith(b"\n"):
            event: dict[str, Any] = json.loads(line)
            if event["event"] != "error":
                return event
            told = "; ".join([event["message"], *event["details"][:5]])
        else:
            self._process.wait()
            self._log.seek(0)
            last = self._log.read().decode(errors="replace").strip().splitlines()[-5:]
            told = f"its process ended with status {self._process.returncode}: {' | '.join(last)}"
        raise ParityError(f"TensorRT's network of {self._onnx.name} cannot be read or run: {told}")
