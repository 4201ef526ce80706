"""The launch of the attentions over a paged cache: append, attend part by part of the keys, merge."""

from __future__ import annotations

from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, Scratch, next_power_of_2, pointer
from mythos_export.kernels.split_plan import MAX_SPLITS, PROGRAMS, columns_of
from mythos_runtime.row_ports import PAGE

SIZES = ("rows", "blocks", "scale")
_SOURCE = "mythos_export.kernels.paged_attention"
_PLACE = tuple(pointer(name, "i64") for name in ("tables", "span", "position"))
_HEADS = 16  # query heads of a program
_KEYS_PER_PART = 128  # a shorter part is not worth its merging


def paged_plan(
    operator: str,
    variant: str,
    precision: str,
    before: tuple[KernelSpec, ...],
    after: tuple[KernelSpec, ...],
    scratch: tuple[Scratch, ...],
    query: str,
    query_rope: str,
    *,
    G: int,
    share: int,
    R: int,
    P: int,
    C: int,
    packed: bool,
) -> Plan:
    """A plan for rows of any number; `before` makes the queries, `after` merges the parts.

    query, query_rope: the buffers that hold them. G kv heads of `share` query heads each, query width R, rotary width
    P beside it (MLA), entry width C. `packed`: pages are int8 lines, whose parts are as wide as R, but for MLA's rotary
    key: two for each kv head, all keys before the values.

    Raises:
        ValueError: packed pages, and a precision in which the values of their lines are not exact.
    """
    if packed and precision != "fp32":
        raise ValueError(
            f"mythos::{operator} in Triton: int8 pages go with float32, found {precision}: export without --cache "
            "int8, or with --precision fp32, int8 or int4"
        )
    width, wide = next_power_of_2(R, 16), precision == "fp32"
    held, columns = columns_of(width, precision)
    pages, scales, last = ("i8", 2 * G, P or R) if packed else (precision, 0, 0)
    lines: dict[str, int | bool | str] = {"C": C, "PAGE": PAGE, "BLOCK_C": min(next_power_of_2(C), 1024)}
    if packed:  # a program finds the largest value of a part, so all of it is in one block
        lines = {"PARTS": scales, "WIDTH": R, "LAST": last, "PAGE": PAGE, "BLOCK_C": next_power_of_2(max(R, last))}
    append = KernelSpec(
        f"{operator}_append_{precision}_{variant}",
        operator,
        f"{_SOURCE}:append_rounded_kernel" if packed else f"{_SOURCE}:append_kernel",
        precision,
        (pointer("entry", precision), pointer("cache", pages), *_PLACE, Argument("blocks", "i32", "blocks")),
        lines,
        ("rows", "PARTS" if packed else "cdiv(C, BLOCK_C)", "1"),
    )
    attend = KernelSpec(
        f"{operator}_split_{precision}_{variant}",
        operator,
        f"{_SOURCE}:paged_split_kernel",
        precision,
        (
            pointer("query", precision, query),
            pointer("query_rope", precision, query_rope),
            pointer("cache", pages),
            *_PLACE,
            *(pointer(name, "fp32") for name in ("part_sum", "part_max", "part_norm")),
            Argument("blocks", "i32", "blocks"),
            Argument("scale", "fp32", "scale"),
        ),
        {
            "G": G,
            "SHARE": share,
            "R": R,
            "P": P,
            "C": C,
            "PARTS": scales,
            "VALUE_OFFSET": 0 if P else G * R,
            "PAGE": PAGE,
            "BLOCK_M": _HEADS,
            "BLOCK_N": 16 if width > (128 if wide else 512) else PAGE,
            "BLOCK_K": held,
            "BLOCK_R": columns,
            "BLOCK_P": next_power_of_2(P, 16),
            # Three products of tensor cores make up a float32 one; plain ones would hold whole operands in registers.
            "PRECISION": "tf32x3" if wide else "ieee",
        },
        ("cdiv(SHARE, BLOCK_M)", "rows * G", f"splits * {-(-R // columns)}"),
        num_warps=8 if width >= 512 or (wide and width >= 128) else 4,
    )
    programs = f"rows * {G * -(-share // _HEADS)}"
    parts = f"max(1, min({MAX_SPLITS}, cdiv(blocks * {PAGE}, {_KEYS_PER_PART}), {PROGRAMS} // ({programs})))"
    return Plan(
        operator,
        variant,
        "rows",
        "rows > 0",
        SIZES,
        (("splits", parts), ("queries", f"rows * {G * share}")),
        (
            *scratch,
            Scratch("part_sum", "fp32", ("queries", "splits", f"{R}")),
            Scratch("part_max", "fp32", ("queries", "splits")),
            Scratch("part_norm", "fp32", ("queries", "splits")),
        ),
        (append, *before, attend, *after),
    )
