"""JSON as people write it, and nothing that may be read in two ways."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mythos_model.checkpoint.files import check_regular
from mythos_model.checkpoint.pickled import Opaque
from mythos_model.errors import ConfigError, ModelError, shown

LARGEST_CONFIG, LARGEST_INDEX = 16 << 20, 256 << 20
_DIGITS = 40  # more than any number that a configuration holds; tokenizer_config.json has one of 31
_DEEPEST, _LARGEST = 16, 100_000


def read_json(path: Path, largest: int = LARGEST_CONFIG, refused: type[ModelError] = ConfigError) -> Any:
    """The value in a JSON file, in UTF-8 with or without a byte order mark, or in UTF-16.

    Raises:
        refused: not readable, larger than `largest` bytes, no JSON, nested too deeply, or with a key twice.
    """
    try:
        size = check_regular(path).st_size
        if size > largest:
            raise refused(f"{path} has {size} bytes; a file of this kind has at most {largest}")
        data = path.read_bytes()
        return json.loads(data.decode(json.detect_encoding(data)), object_pairs_hook=no_key_twice, parse_int=_int)
    except RecursionError:
        raise refused(f"{path} is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise refused(f"cannot read {path}: {error}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file (a model's configuration, or some of its fields). Raises ConfigError."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} should hold a JSON object with the model's fields, not a {type(values).__name__}")
    fields: dict[str, Any] = plain(values, path)
    return fields


def plain(value: Any, path: Path) -> Any:
    """A configuration as plain JSON values: objects become dictionaries of their fields, or else their class's name.

    What is shared is copied as often as it is met, so that printing the result is safe.

    Raises:
        ConfigError: deeper or larger than any configuration is, or with itself inside.
    """
    left = _LARGEST

    def walk(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > _DEEPEST:
            raise ConfigError(f"{path}: the configuration is nested too deeply or holds too many values to be one")
        if isinstance(value, Opaque) and value.fields:
            value = value.fields
        if isinstance(value, dict):
            return {name: walk(inner, depth + 1) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(inner, depth + 1) for inner in value]
        if isinstance(value, int) and value.bit_length() > 4 * _DIGITS:
            raise ConfigError(f"{path}: the configuration holds a number of {value.bit_length()} bits")
        return value if value is None or isinstance(value, (str, int, float)) else shown(str(value))

    return walk(value, 0)


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. Raises ValueError, with the key's name."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{shown(twice)} stands in it twice, and one would win silently")
    return values


def _int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"it holds a number of {len(text)} digits")
    return int(text)
