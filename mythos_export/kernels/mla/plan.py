"""The launch plans of mythos::mla_attention on a GPU: absorb the queries, attend span by span, merge and up-project.

Decode and prefill take the same route, with blocks of few and of many rows. Prefill so multiplies more than the
expanded form would where many new tokens meet few keys; keys and values of a head are never made.
"""

from __future__ import annotations

import functools

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, Scratch, pointer
from mythos_export.kernels.split_plan import split_plan

_SOURCE = "mythos_export.kernels.mla.triton"


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plans of one call."""
    H, nope, v = call.size("q_nope", 2), call.size("q_nope", 3), call.attributes["v_head_dim"]
    return plans(H, nope, call.size("q_rope", 3), v, call.size("kv_up", 1), precision)


@functools.cache
def plans(H: int, nope: int, P: int, v: int, R: int, precision: str) -> tuple[Plan, ...]:
    """For H heads of `nope` unrotated and P rotated channels, values of v channels, and a latent of R."""
    return tuple(_plan(path, H, nope, P, v, R, precision) for path in ("decode", "prefill"))


def _plan(path: str, H: int, nope: int, P: int, v: int, R: int, precision: str) -> Plan:
    variant = f"H{H}-nope{nope}-P{P}-v{v}-R{R}"
    tile: dict[str, int | str] = {"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 32, "PRECISION": "ieee"}
    shape: dict[str, int | str] = {"H": H, "NOPE": nope, "V": v, "R": R}
    absorb = KernelSpec(
        f"mla_attention_{path}_absorb_{precision}_{variant}",
        "mla_attention",
        f"{_SOURCE}:absorb_kernel",
        precision,
        (
            pointer("q_nope", precision),
            pointer("kv_up", precision),
            pointer("q_latent", precision),
            Argument("tokens", "i32", "B * T"),
        ),
        {**shape, **tile, "BLOCK_M": 16 if path == "decode" else 32},
        ("cdiv(B * T, BLOCK_M)", "H", "cdiv(R, BLOCK_N)"),
        num_stages=2,
    )
    combine = KernelSpec(
        f"mla_attention_{path}_combine_{precision}_{variant}",
        "mla_attention",
        f"{_SOURCE}:combine_kernel",
        precision,
        (
            *(pointer(name, "fp32") for name in ("part_sum", "part_max", "part_norm")),
            pointer("kv_up", precision),
            pointer("positions", "i64"),
            pointer("out", precision),
            Argument("tokens", "i32", "B * T"),
            Argument("splits", "i32", "splits"),
        ),
        {**shape, **tile, "BLOCK_M": 16 if path == "decode" else 32},
        ("cdiv(B * T, BLOCK_M)", "H", "cdiv(V, BLOCK_N)"),
    )
    return split_plan(
        "mla_attention",
        variant,
        path,
        precision,
        (absorb,),
        (combine,),
        (Scratch("q_latent", precision, ("rows", f"{R}")),),
        "q_latent",
        "q_rope",
        G=1,
        share=H,
        R=R,
        P=P,
        C=R + P,
    )
