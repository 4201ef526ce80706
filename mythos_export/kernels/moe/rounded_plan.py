"""The launch plans of mythos::moe on a GPU over rounded weights: sort the pairs, then two products with each expert."""

from __future__ import annotations

import functools

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import Argument as Arg
from mythos_export.kernels.launch_plan import KernelSpec, Plan, Scratch, cdiv, pointer
from mythos_export.kernels.linear.plan import FORMAT_TYPES, Constants, stored_as
from mythos_export.kernels.moe.grouping import grouping
from mythos_model.formats import FORMATS

_SOURCE = "mythos_export.kernels.moe.rounded"
_FEW = 16
"""Pairs of an expert, on average, up to which blocks of so many rows are taken."""

_WEIGHTS = ("routed_gate_up", "routed_down", "shared_gate_up", "shared_down")


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plans of one call."""
    widths = tuple(16 * call.size(name, -4) // 2 for name in ("routed_gate_up", "shared_gate_up"))
    padded = tuple(call.size(name, -3) * FORMATS[call.format].group for name in _WEIGHTS)
    E, K = call.size("routed_down", 0), call.size("expert_index", -1)
    return plans(call.size("x", -1), widths, padded, E, K, call.format, precision)


@functools.cache
def plans(
    D: int, widths: tuple[int, ...], padded: tuple[int, ...], E: int, K: int, form: str, precision: str
) -> tuple[Plan, ...]:
    """For dim D, E experts of which K are chosen.

    Args:
        widths: of an expert and of the shared ones (0: none), in whole tiles.
        padded: inputs that the four weights are padded to, in the operator's order.
    """
    variant = f"D{D}-F{widths[0]}-Fs{widths[1]}-E{E}-K{K}-{form}"
    return tuple(_plan(path, D, widths, padded, E, K, form, precision, variant) for path in ("few", "many"))


def _plan(
    path: str,
    D: int,
    widths: tuple[int, ...],
    padded: tuple[int, ...],
    E: int,
    K: int,
    form: str,
    precision: str,
    variant: str,
) -> Plan:
    wide, few = precision == "fp32", path == "few"
    rows = 16 if few else (32 if wide else 64)
    by_expert = grouping(path, rows, E, K, precision, variant)
    tile = {**stored_as(form), "BLOCK_M": rows, "BLOCK_N": 32, "BLOCK_K": 32 if wide else 64}

    def kernel(
        name: str,
        function: str,
        arguments: tuple[Arg, ...],
        constants: Constants,
        grid: tuple[str, str, str],
    ) -> KernelSpec:
        full, source = f"moe_{path}_{name}_{precision}_{variant}", f"{_SOURCE}:{function}"
        return KernelSpec(full, "moe", source, precision, arguments, constants, grid, num_stages=2)

    launches = list(by_expert.launches)
    for place, (part, grouped) in enumerate((("routed", True), ("shared", False))):
        width, over = widths[place], "blocks" if grouped else "cdiv(n, BLOCK_M)"
        count = Arg("rows", "i32", "pairs" if grouped else "n")
        shape = {"GROUPED": grouped, "TOP_K": K, "FP": width, "D": D}
        stored = FORMAT_TYPES[form]
        if width:
            launches.append(
                kernel(
                    f"{part}_up",
                    "up_kernel",
                    (
                        pointer("x", precision),
                        pointer("gate_up", stored, f"{part}_gate_up"),
                        pointer("scale", "fp16", f"{part}_gate_up_scale"),
                        pointer("expert_weight", precision),
                        *by_expert.blocks,
                        pointer("hidden", precision, f"{part}_hidden"),
                        count,
                    ),
                    {**shape, "INPUTS": padded[2 * place], **tile, "PRECISION": "ieee"},
                    (over, "cdiv(FP, BLOCK_N)", "1"),
                )
            )
        launches.append(  # the shared one also adds up the slots of a token, so it runs where nothing is shared, too
            kernel(
                f"{part}_down",
                "down_kernel",
                (
                    pointer("hidden", precision, f"{part}_hidden"),
                    pointer("down", stored, f"{part}_down"),
                    pointer("scale", "fp16", f"{part}_down_scale"),
                    *by_expert.blocks,
                    pointer("routed", "fp32"),
                    pointer("out", precision),
                    count,
                ),
                {**shape, "ROWS": 16 * cdiv(D, 16), "INPUTS": padded[2 * place + 1], **tile, "PRECISION": "ieee"},
                (over, "cdiv(D, BLOCK_N)", "1"),
            )
        )
    return Plan(
        "moe",
        variant,
        path,
        f"n * {K} <= {_FEW * E}" if few else f"n * {K} > {_FEW * E}",
        ("n",),
        by_expert.sizes,
        (
            *by_expert.scratch,
            Scratch("routed_hidden", precision, ("pairs", f"{widths[0]}")),
            Scratch("shared_hidden", precision, ("n", f"{widths[1]}")),
            Scratch("routed", "fp32", ("pairs", f"{D}")),
        ),
        tuple(launches),
    )
