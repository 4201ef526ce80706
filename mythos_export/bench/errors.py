"""The error of a request that cannot be measured."""

from __future__ import annotations

from mythos_export.errors import ExportError


class BenchError(ExportError):
    """The request cannot be measured: nothing fits the model, no backend runs here, a report cannot be read."""


class NoBackend(BenchError):
    """The machine or the bundle lacks what every named backend needs."""

    exit_code = 3
