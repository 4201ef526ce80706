"""The row graphs as TensorRT engines (`--rows`). Built, not executed: nothing runs them yet.

Without the Loop around it a step is a plain graph; page tables are inputs. What an engine returns of a cache are the
rows' entries (`passes/return_entries`), which whoever runs it writes into the pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from mythos_export.lower import Lowered, run_passes
from mythos_export.passes.attach_functions import attach_tensorrt_functions
from mythos_export.passes.expand_rotary import expand_rotary
from mythos_export.passes.inline_functions import inline_functions
from mythos_export.passes.remove_unused import remove_unused
from mythos_export.passes.return_entries import return_entries
from mythos_export.progress import Progress
from mythos_export.targets import tensorrt_build as trt
from mythos_export.targets.target import TargetOptions
from mythos_runtime.row_ports import GRAPHS, PAGE
from mythos_runtime.spec import LoopSpec

FOLDER = "engines/rows"
_MOST_ROWS = 256
_MOST_PAGES = 1 << 16
PASSES = (
    return_entries,
    expand_rotary,  # a layer that TensorRT-RTX has and cannot build
    attach_tensorrt_functions,
    inline_functions,
    remove_unused,  # the pool of pages with the new entries
)


def graph_of(name: str) -> str:
    """The file of a row graph as TensorRT is given it."""
    return f"{name}.tensorrt.onnx"


def lower_for_tensorrt(folder: Path, dump: Path | None = None) -> tuple[Path, ...]:
    """Write a folder's enter, step and leave as TensorRT takes them, beside the weights that they point into."""
    paths = []
    for name in GRAPHS:
        model = ir.load(folder / f"{name}.onnx")
        run_passes(model, PASSES, None if dump is None else dump / f"tensorrt_{name}")
        paths.append(folder / graph_of(name))
        ir.save(model, paths[-1])
    return tuple(paths)


def build_rows(
    lowered: Lowered, folder: Path, options: TargetOptions, sms: tuple[int, ...] | None, progress: Progress
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Build an engine of each graph for every group of SMs; returns their files, and what the manifest says of them.

    Raises:
        TargetError, ToolFailed: see `tensorrt_build.build`.
    """
    files, described = [], []
    for name, path in zip(GRAPHS, lower_for_tensorrt(folder, options.dump), strict=True):
        request = trt.BuildRequest(
            path, folder / FOLDER / name, (profile_of(path, lowered.spec),), options.precision, sms
        )

        def report(phase: str, part: float | None = None, name: str = name) -> None:
            progress(f"TensorRT, {name}: {phase}", part)

        result = trt.build(request, report)
        engines = [f"{FOLDER}/{name}/{engine.path.name}" for engine in result.engines]
        files += [path.name, *engines]
        described.append({"graph": name, **described_build(result, f"{FOLDER}/{name}")})
    return tuple(files), described


def described_build(result: trt.BuildResult, folder: str, plugins: bool = False) -> dict[str, Any]:
    """What the manifest says of engines in `folder`, as mythos_runtime.tensorrt reads them."""
    engines = [
        {
            "file": f"{folder}/{engine.path.name}",
            "sm": list(engine.sms),
            "library": result.backend,
            "plugins": plugins,
            "seconds": round(engine.seconds, 3),
            "header": engine.header,
        }
        for engine in result.engines
    ]
    return {**result.to_json(), "engines": engines}


def profile_of(path: Path, spec: LoopSpec) -> trt.Profile:
    """As many rows as the engine packs, and tables of a whole sequence."""
    inputs = trt.graph_inputs(onnx.load(path, load_external_data=False))
    most = 1 << (-(-spec.max_seq_len // PAGE) - 1).bit_length()  # the engine's tables have few widths
    return trt.row_profile(
        inputs, trt.Range(1, 16, _MOST_ROWS), trt.Range(1, max(1, most // 4), most), trt.Range(1, 1024, _MOST_PAGES)
    )
