"""Writing a bundle: everything into a hidden folder beside the destination, then one rename."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from mythos_export.errors import PackageError
from mythos_export.kernels import fallback
from mythos_export.kernels.op import OPERATORS, calls_of
from mythos_export.precision import PRECISIONS
from mythos_export.targets.target import Built
from mythos_model import Checkpoint
from mythos_runtime.files import describe
from mythos_runtime.manifest import MANIFEST, Manifest, Source, TokenizerEntry, write_manifest
from mythos_runtime.manifest import Target as TargetEntry
from mythos_runtime.ports import model_ports
from mythos_runtime.tokenizer import ByteTokenizer, JsonTokenizer


@contextlib.contextmanager
def staged(destination: Path, force: bool) -> Iterator[Path]:
    """A folder to fill. It takes the destination's name when the block ends well, and vanishes when it does not.

    Raises:
        PackageError: something is at the destination and `force` is off, or it is no bundle, or cannot be written.
    """
    if destination.exists() and not force:
        raise PackageError(f"{destination} exists; choose another folder with -o, or replace it with --force")
    if destination.exists() and not (destination / MANIFEST).is_file() and not _is_empty(destination):
        raise PackageError(
            f"{destination} is not a bundle, so --force does not replace it; choose another folder with -o"
        )
    # The process number tells a stale folder of a killed export from one that is being written.
    stage = destination.parent / f".{destination.name}.{os.getpid()}.partial"
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(destination)
        stage.mkdir()
    except OSError as error:
        raise PackageError(f"cannot write to {destination.parent}: {error.strerror}") from error
    try:
        yield stage
        old = None
        if destination.exists():
            old = stage.with_suffix(".old")
            destination.rename(old)
        stage.rename(destination)
        if old is not None:
            shutil.rmtree(old)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _remove_stale(destination: Path) -> None:
    """Remove what a killed export of the same name left behind."""
    for leftover in destination.parent.glob(f".{destination.name}.*.partial"):
        number = leftover.name.removesuffix(".partial").rpartition(".")[2]
        if number.isdecimal() and not _runs(int(number)):
            shutil.rmtree(leftover, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def describe_bundle(
    folder: Path,
    checkpoint: Checkpoint,
    precision: str,
    built: tuple[Built, ...],
    tolerances: dict[str, float],
    tokenizer: TokenizerEntry | None = None,
) -> Manifest:
    """The manifest of what lies in `folder`; every file is hashed."""
    config = checkpoint.config
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    versions = {"torch": torch.__version__, "onnx": onnx.__version__}
    for target in built:
        versions |= target.tool_versions
    return Manifest(
        config=config.to_dict(),
        ports=model_ports(
            layers=config.prelude_layers + config.coda_layers,
            cache_width=config.cache_dim,
            vocab_size=config.vocab_size,
            cache_dtype=PRECISIONS[precision].numpy_name,
        ),
        precision=precision,
        targets=tuple(TargetEntry(t.name, t.state, tuple(t.files), dict(t.details)) for t in built),
        tool_versions=versions,
        files={path.relative_to(folder).as_posix(): describe(path) for path in files},
        tolerances=dict(tolerances),
        source=Source(checkpoint.source.name, checkpoint.sha256, checkpoint.format),
        operators=fallback.record(_operators(folder / "model.onnx"), _tensorrt_implementation(built)),
        tokenizer=tokenizer,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def add_tokenizer(folder: Path, tokenizer: str | Path | None, vocab_size: int) -> TokenizerEntry | None:
    """Put a tokenizer into the bundle, after reading it once; errors as the runtime's own."""
    if tokenizer is None:
        return None
    if str(tokenizer) == "bytes":
        ByteTokenizer(vocab_size)
        return TokenizerEntry("bytes")
    source = Path(tokenizer)
    if not source.is_file():
        raise PackageError(f"there is no tokenizer {source}; give 'bytes' or the path of a tokenizer.json")
    JsonTokenizer(source, vocab_size)
    shutil.copyfile(source, folder / "tokenizer.json")
    return TokenizerEntry("tokenizer.json", "tokenizer.json")


def _operators(path: Path) -> dict[str, frozenset[fallback.Implementation]]:
    calls = calls_of(ir.load(path))
    return {call.label: OPERATORS[call.operator].lacks(call.format) for call in sorted(calls, key=lambda c: c.label)}


def _tensorrt_implementation(built: tuple[Built, ...]) -> fallback.Implementation | None:
    for target in built:
        if target.operators is not None:
            return target.operators
    return None


def finish(folder: Path, manifest: Manifest) -> Path:
    """Write the manifest, the last file of a bundle."""
    return write_manifest(folder, manifest)
