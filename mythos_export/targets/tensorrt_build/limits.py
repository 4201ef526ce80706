"""What cannot be built, why, and the nearest thing that can.

Three places use it: `check_targets` before anything runs, `graph.check_graph` on the ONNX file, and `explain`, which
turns what TensorRT wrote into its log into the same kind of answer. Every entry was measured with TensorRT-RTX 1.7.1
building without a GPU, or is the vendor's own list of targets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mythos_export.errors import TargetError

#: Targets that TensorRT-RTX can build for, and what they are sold as.
RTX_SMS = {
    75: "Turing: RTX 20, T4",
    80: "Ampere: A100, A30",  # built for on request only: the vendor's support matrix (1.0 to 1.5) does not list it
    86: "Ampere: RTX 30, A10, A40",
    89: "Ada: RTX 40, L4, L40",
    120: "Blackwell: RTX 50, RTX PRO",
    121: "Blackwell: GB10",
}
#: Real GPUs that TensorRT-RTX has no target for: full TensorRT serves them, on a machine that has one.
OTHER_SMS = {
    70: "Volta: V100",
    87: "Ampere: Jetson Orin",
    90: "Hopper: H100, H200",
    100: "Blackwell: B200",
    103: "Blackwell: B300",
    110: "Blackwell: Jetson Thor",
}
#: The RTX targets on which TensorRT-RTX refuses fp32 matrix products and bf16 altogether.
TURING = 75


@dataclass(frozen=True)
class Limit:
    """`what` was asked, the `reason` it cannot be built, and the nearest `alternative`."""

    what: str
    reason: str
    alternative: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}. Instead: {self.alternative}."


def parse_sms(text: str) -> tuple[int, ...]:
    """`86,89` to (86, 89); raises `TargetError` for anything that is not a list of numbers."""
    parts = [part.strip().lower().removeprefix("sm").lstrip("_") for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise TargetError(f"--sm {text!r} is not a list of compute capabilities; expected one like 86,89,120")
    return tuple(dict.fromkeys(int(part) for part in parts))


def group_sms(sms: Iterable[int]) -> list[tuple[int, ...]]:
    """One group per engine file: Turing by itself (its limits would bind the others), the rest together, sorted.

    >>> group_sms([120, 75, 86])
    [(86, 120), (75,)]
    """
    wanted = sorted(set(sms))
    newer = tuple(sm for sm in wanted if sm != TURING)
    turing = tuple(sm for sm in wanted if sm == TURING)
    return [group for group in (newer, turing) if group]


def target_limits(sms: Iterable[int], precision: str) -> list[Limit]:
    """Every reason why TensorRT-RTX cannot build this precision for these targets; empty if it can."""
    found = []
    known = ", ".join(str(sm) for sm in RTX_SMS)
    for sm in sorted(set(sms)):
        if sm in OTHER_SMS:
            found.append(
                Limit(
                    f"SM {sm} ({OTHER_SMS[sm]})",
                    f"TensorRT-RTX has no such target (it has {known})",
                    "export on a machine with that GPU and full TensorRT (package tensorrt), "
                    "or use --target onnx with ONNX Runtime's CUDA provider",
                )
            )
        elif sm not in RTX_SMS:
            found.append(Limit(f"SM {sm}", f"no such target; TensorRT-RTX has {known}", "one of those targets"))
        elif sm == TURING:
            found.extend(_turing_limits(precision))
    return found


def _turing_limits(precision: str) -> list[Limit]:
    reasons = {
        "fp32": "TensorRT-RTX has no fp32 matrix product there",
        "bf16": "the hardware has no bfloat16",
        "int4": "TensorRT-RTX builds int4 weights from SM 80 on",
    }
    if precision not in reasons:
        return []
    nearest = "--precision fp16 (or int8) for SM 75" if precision == "int4" else "--precision fp16 for SM 75"
    return [Limit(f"{precision} on SM 75", reasons[precision], f"{nearest}, or leave 75 out of --sm")]


def check_targets(sms: Iterable[int], precision: str) -> None:
    """Raises `TargetError` with every `target_limits` entry."""
    found = target_limits(sms, precision)
    if found:
        raise TargetError(" ".join(f"cannot build {limit}" for limit in found))


#: (pattern in TensorRT's log, what it means). The first match wins, so the specific ones come first.
_LOG_PATTERNS: tuple[tuple[re.Pattern[str], Limit], ...] = tuple(
    (re.compile(pattern), limit)
    for pattern, limit in (
        (
            r"FP32 GEMM is not supported",
            Limit(
                "a float32 matrix product on SM 75",
                "TensorRT-RTX has none there, and one is left in the graph even at --precision fp16 "
                "(the log names it; the router's is a usual one)",
                "lower that product to Mul + ReduceSum, or leave 75 out of --sm",
            ),
        ),
        (
            r"HW-specific datatypes: b16",
            Limit("bf16 on SM 75", "the hardware has no bfloat16", "--precision fp16, or leave 75 out of --sm"),
        ),
        (
            r"myelinOpSetInput.*unknown input tensor|Cannot set input .*unknown input tensor",
            Limit(
                "ONNX Attention inside a Loop",
                "TensorRT's IAttention cannot be built in a loop body",
                "MatMul + Softmax in the body (opset 18 to 22 decomposes scaled_dot_product_attention)",
            ),
        ),
        (
            r"makeScopeNodesContiguous",
            Limit(
                "a Slice or Range in a Loop body whose bounds come from a carried value",
                "TensorRT cannot size it",
                "Gather(axis=0, index) for a slice by the loop counter, or a mask of constant size",
            ),
        ),
        (
            r"Found unsupported input type of BOOL",
            Limit("a reduction over bool", "TensorRT reduces numbers only", "Cast to int32 before and to bool after"),
        ),
        (
            r"NonZero plugin creator",
            Limit("NonZero", "TensorRT-RTX has no kernel for it", "the dense or the TopK + Gather form of the MoE"),
        ),
        (
            r"ScatterND with reduction|Unsupported reduction type",
            Limit("Scatter with a reduction", "TensorRT only overwrites", "a sum over a one-hot mask"),
        ),
        (
            r"Plugin not found",
            Limit(
                "an operator that TensorRT does not know",
                "it took the node for a plugin, and there is none of that name",
                "lower the node to standard ONNX operators before the build (the lowering for this target does)",
            ),
        ),
        (
            r"external weights|Failed to import initializer",
            Limit(
                "an initializer in an external file",
                "TensorRT could not read it",
                "check that the file is beside the ONNX file, complete, under a relative path, and that every "
                "external initializer states offset and length",
            ),
        ),
    )
)


def explain(log: str) -> Limit | None:
    """The known limit behind an error in TensorRT's log, or None."""
    return next((limit for pattern, limit in _LOG_PATTERNS if pattern.search(log)), None)
