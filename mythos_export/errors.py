"""The exporter's errors, all of them; each carries the exit code that the command line leaves with."""

from __future__ import annotations


class ExportError(Exception):
    """Base of the exporter's errors: 1 the result is wrong, 2 the request is wrong, 3 this machine lacks something."""

    exit_code = 2


class CaptureError(ExportError):
    """torch.export could not capture the model; 2, as nothing was computed that could be wrong."""


class LowerError(ExportError):
    """The captured program could not be turned into a valid ONNX graph; 2, as above."""


class TargetError(ExportError):
    """The request (precision, compute capabilities, ranges) or the graph asks for what the target cannot build."""


class KernelResourceError(ExportError):
    """A kernel spills registers, or needs more shared memory than a block of the architecture has."""

    exit_code = 1


class PackageError(ExportError):
    """The bundle may not be written where it was asked for."""


class StorageError(ExportError):
    """The disk is full, read-only or closed to this user."""

    exit_code = 3


class ParityError(ExportError):
    """An artifact does not compute what the eager model computes."""

    exit_code = 1


class CasesError(ExportError):
    """Inputs that were given for the comparison cannot be used."""


class MixError(ExportError):
    """No mix of formats keeps to the bound that was asked for."""


class PlanError(ExportError):
    """There is no such model or device to plan for."""


class BenchError(ExportError):
    """The request cannot be measured: nothing fits the model, or a report cannot be read."""


class ToolMissing(ExportError):
    """This machine lacks what the work needs, such as TensorRT or triton; the message says what to install."""

    exit_code = 3


class ToolFailed(ExportError):
    """Something that runs in a process of its own failed: it said so, crashed, ran out of time, or left rubbish.

    Attributes:
        reason: what happened, in a line.
        details: further lines that it gave as the reason.
        phase: what it was doing, where it told.
        returncode: the exit status of a process that ended (negative: a signal).
        timed_out: whether it was stopped because its time had run out.
        tail: the last lines of its log.
    """

    exit_code = 3

    def __init__(
        self,
        reason: str,
        *,
        details: tuple[str, ...] = (),
        phase: str | None = None,
        returncode: int | None = None,
        timed_out: bool = False,
        tail: tuple[str, ...] = (),
    ) -> None:
        super().__init__(reason)
        self.reason, self.details, self.phase, self.tail = reason, details, phase, tail
        self.returncode, self.timed_out = returncode, timed_out

    def __str__(self) -> str:
        """The reason, and the lines that explain it best."""
        return self.reason + "".join(f"\n    {line.strip()}" for line in self.details or self.tail)

    @property
    def brief(self) -> str:
        """The reason, and the last line of its log where it died without a word."""
        last = f" ({self.tail[-1].strip()[:300]})" if self.returncode is not None and self.tail else ""
        return f"{self.reason}{last}"
