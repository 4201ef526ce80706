"""The launch plans of mythos::mla_attention on a GPU.

decode, prefill: the absorbed form; absorb the queries, attend span by span, merge and up-project, with blocks of few
and of many rows. expanded: make keys and values of every head, then attend; where that multiplies less.
"""

from __future__ import annotations

import functools

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, Scratch, next_power_of_2, pointer
from mythos_export.kernels.split_plan import SIZES, split_plan

_SOURCE = "mythos_export.kernels.mla.triton"
_EXPANDED = "mythos_export.kernels.mla.expanded"
_NARROW = 64  # width of a head's keys and values up to which blocks of 32 rows of float32 spill no registers


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plans of one call."""
    H, nope, v = call.size("q_nope", 2), call.size("q_nope", 3), call.attributes["v_head_dim"]
    return plans(H, nope, call.size("q_rope", 3), v, call.size("kv_up", 1), precision)


@functools.cache
def plans(H: int, nope: int, P: int, v: int, R: int, precision: str) -> tuple[Plan, ...]:
    """For H heads of `nope` unrotated and P rotated channels, values of v channels, and a latent of R."""
    decode, prefill = (_plan(path, H, nope, P, v, R, precision) for path in ("decode", "prefill"))
    return decode, _expanded(H, nope, P, v, R, precision), prefill


def multiplications(nope: str, v: str, R: str, P: str) -> tuple[str, str]:
    """Of a head in the absorbed and in the expanded form, of T new tokens and S + T keys; as
    `mythos_model.ops.absorbed_is_cheaper` counts."""
    absorbed = f"T * {R} * ({nope} + {v}) + T * (S + T) * (2 * {R} + {P})"
    return absorbed, f"(S + T) * {R} * ({nope} + {v}) + T * (S + T) * ({nope} + {P} + {v})"


def _expanded(H: int, nope: int, P: int, v: int, R: int, precision: str) -> Plan:
    variant, wide = f"H{H}-nope{nope}-P{P}-v{v}-R{R}", precision == "fp32"
    divisible = (R + P) % 16 == 0  # the strides of whole entries are multiples of it
    strides = [Argument(name, "i64", name, divisible) for name in ("stride_layer", "stride_batch")]
    lengths = [Argument("T", "i32", "T"), Argument("S", "i32", "S")]
    cache = [pointer("past", precision), pointer("chunk", precision), pointer("layer", "i64")]
    width = H * (nope + v)
    expand = KernelSpec(
        f"mla_attention_expanded_expand_{precision}_{variant}",
        "mla_attention",
        f"{_EXPANDED}:expand_kernel",
        precision,
        (
            *cache,
            pointer("past_lengths", "i64"),
            pointer("kv_up", precision),
            pointer("expanded", precision),
            *lengths,
            *strides,
        ),
        {
            "WIDTH": width,
            "R": R,
            "C": R + P,
            "BLOCK_M": 32 if wide else 64,
            "BLOCK_N": 32 if wide else 128,
            "BLOCK_K": 32 if wide else 64,
            "PRECISION": "ieee",
        },
        ("cdiv(S, BLOCK_M) + cdiv(T, BLOCK_M)", "cdiv(WIDTH, BLOCK_N)", "B"),
        num_stages=2 if wide else 3,
    )
    blocks = {"BLOCK_C": nope, "BLOCK_P": P, "BLOCK_V": v}
    large = max(nope, v) > _NARROW
    attend = KernelSpec(
        f"mla_attention_expanded_attend_{precision}_{variant}",
        "mla_attention",
        f"{_EXPANDED}:attend_kernel",
        precision,
        (
            pointer("q_nope", precision),
            pointer("q_rope", precision),
            pointer("expanded", precision),
            *cache,
            pointer("positions", "i64"),
            pointer("past_lengths", "i64"),
            pointer("out", precision),
            *lengths,
            *strides,
            Argument("scale", "fp32", "scale"),
        ),
        {
            **{"H": H, "NOPE": nope, "P": P, "V": v, "C": R + P},
            "BLOCK_M": (16 if large else 32) if wide else 64,
            "BLOCK_N": 32,
            **{name: next_power_of_2(size, 16) for name, size in blocks.items()},
            "PRECISION": "tf32x3" if wide else "ieee",
        },
        ("cdiv(T, BLOCK_M)", "H", "B"),
        num_stages=1 if wide else 2,
    )
    absorbed, expanded = multiplications(*(str(size) for size in (nope, v, R, P)))
    scratch = (Scratch("expanded", precision, ("B", "S + T", str(width))),)
    when = f"{absorbed} > {expanded}"
    return Plan("mla_attention", variant, "expanded", when, SIZES, (), scratch, (expand, attend))


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
