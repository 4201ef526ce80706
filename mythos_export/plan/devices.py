"""What devices have and do at best: presets by their makers' figures, and this machine as it is measured.

Rates of multiplying are those of dense float16 products (float32 accumulation), without sparsity; of processors, which
take longer for that than for float32, those of float32. Memory is per device, in powers of ten as it is sold.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

from mythos_export.errors import PlanError


@dataclass(frozen=True)
class Device:
    """One device, `count` of them in a box.

    Attributes:
        memory: bytes. read: bytes per second. multiply: FLOP per second. All of one.
        measured: whether the rates were measured, not read.
    """

    name: str
    memory: float
    read: float
    multiply: float
    count: int = 1
    measured: bool = False


def _device(name: str, memory_gb: float, read_gb: float, tera: float, count: int = 1) -> Device:
    return Device(name, memory_gb * 1e9, read_gb * 1e9, tera * 1e12, count)


PRESETS = {
    device.name: device
    for device in (
        _device("l4", 24, 300, 121),
        _device("a10", 24, 600, 125),
        _device("rtx-3090", 24, 936, 71),
        _device("rtx-4090", 24, 1008, 165),
        _device("rtx-5090", 32, 1792, 209),
        _device("l40s", 48, 864, 362),
        _device("a100-40gb", 40, 1555, 312),
        _device("a100-80gb", 80, 2039, 312),
        _device("h100", 80, 3350, 989),
        _device("h200", 141, 4800, 989),
        _device("b200", 180, 8000, 2250),
        _device("mi300x", 192, 5300, 1307),
        _device("dgx-spark", 128, 273, 62),
        _device("m4-max", 128, 546, 34),
        _device("m3-ultra", 512, 819, 57),
        _device("desktop-ddr5", 64, 90, 1.5),
        _device("epyc-12ch-ddr5", 768, 460, 5),
        _device("8xa100-80gb", 80, 2039, 312, 8),
        _device("8xh100", 80, 3350, 989, 8),
        _device("8xh200", 141, 4800, 989, 8),
        _device("8xb200", 180, 8000, 2250, 8),
    )
}
THIS = "this"
_READ = 192 << 20  # bytes: more than any cache holds
_SQUARE = 768


def find_device(name: str) -> Device:
    """A preset, NUMBERxPRESET, or `this`. Raises PlanError."""
    plain = name.lower()
    if plain == THIS:
        return measure()
    if plain in PRESETS:
        return PRESETS[plain]
    count, times, one = plain.partition("x")
    if times and count.isdecimal() and one in PRESETS and 1 <= int(count) * PRESETS[one].count <= 1 << 16:
        return replace(PRESETS[one], name=plain, count=int(count) * PRESETS[one].count)
    raise PlanError(f"there is no device {name!r}; there are {', '.join(PRESETS)}, NUMBERx any of them, and {THIS}")


def measure() -> Device:
    """This machine: the best of a few sums over more memory than its caches hold, and of a few products, in float32, on
    the cores that this process may use. It takes half a second, and 200 MB meanwhile."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = np.ones(_READ // 8)
    parts = np.array_split(memory, cores)
    square = np.ones((_SQUARE, _SQUARE), np.float32)
    with ThreadPoolExecutor(cores) as pool:

        def read() -> None:
            list(pool.map(np.sum, parts))

        rate = memory.nbytes / min(_time(read) for _ in range(4))
    multiply = 2 * _SQUARE**3 / min(_time(lambda: np.matmul(square, square)) for _ in range(4))
    return Device(f"this machine, {cores} cores", float(psutil.virtual_memory().total), rate, multiply, 1, True)


def _time(call: object) -> float:
    started = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - started
