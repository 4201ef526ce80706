"""What a target is: its precisions, and how it turns a lowered graph into files of the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mythos_export.errors import TargetError
from mythos_export.kernels.fallback import Implementation
from mythos_export.lower import Lowered
from mythos_export.progress import Progress
from mythos_export.targets.registry import TARGETS, find_target
from mythos_runtime.spec import LoopSpec

BASE = "onnx"  # what every bundle holds: other targets are made from it, and verification looks into it


@dataclass(frozen=True)
class TargetOptions:
    """What a user may ask of a target. Ranges are written min:opt:max."""

    precision: str
    sm: str | None = None
    batch: str | None = None
    tokens: str | None = None
    context: str | None = None
    plugins: bool = False
    rows: bool = False
    expert_shards: int | None = None
    link: bool = False
    """Weights stay in the checkpoint's files, and are mapped from there."""
    dump: Path | None = None
    """A folder for the graph before and after each pass."""
    int8_cache: bool = False
    """Cache lines are rounded to int8 (`--cache int8`)."""


@dataclass(frozen=True)
class Built:
    """What a target added to the bundle.

    Attributes:
        files: relative paths.
        proof: the stages of verification that, all run and equal, show that it computes what the model does. Until
            then it is built, and not executed; without any, it stays so.
        details: the manifest's, for this target's runtime.
        operators: what computes the operators in it, by runner of `kernels/fallback.py`, where that is decided at
            export; an operator without it has the next in the runner's order.
    """

    name: str
    files: tuple[str, ...]
    proof: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    tool_versions: dict[str, str] = field(default_factory=dict)
    operators: Mapping[str, Implementation] = field(default_factory=dict)


class Target(Protocol):
    """One way to ship. Adding one: a module with such a class, and a line in `registry.py`."""

    name: str
    precisions: tuple[str, ...]
    """The precisions that it can be built with and checked in, the default first."""

    options: frozenset[str]
    """The fields of TargetOptions that mean something to it, beside the precision."""

    def check(self, options: TargetOptions) -> None:
        """Refuse early what cannot be built, before any long work; raises with a reason and the nearest alternative."""
        ...

    def check_model(self, spec: LoopSpec, options: TargetOptions) -> None:
        """Refuse what does not go with a model, before it is captured; raises TargetError."""
        ...

    def build(self, lowered: Lowered, folder: Path, options: TargetOptions, progress: Progress) -> Built:
        """Write the target's files into the bundle's folder."""
        ...


def check_request(target: Target, options: TargetOptions) -> None:
    """Refuse what a target cannot do, before any work.

    Raises:
        TargetError: says what it can do.
        ToolMissing: this machine cannot.
    """
    if options.precision == "bf16":
        raise TargetError(
            "bf16 is not offered: ONNX Runtime, which runs and checks every export, takes no bfloat16 from Python and "
            "has no kernels for it on the CPU; use --precision fp32 (exact for bf16 weights) or fp16"
        )
    if options.precision not in target.precisions:
        raise TargetError(
            f"--target {target.name} has no precision {options.precision!r}, it has {', '.join(target.precisions)}"
            + _elsewhere("precisions", options.precision)
        )
    for name in ("sm", "batch", "tokens", "context", "plugins", "rows", "expert_shards"):
        if getattr(options, name) and name not in target.options:
            option = f"--{name.replace('_', '-')}"
            raise TargetError(f"{option} means nothing to --target {target.name}" + _elsewhere("options", name))
    if options.link:
        if target.name != BASE:
            raise TargetError(f"--weights link means nothing to --target {target.name}; it goes with --target {BASE}")
        if options.precision not in ("fp32", "fp16"):
            raise TargetError(
                f"--weights link goes with fp32 and fp16: {options.precision} weights are in no checkpoint"
            )
        if options.expert_shards is not None:
            raise TargetError("--weights link and --expert-shards do not go together: shards are files of their own")
    if options.int8_cache and "int8_cache" not in target.options:
        raise TargetError(
            f"--cache int8 means nothing to --target {target.name}, which reads caches as they are computed"
            + _elsewhere("options", "int8_cache")
        )
    if options.int8_cache and options.expert_shards is not None:
        raise TargetError("--cache int8 and --expert-shards do not go together so far: leave one of them out")
    target.check(options)


def _elsewhere(field: str, value: str) -> str:
    names = [name for name in TARGETS if value in getattr(find_target(name), field)]
    return f"; it goes with --target {' or '.join(names)}" if names else ""


def build(
    lowered: Lowered, folder: Path, target: Target, options: TargetOptions, progress: Progress
) -> tuple[Built, ...]:
    """The base, and what the target adds to it."""
    built = [find_target(BASE).build(lowered, folder, options, progress)]
    if target.name != BASE:
        progress(f"build for {target.name}")
        built.append(target.build(lowered, folder, options, progress))
    return tuple(built)
