"""The Triton kernels behind `torch.ops.mythos.*`: what model.pt2 runs on a GPU.

The runtime calls `register` when it opens an eager session (entry point group `mythos_runtime.eager_kernels`), and
puts its answer into the session's description. The operators' plain PyTorch form is `mythos_model.ops`.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mythos_export.kernels import precompiled
from mythos_export.kernels.cuda.driver import CudaDriver
from mythos_export.kernels.launch_plan import VARIABLE
from mythos_model import ops, paged_ops  # noqa: F401  (register what the kernels replace on one device)

PLAIN = "plain PyTorch"


def register(device: str, kernels: Path | None = None) -> str:
    """Give the operators their kernels for a device type, once a process; returns what computes them, in words.

    `kernels` is a bundle's folder of compiled ones (`--target cuda`), which are launched instead of compiled.

    On "cuda" that is Triton, where the package is installed. On "cpu" it is plain PyTorch, unless TRITON_INTERPRET=1
    asks for Triton's interpreter (which is for tests, and slow). A kernel that cannot take a call's tensors says so;
    it does not hand them over.

    Raises BackendMissing where the bundle's weights are in a format that this GPU has no instructions for.
    """
    lack = _lack(device)
    if lack is not None:
        return f"{PLAIN}{lack}"
    words = _register(device)
    if kernels is None or device != "cuda":
        return words
    torch.zeros(1, device=device)  # which makes the GPU's context current, as the driver's calls need it
    try:
        count = precompiled.use(kernels, CudaDriver())
    except precompiled.OtherGpu as error:
        return f"{words}, compiled here: {error}"
    return f"{words}, {count} of them brought by the bundle (built, not executed)"


def _lack(device: str) -> str | None:
    """Why it is plain PyTorch, as the description's ending; None where the kernels serve."""
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return ""
    if device not in ("cpu", "cuda"):
        return f" (there are no kernels for {device})"
    if os.environ.get(VARIABLE) == "none":
        return f" ({VARIABLE} is none)"
    if importlib.util.find_spec("triton") is None:
        return " (the package triton is not installed)"
    return None


@functools.cache
def _register(device: str) -> str:
    import triton

    for name, kernel in kernels().items():
        torch.library.register_kernel(f"mythos::{name}", device, kernel)
    return f"Triton {triton.__version__} kernels{', interpreted' if device == 'cpu' else ''}"


def kernels() -> dict[str, Callable[..., Any]]:
    """The operators' calls of Triton kernels, by name; needs triton."""
    from mythos_export.kernels.act.triton import act_halting
    from mythos_export.kernels.gqa.triton import gqa_attention
    from mythos_export.kernels.linear.triton import linear
    from mythos_export.kernels.mla.triton import mla_attention
    from mythos_export.kernels.moe.rounded import moe_of_format
    from mythos_export.kernels.norm.triton import rms_norm
    from mythos_export.kernels.paged_gqa import triton as paged_gqa
    from mythos_export.kernels.paged_mla import triton as paged_mla
    from mythos_export.kernels.rotary.triton import rotary_embedding
    from mythos_export.kernels.rounded_line.triton import rounded_line
    from mythos_export.kernels.tail.triton import loop_tail

    paged = (paged_gqa.paged_gqa_attention, paged_mla.paged_mla_attention)
    in_place = (paged_gqa.paged_gqa_attention_, paged_mla.paged_mla_attention_)
    apart = (rms_norm, rotary_embedding, act_halting, loop_tail, linear, rounded_line)
    every = (mla_attention, gqa_attention, *apart, *paged, *in_place)
    return {**{kernel.__name__: kernel for kernel in every}, "moe": moe_of_format}
