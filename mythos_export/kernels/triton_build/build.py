"""Specs in, a folder with cubins, PTX and one manifest out."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mythos_export.errors import TargetError, ToolMissing
from mythos_export.kernels.launch_plan import POINTER_ALIGNMENT, PRECISIONS, KernelSpec, Plan
from mythos_export.progress import Progress, silent
from mythos_export.workers.near import Worker
from mythos_runtime.manifest import NOT_EXECUTED

from .resources import ARCHITECTURES, check_architectures

if TYPE_CHECKING:
    from mythos_export.kernels.call import OperatorCall

FORMAT_VERSION = 4
MANIFEST = "kernels.json"


def missing() -> str | None:
    """What this machine lacks for compiling kernels, in words, or None."""
    if importlib.util.find_spec("triton") is not None:
        return None
    if platform.system() != "Linux":
        return f"triton has no package for {platform.system()}: build the kernels on Linux (a GPU is not needed)"
    return "triton is not installed: pip install 'mythos-export[triton]'"


@contextlib.contextmanager
def compiler() -> Iterator[Worker]:
    """A worker whose answers are those of `worker.Compiler`.

    With a cache of its own: what is compiled depends on nothing left behind, and ptxas always runs and reports.

    Raises:
        ToolMissing: triton is not installed.
    """
    lack = missing()
    if lack:
        raise ToolMissing(lack)
    dropped: dict[str, str | None] = {name: None for name in os.environ if name.startswith("TRITON_")}
    answers = "mythos_export.kernels.triton_build.worker:Compiler"
    with tempfile.TemporaryDirectory(prefix="mythos-triton-") as cache:
        taken = {
            "TRITON_ALWAYS_COMPILE": "1",  # two kernels of a model may be the same code
            "TRITON_CACHE_DIR": cache,
            "TRITON_DISABLE_LINE_INFO": "1",
            "TRITON_DUMP_PTXAS_LOG": "1",
        }
        with Worker(answers, "the process that compiles kernels", environment={**dropped, **taken}) as worker:
            yield worker


def plans_for(calls: Iterable[OperatorCall], precision: str) -> tuple[Plan, ...]:
    """The launch plans of a graph's calls (`kernels.op.calls_of`), each once; calls without kernels have none.

    Raises `TargetError` for a precision that the kernels do not have.
    """
    if precision not in PRECISIONS:
        raise TargetError(
            f"found the precision {precision!r}; the Triton kernels take {', '.join(PRECISIONS)}: export in one of "
            "these, or without Triton kernels"
        )
    # They bring torch, which asking what is missing here need not.
    from mythos_export.kernels.op import OPERATORS

    found = {}
    for call in calls:
        operator = OPERATORS[call.operator]
        make = operator.plans if call.format in operator.kernels else None
        for plan in make(call, precision) if make is not None else ():
            found[plan.operator, plan.variant, plan.path] = plan
    return tuple(found.values())


def kernels_for(calls: Iterable[OperatorCall], precision: str) -> list[KernelSpec]:
    """The kernels that a graph's calls need, each once, in the order of their plans."""
    return _kernels_of(plans_for(calls, precision))


def _kernels_of(plans: Sequence[Plan]) -> list[KernelSpec]:
    return list({spec.name: spec for plan in plans for spec in plan.launches}.values())


def build(
    specs: Sequence[KernelSpec],
    architectures: Sequence[int],
    folder: Path,
    *,
    plans: Sequence[Plan] = (),
    more: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compile every kernel for every architecture; needs triton, but no GPU.

    Args:
        specs: what to compile, names distinct.
        architectures: of `ARCHITECTURES`, e.g. (80, 90).
        folder: where `<kernel>.sm_<architecture>.cubin` and `.ptx` and the manifest `kernels.json` go; made if missing.
        plans: how the kernels work together; they go into the manifest.
        more: what else does: what the launcher in C++ is told (`kernels.cuda.signatures`).
        progress: called with each kernel and architecture, and the share of them that is done.

    Returns: the manifest, as written.

    Raises:
        TargetError: an unknown architecture, names twice, or a record that does not fit its kernel.
        KernelResourceError: a kernel spills registers or needs too much shared memory. No manifest is written.
        ToolMissing: triton is not installed.
        ToolFailed: triton failed.
    """
    architectures = check_architectures(architectures)
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TargetError(f"several kernels are called {', '.join(twice)}; expected one of each name")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)  # it would describe files that are about to change
    with compiler() as worker:
        result = worker.ask(
            "compile",
            progress=progress,
            kernels=[spec.to_json() for spec in specs],
            architectures=architectures,
            folder=str(folder.resolve()),
        )
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
        **(more or {"operators": [], "calls": []}),
        "kernels": result["kernels"],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def build_for(
    calls: Iterable[OperatorCall],
    precision: str,
    folder: Path,
    *,
    architectures: Sequence[int] = ARCHITECTURES,
    others: Sequence[Plan] = (),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Everything that a graph's calls need, and what other plans do, in one: `build` of the kernels with the plans."""
    from mythos_export.kernels.cuda.signatures import described

    calls = tuple(calls)
    plans = (*plans_for(calls, precision), *others)
    more = described((call, plans_for([call], precision)) for call in calls)
    return build(_kernels_of(plans), architectures, folder, plans=plans, more=more, progress=progress)
