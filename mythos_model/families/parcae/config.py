"""The configuration of a Parcae model, by the names of its config.json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mythos_model.errors import ConfigError
from mythos_model.families.family import Shape, only, own_fields

CUT = 3.0  # standard deviations, at which a state drawn like an embedding is cut
CHOICES = {
    "injection_type": ("diagonal", "linear", "add"),
    "state_init": ("like-init", "normal", "embed", "zero"),
    "init_strategy": ("scaled-zero", "scaled", "takase", "takase-scaled"),
    "mlp_class_name": ("BaseMLP", "GatedMLP"),
    "nonlin_name": ("ReLU2", "ReLU", "GELU", "SiLU"),
}
# What says how the model was trained or run, and changes nothing about what is computed.
_UNREAD = [
    "activation_checkpoint_impl",
    "architecture_class_name",
    "attn_impl",
    "curriculum_target",
    "hf_config",
    "init_orthogonal",
    "lockstep_k",
    "lockstep_n",
    "model_class_name",
    "name",
    "padding_multiple",
    "recurrent_iteration_method",
    "sampling_scheme",
    "simple_ops",
    "skip_initialization",
    "strategy",
    "use_fused_head",
    "vocab_size",
]
_CHECKED = [
    "bias",
    "block_class_name",
    "center_attention",
    "clip_qkv",
    "debias_attention",
    "mup_model_scaling_factor",
    "norm_class_name",
    "randomize_positions_from",
    "recurrent_embedding_dimension",
    "recurrent_intermediation_embedding_dimension",
    "recurrent_num_attention_heads",
    "rope_settings",
    "use_abacus",
]


@dataclass(frozen=True)
class ParcaeConfig:
    """Hyper-parameters of Parcae; `rope_base` is the configuration's `rope_settings.rope_base`.

    `init_strategy` is read when the model runs: it says by what embeddings and logits are multiplied, and how the state
    before the first loop is drawn (`state_init`).
    """

    n_embd: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    padded_vocab_size: int
    n_layers_in_prelude: int
    n_layers_in_recurrent_block: int
    n_layers_in_coda: int
    mean_recurrence: int
    mean_backprop_depth: int
    block_size: int = 2048
    norm_eps: float = 1e-5
    rope_base: float = 50000.0
    qk_norm: bool = True
    qk_bias: bool = False
    prelude_norm: bool = True
    tie_embeddings: bool = True
    logit_softcap: float | None = None
    injection_type: str = "diagonal"
    state_init: str = "like-init"
    init_strategy: str = "scaled-zero"
    mlp_class_name: str = "BaseMLP"
    nonlin_name: str = "ReLU2"

    def __post_init__(self) -> None:
        may_be_zero = ("n_layers_in_prelude", "n_layers_in_coda")
        for field in dataclasses.fields(self):
            value, what = getattr(self, field.name), f"the model configuration's {field.name}"
            least = 0 if field.name in may_be_zero else 1
            whole = isinstance(value, int) and not isinstance(value, bool)
            if field.type == "int" and not (whole and least <= value < 1 << 31):
                raise ConfigError(f"{what} should be an integer of at least {least}, found {value!r}")
            if field.type == "bool" and not isinstance(value, bool):
                raise ConfigError(f"{what} should be true or false, found {value!r}")
            number = (whole or isinstance(value, float)) and math.isfinite(value) and value > 0
            if "float" in str(field.type) and value is not None and not number:
                raise ConfigError(f"{what} should be a positive number, found {value!r}")
            if field.name in CHOICES and value not in CHOICES[field.name]:
                raise ConfigError(f"{what} {value!r} is not computed here; {', '.join(CHOICES[field.name])} are")
        if self.n_embd % (2 * self.num_attention_heads) or self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"the model configuration's heads do not fit: n_embd {self.n_embd} in {self.num_attention_heads} heads "
                f"of even width, in {self.num_key_value_heads} groups"
            )

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.num_attention_heads

    @property
    def layers(self) -> int:
        """Those with weights of their own: prelude, core and coda, in this order."""
        return self.n_layers_in_prelude + self.n_layers_in_recurrent_block + self.n_layers_in_coda

    @property
    def tables(self) -> tuple[int, ...]:
        """Layers that have a table of value embeddings: every second one, the last one among them."""
        return tuple(range((self.layers - 1) % 2, self.layers, 2))

    @property
    def gates(self) -> tuple[int, ...]:
        """Layers that have a gate for value embeddings. The reference counts the coda's behind all loops."""
        core = self.n_layers_in_prelude + self.n_layers_in_recurrent_block
        jump = self.n_layers_in_recurrent_block * (self.mean_recurrence - 1)
        parity = (self.n_layers_in_recurrent_block * self.mean_backprop_depth - 1) % 2
        return tuple(j for j in range(self.layers) if (j + (jump if j >= core else 0)) % 2 == parity)

    @property
    def valued(self) -> tuple[int, ...]:
        """Layers whose values depend on the token: those with both. One without the other computes nothing."""
        return tuple(j for j in self.tables if j in self.gates)

    @property
    def embed_scale(self) -> float:
        return math.sqrt(self.n_embd) if self.init_strategy.startswith("takase") else 1.0

    @property
    def logit_scale(self) -> float:
        return math.sqrt(2 / 5 / self.n_embd) if self.init_strategy == "takase-scaled" else 1.0

    @property
    def state_scale(self) -> float:
        """Standard deviation of the state before the first loop."""
        like_init = math.sqrt(2 / (5 * self.n_embd)) * self.embed_scale
        scales = {"like-init": like_init, "normal": 1.0, "embed": self.n_embd**-0.5, "zero": 0.0}
        scale: float = scales[self.state_init]
        return scale

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_config(given: Mapping[str, Any], shapes: Mapping[str, Shape]) -> ParcaeConfig:
    """From a config.json as the project writes it.

    Raises:
        ConfigError: a field is missing, or asks for something that this project does not compute.
    """
    only(given, "bias", (False,), "projections have none")
    only(given, "block_class_name", ("TransformerPreNormBlock",), "blocks are normed before attention and network")
    only(given, "center_attention", (False,), "attention is not centred")
    only(given, "clip_qkv", (None,), "queries, keys and values are not clipped")
    only(given, "debias_attention", (False,), "attention is not debiased")
    only(given, "mup_model_scaling_factor", (1, 1.0), "widths are not scaled")
    only(given, "norm_class_name", ("RMSNorm",), "norms are root mean square norms")
    only(given, "randomize_positions_from", (None,), "positions are those of the tokens")
    only(given, "use_abacus", (False,), "positions are those of the tokens")
    for name, like in (
        ("recurrent_embedding_dimension", "n_embd"),
        ("recurrent_intermediation_embedding_dimension", "intermediate_size"),
        ("recurrent_num_attention_heads", "num_attention_heads"),
    ):
        only(given, name, (given.get(like), None), f"the looped layers are as wide as the others, {like}")
    own = own_fields(ParcaeConfig, given, (*_UNREAD, *_CHECKED))
    rope = given.get("rope_settings") or {}
    if not isinstance(rope, dict):
        raise ConfigError(f"the model configuration's rope_settings should be an object, found {rope!r}")
    only(rope, "use_rope", (True,), "positions are rotary")
    only(rope, "rope_condense_ratio", (1, 1.0), "rotary angles are not scaled")
    own |= own_fields(ParcaeConfig, {name: rope[name] for name in ("rope_base",) if name in rope})
    if "padded_vocab_size" not in own and given.get("vocab_size") is not None:
        own["padded_vocab_size"] = given["vocab_size"]
    needed = [field.name for field in dataclasses.fields(ParcaeConfig) if field.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in own]
    if missing:
        raise ConfigError(
            f"a Parcae checkpoint needs its config.json, which tensors do not replace; missing: {', '.join(missing)}"
        )
    return ParcaeConfig(**own)
