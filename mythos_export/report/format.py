"""Numbers as people read them; also filters of the templates."""

from __future__ import annotations

import math
from collections.abc import Callable


def seconds(value: float) -> str:
    """1.23 s, 4.56 ms, 7.8 µs: three digits and the unit that suits."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= factor:
            return f"{_three_digits(value / factor)} {unit}"
    return f"{_three_digits(value / 1e-9)} ns" if value else "0 s"


def size(value: float) -> str:
    """Bytes in powers of 1000: 12.3 MB."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= factor:
            return f"{_three_digits(value / factor)} {unit}"
    return f"{value:.0f} B"


def error(value: float) -> str:
    """An error or a tolerance: two digits and a power of ten; 0 where there is none."""
    return f"{value:.1e}" if value else "0"


def percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _three_digits(value: float) -> str:
    digits = 2 - math.floor(math.log10(abs(value))) if value else 2
    return f"{value:.{min(max(digits, 0), 2)}f}"


FILTERS: dict[str, Callable[[float], str]] = {
    "seconds": seconds,
    "bytes": size,
    "error": error,
    "percent": percent,
}
