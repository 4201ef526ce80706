"""One record per operator and one registry: what an operator is called, how torch writes it, how ONNX computes it.

Adding an operator: give it a folder with `function.py` (and later its kernels), add its plain form to
`mythos_model.ops`, and one record to `OPERATORS`. See CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnxscript
import torch

from mythos_export.kernels.act import function as act_function
from mythos_export.kernels.act.reference import act_halting
from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.fallback import DECOMPOSED, PLUGIN, TRITON, Implementation
from mythos_export.kernels.gqa import function as gqa_function
from mythos_export.kernels.gqa import plan as gqa_plan
from mythos_export.kernels.gqa.reference import gqa_attention
from mythos_export.kernels.gqa.tensorrt import PLUGIN as gqa_plugin
from mythos_export.kernels.launch_plan import Plan
from mythos_export.kernels.mla import function as mla_function
from mythos_export.kernels.mla import plan as mla_plan
from mythos_export.kernels.mla.reference import mla_attention
from mythos_export.kernels.mla.tensorrt import PLUGIN as mla_plugin
from mythos_export.kernels.moe import function as moe_function
from mythos_export.kernels.moe import plan as moe_plan
from mythos_export.kernels.moe.reference import moe
from mythos_export.kernels.moe.tensorrt import PLUGIN as moe_plugin
from mythos_export.kernels.paged import OUTPUTS as PAGED_OUTPUTS
from mythos_export.kernels.paged_gqa import function as paged_gqa_function
from mythos_export.kernels.paged_gqa.reference import paged_gqa_attention
from mythos_export.kernels.paged_mla import function as paged_mla_function
from mythos_export.kernels.paged_mla.reference import paged_mla_attention
from mythos_export.kernels.plugin.record import PluginRecord
from mythos_export.kernels.quantized_embedding import function as quantized_embedding_function
from mythos_export.kernels.quantized_embedding.reference import quantized_embedding
from mythos_export.kernels.quantized_linear import function as quantized_linear_function
from mythos_export.kernels.quantized_linear.reference import quantized_linear
from mythos_export.kernels.quantized_moe import function as quantized_moe_function
from mythos_export.kernels.quantized_moe.reference import quantized_moe
from mythos_export.kernels.text import DOMAIN, VERSION
from mythos_model import (
    MythosConfig,
    paged_ops,  # noqa: F401  (registers operators that no model calls yet)
)

FunctionMaker = Callable[[OperatorCall], onnx.FunctionProto]
PlanMaker = Callable[[MythosConfig, str], tuple[Plan, ...]]
# Types of inputs and outputs that are not of the compute type.
_TYPES = dict.fromkeys(("expert_index", "layer", "positions", "past_lengths", "ids"), "tensor(int64)")
_TYPES |= dict.fromkeys(("tables", "span", "position"), "tensor(int64)")
_TYPES |= dict.fromkeys(("halted", "halted_next", "running"), "tensor(bool)")
_TYPES |= dict.fromkeys(("depth", "depth_next"), "tensor(int32)")


@dataclass(frozen=True)
class Operator:
    """An operator of the `mythos` domain.

    Attributes:
        name: its name in torch (`torch.ops.mythos.<name>`) and in ONNX (`mythos::<name>`).
        inputs: names of its tensor inputs, in order.
        attributes: names and ONNX types of its trailing scalar arguments.
        reference: what it means, slowly, in numpy; every implementation is held to it.
        portable: the function body for any ONNX runtime.
        tensorrt: the body that TensorRT can build: static shapes, no NonZero. None: TensorRT is not given it.
        plans: how its Triton kernels are called, for a model and a precision; None where it has none, and PyTorch's
            plain form serves on a GPU.
        plugin: what TensorRT has to know of it; None where it has no plug-in, and the body is built in any case.
        outputs: names of its outputs, in order.
        weights: ONNX element types of its quantised weights and their scales, by input; the rest is float32 then.
    """

    name: str
    inputs: tuple[str, ...]
    attributes: tuple[tuple[str, onnx.defs.OpSchema.AttrType], ...]
    reference: Callable[..., Any]
    portable: FunctionMaker
    tensorrt: FunctionMaker | None = None
    plans: PlanMaker | None = None
    plugin: PluginRecord | None = None
    outputs: tuple[str, ...] = ("out",)
    weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def lacks(self) -> frozenset[Implementation]:
        """Implementations of `fallback.ORDER` that it does not have."""
        has = {TRITON: self.plans, PLUGIN: self.plugin, DECOMPOSED: self.tensorrt}
        return frozenset(implementation for implementation, there in has.items() if there is None)

    @property
    def torch_op(self) -> Any:
        """The torch operator overload that torch.export leaves in the graph."""
        return getattr(torch.ops.mythos, self.name).default

    def schema(self) -> onnx.defs.OpSchema:
        """The ONNX schema: float tensors of one type, which is float32 where weights are quantised."""
        schema = onnx.defs.OpSchema
        floats = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]
        compute = "tensor(float)" if self.weights else "T"
        types = _TYPES | dict(self.weights)
        return schema(
            self.name,
            DOMAIN,
            VERSION,
            inputs=[schema.FormalParameter(name, types.get(name, compute)) for name in self.inputs],
            outputs=[schema.FormalParameter(name, types.get(name, compute)) for name in self.outputs],
            type_constraints=[] if self.weights else [("T", floats, "compute type")],
            attributes=[schema.Attribute(name, kind) for name, kind in self.attributes],
        )

    def translation(self) -> Callable[..., Any]:
        """torch.onnx's translation of the torch operator: one bare node of the custom domain."""
        op = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, VERSION), self.name, self.schema())
        count = len(self.inputs)

        def translate(*arguments: Any) -> Any:
            named = {name: value for (name, _), value in zip(self.attributes, arguments[count:], strict=True)}
            return op(*arguments[:count], **named)

        return translate


_FLOAT, _INT = onnx.defs.OpSchema.AttrType.FLOAT, onnx.defs.OpSchema.AttrType.INT


def _quantized(form: str) -> tuple[Operator, ...]:
    """The operators over block-wise int8 or int4 weights: on the CPU only, so far."""
    int4 = form == "int4"

    def types(*weights: str) -> dict[str, str]:
        element = "tensor(uint8)" if int4 else "tensor(int8)"
        return dict.fromkeys(weights, element) | {
            "scale" if name == "weight" else f"{name}_scale": "tensor(float16)" for name in weights
        }

    return (
        Operator(
            f"{form}_linear",
            tuple(quantized_linear_function.INPUTS.split(", ")),
            (("rows", _INT),),
            quantized_linear,
            portable=lambda call: quantized_linear_function.function(int4),
            weights=types("weight"),
        ),
        Operator(
            f"{form}_embedding",
            tuple(quantized_embedding_function.INPUTS.split(", ")),
            (("dim", _INT),),
            quantized_embedding,
            portable=lambda call: quantized_embedding_function.function(int4),
            weights=types("weight"),
        ),
        Operator(
            f"{form}_moe",
            tuple(quantized_moe_function.INPUTS.split(", ")),
            (),
            quantized_moe,
            portable=lambda call: quantized_moe_function.function(
                call.size("routed_gate_up", 0), call.size("shared_gate_up", 0) > 0, int4
            ),
            weights=types(*quantized_moe_function.WEIGHTS),
        ),
    )


OPERATORS: dict[str, Operator] = {
    op.name: op
    for op in (
        Operator(
            "moe",
            tuple(moe_function.INPUTS.split(", ")),
            (),
            moe,
            portable=lambda call: moe_function.sparse(call.size("routed_down", 0), call.size("shared_down", 1) > 0),
            tensorrt=lambda call: moe_function.dense(call.size("routed_down", 0), call.size("shared_down", 1) > 0),
            plans=moe_plan.plans_for,
            plugin=moe_plugin,
        ),
        Operator(
            "mla_attention",
            tuple(mla_function.INPUTS.split(", ")),
            (("scale", _FLOAT), ("v_head_dim", _INT)),
            mla_attention,
            portable=lambda call: mla_function.function(filled=True),
            tensorrt=lambda call: mla_function.function(filled=False),
            plans=mla_plan.plans_for,
            plugin=mla_plugin,
        ),
        Operator(
            "gqa_attention",
            tuple(gqa_function.INPUTS.split(", ")),
            (("scale", _FLOAT), ("kv_heads", _INT)),
            gqa_attention,
            portable=lambda call: gqa_function.function(filled=True),
            tensorrt=lambda call: gqa_function.function(filled=False),
            plans=gqa_plan.plans_for,
            plugin=gqa_plugin,
        ),
        Operator(
            "act_halting",
            tuple(act_function.INPUTS.split(", ")),
            (),
            act_halting,
            portable=lambda call: act_function.function(),
            tensorrt=lambda call: act_function.function(),
            outputs=tuple(act_function.OUTPUTS.split(", ")),
        ),
        Operator(
            "paged_gqa_attention",
            tuple(paged_gqa_function.INPUTS.split(", ")),
            (("scale", _FLOAT), ("kv_heads", _INT)),
            paged_gqa_attention,
            portable=lambda call: paged_gqa_function.function(),
            outputs=tuple(PAGED_OUTPUTS.split(", ")),
        ),
        Operator(
            "paged_mla_attention",
            tuple(paged_mla_function.INPUTS.split(", ")),
            (("scale", _FLOAT), ("v_head_dim", _INT)),
            paged_mla_attention,
            portable=lambda call: paged_mla_function.function(),
            outputs=tuple(PAGED_OUTPUTS.split(", ")),
        ),
        *_quantized("int8"),
        *_quantized("int4"),
    )
}
