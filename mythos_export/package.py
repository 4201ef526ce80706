"""What a bundle says about itself, and the tokenizer in it; `destination` is where it goes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from mythos_export.kernels import fallback
from mythos_export.kernels.op import OPERATORS, calls_of
from mythos_export.targets.target import Built
from mythos_model import Checkpoint
from mythos_runtime.files import describe
from mythos_runtime.manifest import MANIFEST, Manifest, Source, TokenizerEntry, write_manifest
from mythos_runtime.manifest import Target as TargetEntry
from mythos_runtime.row_ports import GRAPHS
from mythos_runtime.spec import MODEL, LoopSpec


def describe_bundle(
    folder: Path,
    checkpoint: Checkpoint,
    spec: LoopSpec,
    precision: str,
    built: tuple[Built, ...],
    tolerances: dict[str, float],
    tokenizer: TokenizerEntry | None = None,
) -> Manifest:
    """The manifest of what lies in `folder`; every file is hashed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    versions = {"torch": torch.__version__, "onnx": onnx.__version__}
    for target in built:
        versions |= target.tool_versions
    return Manifest(
        spec=spec,
        config=checkpoint.config.to_dict(),
        precision=precision,
        targets=tuple(TargetEntry(t.name, t.state, tuple(t.files), dict(t.details)) for t in built),
        tool_versions=versions,
        files={path.relative_to(folder).as_posix(): describe(path) for path in files},
        tolerances=dict(tolerances),
        source=Source(checkpoint.source.name, checkpoint.sha256, checkpoint.format),
        operators=fallback.record(_operators(folder), _tensorrt_implementation(built)),
        tokenizer=tokenizer,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _operators(folder: Path) -> dict[str, frozenset[fallback.Implementation]]:
    """Of the model and of its row graphs, with what each lacks."""
    calls = [call for name in (MODEL, *GRAPHS) for call in calls_of(ir.load(folder / f"{name}.onnx"))]
    return {call.label: OPERATORS[call.operator].lacks(call.format) for call in sorted(calls, key=lambda c: c.label)}


def _tensorrt_implementation(built: tuple[Built, ...]) -> fallback.Implementation | None:
    for target in built:
        if target.operators is not None:
            return target.operators
    return None


def finish(folder: Path, manifest: Manifest) -> Path:
    """Write the manifest, the last file of a bundle."""
    return write_manifest(folder, manifest)
