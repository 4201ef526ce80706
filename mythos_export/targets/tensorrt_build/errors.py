"""Errors of the TensorRT build. Each class carries the exit code that a command line should leave with."""

from __future__ import annotations

from pathlib import Path


class TensorRTBuildError(Exception):
    """Base of everything that `tensorrt_build` raises on purpose.

    `exit_code`: 2 the request cannot be built, 3 the machine lacks TensorRT or TensorRT itself failed.
    """

    exit_code = 3


class TensorRTRequestError(TensorRTBuildError):
    """The request (SMs, precision, ranges) or the ONNX file asks for something that TensorRT cannot build."""

    exit_code = 2


class TensorRTMissingError(TensorRTBuildError):
    """No usable TensorRT on this machine; the message names the package to install."""

    exit_code = 3


class TensorRTInternalError(TensorRTBuildError):
    """TensorRT refused, crashed, ran out of time, or wrote something that is not an engine.

    `phase` is the last phase that the worker reported, `returncode` the worker's exit status (negative: a signal),
    `log` the file with TensorRT's whole log, `log_tail` its last lines (already part of the message).
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        phase: str | None = None,
        returncode: int | None = None,
        log: Path | None = None,
        log_tail: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.returncode = returncode
        self.log = log
        self.log_tail = log_tail
