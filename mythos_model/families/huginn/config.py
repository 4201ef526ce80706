"""The configuration of a Huginn model ("Raven"), by the names of its config.json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mythos_model.errors import ConfigError
from mythos_model.families.family import Shape, only, own_fields

EXITS = ("latent-diff", "cosine", "entropy-diff", "kl", "minp-kl", "argmax-stability")
NEVER = 1e6  # loops in a row that nobody runs
CUT = 3.0  # standard deviations, at which the initial state is cut
# What the training code notes, and the model's file does not read; what follows from other fields is held to them.
_UNREAD = [
    "activation_checkpoint_impl",
    "architecture_class_name",
    "effective_expected_depth",
    "head_dim",
    "init_orthogonal",
    "init_strategy",
    "mean_backprop_depth",
    "n_layers",
    "num_key_value_heads",
    "padding_multiple",
    "sampling_scheme",
    "test_time_noise_type",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_size",
    "vocab_size",
    "max_position_embeddings",
]
_CHECKED = [
    "bias",
    "block_class_name",
    "init_values",
    "injection_type",
    "mlp_class_name",
    "nonlin_name",
    "norm_class_name",
    "qk_bias",
    "state_init",
    "test_time_noise",
    "tie_embeddings",
    "tie_word_embeddings",
]


@dataclass(frozen=True)
class HuginnConfig:
    """Hyper-parameters of Huginn.

    Attributes:
        init_std: standard deviation of an embedding, by which the initial state is drawn (times sqrt(n_embd)).
        init_scale: a factor on it; 0 makes the state before the first loop zero, and the model deterministic.
        exit: which exit rule the export has, one of `EXITS`; none is in a config.json.
        exit_threshold: its default; None never leaves, as the reference's plain generation does not.
    """

    n_embd: int
    n_heads: int
    intermediate_size: int
    padded_vocab_size: int
    block_size: int
    n_layers_in_prelude: int
    n_layers_in_recurrent_block: int
    n_layers_in_coda: int
    mean_recurrence: int
    init_std: float
    norm_eps: float = 1e-6
    rope_base: float = 50000.0
    init_scale: float = 1.0
    exit: str = "latent-diff"
    exit_threshold: float | None = None

    def __post_init__(self) -> None:
        may_be_zero = ("n_layers_in_prelude", "n_layers_in_coda")
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name in may_be_zero else 1
            if field.type == "int" and (
                isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 31
            ):
                raise ConfigError(f"the model configuration's {field.name} should be an integer, found {value!r}")
            if (
                "float" in str(field.type)
                and value is not None
                and (
                    isinstance(value, bool)
                    or not isinstance(value, int | float)
                    or not math.isfinite(value)
                    or value < 0
                )
            ):
                raise ConfigError(f"the model configuration's {field.name} should be at least 0, found {value!r}")
        if self.n_embd % (2 * self.n_heads):
            raise ConfigError(f"the model configuration's n_embd ({self.n_embd}) gives no even width for n_heads heads")
        if self.exit not in EXITS:
            raise ConfigError(f"Huginn has no exit {self.exit!r} here; it has {' and '.join(EXITS)}")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_heads

    @property
    def threshold(self) -> float:
        """Of the exit rule; where none is given, one that nothing reaches: changes are not below 0."""
        if self.exit_threshold is not None:
            return float(self.exit_threshold)
        return NEVER if self.exit == "argmax-stability" else 0.0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_config(given: Mapping[str, Any], shapes: Mapping[str, Shape]) -> HuginnConfig:
    """From a config.json as the hub has it.

    Raises:
        ConfigError: a field is missing, or asks for something that this project does not compute.
    """
    only(given, "block_class_name", ("SandwichBlock",), "blocks are normed before and after")
    only(given, "norm_class_name", ("RMSNorm_llama", "RMSNorm"), "norms are root mean square norms")
    only(given, "mlp_class_name", ("GatedMLP",), "the feed-forward network is gated")
    only(given, "nonlin_name", ("SiLU",), "the feed-forward network is a SwiGLU")
    only(given, "injection_type", ("linear",), "state and embedding go through one linear map")
    only(given, "state_init", ("like-init",), "the initial state is drawn like an embedding")
    only(given, "qk_bias", (True,), "queries and keys have a bias")
    only(given, "bias", (False,), "projections have none")
    only(given, "tie_embeddings", (True,), "the head is the embedding")
    only(given, "tie_word_embeddings", (True,), "the head is the embedding")
    only(given, "test_time_noise", (0, 0.0), "nothing is added to the state between loops")
    own = own_fields(HuginnConfig, given, (*_UNREAD, *_CHECKED))
    for name, older in (
        ("n_heads", "num_attention_heads"),
        ("n_embd", "hidden_size"),
        ("padded_vocab_size", "vocab_size"),
    ):
        if given.get(older) is not None:
            own.setdefault(name, given[older])
    if "n_embd" in own:
        stored = given.get("init_values")
        std = stored.get("std") if isinstance(stored, dict) else None
        if std is None and isinstance(own["n_embd"], int) and own["n_embd"] > 0:
            std = math.sqrt(2 / (5 * own["n_embd"]))
        if std is not None:
            own.setdefault("init_std", std)
    needed = [field.name for field in dataclasses.fields(HuginnConfig) if field.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in own]
    if missing:
        raise ConfigError(
            f"a Huginn checkpoint needs its config.json, which tensors do not replace; missing: {', '.join(missing)}"
        )
    made = HuginnConfig(**own)
    _agree(made, given)
    return made


def _agree(made: HuginnConfig, given: Mapping[str, Any]) -> None:
    """What follows from other fields may be said a second time, and then has to be the same (ConfigError)."""
    layers = made.n_layers_in_prelude + made.n_layers_in_recurrent_block + made.n_layers_in_coda
    for name, value, of in (
        ("n_layers", layers, "the layers before, in and behind the block"),
        ("head_dim", made.head_dim, "n_embd over n_heads"),
        ("num_key_value_heads", made.n_heads, "n_heads: every head has keys of its own"),
        ("num_attention_heads", made.n_heads, "n_heads"),
        ("hidden_size", made.n_embd, "n_embd"),
    ):
        if given.get(name, value) not in (value, None):
            raise ConfigError(f"the model configuration's {name} is {given[name]!r}, expected {value}: {of}")
