"""What `--plugins` adds to the target `tensorrt`: compiled kernels, and a graph whose operators stay nodes.

The graph in the bundle keeps its function bodies, so that ONNX Runtime can run and compare it; TensorRT is given the
same graph without them, because its parser prefers a body to a plug-in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx_ir as ir

from mythos_export.errors import TargetError, ToolMissing
from mythos_export.kernels import triton_build
from mythos_export.kernels.call import call_of
from mythos_export.kernels.op import OPERATORS, calls_of
from mythos_export.kernels.text import DOMAIN
from mythos_export.progress import Progress
from mythos_runtime.tensorrt import missing_plugins

FOLDER = "kernels"
KERNELS, VARIANT = "kernels", "variant"
"""Attributes of a node in the graph that TensorRT is given: the folder of its compiled kernels, and which plans of
those are for its sizes. The plug-in reads them there (`kernels/tensorrt/node.h`)."""
_GRAPH = ".model.plugins.onnx"


def check(sms: Sequence[int]) -> None:
    """Refuse early what cannot be compiled."""
    lack = triton_build.missing()
    if lack:
        raise ToolMissing(f"--plugins compiles Triton kernels, but {lack}")
    lack = missing_plugins()
    if lack:
        raise ToolMissing(f"--plugins has TensorRT load a library, but {lack}; or export without --plugins")
    unknown = sorted(set(sms) - set(triton_build.ARCHITECTURES))
    if unknown:
        raise TargetError(
            f"--plugins has no kernels for SM {', '.join(map(str, unknown))}, only for "
            f"{', '.join(map(str, triton_build.ARCHITECTURES))}; leave it out of --sm, or export without --plugins"
        )


def compile_kernels(
    model: ir.Model, precision: str, bundle: Path, sms: Sequence[int], progress: Progress
) -> tuple[str, ...]:
    """The graph's kernels for these compute capabilities, into the bundle; returns their paths in it."""
    manifest = triton_build.build_for(
        [call for call in calls_of(model) if OPERATORS[call.operator].plugin],
        precision,
        bundle / FOLDER,
        architectures=sms,
        progress=lambda phase, part=None: progress(f"Triton: {phase}", part),
    )
    return tuple(f"{FOLDER}/{name}" for name in triton_build.files_of(manifest))


@contextlib.contextmanager
def graph_of_plugins(model: ir.Model, precision: str, bundle: Path) -> Iterator[Path]:
    """A file with the graph as TensorRT's parser needs it, beside the weights that it names; gone afterwards."""
    path = bundle / _GRAPH
    bodies = dict(model.functions)
    model.functions.clear()
    named = [node for node in model.graph.all_nodes() if node.domain == DOMAIN]
    try:
        for node in named:
            operator = OPERATORS[node.op_type]
            if operator.plugin and operator.plans is not None:
                (variant,) = {plan.variant for plan in operator.plans(call_of(node, operator.inputs), precision)}
                node.attributes.add(ir.AttrString(VARIANT, variant))
                node.attributes.add(ir.AttrString(KERNELS, str((bundle / FOLDER).resolve())))
        ir.save(model, path)
        yield path
    finally:
        path.unlink(missing_ok=True)
        model.functions.update(bodies)
        for node in named:
            for name in (VARIANT, KERNELS):
                node.attributes.pop(name, None)
