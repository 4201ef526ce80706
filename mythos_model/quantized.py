"""A model whose matrices are rounded to integers: the same modules, over another of `mythos_model.formats`.

>>> model = MythosModel.from_state(config, state, torch.float32)
>>> quantize_model(model, "int4", model.keeps)       # in place; activations, caches and sums stay float32

Rounded are the matrices that a token is multiplied by: projections, feed-forward networks, experts, embeddings and
heads; all of them to one format, or each of the groups that `groups_of` tells apart to its own. Kept are norms and
whatever else is no matrix, and the layers that a model's family names (`LoopedModel.keeps`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from mythos_model import products
from mythos_model.blocks import Embedding
from mythos_model.formats import FORMATS, PLAIN, ROUNDED, Packed
from mythos_model.moe import MixtureOfExperts

Model = TypeVar("Model", bound=nn.Module)


def quantize_model(model: Model, form: str | Mapping[str, str], keeps: Callable[[str], bool]) -> Model:
    """Replace the matrices of a float32 model by rounded ones, in place; returns the model.

    Args:
        form: one of `mythos_model.formats.ROUNDED`; or the formats by group, those that are left out staying plain.
        keeps: whether the linear layer of a name stays as it is.

    Raises:
        ModelError: a weight is too large for a float16 scale.
        ValueError: another format or group, or the model is not float32.
    """
    groups = groups_of(model, keeps)
    forms = dict.fromkeys(groups, form) if isinstance(form, str) else form
    for name, each in forms.items():
        if each not in (ROUNDED if isinstance(form, str) else FORMATS):
            raise ValueError(f"there is no block-wise form {each!r}; there are {', '.join(ROUNDED)}")
        if name not in groups:
            raise ValueError(f"there is no group of matrices {name!r}; there are {', '.join(groups)}")
    others = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
    if others:
        raise ValueError(f"only a float32 model can be quantised, this one has {', '.join(map(str, others))}")
    for group, names in groups.items():
        if forms.get(group, PLAIN) != PLAIN:
            for name in names:
                model.set_submodule(name, rounded_module(model.get_submodule(name), forms[group]).eval())
    return model


def groups_of(model: nn.Module, keeps: Callable[[str], bool]) -> dict[str, tuple[str, ...]]:
    """The modules whose matrices may be rounded, by what they are for: a layer's attention, its network, its experts,
    an embedding, the same of all layers of a part of the model. "prelude.0.attn.wq" is of the group "prelude.attn"."""
    groups: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        linear = type(module) is nn.Linear and module.bias is None and not keeps(name)
        if linear or isinstance(module, Embedding | MixtureOfExperts):
            groups.setdefault(_group(name.split("."), linear), []).append(name)
    return {name: tuple(modules) for name, modules in groups.items()}


def _group(path: Iterable[str], linear: bool) -> str:
    named = [part for part in path if not part.isdigit()]
    return ".".join(named[:-1] if linear and len(named) > 1 else named)


def rounded_module(module: nn.Module, form: str) -> Quantized:
    """A module over the weights of another one, rounded.

    Raises:
        ModelError: a weight is too large for a float16 scale.
    """
    if isinstance(module, Embedding):
        return QuantizedEmbedding(module, form)
    if isinstance(module, MixtureOfExperts):
        return QuantizedExperts(module, form)
    assert type(module) is nn.Linear
    return QuantizedLinear(module, form)


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict; rounded weights as the float32 values that they stand for, under their plain names."""
    state = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, Quantized):
            for held in module.held():
                del state[f"{name}.{held}"]
            state |= {f"{name}.{weight}": value for weight, value in module.plain().items()}
    return state


def held_names(name: str) -> tuple[str, str]:
    """What a rounded weight and its scales are called where the weight was called `name`."""
    return f"{name}_quantized", f"{name}_scale"


class Quantized(nn.Module):
    """Holds, for each rounded weight NAME [..., rows, inputs], the buffers `NAME_quantized` and `NAME_scale`."""

    def __init__(self, form: str) -> None:
        nn.Module.__init__(self)  # not super(): experts have a second base, whose weights are not wanted
        self.form = FORMATS[form]

    def hold(self, name: str, weight: Tensor) -> None:
        """Round a weight and keep it."""
        for part, tensor in self.rounded(name, weight).items():
            self.register_buffer(part, tensor)

    def rounded(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        """What is held of a weight, or of a slice of it along the first axis, by its buffers' names."""
        packed = self.form.pack(self.padded(name, weight.detach()))
        assert packed.scale is not None
        return dict(zip(held_names(name), (packed.weight, packed.scale), strict=True))

    def padded(self, name: str, weight: Tensor) -> Tensor:
        """A weight with whatever rows of zeros its operator wants inside."""
        return weight

    def parts(self, name: str) -> Packed:
        """A weight as it is stored."""
        return Packed(cast(Tensor, getattr(self, f"{name}_quantized")), cast(Tensor, getattr(self, f"{name}_scale")))

    def held(self) -> list[str]:
        """The names of its rounded buffers."""
        return [name for name, _ in self.named_buffers(recurse=False) if name.endswith(("_quantized", "_scale"))]

    def run(self, name: str, *arguments: Tensor | int | None) -> Tensor:
        """An operator over this format; while exporting, through torch's dispatcher, which keeps it one node."""
        where = torch.ops.mythos if torch.compiler.is_exporting() else products
        return cast(Callable[..., Tensor], getattr(where, name))(*arguments, self.form.name)

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
        return {"weight": self.form.unpack(*self.parts("weight"), self.out_features, self.in_features)}

    def forward(self, x: Tensor) -> Tensor:
        return self.run("linear", x, *self.parts("weight"), self.out_features)


class QuantizedEmbedding(Quantized):
    """An embedding, whose rows may also be the head's."""

    def __init__(self, embedding: Embedding, form: str) -> None:
        super().__init__(form)
        self.num_embeddings, self.embedding_dim = embedding.weight.shape
        self.hold("weight", embedding.weight)

    def plain(self) -> dict[str, Tensor]:
        return {"weight": self.form.unpack(*self.parts("weight"), self.num_embeddings, self.embedding_dim)}

    def forward(self, ids: Tensor) -> Tensor:
        return self.run("embedding", ids, *self.parts("weight"), self.embedding_dim)

    def logits(self, x: Tensor) -> Tensor:
        return self.run("linear", x, *self.parts("weight"), self.num_embeddings)


class QuantizedExperts(Quantized, MixtureOfExperts):
    """`MixtureOfExperts`; gate and up are padded apart, so that each begins a tile."""

    def __init__(self, experts: MixtureOfExperts, form: str) -> None:
        Quantized.__init__(self, form)
        self.chosen, self.label = experts.chosen, experts.label
        self.router, self.router_bias = experts.router, experts.router_bias
        self.dim = experts.routed_down.shape[1]
        self.widths = {"routed": experts.routed_down.shape[2], "shared": experts.shared_down.shape[1]}
        for kind in self.widths:
            for part in ("gate_up", "down"):
                self.hold(f"{kind}_{part}", getattr(experts, f"{kind}_{part}"))

    def padded(self, name: str, weight: Tensor) -> Tensor:
        if not name.endswith("gate_up"):
            return weight
        return torch.cat([self.form.pad_rows(half) for half in weight.chunk(2, -2)], -2)

    def plain(self) -> dict[str, Tensor]:
        weights = {}
        for kind, width in self.widths.items():
            gate, up = self.form.unpack(*self.parts(f"{kind}_gate_up"), inputs=self.dim).chunk(2, -2)
            weights[f"{kind}_gate_up"] = torch.cat([gate[..., :width, :], up[..., :width, :]], -2)
            weights[f"{kind}_down"] = self.form.unpack(*self.parts(f"{kind}_down"), self.dim, width)
        return weights

    def forward(self, x: Tensor) -> Tensor:
        routing = self.route(x)
        parts = [self.parts(f"{kind}_{part}") for kind in self.widths for part in ("gate_up", "down")]
        weights, scales = zip(*parts, strict=True)
        return self.run("moe", x, routing.experts, routing.weight.to(x.dtype), *weights, *scales)
