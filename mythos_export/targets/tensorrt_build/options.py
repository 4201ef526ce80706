"""What goes into a TensorRT build and what comes out of it: frozen values, no behaviour of TensorRT in here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mythos_export.errors import TargetError

from .profiles import Profile

#: One engine holds these, across which TensorRT-RTX's engines are portable by default (its support matrix, 1.0 to 1.5).
#: On request: Turing (75) as an engine of its own, 121, and 80, which it builds for but its matrix does not list.
DEFAULT_SMS = (86, 89, 120)
PRECISIONS = ("fp16", "bf16", "fp32", "int8", "int4")
DEFAULT_PRECISION = "fp16"

#: No engine is executed by a build without a GPU, and none is executed by a build with one either.
STATE = "built, not executed"


@dataclass(frozen=True)
class BuildRequest:
    """One ONNX file to compile.

    onnx: the graph; its weights may be external, by offset, in files beside it.
    output: the folder for the engine files; created if it is missing.
    profiles: from `profiles_for`. precision: what the ONNX graph was lowered to (the network is strongly typed, so the
    graph decides; the name is checked against it). sms: None means `DEFAULT_SMS` for TensorRT-RTX and the GPU of this
    machine for full TensorRT.
    plugins: nodes of the domain `mythos` become plug-ins; they say where their kernels are (`tensorrt_plugins`).
    """

    onnx: Path
    output: Path
    profiles: tuple[Profile, ...]
    precision: str = DEFAULT_PRECISION
    sms: tuple[int, ...] | None = None
    plugins: bool = False
    timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise TargetError(f"precision {self.precision!r} is unknown; expected {', '.join(PRECISIONS)}")
        if self.sms is not None and not self.sms:
            raise TargetError("the list of SMs is empty; give at least one, as in --sm 89")
        if not self.profiles:
            raise TargetError("there is no optimization profile; make them with profiles_for(...)")
        if self.timeout_s <= 0:
            raise TargetError(f"timeout of {self.timeout_s} s: expected a positive number of seconds")


@dataclass(frozen=True)
class Engine:
    """One engine file that was written. `header` is its first 64 bytes in hexadecimal."""

    path: Path
    sms: tuple[int, ...]
    bytes: int
    seconds: float
    header: str


@dataclass(frozen=True)
class BuildResult:
    """Engines of one build, and what a manifest should say about them."""

    backend: str
    version: str
    precision: str
    engines: tuple[Engine, ...]
    profiles: tuple[Profile, ...]
    layers: int
    parse_seconds: float
    warnings: int
    state: str = STATE

    def to_json(self) -> dict[str, Any]:
        """JSON-serialisable; engines by file name only, so that no folder of this machine leaves it."""
        return {
            "backend": self.backend,
            "version": self.version,
            "precision": self.precision,
            "state": self.state,
            "layers": self.layers,
            "parse_seconds": round(self.parse_seconds, 3),
            "warnings": self.warnings,
            "engines": [
                {
                    "file": engine.path.name,
                    "sms": list(engine.sms),
                    "bytes": engine.bytes,
                    "seconds": round(engine.seconds, 3),
                    "header": engine.header,
                }
                for engine in self.engines
            ],
            "profiles": [profile.to_json() for profile in self.profiles],
        }
