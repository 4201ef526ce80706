"""Specs in, a folder with cubins, PTX and one manifest out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mythos_export.kernels.launch_plan import POINTER_ALIGNMENT, PRECISIONS, KernelSpec, Plan
from mythos_runtime.manifest import NOT_EXECUTED

from .architectures import ARCHITECTURES, check_architectures
from .errors import KernelRequestError
from .process import Progress, run_worker

if TYPE_CHECKING:
    from mythos_model import MythosConfig

FORMAT_VERSION = 1
MANIFEST = "kernels.json"


def plans_for(config: MythosConfig, precision: str) -> tuple[Plan, ...]:
    """The launch plans of every operator that a model of this configuration calls.

    Raises `KernelRequestError` for a precision that the kernels do not have.
    """
    if precision not in PRECISIONS:
        raise KernelRequestError(
            f"found the precision {precision!r}; the Triton kernels take {', '.join(PRECISIONS)}: export in one of "
            "these, or without Triton kernels"
        )
    from mythos_export.kernels.op import OPERATORS  # brings torch, which asking what is missing here need not

    used = ("moe", f"{config.attn_type}_attention")
    makers = [OPERATORS[name].plans for name in used]
    return tuple(plan for make in makers if make is not None for plan in make(config, precision))


def kernels_for(config: MythosConfig, precision: str) -> list[KernelSpec]:
    """The kernels that a model of this configuration needs, each once, in the order of their plans."""
    return _kernels_of(plans_for(config, precision))


def _kernels_of(plans: Sequence[Plan]) -> list[KernelSpec]:
    return list({spec.name: spec for plan in plans for spec in plan.launches}.values())


def build(
    specs: Sequence[KernelSpec],
    architectures: Sequence[int],
    folder: Path,
    *,
    plans: Sequence[Plan] = (),
    progress: Progress = lambda kernel, architecture: None,
) -> dict[str, Any]:
    """Compile every kernel for every architecture; needs triton, but no GPU.

    Args:
        specs: what to compile, names distinct.
        architectures: of `ARCHITECTURES`, e.g. (80, 90).
        folder: where `<kernel>.sm_<architecture>.cubin` and `.ptx` and the manifest `kernels.json` go; made if missing.
        plans: how the kernels work together; they go into the manifest.
        progress: called after each kernel and architecture.

    Returns: the manifest, as written.

    Raises:
        KernelRequestError: an unknown architecture, names twice, or a record that does not fit its kernel.
        KernelResourceError: a kernel spills registers or needs too much shared memory. No manifest is written.
        TritonMissingError: triton is not installed.
        KernelBuildError: triton failed.
    """
    architectures = check_architectures(architectures)
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise KernelRequestError(f"several kernels are called {', '.join(twice)}; expected one of each name")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)  # it would describe files that are about to change
    request = {
        "kernels": [spec.to_json() for spec in specs],
        "architectures": architectures,
        "folder": str(folder.resolve()),
    }
    result = run_worker(request, progress)
    manifest = {
        "format_version": FORMAT_VERSION,
        "state": NOT_EXECUTED,
        "architectures": [f"sm_{architecture}" for architecture in architectures],
        "tools": result["tools"],
        "calling_convention": {
            "parameters": "the arguments in order, then two pointers: global scratch and profiling scratch, null "
            "where their sizes are 0",
            "threads": "one-dimensional blocks",
            "pointer_alignment": POINTER_ALIGNMENT,
            "expressions": "integers, names of sizes and of the kernel's constants, + - * // and comparisons, cdiv "
            "(the quotient rounded up), min, max",
        },
        "plans": [plan.to_json() for plan in plans],
        "kernels": result["kernels"],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def build_for(
    config: MythosConfig,
    precision: str,
    folder: Path,
    *,
    architectures: Sequence[int] = ARCHITECTURES,
    progress: Progress = lambda kernel, architecture: None,
) -> dict[str, Any]:
    """Everything that a model needs, in one call: `build` of its kernels with its plans."""
    plans = plans_for(config, precision)
    return build(_kernels_of(plans), architectures, folder, plans=plans, progress=progress)
