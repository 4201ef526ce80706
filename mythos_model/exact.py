"""The float64 model on the weights of another one, which stay as they are: each is widened where it is used.

    exact = widened(model)      # computes in float64; its matrices are the model's own tensors, mapped ones too

A float32 model of a billion weights takes no more memory so, where a copy in float64 would take eight gigabytes.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TypeVar

from torch import Tensor, nn

from mythos_model import products
from mythos_model.blocks import Embedding
from mythos_model.moe import MixtureOfExperts
from mythos_model.quantized import Quantized, QuantizedEmbedding

Model = TypeVar("Model", bound=nn.Module)
_EXPERTS = ("routed_gate_up", "routed_down", "shared_gate_up", "shared_down")


def widened(model: Model) -> Model:
    """A float64 model with the same weights; only what is no matrix is copied."""
    shared = {
        id(tensor): tensor for name, tensor in model.state_dict(keep_vars=True).items() if _is_shared(model, name)
    }
    exact = copy.deepcopy(model, dict(shared))
    for tensor in (*exact.parameters(), *exact.buffers()):
        if id(tensor) not in shared and tensor.is_floating_point():
            tensor.data = tensor.data.double()
    for name, module in list(exact.named_modules()):
        if type(module) is nn.Linear and module.bias is None:
            exact.set_submodule(name, NarrowLinear(module).eval())
        elif isinstance(module, Embedding | QuantizedEmbedding):
            exact.set_submodule(name, NarrowEmbedding(module).eval())
        elif isinstance(module, MixtureOfExperts) and not isinstance(module, Quantized):
            exact.set_submodule(name, NarrowExperts(module).eval())
    return exact


def with_plain_activations(model: Model) -> Model:
    """A model of `widened`, changed in place: its products see what they are given, whatever their format rounds."""
    for module in model.modules():
        held = module._held[0] if isinstance(module, NarrowEmbedding) else module
        if isinstance(held, Quantized):
            held.form = replace(held.form, activations=False, name=held.form.name.removesuffix("a8"))
    return model


def _is_shared(model: nn.Module, name: str) -> bool:
    owner, _, own = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(module, Quantized):
        return own in module.held()
    if isinstance(module, MixtureOfExperts):
        return own in _EXPERTS
    return isinstance(module, Embedding) or (type(module) is nn.Linear and module.bias is None)


class NarrowLinear(nn.Module):
    """A linear layer without a bias over a weight that is narrower than what goes through it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return products.linear(x, self.get_buffer("weight"), None, self.get_buffer("weight").shape[0])


class NarrowEmbedding(nn.Module):
    """The same of an embedding, which may be rounded; its lines are given in float64."""

    def __init__(self, embedding: Embedding | QuantizedEmbedding) -> None:
        super().__init__()
        self._held = (embedding,)  # no module of this one: the first parameter tells a model's dtype

    def forward(self, ids: Tensor) -> Tensor:
        return self._held[0](ids).double()  # type: ignore[no-any-return]

    def logits(self, x: Tensor) -> Tensor:
        held = self._held[0]
        if isinstance(held, QuantizedEmbedding):
            return held.logits(x)
        return products.linear(x, held.weight, None, held.num_embeddings)


class NarrowExperts(MixtureOfExperts):
    """The same of a mixture of experts."""

    def __init__(self, experts: MixtureOfExperts) -> None:
        nn.Module.__init__(self)
        self.chosen, self.label = experts.chosen, experts.label
        self.router, self.router_bias = experts.router, experts.router_bias
        for name in _EXPERTS:
            self.register_buffer(name, getattr(experts, name).detach())

    def forward(self, x: Tensor) -> Tensor:
        routing = self.route(x)
        a, b, c, d = (self.get_buffer(name) for name in _EXPERTS)
        return products.moe(x, routing.experts, routing.weight.to(x.dtype), a, b, c, d)
