"""The configuration of a Nanbeige 4.2 model, by the names of its config.json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mythos_model.errors import ConfigError
from mythos_model.families.family import Shape, only, own_fields, plain_rope

_UNUSED = ["kv_channels", "mlp_bias", "attention_bias", "hidden_act", "pretraining_tp", "loop_loss_weights"]
# What the model's file can do and no released configuration asks for.
_OFF = {
    "emb_neighbor_num": "n-gram embeddings",
    "emb_split_num": "n-gram embeddings",
    "ngram_vocab_size_ratio": "n-gram embeddings",
    "insert_ngram_layer_idx": "n-gram embeddings",
    "ngram_insert_all_layers": "n-gram embeddings",
    "enable_double_loop_split": "layers that are looped and layers that are not",
    "loop_middle_layers": "layers that are looped and layers that are not",
    "loop_share_kv": "keys and values that loops share",
    "enable_hyper_connection": "hyper-connections",
    "enable_mhc": "hyper-connections",
    "enable_depth_attention": "attention over depth",
    "qk_layernorm": "normed queries and keys",
}


@dataclass(frozen=True)
class NanbeigeConfig:
    """Hyper-parameters of Nanbeige 4.2; the defaults are those of its configuration class.

    Raises:
        ConfigError: a value has the wrong type, or the fields contradict each other.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    rope_theta: float = 50000.0
    num_loops: int = 2
    skip_loop_final_norm: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, what = getattr(self, field.name), f"the model configuration's {field.name}"
            whole = isinstance(value, int) and not isinstance(value, bool)
            if field.type == "int" and not (whole and 1 <= value < 1 << 31):
                raise ConfigError(f"{what} should be a positive integer, found {value!r}")
            if field.type == "bool" and not isinstance(value, bool):
                raise ConfigError(f"{what} should be true or false, found {value!r}")
            number = whole or isinstance(value, float)
            if field.type == "float" and not (number and math.isfinite(value) and value > 0):
                raise ConfigError(f"{what} should be a positive number, found {value!r}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"the model configuration's num_attention_heads ({self.num_attention_heads}) is not divisible by "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ConfigError(f"the model configuration's head_dim should be even, found {self.head_dim}")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_config(given: Mapping[str, Any], shapes: Mapping[str, Shape]) -> NanbeigeConfig:
    """From a config.json as the hub has it; the tensors tell nothing that it does not say.

    Raises:
        ConfigError: a field is missing, or asks for something that this project does not compute.
    """
    only(given, "hidden_act", ("silu",), "the feed-forward network is a SwiGLU")
    only(given, "attention_bias", (False, None), "projections have no bias")
    only(given, "mlp_bias", (False, None), "projections have no bias")
    only(given, "pretraining_tp", (1, None), "matrices are not cut, which would round differently")
    on = [f"{name} ({what})" for name, what in _OFF.items() if given.get(name)]
    if on:
        raise ConfigError(f"the model configuration asks for what no released model has: {', '.join(on)}")
    weights = given.get("loop_loss_weights") or []
    if not isinstance(weights, list) or (weights and len(weights) + 1 != given.get("num_loops")):
        raise ConfigError(
            "the model configuration's loop_loss_weights say another number of loops than num_loops, and what runs "
            "this model elsewhere does not agree on which of them counts; give --config with loop_loss_weights []"
        )
    own = own_fields(NanbeigeConfig, plain_rope(given), (*_UNUSED, *_OFF))
    if "num_attention_heads" in own:
        own.setdefault("num_key_value_heads", own["num_attention_heads"])
        if "hidden_size" in own:
            own.setdefault("head_dim", own["hidden_size"] // max(own["num_attention_heads"], 1))
    needed = [field.name for field in dataclasses.fields(NanbeigeConfig) if field.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in own]
    if missing:
        raise ConfigError(
            f"a Nanbeige checkpoint needs its config.json, which tensors do not replace; missing: {', '.join(missing)}"
        )
    return NanbeigeConfig(**own)
