"""Executes launch plans on torch tensors: on a GPU, or on CPU tensors in Triton's interpreter (TRITON_INTERPRET=1).

Kernels that a bundle brings compiled (`precompiled`) are launched as they are; Triton compiles the others when they are
first called.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
import triton
from torch import Tensor

from mythos_export.kernels import precompiled
from mythos_export.kernels.launch_plan import LEAST_SM, POINTER_ALIGNMENT, VARIABLE, KernelSpec, Plan, Sizes, evaluate
from mythos_model.cache_lines import SCALE_BYTES
from mythos_runtime.row_ports import PAGE

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "i32": torch.int32}
_PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return bool(triton.knobs.runtime.interpret)


def unsupported(*floats: Tensor) -> str | None:
    """Why the kernels cannot take these float tensors, in words, or None."""
    dtypes = {tensor.dtype for tensor in floats}
    if len(dtypes) > 1:
        return f"the floats have the dtypes {', '.join(sorted(map(str, dtypes)))}, and one is expected"
    dtype = dtypes.pop()
    if dtype not in _PRECISIONS:
        return f"there is no kernel for {dtype}, only for {', '.join(map(str, _PRECISIONS))}"
    if interpreted():
        if dtype == torch.bfloat16:
            return "Triton's interpreter multiplies bfloat16 wrongly; use float32 or float16, or a GPU"
        return None
    where = {tensor.device.type for tensor in floats}
    return None if where == {"cuda"} else f"the tensors are on {', '.join(sorted(where))}, and a GPU is expected"


def precision_of(operator: str, *floats: Tensor) -> str:
    """The precision that all of these have; ValueError where the kernels cannot take them."""
    reason = unsupported(*floats)
    if reason:
        raise ValueError(f"mythos::{operator} in Triton: {reason}; mythos_model.ops.{operator} takes any")
    return _PRECISIONS[floats[0].dtype]


def check_format(operator: str, format: str, x: Tensor) -> None:
    """Raises ValueError where this GPU has no instructions for the numbers that weights of a format are stored as."""
    least = LEAST_SM.get(format, 0)
    if x.device.type != "cuda" or least == 0:
        return
    major, minor = torch.cuda.get_device_capability(x.device)
    if 10 * major + minor < least:
        raise ValueError(
            f"mythos::{operator} in Triton takes {format} weights from SM {least} on, and this GPU is SM "
            f"{major}{minor}: export with --precision int8 for it, or set {VARIABLE}=none, and mythos_model.ops."
            f"{operator} computes it"
        )


def check_weights(operator: str, **weights: Tensor) -> None:
    """Weights are never copied in a call, so they have to be row by row already."""
    for name, weight in weights.items():
        if not weight.is_contiguous():
            raise ValueError(
                f"mythos::{operator} in Triton: {name} has the strides {weight.stride()}; expected a contiguous "
                f"tensor, once made by {name}.contiguous()"
            )


def cache_buffers(
    past: Tensor, layer: Tensor, chunk: Tensor, positions: Tensor, past_lengths: Tensor, scale: float
) -> tuple[dict[str, Tensor], dict[str, int | float]]:
    """What both attentions hand to their plans: the cache's buffers, and the sizes that `split_plan.SIZES` names.

    The past is copied only where its entries are not one behind another.
    """
    (B, T, C), S = chunk.shape, past.shape[2]
    if past.stride(3) != 1 or (S > 1 and past.stride(2) != C):
        past = past.contiguous()
    buffers = {
        "past": past,
        "layer": layer,
        "chunk": chunk.contiguous(),
        "positions": positions.contiguous(),
        "past_lengths": past_lengths.contiguous(),
    }
    strides = {"stride_layer": past.stride(0), "stride_batch": past.stride(1)}
    return buffers, {"B": B, "T": T, "S": S, "scale": scale, **strides}


def paged_buffers(
    operator: str, entry: Tensor, cache: Tensor, tables: Tensor, span: Tensor, position: Tensor, scale: float
) -> tuple[dict[str, Tensor], dict[str, int | float]]:
    """What both attentions over a paged cache hand to their plans, and the sizes that `paged_plan.SIZES` names."""
    if not cache.is_contiguous() or cache.shape[1] != PAGE:
        raise ValueError(
            f"mythos::{operator} in Triton: the cache has the shape {list(cache.shape)} and the strides "
            f"{cache.stride()}; expected contiguous pages of {PAGE} entries"
        )
    place = {"tables": tables, "span": span, "position": position}
    buffers = {"entry": entry.contiguous(), "cache": cache} | {k: v.contiguous() for k, v in place.items()}
    return buffers, {"rows": len(span), "blocks": tables.shape[1], "scale": scale}


def paged_precision(operator: str, cache: Tensor, parts: int, entry: Tensor, *floats: Tensor) -> tuple[str, bool]:
    """The precision of a call over pages, and whether they are int8 lines, of so many parts; ValueError where the
    kernels cannot take them, or the pages are not as wide as that."""
    packed = cache.dtype == torch.int8
    precision = precision_of(operator, entry, *floats, *(() if packed else (cache,)))
    width = entry.shape[1] + SCALE_BYTES * parts * packed
    if cache.shape[2] != width:
        raise ValueError(
            f"mythos::{operator} in Triton: the cache has the shape {list(cache.shape)}, and its lines are of "
            f"{cache.dtype}; expected a width of {width}"
        )
    return precision, packed


def execute(plan: Plan, buffers: dict[str, Tensor], sizes: Sizes) -> None:
    """Launch a plan's kernels in order, on the current stream.

    Args:
        plan: what to launch.
        buffers: the operator's inputs and "out", by name, contiguous where the plan has no stride for them.
        sizes: the plan's `sizes`.
    """
    known = plan.resolve(sizes)
    device = buffers["out"].device
    buffers = dict(buffers)
    for scratch in plan.scratch:
        shape = [evaluate(extent, known) for extent in scratch.shape]
        buffers[scratch.name] = torch.empty(shape, dtype=_DTYPES[scratch.type], device=device)
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    for spec in plan.launches:
        ready = precompiled.find(spec)
        if ready is not None and _aligned(spec, buffers):
            ready.launch(spec, {name: buffer.data_ptr() for name, buffer in buffers.items()}, known, stream)
            continue
        names: dict[str, Any] = {**known, **spec.constants}
        grid = tuple(evaluate(extent, names) for extent in spec.grid)
        arguments = [buffers[a.value] if a.is_pointer else evaluate(a.value, names) for a in spec.arguments]
        constants = {**spec.constants, "num_warps": spec.num_warps, "num_stages": spec.num_stages}
        load_kernel(spec.source)[grid](*arguments, **constants)


def _aligned(spec: KernelSpec, buffers: dict[str, Tensor]) -> bool:
    """Whether all that a kernel reads begins where a compiled one was promised that it does. A view need not, such as
    part of a row: for that Triton compiles another."""
    return not any(buffers[a.value].data_ptr() % POINTER_ALIGNMENT for a in spec.arguments if a.is_pointer)


@functools.cache
def load_kernel(source: str) -> Any:
    """The jitted function that "module:function" names."""
    module, _, function = source.partition(":")
    return getattr(importlib.import_module(module), function)
