"""Tensor names of Ouro checkpoints, and the one change that is made to them: rotary halves become adjacent pairs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from mythos_model.families.family import Shape
from mythos_model.families.halves import to_halves, to_pairs
from mythos_model.families.ouro.config import OuroConfig
from mythos_model.weights import Sources

# The checkpoint's names and the model's, without the layer's own prefix.
LAYER = {
    "input_layernorm": "attn_norm",
    "input_layernorm_2": "attn_out_norm",
    "post_attention_layernorm": "ffn_norm",
    "post_attention_layernorm_2": "ffn_out_norm",
    "self_attn.q_proj": "attn.wq",
    "self_attn.k_proj": "attn.wk",
    "self_attn.v_proj": "attn.wv",
    "self_attn.o_proj": "attn.wo",
    "mlp.gate_proj": "ffn.gate",
    "mlp.up_proj": "ffn.up",
    "mlp.down_proj": "ffn.down",
}
OUTSIDE = {
    "model.embed_tokens.weight": "embed.weight",
    "model.norm.weight": "norm.weight",
    "model.early_exit_gate.weight": "gate.gate.weight",
    "model.early_exit_gate.bias": "gate.gate.bias",
    "lm_head.weight": "head.weight",
}


def names(config: OuroConfig) -> dict[str, str]:
    """The checkpoint's name of every tensor -> the model's."""
    layers = {
        f"model.layers.{i}.{theirs}.weight": f"layers.{i}.{ours}.weight"
        for i in range(config.num_hidden_layers)
        for theirs, ours in LAYER.items()
    }
    return OUTSIDE | layers


def shapes(config: OuroConfig) -> dict[str, Shape]:
    """Every tensor of a checkpoint."""
    c = config
    D, F = c.hidden_size, c.intermediate_size
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    of_layer: dict[str, Shape] = dict.fromkeys((name for name in LAYER if "layernorm" in name), (D,))
    of_layer |= {"self_attn.q_proj": (q, D), "self_attn.k_proj": (kv, D), "self_attn.v_proj": (kv, D)}
    of_layer |= {"self_attn.o_proj": (D, q), "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
    outside: dict[str, Shape] = {
        "model.embed_tokens.weight": (c.vocab_size, D),
        "model.norm.weight": (D,),
        "model.early_exit_gate.weight": (1, D),
        "model.early_exit_gate.bias": (1,),
        "lm_head.weight": (c.vocab_size, D),
    }
    layers = range(c.num_hidden_layers)
    return outside | {f"model.layers.{i}.{name}.weight": shape for i in layers for name, shape in of_layer.items()}


def to_model(config: OuroConfig, state: Mapping[str, Tensor]) -> Sources:
    """The checkpoint's tensors under the model's names."""

    def made(theirs: str) -> Tensor:
        return to_pairs(state[theirs], config.head_dim) if _rotated(theirs) else state[theirs]

    return Sources({ours: partial(made, theirs) for theirs, ours in names(config).items()})


def from_model(config: OuroConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors under the checkpoint's names."""
    return {
        theirs: to_halves(state[ours], config.head_dim) if _rotated(theirs) else state[ours]
        for theirs, ours in names(config).items()
    }


def _rotated(name: str) -> bool:
    return name.endswith(("q_proj.weight", "k_proj.weight"))
