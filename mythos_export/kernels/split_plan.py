"""The launch of the split attention kernel, and what MLA's and GQA's plans share."""

from __future__ import annotations

from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, Scratch, next_power_of_2, pointer

SIZES = ("B", "T", "S", "stride_layer", "stride_batch", "scale")
DECODE_ROWS = 32
"""Up to so many rows (heads of one kv head, times new tokens) share keys, small blocks of rows are taken."""

PROGRAMS = 256  # about two for each multiprocessor of a large GPU
MAX_SPLITS = 64

# In float32, by what spills no registers: columns of a query that every warp can hold at once, columns at a time of one
# that is wider, and columns of the values that a program can add up.
_WHOLE, _STEP, _COLUMNS = 128, 32, 512

_KEYS_PER_SPAN = 128  # a shorter span is not worth its merging


def columns_of(width: int, precision: str) -> tuple[int, int]:
    """Of queries padded to `width` columns: how many a program holds at a time, and how many of values it adds up."""
    if precision == "fp32" and width > _WHOLE:
        return _STEP, min(width, _COLUMNS)
    return width, width


def split_plan(
    operator: str,
    variant: str,
    path: str,
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
) -> Plan:
    """A plan around the split kernel: `before` makes the queries, `after` merges the spans.

    query, query_rope: the buffers that hold them. G kv heads of `share` query heads each, query width R, rotary width
    P beside it (MLA), cache width C.
    """
    rows, wide = next_power_of_2(R, 16), precision == "fp32"
    block_m, block_n = 16, 32
    if path == "prefill" and rows <= (64 if wide else 128):
        block_m = 32 if wide else 64
    if rows > (128 if wide else 512):
        block_n = 16
    held, columns = columns_of(rows, precision)
    divisible = C % 16 == 0  # the strides of whole entries are multiples of it
    spec = KernelSpec(
        f"{operator}_{path}_split_{precision}_{variant}",
        operator,
        "mythos_export.kernels.split_attention:split_kernel",
        precision,
        (
            pointer("query", precision, query),
            pointer("query_rope", precision, query_rope),
            pointer("past", precision),
            pointer("chunk", precision),
            pointer("layer", "i64"),
            pointer("positions", "i64"),
            pointer("past_lengths", "i64"),
            *(pointer(name, "fp32") for name in ("part_sum", "part_max", "part_norm")),
            Argument("T", "i32", "T"),
            Argument("stride_layer", "i64", "stride_layer", divisible),
            Argument("stride_batch", "i64", "stride_batch", divisible),
            Argument("scale", "fp32", "scale"),
        ),
        {
            "G": G,
            "SHARE": share,
            "R": R,
            "P": P,
            "C": C,
            "VALUE_OFFSET": 0 if P else G * R,
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
            "BLOCK_K": held,
            "BLOCK_R": columns,
            "BLOCK_P": next_power_of_2(P, 16),
            # Three products of tensor cores make up a float32 one; plain ones would hold whole operands in registers.
            "PRECISION": "tf32x3" if wide else "ieee",
        },
        ("cdiv(T * SHARE, BLOCK_M)", "B * G", f"splits * {-(-R // columns)}"),
        num_warps=8 if rows >= 512 or (wide and rows >= 128) else 4,
        num_stages=1,
    )
    tiles = f"B * {G} * cdiv(T * {share}, {block_m})"
    few = f"T * {share} <= {DECODE_ROWS}"
    return Plan(
        operator,
        variant,
        path,
        few if path == "decode" else f"T * {share} > {DECODE_ROWS}",
        SIZES,
        (
            ("splits", f"max(1, min({MAX_SPLITS}, cdiv(S + T, {_KEYS_PER_SPAN}), {PROGRAMS} // ({tiles})))"),
            ("rows", f"B * T * {G * share}"),
        ),
        (
            *scratch,
            Scratch("part_sum", "fp32", ("rows", "splits", f"{R}")),
            Scratch("part_max", "fp32", ("rows", "splits")),
            Scratch("part_norm", "fp32", ("rows", "splits")),
        ),
        (*before, spec, *after),
    )
