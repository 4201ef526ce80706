"""The launch plans of mythos::moe on a GPU.

decode: each token reads its own chosen experts, matrix times vector. prefill: (token, slot) pairs are grouped by
expert and padded to whole blocks, so that every block of rows is one dense product with one expert's weights.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import Argument as Arg
from mythos_export.kernels.launch_plan import KernelSpec, Plan, Scratch, next_power_of_2, pointer
from mythos_export.kernels.moe.grouping import grouping

_SOURCE = "mythos_export.kernels.moe.triton"

# Up to here reading an expert once per token that chose it costs less than sorting, and padding blocks of rows.
DECODE_TOKENS = 8


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plans of one call."""
    E, D, F = (call.size("routed_down", axis) for axis in range(3))
    return plans(D, F, call.size("shared_down", 1), E, call.size("expert_index", -1), precision)


@functools.cache
def plans(D: int, F: int, Fs: int, E: int, K: int, precision: str) -> tuple[Plan, ...]:
    """For dim D, expert width F, shared width Fs (0: none), E experts of which K are chosen."""
    variant = f"D{D}-F{F}-Fs{Fs}-E{E}-K{K}"
    decode = _decode(D, F, Fs, K, precision, variant)
    if precision == "fp32":
        return decode, _prefill(D, F, Fs, E, K, precision, variant, "prefill", _WIDE)
    many = _prefill(D, F, Fs, E, K, precision, variant, "prefill_many", _MANY)
    return decode, many, _prefill(D, F, Fs, E, K, precision, variant, "prefill", _FEW)


def _decode(D: int, F: int, Fs: int, K: int, precision: str, variant: str) -> Plan:
    weights = [pointer(name, precision) for name in ("routed_gate_up", "shared_gate_up")]
    routing = [pointer("expert_index", "i64"), pointer("expert_weight", precision)]
    hidden = pointer("hidden", "fp32")
    shape = {"TOP_K": K, "F": F, "FS": Fs, "D": D}
    up = KernelSpec(
        f"moe_decode_up_{precision}_{variant}",
        "moe",
        f"{_SOURCE}:decode_up_kernel",
        precision,
        (pointer("x", precision), *routing, *weights, hidden),
        {**shape, "BLOCK_F": 16, "BLOCK_D": min(128 if precision == "fp32" else 256, next_power_of_2(D, 16))},
        ("n", "TOP_K * cdiv(F, BLOCK_F) + cdiv(FS, BLOCK_F)", "1"),
    )
    down = KernelSpec(
        f"moe_decode_down_{precision}_{variant}",
        "moe",
        f"{_SOURCE}:decode_down_kernel",
        precision,
        (
            hidden,
            routing[0],
            pointer("routed_down", precision),
            pointer("shared_down", precision),
            pointer("out", precision),
        ),
        {**shape, "BLOCK_D": 8, "BLOCK_F": min(256, next_power_of_2(F, 16))},
        ("n", "cdiv(D, BLOCK_D)", "1"),
    )
    scratch = (Scratch("hidden", "fp32", ("n", f"{K * F + Fs}")),)
    return Plan("moe", variant, "decode", f"n <= {DECODE_TOKENS}", ("n",), (), scratch, (up, down))


@dataclass(frozen=True)
class _Tiles:
    """How a prefill is cut: rows of a block of one expert's pairs, columns of the hidden units, of what the experts
    give and of the result, depth of a step, warps, stages of the pipeline.

    Tensor cores of Hopper multiply 64 rows at a time by one group of four warps. Both halves of SwiGLU are summed up at
    once, and the result beside what the experts gave, so that their columns count twice.
    """

    rows: int
    hidden: int
    routed: int
    result: int
    depth: int
    warps: int
    stages: int


_WIDE = _Tiles(32, 32, 32, 32, 32, 4, 2)  # float32, multiplied in plain registers
_FEW = _Tiles(64, 64, 128, 64, 64, 4, 3)
_MANY = _Tiles(128, 64, 128, 64, 32, 8, 4)
_MANY_ROWS = 128
"""Pairs for each expert, on average, from which on blocks of twice as many rows are filled."""


def _prefill(D: int, F: int, Fs: int, E: int, K: int, precision: str, variant: str, path: str, tiles: _Tiles) -> Plan:
    by_expert = grouping(path, tiles.rows, E, K, precision, variant)

    def kernel(
        name: str,
        function: str,
        arguments: tuple[Arg, ...],
        constants: dict[str, int | bool | str],
        grid: tuple[str, str, str],
        warps: int = tiles.warps,
    ) -> KernelSpec:
        full, source = f"moe_{path}_{name}_{precision}_{variant}", f"{_SOURCE}:{function}"
        return KernelSpec(full, "moe", source, precision, arguments, constants, grid, warps, tiles.stages)

    def tile(columns: int) -> dict[str, int | bool | str]:
        return {"BLOCK_M": tiles.rows, "BLOCK_N": columns, "BLOCK_K": tiles.depth, "PRECISION": "ieee"}

    def up(name: str, grouped: bool, width: int, hidden: str) -> KernelSpec:
        return kernel(
            f"{name}_up",
            "prefill_up_kernel",
            (
                pointer("x", precision),
                pointer("gate_up", precision, f"{name}_gate_up"),
                pointer("expert_weight", precision),
                *by_expert.blocks,
                pointer("hidden", precision, hidden),
                Arg("rows", "i32", "pairs" if grouped else "n"),
            ),
            {"GROUPED": grouped, "TOP_K": K, "F": width, "D": D, **tile(tiles.hidden)},
            ("blocks" if grouped else "cdiv(n, BLOCK_M)", "cdiv(F, BLOCK_N)", "1"),
        )

    routed_down = kernel(
        "routed_down",
        "prefill_routed_down_kernel",
        (
            pointer("hidden", precision, "routed_hidden"),
            pointer("down", precision, "routed_down"),
            *by_expert.blocks,
            pointer("routed", "fp32"),
            Arg("rows", "i32", "pairs"),
        ),
        {"F": F, "D": D, **tile(tiles.routed)},
        ("blocks", "cdiv(D, BLOCK_N)", "1"),
    )
    shared_down = kernel(
        "shared_down",
        "prefill_shared_down_kernel",
        (
            pointer("hidden", precision, "shared_hidden"),
            pointer("down", precision, "shared_down"),
            pointer("routed", "fp32"),
            pointer("out", precision),
            Arg("rows", "i32", "n"),
        ),
        {"TOP_K": K, "F": Fs, "D": D, **tile(tiles.result)},
        ("cdiv(n, BLOCK_M)", "cdiv(D, BLOCK_N)", "1"),
        warps=max(tiles.warps, 4 if tiles is _WIDE else 8),  # four spill on SM 100
    )
    launches = [*by_expert.launches, up("routed", True, F, "routed_hidden"), routed_down]
    if Fs:
        launches.append(up("shared", False, Fs, "shared_hidden"))
    launches.append(shared_down)  # also adds up the slots of a token, so it runs where nothing is shared, too
    return Plan(
        "moe",
        variant,
        path,
        f"n * {K} >= {_MANY_ROWS * E}" if tiles is _MANY else f"n > {DECODE_TOKENS}",
        ("n",),
        by_expert.sizes,
        (
            *by_expert.scratch,
            Scratch("routed_hidden", precision, ("pairs", f"{F}")),
            Scratch("shared_hidden", precision, ("n", f"{Fs}")),
            Scratch("routed", "fp32", ("pairs", f"{D}")),
        ),
        tuple(launches),
    )
