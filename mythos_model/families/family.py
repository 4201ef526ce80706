"""What a family of looped models is to everybody else: one frozen record, in its folder's `__init__.py`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as brief
from typing import Any

from mythos_model.errors import ConfigError, some
from mythos_model.looped import LoopedModel

Shape = tuple[int, ...]

# Fields that whoever writes a folder for the Hugging Face hub adds, and that change nothing about what is computed.
FOREIGN = frozenset(
    (
        "architectures",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "is_decoder",
        "is_encoder_decoder",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "return_dict",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "unk_token_id",
        "use_cache",
    )
)


@dataclass(frozen=True)
class Family:
    """How checkpoints of a family are recognised, and what is made of them.

    Attributes:
        name: of its folder, and what bundles call it.
        model: from a configuration and tensors under the checkpoint's names.
        configuration: the frozen dataclass of its hyper-parameters.
        model_types, class_names: what a config.json says in `model_type`, and in `_class_name` or `architectures`.
        marks: tensors that are in every checkpoint of the family.
        distinct: whether they are in no other's, so that they tell the family where no configuration does.
        read_config: a configuration from what is given (foreign fields included) and the shapes of the tensors.
        shapes: every tensor that a checkpoint has to hold.
        aliases: other names under which a tied tensor may be stored, and the name it is known by; they must be equal.
            What is tied depends on the configuration.
        ignored: tensors that are recomputed, never loaded; patterns such as `model.layers.*.inv_freq`.
        rotary: of those, the rotary tables that the model would use, as patterns too: the base and the channels they
            have to be for.
        counts: fields of the configuration that say how often something with tensors of its own is there.
        variants: named configurations.
        twin: of a configuration, a smaller one for the reduced twin of a model: fewer layers, experts, loops
            and ids, all widths the same, so that the first of the model's own tensors, and of their rows, are its
            weights. None: there is no such configuration.
    """

    name: str
    model: type[LoopedModel]
    configuration: type
    model_types: tuple[str, ...]
    class_names: tuple[str, ...]
    marks: tuple[str, ...]
    read_config: Callable[[Mapping[str, Any], Mapping[str, Shape]], Any]
    shapes: Callable[[Any], Mapping[str, Shape]]
    aliases: Callable[[Any], Mapping[str, str]] = lambda config: {}
    ignored: tuple[str, ...] = ()
    rotary: Callable[[Any], Mapping[str, tuple[float, int]]] = lambda config: {}
    counts: tuple[str, ...] = ()
    distinct: bool = True
    variants: Mapping[str, Any] = field(default_factory=dict)
    twin: Callable[[Any], Any] | None = None

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration says that it is this family's."""
        classes = [config.get("_class_name"), *_texts(config.get("architectures"))]
        return config.get("model_type") in self.model_types or any(name in self.class_names for name in classes)


def front_of(wanted: Collection[str], names: Iterable[str]) -> str | None:
    """What all the wanted names have before them among these, such as "net."; None where there is no such thing."""
    held, first = set(names), min(wanted, key=len)
    fronts = sorted((name.removesuffix(first) for name in held if name.endswith(f".{first}")), key=len)
    return next((front for front in fronts if all(front + name in held for name in wanted)), None)


def fewer(config: Any, **most: int) -> Any:
    """A configuration with at most so many of something, for `Family.twin`."""
    return dataclasses.replace(config, **{name: min(getattr(config, name), count) for name, count in most.items()})


def own_fields(configuration: type, given: Mapping[str, Any], foreign: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a configuration class among those of a config.json, with the types that it declares.

    `null` stands for a field that is absent, 32.0 for an integer; the hub's own fields (`FOREIGN`), `foreign` and names
    that begin with an underscore are passed over.

    Raises:
        ConfigError: fields that nobody knows, with the closest one of each; or values of another type than declared.
    """
    fields = {field.name: field for field in dataclasses.fields(configuration)}
    own: dict[str, Any] = {}
    unknown, wrong = [], []
    for name, value in given.items():
        if name not in fields:
            if name in FOREIGN or name in foreign or name.startswith("_"):
                continue
            close = difflib.get_close_matches(name, fields, 1)
            unknown.append(brief(name) + (f" (did you mean {close[0]}?)" if close else ""))
            continue
        declared = str(fields[name].type)
        if value is None and "None" not in declared:
            continue
        whole = isinstance(value, float) and value.is_integer() and "int" in declared
        own[name] = int(value) if whole else value
        problem = None if value is None else _type_problem(own[name], declared)
        if problem:
            wrong.append(f"{name} {problem}, found {brief(value)}")
    if unknown:
        raise ConfigError(f"unknown fields in the model configuration: {some(unknown)}")
    if wrong:
        raise ConfigError(f"the model configuration does not hold together: {'; '.join(wrong)}")
    return own


def _type_problem(value: Any, declared: str) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if "int" in declared:
        return None if number and isinstance(value, int) and abs(value) < 1 << 31 else "should be an integer of 32 bits"
    if "float" in declared:
        return None if number and abs(value) < 1e30 else "should be a finite number"
    return None if isinstance(value, str) or "str" not in declared else "should be a text"


def only(values: Mapping[str, Any], name: str, allowed: tuple[Any, ...], why: str) -> None:
    """ConfigError where a field that is given has another value than those that this project computes."""
    value = values.get(name, allowed[0])
    if value not in allowed:
        usable = " or ".join(map(repr, allowed))
        found = f"the model configuration has {name} {brief(value)}"
        raise ConfigError(f"{found}, and only {usable} is computed here: {why}")


def plain_rope(given: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with `rope_theta` by itself, wherever a release of transformers has put it.

    Raises:
        ConfigError: its rotary angles are scaled, which no model here computes.
    """
    plain = {name: value for name, value in given.items() if name not in ("rope_scaling", "rope_parameters")}
    for name in ("rope_scaling", "rope_parameters"):
        value = given.get(name)
        if value is None:
            continue
        kind = value.get("rope_type", value.get("type", "default")) if isinstance(value, dict) else value
        extra = sorted(set(value) - {"rope_type", "type", "rope_theta"}) if isinstance(value, dict) else []
        if kind != "default" or extra:
            raise ConfigError(f"the model configuration has {name} {brief(value)}: rotary angles are not scaled here")
        if "rope_theta" in value:
            plain.setdefault("rope_theta", value["rope_theta"])
    return plain


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
