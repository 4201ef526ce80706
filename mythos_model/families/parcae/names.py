"""Tensor names of Parcae checkpoints. Fused biases and gated networks are taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from mythos_model.families.family import Shape
from mythos_model.families.parcae.config import ParcaeConfig
from mythos_model.weights import Sources

GATED = 32  # channels that a value embedding's gate reads

# The checkpoint's name of a block's tensor and the model's, where one is one.
_PLAIN = {
    "norm_1.weight": "attn_norm.weight",
    "norm_2.weight": "ffn_norm.weight",
    "attn.c_q.weight": "attn.wq.weight",
    "attn.c_k.weight": "attn.wk.weight",
    "attn.c_v.weight": "attn.wv.weight",
    "attn.c_proj.weight": "attn.wo.weight",
    "mlp.proj.weight": "ffn.down.weight",
}


def blocks(config: ParcaeConfig) -> Iterator[tuple[int, str, str]]:
    """Every layer's number, the checkpoint's prefix of it, and the model's."""
    parts = (
        ("prelude", "prelude", config.n_layers_in_prelude),
        ("core_block", "core", config.n_layers_in_recurrent_block),
        ("coda", "coda", config.n_layers_in_coda),
    )
    layer = 0
    for theirs, ours, count in parts:
        for i in range(count):
            yield layer, f"transformer.{theirs}.{i}.", f"{ours}.{i}."
            layer += 1


def _outside(c: ParcaeConfig) -> dict[str, tuple[str, Shape]]:
    """Tensors outside of the blocks: the model's name and the shape, by the checkpoint's name."""
    D = c.n_embd
    found: dict[str, tuple[str, Shape]] = {
        "transformer.wte.weight": ("embed.weight", (c.padded_vocab_size, D)),
        "transformer.C.weight": ("out.weight", (D, D)),
        "transformer.ln_f.weight": ("norm.weight", (D,)),
    }
    if c.prelude_norm:
        found["transformer.ln_prelude.weight"] = ("prelude_norm.weight", (D,))
    if not c.tie_embeddings:
        found["lm_head.weight"] = ("head.weight", (c.padded_vocab_size, D))
    if c.injection_type == "diagonal":
        found["transformer.adapter.A_log"] = ("injection.A_log", (D,))
        found["transformer.adapter.dt_bias"] = ("injection.dt_bias", (D,))
        found["transformer.adapter.B"] = ("injection.B.weight", (D, D))
    elif c.injection_type == "linear":
        found["transformer.adapter.adapter.weight"] = ("injection.adapter.weight", (D, 2 * D))
    for layer in c.valued:
        line = c.num_key_value_heads * c.head_dim
        found[f"value_embeds.{layer}.weight"] = (f"values.{layer}.weight", (c.padded_vocab_size, line))
    return found


def _of_block(c: ParcaeConfig, layer: int) -> dict[str, tuple[tuple[str, ...], Shape]]:
    """A block's tensors: the model's names (of its parts, along the first axis) and the shape."""
    D, F, kv = c.n_embd, c.intermediate_size, c.num_key_value_heads * c.head_dim
    gated = c.mlp_class_name == "GatedMLP"
    shapes: dict[str, Shape] = {"norm_1.weight": (D,), "norm_2.weight": (D,), "mlp.proj.weight": (D, F)}
    shapes |= {"attn.c_q.weight": (D, D), "attn.c_k.weight": (kv, D), "attn.c_v.weight": (kv, D)}
    shapes |= {"attn.c_proj.weight": (D, D)}
    found: dict[str, tuple[tuple[str, ...], Shape]] = {n: ((_PLAIN[n],), shape) for n, shape in shapes.items()}
    up = ("ffn.gate.weight", "ffn.up.weight") if gated else ("ffn.up.weight",)
    found["mlp.fc.weight"] = (up, (len(up) * F, D))
    if c.qk_bias:
        found["attn.qk_bias"] = (("attn.q_bias", "attn.k_bias"), (2, 1, c.num_attention_heads, c.head_dim))
    if layer in c.valued:
        found["attn.ve_gate.weight"] = (("value_gate.weight",), (c.num_key_value_heads, GATED))
    return found


def shapes(config: ParcaeConfig) -> dict[str, Shape]:
    """Every tensor of a checkpoint but a tied head and the rotary table; also tables and gates that nothing reads."""
    c = config
    found = {name: shape for name, (_, shape) in _outside(c).items()}
    for layer, prefix, _ in blocks(c):
        found |= {prefix + name: shape for name, (_, shape) in _of_block(c, layer).items()}
        if layer in c.gates:
            found[f"{prefix}attn.ve_gate.weight"] = (c.num_key_value_heads, GATED)
        if layer in c.tables:
            found[f"value_embeds.{layer}.weight"] = (c.padded_vocab_size, c.num_key_value_heads * c.head_dim)
    return found


def to_model(config: ParcaeConfig, state: Mapping[str, Tensor]) -> Sources:
    """The checkpoint's tensors under the model's names, without those that nothing reads."""
    found = {ours: partial(state.__getitem__, theirs) for theirs, (ours, _) in _outside(config).items()}
    for layer, theirs, ours in blocks(config):
        for name, (parts, _) in _of_block(config, layer).items():
            if len(parts) == 1:
                found[ours + parts[0]] = partial(state.__getitem__, theirs + name)
                continue
            found |= {ours + part: partial(_part, state, theirs + name, i, len(parts)) for i, part in enumerate(parts)}
    return Sources(found)


def from_model(config: ParcaeConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors under the checkpoint's names."""
    found = {theirs: state[ours] for theirs, (ours, _) in _outside(config).items()}
    for layer, theirs, ours in blocks(config):
        for name, (parts, shape) in _of_block(config, layer).items():
            found[theirs + name] = torch.cat([state[ours + part] for part in parts]).view(shape)
    return found


def _part(state: Mapping[str, Tensor], name: str, index: int, count: int) -> Tensor:
    """A matrix of several that are one, or the bias [1, 1, H, d] as [H*d]; in memory of its own, since torch.export
    takes no views."""
    piece = state[name].chunk(count)[index]
    return piece.clone() if piece.ndim == 2 else piece.flatten().clone()
