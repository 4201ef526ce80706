"""Nanbeige 4.2 (card.md): a decoder run twice over, its final norm between the passes."""

from mythos_model.families.family import Family, fewer
from mythos_model.families.halves import FREQUENCIES
from mythos_model.families.nanbeige.config import NanbeigeConfig, read_config
from mythos_model.families.nanbeige.model import Nanbeige
from mythos_model.families.nanbeige.names import shapes

FAMILY = Family(
    name="nanbeige",
    model=Nanbeige,
    configuration=NanbeigeConfig,
    model_types=("nanbeige",),
    class_names=("NanbeigeConfig", "NanbeigeForCausalLM"),
    marks=("model.layers.0.post_attention_layernorm.weight", "model.layers.0.self_attn.q_proj.weight"),
    distinct=False,
    read_config=read_config,
    shapes=shapes,
    aliases=lambda config: {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
    ignored=(FREQUENCIES,),
    rotary=lambda config: {FREQUENCIES: (config.rope_theta, config.head_dim)},
    counts=("num_hidden_layers",),
    twin=lambda config: fewer(config, num_hidden_layers=2, vocab_size=512),
)

__all__ = ["FAMILY", "Nanbeige", "NanbeigeConfig"]
