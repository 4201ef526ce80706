"""Tensor names of Nanbeige checkpoints, and the one change made to them: rotary halves become adjacent pairs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from mythos_model.families.family import Shape
from mythos_model.families.halves import to_halves, to_pairs
from mythos_model.families.nanbeige.config import NanbeigeConfig
from mythos_model.weights import Sources

# The checkpoint's names and the model's, without the layer's own prefix.
_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn.wq",
    "self_attn.k_proj": "attn.wk",
    "self_attn.v_proj": "attn.wv",
    "self_attn.o_proj": "attn.wo",
    "mlp.gate_proj": "ffn.gate",
    "mlp.up_proj": "ffn.up",
    "mlp.down_proj": "ffn.down",
}


def names(config: NanbeigeConfig) -> dict[str, str]:
    """The checkpoint's name of every tensor -> the model's."""
    outside = {"model.embed_tokens.weight": "embed.weight", "model.norm.weight": "norm.weight"}
    if not config.tie_word_embeddings:
        outside["lm_head.weight"] = "head.weight"
    return outside | {
        f"model.layers.{i}.{theirs}.weight": f"layers.{i}.{ours}.weight"
        for i in range(config.num_hidden_layers)
        for theirs, ours in _LAYER.items()
    }


def shapes(config: NanbeigeConfig) -> dict[str, Shape]:
    """Every tensor of a checkpoint but a tied head."""
    c = config
    D, F = c.hidden_size, c.intermediate_size
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    of: dict[str, Shape] = {"embed": (c.vocab_size, D), "norm": (D,), "head": (c.vocab_size, D)}
    of |= {"attn_norm": (D,), "ffn_norm": (D,), "attn.wq": (q, D), "attn.wk": (kv, D), "attn.wv": (kv, D)}
    of |= {"attn.wo": (D, q), "ffn.gate": (F, D), "ffn.up": (F, D), "ffn.down": (D, F)}

    def inner(ours: str) -> str:
        plain = ours.removesuffix(".weight")
        return plain.split(".", 2)[2] if plain.startswith("layers.") else plain

    return {theirs: of[inner(ours)] for theirs, ours in names(c).items()}


def to_model(config: NanbeigeConfig, state: Mapping[str, Tensor]) -> Sources:
    """The checkpoint's tensors under the model's names."""

    def made(theirs: str) -> Tensor:
        return to_pairs(state[theirs], config.head_dim) if _rotated(theirs) else state[theirs]

    return Sources({ours: partial(made, theirs) for theirs, ours in names(config).items()})


def from_model(config: NanbeigeConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors under the checkpoint's names."""
    return {
        theirs: to_halves(state[ours], config.head_dim) if _rotated(theirs) else state[ours]
        for theirs, ours in names(config).items()
    }


def _rotated(name: str) -> bool:
    return name.endswith(("q_proj.weight", "k_proj.weight"))
