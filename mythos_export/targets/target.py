"""What a target is: its default precision, and how it turns a lowered graph into files of the bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mythos_export.kernels.fallback import Implementation
from mythos_export.lower import Lowered

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TargetOptions:
    """What a user may ask of a target; a target takes what concerns it. Ranges are written min:opt:max."""

    precision: str
    sm: str | None = None
    batch: str | None = None
    tokens: str | None = None
    context: str | None = None
    plugins: bool = False


@dataclass(frozen=True)
class Built:
    """Files that a target added to the bundle (relative paths), their state in the manifest's words, and details.

    `operators` is what computes the operators in it, where that is decided at export (see `kernels/fallback.py`).
    """

    name: str
    files: tuple[str, ...]
    state: str
    details: dict[str, Any] = field(default_factory=dict)
    tool_versions: dict[str, str] = field(default_factory=dict)
    operators: Implementation | None = None


class Target(Protocol):
    """One way to ship. Adding one: a module with such a class, and a line in `targets/registry.py`."""

    name: str
    default_precision: str

    def check(self, options: TargetOptions) -> None:
        """Refuse early what cannot be built, before any long work; raises with a reason and the nearest alternative."""
        ...

    def build(self, lowered: Lowered, folder: Path, options: TargetOptions, progress: Progress) -> Built:
        """Write the target's files into the bundle's folder."""
        ...
