"""The configuration of an Ouro model, by the names of its config.json."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mythos_model.errors import ConfigError
from mythos_model.families.family import Shape, only, own_fields, plain_rope

NEVER = 2.0  # a threshold that no sum of probabilities reaches
EXITS = ("quantile", "weighted")
_UNUSED = ("max_window_layers", "sliding_window", "layer_types", "use_sliding_window", "hidden_act")


@dataclass(frozen=True)
class OuroConfig:
    """Hyper-parameters of Ouro; the defaults are those of its configuration class.

    `exit` is not in a config.json: which of its two rules the export has, `quantile` (the state at which the summed
    probability of leaving reaches the threshold) or `weighted` (the expectation over all states).

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
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    total_ut_steps: int = 4
    early_exit_threshold: float | None = 1.0
    early_exit_step: int | None = None
    exit: str = "quantile"

    def __post_init__(self) -> None:
        for name in [field.name for field in dataclasses.fields(self) if field.type == "int"]:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 31:
                raise ConfigError(f"the model configuration's {name} should be a positive integer, found {value!r}")
        for name in ("rms_norm_eps", "rope_theta", "early_exit_threshold"):
            value = getattr(self, name)
            if value is None and name == "early_exit_threshold":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ConfigError(f"the model configuration's {name} should be a number of at least 0, found {value!r}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"the model configuration's num_attention_heads ({self.num_attention_heads}) is not divisible by "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ConfigError(f"the model configuration's head_dim should be even, found {self.head_dim}")
        if self.exit not in EXITS:
            raise ConfigError(f"Ouro has no exit {self.exit!r}; it has {' and '.join(EXITS)}")
        if self.exit == "weighted" and self.fixed_step is not None:
            raise ConfigError(
                f"early_exit_step {self.fixed_step} says which state answers, so none are weighed: leave out one"
            )

    @property
    def fixed_step(self) -> int | None:
        """The step whose state answers, counted from 0, where the configuration fixes one."""
        step = self.early_exit_step
        return step if step is not None and 0 <= step < self.total_ut_steps else None

    @property
    def loops(self) -> int:
        """Passes that are run: as trained, or up to the step that answers."""
        return self.total_ut_steps if self.fixed_step is None else self.fixed_step + 1

    @property
    def threshold(self) -> float:
        """Of the summed probability of leaving; `NEVER` where the last state answers."""
        if self.early_exit_threshold is None or self.fixed_step is not None:
            return NEVER
        return float(self.early_exit_threshold)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_config(given: Mapping[str, Any], shapes: Mapping[str, Shape]) -> OuroConfig:
    """From a config.json as the hub has it; the tensors tell nothing that it does not say.

    Raises:
        ConfigError: a field is missing, or asks for something that this project does not compute.
    """
    only(given, "hidden_act", ("silu",), "the feed-forward network is a SwiGLU")
    only(given, "use_sliding_window", (False,), "attention sees the whole past")
    only(given, "tie_word_embeddings", (False,), "the head has weights of its own")
    kinds = given.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise ConfigError("the model configuration has layer_types other than full_attention, the only one here")
    own = own_fields(OuroConfig, plain_rope(given), (*_UNUSED, "tie_word_embeddings"))
    if "num_attention_heads" in own:
        own.setdefault("num_key_value_heads", own["num_attention_heads"])
        if "hidden_size" in own:
            own.setdefault("head_dim", own["hidden_size"] // max(own["num_attention_heads"], 1))
    needed = [field.name for field in dataclasses.fields(OuroConfig) if field.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in own]
    if missing:
        raise ConfigError(
            f"an Ouro checkpoint needs its config.json, which the tensors do not replace; missing: {', '.join(missing)}"
        )
    return OuroConfig(**own)
