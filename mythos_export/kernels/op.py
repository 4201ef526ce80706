"""One record per operator and one registry: what an operator is called, how torch writes it, how ONNX computes it.

Adding an operator: give it a folder with `function.py` (and later its kernels), add its plain form to
`mythos_model.ops`, and one record to `OPERATORS`. See CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript
import torch

from mythos_export.kernels.act import function as act_function
from mythos_export.kernels.act import plan as act_plan
from mythos_export.kernels.act.reference import act_halting
from mythos_export.kernels.call import OperatorCall, call_of
from mythos_export.kernels.embedding import function as embedding_function
from mythos_export.kernels.embedding.reference import embedding
from mythos_export.kernels.expert_sum import function as expert_sum_function
from mythos_export.kernels.expert_sum.reference import expert_sum
from mythos_export.kernels.fallback import DECOMPOSED, NATIVE, PLUGIN, TRITON, Implementation
from mythos_export.kernels.gqa import function as gqa_function
from mythos_export.kernels.gqa import plan as gqa_plan
from mythos_export.kernels.gqa.reference import gqa_attention
from mythos_export.kernels.launch_plan import Plan
from mythos_export.kernels.linear import function as linear_function
from mythos_export.kernels.linear import plan as linear_plan
from mythos_export.kernels.linear.reference import linear
from mythos_export.kernels.mla import function as mla_function
from mythos_export.kernels.mla import plan as mla_plan
from mythos_export.kernels.mla.reference import mla_attention
from mythos_export.kernels.moe import function as moe_function
from mythos_export.kernels.moe import plan as moe_plan
from mythos_export.kernels.moe import rounded_plan as rounded_moe_plan
from mythos_export.kernels.moe.reference import moe
from mythos_export.kernels.paged import OUTPUTS as PAGED_OUTPUTS
from mythos_export.kernels.paged_gqa import function as paged_gqa_function
from mythos_export.kernels.paged_gqa import plan as paged_gqa_plan
from mythos_export.kernels.paged_gqa.reference import paged_gqa_attention
from mythos_export.kernels.paged_mla import function as paged_mla_function
from mythos_export.kernels.paged_mla import plan as paged_mla_plan
from mythos_export.kernels.paged_mla.reference import paged_mla_attention
from mythos_export.kernels.rounded_line import function as rounded_line_function
from mythos_export.kernels.rounded_line import plan as rounded_line_plan
from mythos_export.kernels.rounded_line.reference import rounded_line
from mythos_export.kernels.text import DOMAIN, DOMAINS, VERSION
from mythos_model import paged_ops  # noqa: F401  (registers operators that no model calls yet)
from mythos_model.formats import FORMATS, PLAIN

AttrType = onnx.defs.OpSchema.AttrType
FunctionMaker = Callable[[OperatorCall], onnx.FunctionProto]
PlanMaker = Callable[[OperatorCall, str], tuple[Plan, ...]]
# Types of inputs and outputs that are not of the compute type.
_TYPES = dict.fromkeys(("expert_index", "layer", "positions", "past_lengths", "ids"), "tensor(int64)")
_TYPES |= dict.fromkeys(("tables", "span", "position"), "tensor(int64)")
_TYPES |= dict.fromkeys(("halted", "halted_next", "running"), "tensor(bool)")
_TYPES |= dict.fromkeys(("depth", "depth_next"), "tensor(int32)")
_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]
_ON_A_GPU = frozenset(name for name, form in FORMATS.items() if not form.activations)
_STORED = list(
    dict.fromkeys(f"tensor({str(form.element).removeprefix('torch.')})" for form in FORMATS.values() if form.element)
)


@dataclass(frozen=True)
class Operator:
    """An operator of the `mythos` domain.

    Attributes:
        name: its name in torch (`torch.ops.mythos.<name>`) and in ONNX (`mythos::<name>`).
        inputs: names of its tensor inputs, in order.
        attributes: names and ONNX types of its trailing scalar arguments, without `format`.
        reference: what it means, slowly, in numpy; every implementation is held to it.
        portable: the function body for any ONNX runtime.
        tensorrt: the body that TensorRT can build: static shapes, no NonZero. None: TensorRT is not given it.
        plans: how its Triton kernels are called, for a call and a precision; None where it has none, and PyTorch's
            plain form serves on a GPU.
        kernels: the formats of weights that these take.
        plugin: whether TensorRT has it as a plug-in (`tensorrt/creators.cpp`), too, and not only as its body.
        outputs: names of its outputs, in order.
        weights: the inputs that may be in any of `mythos_model.formats`: which, its attribute `format` says.
        scales: trailing inputs, one for each of these, that only rounded weights have.
    """

    name: str
    inputs: tuple[str, ...]
    attributes: tuple[tuple[str, AttrType], ...]
    reference: Callable[..., Any]
    portable: FunctionMaker
    tensorrt: FunctionMaker | None = None
    plans: PlanMaker | None = None
    kernels: frozenset[str] = frozenset([PLAIN])
    plugin: bool = False
    outputs: tuple[str, ...] = ("out",)
    weights: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()

    def lacks(self, format: str = PLAIN, packed: bool = False) -> frozenset[Implementation]:
        """Implementations of `fallback.ORDER` that it does not have; TensorRT has none for rounded weights, nor
        for `packed` caches (`OperatorCall.packed`)."""
        plain = format == PLAIN and not packed
        has = {
            TRITON: self.plans is not None and format in self.kernels,
            PLUGIN: self.plugin and plain,
            DECOMPOSED: self.tensorrt is not None and plain,
            NATIVE: FORMATS[format].native,
        }
        return frozenset(implementation for implementation, there in has.items() if not there)

    @property
    def torch_op(self) -> Any:
        """The torch operator overload that torch.export leaves in the graph."""
        return getattr(torch.ops.mythos, self.name).default

    def schema(self) -> onnx.defs.OpSchema:
        """The ONNX schema: float tensors of one type T; weights of type W are T's where they are plain."""
        schema = onnx.defs.OpSchema
        parameter = schema.FormalParameter
        types = _TYPES | dict.fromkeys(self.weights, "W") | dict.fromkeys(self.scales, "tensor(float16)")
        constraints = [("T", _FLOATS, "compute type")]
        attributes = [schema.Attribute(name, kind) for name, kind in self.attributes]
        if self.weights:
            constraints.append(("W", [*_FLOATS, *_STORED], "how weights are stored"))
            attributes.append(schema.Attribute("format", onnx.helper.make_attribute("format", PLAIN)))
        if "cache" in self.inputs:
            types |= dict.fromkeys(("cache", "cache_next"), "C")
            constraints.append(("C", [*_FLOATS, "tensor(int8)"], "how pages hold lines"))
        optional = dict.fromkeys(self.scales, schema.FormalParameterOption.Optional)
        single = schema.FormalParameterOption.Single
        return schema(
            self.name,
            DOMAIN,
            VERSION,
            inputs=[
                parameter(name, types.get(name, "T"), param_option=optional.get(name, single)) for name in self.inputs
            ],
            outputs=[parameter(name, types.get(name, "T")) for name in self.outputs],
            type_constraints=constraints,
            attributes=attributes,
        )

    def translation(self) -> Callable[..., Any]:
        """torch.onnx's translation of the torch operator: one bare node of the custom domain.

        A graph does not say what is plain: no scales, no format.
        """
        op = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, VERSION), self.name, self.schema())
        count = len(self.inputs)
        names = [name for name, _ in self.attributes] + (["format"] if self.weights else [])
        signature = self.torch_op._schema.arguments

        def translate(*arguments: Any) -> Any:
            given = [*arguments, *(argument.default_value for argument in signature[len(arguments) :])]
            named = dict(zip(names, given[count:], strict=True))
            tensors = given[:count]
            if named.get("format") == PLAIN:
                del named["format"], tensors[count - len(self.scales) :]
            return op(*tensors, **named)

        return translate


def calls_of(model: ir.Model) -> tuple[OperatorCall, ...]:
    """The calls of operators in a graph and its loops, in order."""
    nodes = (node for node in model.graph.all_nodes() if node.domain in DOMAINS and node.op_type in OPERATORS)
    return tuple(call_of(node, OPERATORS[node.op_type].inputs) for node in nodes)


_FLOAT, _INT = AttrType.FLOAT, AttrType.INT


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


OPERATORS: dict[str, Operator] = {
    op.name: op
    for op in (
        Operator(
            "linear",
            _names(f"{linear_function.INPUTS}, {linear_function.SCALES}"),
            (("rows", _INT),),
            linear,
            portable=linear_function.function,
            tensorrt=linear_function.function,
            plans=linear_plan.plans_for,
            kernels=frozenset(_ON_A_GPU - {PLAIN}),
            weights=("weight",),
            scales=_names(linear_function.SCALES),
        ),
        Operator(
            "embedding",
            _names(f"{embedding_function.INPUTS}, {embedding_function.SCALES}"),
            (("dim", _INT),),
            embedding,
            portable=embedding_function.function,
            tensorrt=embedding_function.function,
            weights=("weight",),
            scales=_names(embedding_function.SCALES),
        ),
        Operator(
            "moe",
            _names(f"{moe_function.INPUTS}, {moe_function.SCALES}"),
            (),
            moe,
            portable=moe_function.sparse,
            tensorrt=moe_function.dense,
            plans=lambda call, precision: (moe_plan if call.format == PLAIN else rounded_moe_plan).plans_for(
                call, precision
            ),
            kernels=_ON_A_GPU,
            plugin=True,
            weights=_names(moe_function.WEIGHTS),
            scales=_names(moe_function.SCALES),
        ),
        Operator("expert_sum", _names(expert_sum_function.INPUTS), (), expert_sum, expert_sum_function.function),
        Operator(
            "mla_attention",
            _names(mla_function.INPUTS),
            (("scale", _FLOAT), ("v_head_dim", _INT)),
            mla_attention,
            portable=lambda call: mla_function.function(filled=True),
            tensorrt=lambda call: mla_function.function(filled=False),
            plans=mla_plan.plans_for,
            plugin=True,
        ),
        Operator(
            "gqa_attention",
            _names(gqa_function.INPUTS),
            (("scale", _FLOAT), ("kv_heads", _INT)),
            gqa_attention,
            portable=lambda call: gqa_function.function(filled=True),
            tensorrt=lambda call: gqa_function.function(filled=False),
            plans=gqa_plan.plans_for,
            plugin=True,
        ),
        Operator(
            "act_halting",
            _names(act_function.INPUTS),
            (),
            act_halting,
            portable=lambda call: act_function.function(),
            tensorrt=lambda call: act_function.function(),
            plans=act_plan.plans_for,
            plugin=True,
            outputs=_names(act_function.OUTPUTS),
        ),
        Operator(
            "rounded_line",
            _names(rounded_line_function.INPUTS),
            (("width", _INT),),
            rounded_line,
            portable=lambda call: rounded_line_function.function(),
            plans=rounded_line_plan.plans_for,
        ),
        Operator(
            "paged_gqa_attention",
            _names(paged_gqa_function.INPUTS),
            (("scale", _FLOAT), ("kv_heads", _INT)),
            paged_gqa_attention,
            portable=lambda call: paged_gqa_function.function(packed=call.packed),
            tensorrt=lambda call: paged_gqa_function.function(tensorrt=True),
            plans=paged_gqa_plan.plans_for,
            outputs=_names(PAGED_OUTPUTS),
        ),
        Operator(
            "paged_mla_attention",
            _names(paged_mla_function.INPUTS),
            (("scale", _FLOAT), ("v_head_dim", _INT)),
            paged_mla_attention,
            portable=lambda call: paged_mla_function.function(packed=call.packed),
            tensorrt=lambda call: paged_mla_function.function(tensorrt=True),
            plans=paged_mla_plan.plans_for,
            outputs=_names(PAGED_OUTPUTS),
        ),
    )
}
