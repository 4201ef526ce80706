"""The launch plan of mythos::paged_mla_attention on a GPU: the absorbed form, for any number of rows."""

from __future__ import annotations

import functools

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, Scratch, pointer
from mythos_export.kernels.paged_plan import paged_plan

_OPERATOR = "paged_mla_attention"
_SOURCE = "mythos_export.kernels.mla.triton"


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plan of one call."""
    H, nope, v = call.size("q_nope", 1), call.size("q_nope", 2), call.attributes["v_head_dim"]
    return plans(H, nope, call.size("q_rope", 2), v, call.size("kv_up", 1), precision, call.packed)


@functools.cache
def plans(H: int, nope: int, P: int, v: int, R: int, precision: str, packed: bool = False) -> tuple[Plan, ...]:
    """For H heads of `nope` unrotated and P rotated channels, values of v channels, and a latent of R; `packed`: over
    int8 pages."""
    variant = f"H{H}-nope{nope}-P{P}-v{v}-R{R}" + "-int8-pages" * packed
    shape: dict[str, int | str] = {"H": H, "NOPE": nope, "V": v, "R": R}
    shape |= {"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 32, "PRECISION": "ieee"}
    absorb = KernelSpec(
        f"{_OPERATOR}_absorb_{precision}_{variant}",
        _OPERATOR,
        f"{_SOURCE}:absorb_kernel",
        precision,
        (
            pointer("q_nope", precision),
            pointer("kv_up", precision),
            pointer("q_latent", precision),
            Argument("tokens", "i32", "rows"),
        ),
        shape,
        ("cdiv(rows, BLOCK_M)", "H", "cdiv(R, BLOCK_N)"),
        num_stages=2,
    )
    combine = KernelSpec(
        f"{_OPERATOR}_combine_{precision}_{variant}",
        _OPERATOR,
        f"{_SOURCE}:combine_kernel",
        precision,
        (
            *(pointer(name, "fp32") for name in ("part_sum", "part_max", "part_norm")),
            pointer("kv_up", precision),
            pointer("positions", "i64", "span"),  # -1 in either for padding
            pointer("out", precision),
            Argument("tokens", "i32", "rows"),
            Argument("splits", "i32", "splits"),
        ),
        shape,
        ("cdiv(rows, BLOCK_M)", "H", "cdiv(V, BLOCK_N)"),
    )
    latent = Scratch("q_latent", precision, ("queries", f"{R}"))
    sizes = {"G": 1, "share": H, "R": R, "P": P, "C": R + P}
    return (
        paged_plan(
            _OPERATOR,
            variant,
            precision,
            (absorb,),
            (combine,),
            (latent,),
            "q_latent",
            "q_rope",
            packed=packed,
            **sizes,
        ),
    )
