"""One exception type per stage; each carries the exit code that the command line leaves with."""

from __future__ import annotations


class ExportError(Exception):
    """Base of the exporter's errors: 1 the result is wrong, 2 the request is wrong, 3 this machine lacks something."""

    exit_code = 2


class CaptureError(ExportError):
    """torch.export could not capture the model; 2, as nothing was computed that could be wrong."""


class LowerError(ExportError):
    """The captured program could not be turned into a valid ONNX graph; 2, as above."""


class TargetError(ExportError):
    """The request does not fit the target."""


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
