"""The row graphs that a bundle brings, and where they would run."""

from __future__ import annotations

from pathlib import Path

from mythos_runtime.cuda_ops import rows_on_cuda
from mythos_runtime.errors import BundleError
from mythos_runtime.manifest import Manifest
from mythos_runtime.row_ports import GRAPHS, ROWS, STEP
from mythos_runtime.session import Options


def runs_on_cuda(manifest: Manifest, options: Options) -> bool:
    """Whether ONNX Runtime runs a bundle's row graphs on CUDA. Experts in shards run on the CPU, unless CUDA is named.
    Raises as `rows_on_cuda`."""
    return rows_on_cuda(options) and (manifest.shards is None or options.provider == "cuda")


def has_rows(manifest: Manifest) -> bool:
    """Whether a bundle has row graphs."""
    return not _lacking(manifest)


def check_rows(folder: Path, manifest: Manifest) -> None:
    """BundleError where a bundle has no row graphs."""
    lacking, spec = _lacking(manifest), manifest.spec
    if not set(GRAPHS) & set(spec.graphs):
        raise BundleError(
            f"{folder} has no row graphs, which the engine runs: with its exit rule {spec.exit.name} there are none; "
            "run the model itself (mythos_runtime.load), or export it again with another --exit"
        )
    if lacking:
        raise BundleError(f"{folder} has no {lacking[0]}.onnx, which the engine runs; export the model again")


def check_device_rows(folder: Path, manifest: Manifest) -> None:
    """BundleError where a bundle has no row graphs that PyTorch runs."""
    if not set(GRAPHS) <= set(manifest.spec.graphs):
        check_rows(folder, manifest)
    if ROWS not in manifest.files:
        raise BundleError(
            f"{folder} has no {ROWS}, the row graphs for PyTorch; export the model again with --target cuda, or take "
            "the backend onnxruntime"
        )


def _lacking(manifest: Manifest) -> list[str]:
    needed = [name for name in GRAPHS if name != STEP or manifest.shards is None]  # in whose place its parts are
    return [name for name in needed if name not in manifest.spec.graphs or f"{name}.onnx" not in manifest.files]
