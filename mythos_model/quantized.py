"""A model whose matrices are block-wise int8 or int4: the same modules, with the weights' layout of `blockwise`.

>>> model = MythosModel.from_state(config, state, torch.float32)
>>> quantize_model(model, "int4")       # in place; activations, caches and sums stay float32

Rounded are the matrices that a token is multiplied by: projections, feed-forward networks, experts and the tied
embedding. Kept are norms, the router (a near tie changes an expert), halting and LoRA, which are small, and MLA's
kv_up, which attention folds into queries and outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mythos_model import quantized_ops
from mythos_model.blocks import Embedding
from mythos_model.blockwise import BITS, dequantize, pad_rows, quantize
from mythos_model.moe import MixtureOfExperts

if TYPE_CHECKING:
    from mythos_model.looped import LoopedModel


def quantize_model(model: LoopedModel, form: str) -> LoopedModel:
    """Replace the matrices of a float32 model by `form`, "int8" or "int4", in place; returns the model.

    Raises:
        ModelError: a weight is too large for a float16 scale.
        ValueError: another form, or the model is not float32.
    """
    if form not in BITS:
        raise ValueError(f"there is no block-wise form {form!r}; there are {', '.join(BITS)}")
    if model.dtype != torch.float32:
        raise ValueError(f"only a float32 model can be quantised, this one is {model.dtype}")
    for name, module in list(model.named_modules()):
        replacement: nn.Module
        if type(module) is nn.Linear and module.bias is None and not model.keeps(name):
            replacement = QuantizedLinear(module, form)
        elif isinstance(module, Embedding):
            replacement = QuantizedEmbedding(module, form)
        elif isinstance(module, MixtureOfExperts):
            replacement = QuantizedExperts(module, form)
        else:
            continue
        model.set_submodule(name, replacement.eval())
    return model


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict; quantised weights as the float32 values that they stand for, under their plain names."""
    state = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, Quantized):
            for held in module.held():
                del state[f"{name}.{held}"]
            state |= {f"{name}.{weight}": value for weight, value in module.plain().items()}
    return state


class Quantized(nn.Module):
    """Holds, for each quantised weight NAME [..., rows, inputs], the buffers `NAME_quantized` and `NAME_scale`."""

    def __init__(self, form: str) -> None:
        nn.Module.__init__(self)  # not super(): experts have a second base, whose weights are not wanted
        self.form = form

    def hold(self, name: str, weight: Tensor) -> None:
        """Round a weight and keep it."""
        packed = quantize(weight.detach(), self.form)
        self.register_buffer(f"{name}_quantized", packed.weight)
        self.register_buffer(f"{name}_scale", packed.scale)

    def parts(self, name: str) -> tuple[Tensor, Tensor]:
        """(weight, scale) as `blockwise` lays them out."""
        return cast(Tensor, getattr(self, f"{name}_quantized")), cast(Tensor, getattr(self, f"{name}_scale"))

    def held(self) -> list[str]:
        """The names of its quantised buffers."""
        return [name for name, _ in self.named_buffers(recurse=False) if name.endswith(("_quantized", "_scale"))]

    def operator(self, name: str) -> Callable[..., Tensor]:
        """The operator over this form; while exporting, through torch's dispatcher, which keeps it one node."""
        where = torch.ops.mythos if torch.compiler.is_exporting() else quantized_ops
        return cast(Callable[..., Tensor], getattr(where, f"{self.form}_{name}"))

    def plain(self) -> dict[str, Tensor]:
        """Its weights in float32, under the names of the module that it replaced."""
        raise NotImplementedError


class QuantizedLinear(Quantized):
    """nn.Linear without a bias."""

    def __init__(self, linear: nn.Linear, form: str) -> None:
        super().__init__(form)
        self.out_features, self.in_features = linear.weight.shape
        self.hold("weight", linear.weight)

    def plain(self) -> dict[str, Tensor]:
        return {"weight": dequantize(*self.parts("weight"), self.out_features, self.in_features)}

    def forward(self, x: Tensor) -> Tensor:
        return self.operator("linear")(x, *self.parts("weight"), self.out_features)


class QuantizedEmbedding(Quantized):
    """The tied embedding and head."""

    def __init__(self, embedding: Embedding, form: str) -> None:
        super().__init__(form)
        self.num_embeddings, self.embedding_dim = embedding.weight.shape
        self.hold("weight", embedding.weight)

    def plain(self) -> dict[str, Tensor]:
        return {"weight": dequantize(*self.parts("weight"), self.num_embeddings, self.embedding_dim)}

    def forward(self, ids: Tensor) -> Tensor:
        return self.operator("embedding")(ids, *self.parts("weight"), self.embedding_dim)

    def logits(self, x: Tensor) -> Tensor:
        return self.operator("linear")(x, *self.parts("weight"), self.num_embeddings)


class QuantizedExperts(Quantized, MixtureOfExperts):
    """`MixtureOfExperts`; gate and up are padded apart, so that each begins a tile."""

    def __init__(self, experts: MixtureOfExperts, form: str) -> None:
        Quantized.__init__(self, form)
        self.chosen, self.label = experts.chosen, experts.label
        self.router, self.router_bias = experts.router, experts.router_bias
        self.dim = experts.routed_down.shape[1]
        self.widths = {"routed": experts.routed_down.shape[2], "shared": experts.shared_down.shape[1]}
        for kind in self.widths:
            gate, up = getattr(experts, f"{kind}_gate_up").chunk(2, -2)
            self.hold(f"{kind}_gate_up", torch.cat([pad_rows(gate), pad_rows(up)], -2))
            self.hold(f"{kind}_down", getattr(experts, f"{kind}_down"))

    def plain(self) -> dict[str, Tensor]:
        weights = {}
        for kind, width in self.widths.items():
            gate, up = dequantize(*self.parts(f"{kind}_gate_up"), inputs=self.dim).chunk(2, -2)
            weights[f"{kind}_gate_up"] = torch.cat([gate[..., :width, :], up[..., :width, :]], -2)
            weights[f"{kind}_down"] = dequantize(*self.parts(f"{kind}_down"), self.dim, width)
        return weights

    def forward(self, x: Tensor) -> Tensor:
        routing = self.route(x)
        names = [f"{kind}_{part}" for kind in self.widths for part in ("gate_up", "down")]
        weights = [part for name in names for part in self.parts(name)]
        return self.operator("moe")(x, routing.experts, routing.weight.to(x.dtype), *weights)
