"""Strict reading of parsed JSON: every value is asked for by name and type, and nothing is left over.

Every error is one sentence that names the field, as `targets[0].files[2]`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from mythos_runtime.errors import BundleError

MAX_JSON_BYTES = 4 << 20
MAX_JSON_DEPTH = 32
MAX_INTEGER = (1 << 63) - 1  # what a C++ reader can hold

_REQUIRED: Any = object()

# What a terminal or a file system does not show as it stands: controls, soft hyphen, invisible and direction marks,
# line separators, surrogates. A list of our own, so that C++ has the same (text.cpp) and no Unicode version matters.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\xa0\xad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


def is_printable(text: str) -> bool:
    """Whether text may stand in a manifest: one line that looks like what it is, and that UTF-8 can hold."""
    return _UNPRINTABLE.search(text) is None


def parse_json(text: bytes, where: str) -> Any:
    """Parse JSON that a stranger may have written: UTF-8, no NaN, no repeated names, bounded size and depth.

    Both runtimes take and refuse the same documents; what is no JSON at all each says in its own library's words.
    """
    if len(text) > MAX_JSON_BYTES:
        raise BundleError(f"{where} has {len(text)} bytes, more than the {MAX_JSON_BYTES} that a manifest may have")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            repeated = next(name for name, count in Counter(name for name, _ in items).items() if count > 1)
            raise BundleError(f"{where} repeats the field {shown(repeated)} in one object")
        return found

    def constant(name: str) -> Any:
        raise BundleError(f"{where} holds {name}, which is not JSON")

    def finite(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            raise BundleError(f"{where} holds {digits[:30]}, which is too large for a number")
        return number

    def whole(digits: str) -> int:
        finite(digits)
        return int(digits)

    try:
        value = json.loads(
            text.decode("utf-8-sig"),
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_float=finite,
            parse_int=whole,
        )
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not valid JSON: {str(error)[:200]}") from None
    _check_depth(value, where)
    return value


def _check_depth(value: Any, where: str) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise BundleError(f"{where} nests deeper than {MAX_JSON_DEPTH} levels")


def _children(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        yield from item.values()
    elif isinstance(item, list):
        yield from item


def shown(value: Any) -> str:
    """A value as it may stand in an error: short, on one line, printable."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "an integer", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


class Fields:
    """One JSON object, read field by field. `done()` refuses what was not asked for."""

    def __init__(self, value: Any, where: str, prefix: str = "") -> None:
        """`where` names the file, `prefix` the object in it ('' at the top)."""
        self.where, self._prefix = where, prefix
        if not isinstance(value, dict):
            at = f"the field {prefix}" if prefix else "the file"
            raise BundleError(f"{where}: {at} should be an object, found {kind(value)} ({shown(value)})")
        self._values = dict(value)

    def name(self, field: str | int) -> str:
        if isinstance(field, int):
            return f"{self._prefix}[{field}]"
        plain = field.isidentifier() and field.isascii()
        if not plain:
            return f"{self._prefix}[{shown(field)}]"
        return f"{self._prefix}.{field}" if self._prefix else field

    def fail(self, field: str, expected: str, value: Any) -> BundleError:
        return BundleError(f"{self.where}: the field {self.name(field)} should be {expected}, found {shown(value)}")

    def take(self, field: str, default: Any = _REQUIRED) -> Any:
        if field in self._values:
            return self._values.pop(field)
        if default is _REQUIRED:
            raise BundleError(f"{self.where}: the field {self.name(field)} is missing")
        return default

    def peek(self, field: str) -> Any:
        """The value under a field that stays to be read; None where it is absent."""
        return self._values.get(field)

    def names(self) -> list[str]:
        """The fields not read yet, in the file's order."""
        return list(self._values)

    def text(self, field: str, default: Any = _REQUIRED) -> str:
        value = self.take(field, default)
        if not isinstance(value, str) or not value:
            raise self.fail(field, "non-empty text", value)
        if not is_printable(value):
            raise self.fail(field, "printable text on one line", value)
        return value

    def optional_text(self, field: str) -> str | None:
        if self.peek(field) is None:
            self.take(field, None)
            return None
        return self.text(field)

    def integer(self, field: str, least: int = 0, most: int = MAX_INTEGER) -> int:
        value = self.take(field)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.fail(field, f"an integer from {least} to {most}", value)
        return value

    def number(self, field: str) -> float:
        value = self.take(field)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(field, "a number", value)
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        if math.isinf(number):
            raise self.fail(field, "a finite number", value)
        return number

    def optional_number(self, field: str) -> float | None:
        if self.peek(field) is None:
            self.take(field, None)
            return None
        return self.number(field)

    def boolean(self, field: str) -> bool:
        value = self.take(field)
        if not isinstance(value, bool):
            raise self.fail(field, "true or false", value)
        return value

    def choice(self, field: str, choices: tuple[str, ...]) -> str:
        value = self.take(field)
        if not isinstance(value, str) or value not in choices:
            raise self.fail(field, "one of " + ", ".join(choices), value)
        return value

    def listed(self, field: str) -> list[Any]:
        value = self.take(field)
        if not isinstance(value, list):
            raise self.fail(field, "a list", value)
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        values = self.listed(field)
        for index, value in enumerate(values):
            if not isinstance(value, str) or not value or not is_printable(value):
                raise self.fail(field, f"a list of printable texts (item {index})", value)
        return tuple(values)

    def mapping(self, field: str, default: Any = _REQUIRED) -> dict[str, Any]:
        value = self.take(field, default)
        if not isinstance(value, dict):
            raise self.fail(field, "an object", value)
        return value

    def inner(self, field: str) -> Fields:
        """The object under a field, to be read in its turn."""
        return Fields(self.take(field), self.where, self.name(field))

    def items(self, field: str) -> Iterator[Fields]:
        """The objects of a list."""
        name = self.name(field)
        for index, value in enumerate(self.listed(field)):
            yield Fields(value, self.where, f"{name}[{index}]")

    def done(self) -> None:
        for field in self._values:
            raise BundleError(f"{self.where}: the field {self.name(field)} is unknown to this version of the format")
