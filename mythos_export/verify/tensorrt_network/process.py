"""Keeps the process in which the interpreter runs, and asks it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from mythos_export.errors import ParityError, ToolFailed
from mythos_export.targets.tensorrt_build.environment import tensorrt_worker

ANSWERS = "mythos_export.verify.tensorrt_network.worker:Interpreter"


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
        self._onnx, self._stack = onnx, contextlib.ExitStack()
        self._worker = self._stack.enter_context(tensorrt_worker(module, answers=ANSWERS))
        try:
            self.kinds: dict[str, int] = self._ask("open", module=module, onnx=str(onnx.resolve()))["kinds"]
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Mapping[str, np.ndarray], keep: Collection[str] = (), whole: int | None = None) -> Answered:
        """Run once; see `interpreter.run`. Raises ParityError where a layer cannot be computed."""
        parts: dict[str, dict[str, np.ndarray]] = {"around": {}, "kept": {}, "whole": {}}
        for name, array in self._ask("run", arrays=dict(inputs), keep=list(keep), whole=whole)["arrays"].items():
            part, _, tensor = name.partition("/")
            parts[part][tensor] = array
        return Answered(**parts)

    def constants(self) -> dict[str, np.ndarray]:
        """The weights as TensorRT holds them, by the names of the network."""
        return dict(self._ask("constants")["arrays"])

    def close(self) -> None:
        """End the process."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, do: str, **values: Any) -> dict[str, Any]:
        try:
            return self._worker.ask(do, **values)
        except ToolFailed as error:
            told = "; ".join([error.brief, *error.details[:5]])
            raise ParityError(f"TensorRT's network of {self._onnx.name} cannot be read or run: {told}") from error
