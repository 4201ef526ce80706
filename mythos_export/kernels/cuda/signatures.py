"""What the launcher in C++ (`call.cpp`) is told of an operator and its calls, as data in kernels.json.

The launcher knows no operator: it reads here which inputs and outputs one has, what its launch plans call their sizes,
and which plans are for a call's sizes. So the one place where launches are decided stays `launch_plan`.

    "operators": the signatures, by name
    "calls":     for each call of the graphs: its signature, the fixed sizes of its inputs, and the variant of its plans
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mythos_export.kernels import paged_plan
from mythos_export.kernels.launch_plan import Plan
from mythos_export.kernels.linear.plan import FORMAT_TYPES
from mythos_model.formats import PLAIN

if TYPE_CHECKING:
    from mythos_export.kernels.call import OperatorCall

FLOATS, STORED, SCALE = "floats", "stored", "scale"
"""Types that depend on the call: what is computed in, how weights, or pages, are stored, and the scales of rounded
weights."""

LEADING = "..."
"""Stands for any number of leading extents; `lead` is their product in expressions."""


@dataclass(frozen=True)
class Tensor:
    """An input or an output.

    Attributes:
        type: as in `launch_plan.Argument`, without the star, or FLOATS, STORED, SCALE.
        extents: of an input, a name for each; None: any. Of an output, each a product of names joined by " * "; None:
            those of the input that it updates.
        or_scalar: it may be a scalar instead; NAME_stride is then 0, else 1.
        updates: of an output, the input that it is, but for what the kernels write into it, which they know by that
            input's name. Where a caller gives one buffer as both, they write in place; else all of it is copied before.
    """

    name: str
    extents: tuple[str, ...] | None
    type: str = FLOATS
    or_scalar: bool = False
    updates: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "extents": None if self.extents is None else list(self.extents)}


@dataclass(frozen=True)
class Signature:
    """An operator.

    Attributes:
        inputs: in the operator's order; extents of one name are equal.
        outputs: as many as it has.
        attributes: names of the node's numbers, and whether each is a float.
        sizes: what the launch plans call their sizes, each an expression over extents and attributes.
    """

    operator: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: tuple[tuple[str, bool], ...]
    sizes: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.operator,
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
            "attributes": [{"name": name, "float": real} for name, real in self.attributes],
            "sizes": self.sizes,
        }


_MOE_WEIGHTS = ("routed_gate_up", "routed_down", "shared_gate_up", "shared_down")
_ROW, _STATE = (LEADING,), (LEADING, "D")
_CACHE = (
    Tensor("past", ("L", "B", "S", "C")),
    Tensor("layer", (), "i64"),
    Tensor("chunk", ("B", "T", "C")),
    Tensor("positions", ("B", "T"), "i64"),
    Tensor("past_lengths", ("B",), "i64"),
)
_CACHE_SIZES = {  # as `split_plan.SIZES` names them
    **{name: name for name in ("B", "T", "S", "scale")},
    "stride_layer": "B * S * C",
    "stride_batch": "S * C",
}
_PAGES = (
    Tensor("entry", ("rows", "C")),
    Tensor("cache", ("pages", "page", "line"), STORED),
    Tensor("tables", ("spans", "blocks"), "i64"),
    Tensor("span", ("rows",), "i64"),
    Tensor("position", ("rows",), "i64"),
)
_PAGES_NEXT = Tensor("cache_next", None, STORED, updates="cache")
_PAGED_SIZES = {name: name for name in paged_plan.SIZES}

SIGNATURES = {
    signature.operator: signature
    for signature in (
        Signature(
            "linear",
            (Tensor("x", (LEADING, "K")), Tensor("weight", None, STORED), Tensor("scale", None, SCALE)),
            (Tensor("out", (LEADING, "rows")),),
            (("rows", False),),
            {"n": "lead"},
        ),
        Signature(
            "moe",
            (
                Tensor("x", _STATE),
                Tensor("expert_index", (LEADING, "K"), "i64"),
                Tensor("expert_weight", (LEADING, "K")),
                *(Tensor(name, None, STORED) for name in _MOE_WEIGHTS),
                *(Tensor(f"{name}_scale", None, SCALE) for name in _MOE_WEIGHTS),
            ),
            (Tensor("out", _STATE),),
            (),
            {"n": "lead"},
        ),
        Signature(
            "mla_attention",
            (
                Tensor("q_nope", ("B", "T", "H", "nope")),
                Tensor("q_rope", ("B", "T", "H", "P")),
                *_CACHE,
                Tensor("kv_up", ("H * (nope + v)", "R")),
            ),
            (Tensor("out", ("B", "T", "H * v_head_dim")),),
            (("scale", True), ("v_head_dim", False)),
            _CACHE_SIZES,
        ),
        Signature(
            "gqa_attention",
            (Tensor("q", ("B", "T", "H", "hd")), *_CACHE),
            (Tensor("out", ("B", "T", "H * hd")),),
            (("scale", True), ("kv_heads", False)),
            _CACHE_SIZES,
        ),
        Signature(
            "paged_mla_attention",
            (
                Tensor("q_nope", ("rows", "H", "nope")),
                Tensor("q_rope", ("rows", "H", "P")),
                *_PAGES,
                Tensor("kv_up", ("H * (nope + v)", "R")),
            ),
            (Tensor("out", ("rows", "H * v_head_dim")), _PAGES_NEXT),
            (("scale", True), ("v_head_dim", False)),
            _PAGED_SIZES,
        ),
        Signature(
            "paged_gqa_attention",
            (Tensor("q", ("rows", "H", "hd")), *_PAGES),
            (Tensor("out", ("rows", "H * hd")), _PAGES_NEXT),
            (("scale", True), ("kv_heads", False)),
            _PAGED_SIZES,
        ),
        Signature(
            "rounded_line",
            (Tensor("x", (LEADING, "C")),),
            (Tensor("out", (LEADING, "C")),),
            (("width", False),),
            {"parts": "lead * C // width"},
        ),
        Signature(
            "act_halting",
            (
                Tensor("h", _STATE),
                Tensor("out", _STATE),
                Tensor("cumulative", _ROW),
                Tensor("halted", _ROW, "i1"),
                Tensor("depth", _ROW, "i32"),
                Tensor("weight", None),
                Tensor("bias", None),
                Tensor("threshold", _ROW, or_scalar=True),
            ),
            (
                Tensor("p", _ROW),
                Tensor("out_next", _STATE),
                Tensor("cumulative_next", _ROW),
                Tensor("halted_next", _ROW, "i1"),
                Tensor("depth_next", _ROW, "i32"),
                Tensor("running", (), "i1"),
            ),
            (),
            {"rows": "lead", "threshold_stride": "threshold_stride"},
        ),
    )
}
"""The operators of the whole model's graph and of the row graphs that have kernels."""


Sizes = tuple[int | None, ...]


def _trailing(tensor: Tensor, shape: Sizes) -> Sizes:
    """The sizes behind the leading ones, of which a call may have any number."""
    if tensor.extents is None or tensor.extents[:1] != (LEADING,):
        return shape
    return shape[len(shape) - len(tensor.extents) + 1 :]


def _both(one: Sizes, other: Sizes) -> Sizes:
    """Of two calls with the same plans what they have in common: layers around the loop keep fewer caches than it."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return tuple(reversed([a if a == b else None for a, b in pairs]))


def described(calls: Iterable[tuple[OperatorCall, tuple[Plan, ...]]]) -> dict[str, Any]:
    """What kernels.json holds for the launcher: calls that have a signature, with the plans that each has.

    An operator that is also called in a format without kernels is left out whole: a library's operators are looked up
    by name, and ONNX Runtime refuses a node whose types none of them has.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    lacking = set()
    for call, plans in calls:
        signature = SIGNATURES.get(call.operator)
        if signature is None:
            continue
        if not plans:
            lacking.add(call.operator)
            continue
        variant, floats = plans[0].variant, plans[0].launches[0].precision
        trailing = {
            tensor.name: _trailing(tensor, call.shapes[tensor.name])
            for tensor in signature.inputs
            if tensor.name in call.shapes and not tensor.or_scalar
        }
        entry = {
            "operator": call.operator,
            "variant": variant,
            "format": call.format,
            "floats": floats,
            "stored": "i8" if call.packed else FORMAT_TYPES.get(call.format, floats),
            "attributes": {name: call.attributes[name] for name, real in signature.attributes if not real},
            "inputs": [tensor.name for tensor in signature.inputs if call.format != PLAIN or tensor.type != SCALE],
            "trailing": trailing,
        }
        same = found.setdefault((call.operator, call.format, variant), entry)
        same["trailing"] = {
            name: _both(sizes, trailing[name]) for name, sizes in same["trailing"].items() if name in trailing
        }
    kept = [entry for entry in found.values() if entry["operator"] not in lacking]
    names = dict.fromkeys(entry["operator"] for entry in kept)
    return {"operators": [SIGNATURES[name].to_json() for name in names], "calls": kept}
