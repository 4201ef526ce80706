"""The launch plans of mythos::linear on a GPU, over rounded weights. The vendor's library multiplies plain ones."""

from __future__ import annotations

import functools

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, pointer
from mythos_model.formats import FORMATS

Constants = dict[str, int | bool | str]

_SOURCE = "mythos_export.kernels.linear.triton"
FEW_ROWS = 16
"""Up to here one block of rows: the weights are read once, and that is what takes the time."""


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plans of one call."""
    padded = call.size("weight", -3) * FORMATS[call.format].group
    return plans(call.size("x", -1), padded, call.attributes["rows"], call.format, precision)


@functools.cache
def plans(K: int, padded: int, rows: int, form: str, precision: str) -> tuple[Plan, ...]:
    """For K inputs, padded to so many in the weights, and rows of the matrix in the format `form`."""
    variant = f"K{K}-N{rows}-{form}"
    return tuple(_plan(path, K, padded, rows, form, precision, variant) for path in ("few", "many"))


def _plan(path: str, K: int, padded: int, rows: int, form: str, precision: str, variant: str) -> Plan:
    wide, few = precision == "fp32", path == "few"
    spec = KernelSpec(
        f"linear_{path}_{precision}_{variant}",
        "linear",
        f"{_SOURCE}:linear_kernel",
        precision,
        (
            pointer("x", precision),
            pointer("weight", FORMAT_TYPES[form]),
            pointer("scale", "fp16"),
            pointer("out", precision),
            Argument("n", "i32", "n"),
        ),
        {
            "K": K,
            "INPUTS": padded,
            "ROWS": rows,
            **stored_as(form),
            "BLOCK_M": FEW_ROWS if few else (32 if wide else 64),
            "BLOCK_N": 32 if few or wide else 64,
            "BLOCK_K": 32 if wide else 64,
            "PRECISION": "ieee",
        },
        ("cdiv(n, BLOCK_M)", "cdiv(ROWS, BLOCK_N)", "1"),
        num_warps=4 if few or wide else 8,  # with 4, int8 spills on SM 120
        num_stages=2,
    )
    when = f"n <= {FEW_ROWS}" if few else f"n > {FEW_ROWS}"
    return Plan("linear", variant, path, when, ("n",), (), (), (spec,))


FORMAT_TYPES = {"int8": "i8", "int4": "u8", "fp8": "i8"}
"""Element types of stored weights, as Triton names them."""


def stored_as(form: str) -> Constants:
    """A format as the kernels take it (`kernels.rounded`)."""
    lay = FORMATS[form]
    return {"BITS": lay.bits, "BLOCK": lay.block, "FLOAT8": lay.number is not None}
