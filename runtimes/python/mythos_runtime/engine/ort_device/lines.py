"""Lines of pools on a device, moved by the bundle's graphs for that (`mythos_runtime.line_ports`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mythos_runtime.engine.ort_device.device import Bound, Buffer, OrtDevice
from mythos_runtime.engine.ort_device.pools import Pool
from mythos_runtime.line_ports import CROSS, PUT, PUT_BYTES, REST, TAKE, TAKE_BYTES, line_ports
from mythos_runtime.ort import OrtSession
from mythos_runtime.ports import Ports, numpy_dtype
from mythos_runtime.spec import LoopSpec

_MOST_BYTES = 64 << 20  # that are moved at a time, through a buffer of as many

Open = Callable[[str, Ports], OrtSession]
"""One of these graphs by its name, with its ports."""


class LineGraphs:
    """What moves lines.

    Attributes:
        most_rows: of a call of the row graphs.
        rows: what stands in the batch that `taking` fills, by name: [most_rows, ...] each.
        ahead: the same of what the step makes of it.
        answered: what `resting` makes.
    """

    def __init__(self, spec: LoopSpec, device: OrtDevice, open_graph: Open, most_rows: int) -> None:
        """
        Args:
            spec: whose states are moved.
            open_graph: called once with each of `line_ports(spec)` but `cross`.
            most_rows: of a call, whose batches are made at once.

        Raises:
            MemoryError: the device has no room for them.
            BackendFailed: see `OrtDevice.empty`.
        """
        self.device, self.most_rows = device, most_rows
        self._ports = {name: ports for name, ports in line_ports(spec).items() if name != CROSS}
        self._sessions = {name: open_graph(name, ports) for name, ports in self._ports.items()}
        self._own = {
            str(port.group): (port.dtype, tuple(dim for dim in port.dims if isinstance(dim, int)))
            for port in self._ports[TAKE].outputs
        }
        self.rows = {name: self.batch(name) for name in self._own}
        self.ahead = {tensor.name: self.batch(tensor.name) for tensor in spec.state}
        self.answered = self.batch(spec.state[1].name) if REST in self._ports else None

    def batch(self, name: str, fill: int | None = None) -> Buffer:
        """A batch of rows of a name, [most_rows, ...], each value of it `fill`; None: anything."""
        dtype, own = self._own[name]
        shape = (self.most_rows, *own)
        if fill is None:
            return self.device.empty(shape, dtype)
        return self.device.put(np.full(shape, fill, numpy_dtype(dtype)))

    def taking(self, pools: Mapping[str, Pool], lines: int, count: int) -> Bound:
        """Copies lines of every pool into `rows`; `lines` is the address of their numbers, int64 [count]."""
        addresses = {f"{name}_pool": pool.address for name, pool in pools.items()} | {"lines": lines}
        addresses |= {name: buffer.address for name, buffer in self.rows.items()}
        return self._bound(TAKE, addresses, {"R": count, "L": _lines_of(pools)})

    def putting(self, pools: Mapping[str, Pool], lines: int, count: int, rows: Mapping[str, int]) -> Bound:
        """Copies rows, by name and address, into lines of every pool."""
        addresses = {f"{name}_pool": pool.address for name, pool in pools.items()} | {"lines": lines, **rows}
        addresses |= {f"{name}_next": address for name, address in addresses.items() if name.endswith("_pool")}
        return self._bound(PUT, addresses, {"R": count, "L": _lines_of(pools)})

    def resting(self, early: int, count: int) -> Bound:
        """Makes `answered` of `rows`; `early` is the address of which leave early, bool [count]."""
        assert self.answered is not None
        addresses = {name: buffer.address for name, buffer in self.rows.items()}
        return self._bound(REST, {**addresses, "early": early, "answered": self.answered.address}, {"R": count})

    def move(self, target: Buffer, to: np.ndarray, source: Buffer, of: np.ndarray, width: int) -> None:
        """Lines `of` [n] of a buffer, as lines of `width` bytes, to lines `to` [n] of another one, or of the same."""
        for some in _pieces(len(to), width):
            self.write(target, to[some], self.taken(source, of[some], width))

    def clear(self, target: Buffer, width: int) -> None:
        """All of a buffer, as lines of `width` bytes, to zeros."""
        pieces = _pieces(target.nbytes // width, width)
        zeros = self.device.put(np.zeros((pieces[0].stop, width), np.int8)) if pieces else None
        for some in pieces:
            assert zeros is not None
            self.write(target, np.arange(some.start, some.stop), zeros)

    def read(self, source: Buffer, lines: np.ndarray, width: int) -> np.ndarray:
        """Lines [n] of a buffer on the host, int8 [n, width]."""
        found = np.empty((len(lines), width), np.int8)
        for some in _pieces(len(lines), width):
            found[some] = self.device.read(self.taken(source, lines[some], width))
        return found

    def put(self, target: Buffer, lines: np.ndarray, rows: np.ndarray) -> None:
        """Set lines [n] of a buffer to rows of the host, int8 [n, width]."""
        for some in _pieces(len(lines), rows.shape[1]):
            self.write(target, lines[some], self.device.put(rows[some]))

    def taken(self, source: Buffer, lines: np.ndarray, width: int) -> Buffer:
        """Lines [n] of a buffer, n > 0: int8 [n, width]."""
        rows, numbers = self.device.empty((len(lines), width), "int8"), self.device.put(lines)
        addresses = {"pool": source.address, "lines": numbers.address, "rows": rows.address}
        self._bound(TAKE_BYTES, addresses, {"R": len(lines), "L": source.nbytes // width, "B": width})()
        return rows

    def write(self, target: Buffer, lines: np.ndarray, rows: Buffer) -> None:
        """Set lines [n] of a buffer, n > 0, to the first n rows of int8 [n or more, width]."""
        width, numbers = rows.shape[1], self.device.put(lines)
        addresses = {"pool": target.address, "pool_next": target.address}
        addresses |= {"lines": numbers.address, "rows": rows.address}
        self._bound(PUT_BYTES, addresses, {"R": len(lines), "L": target.nbytes // width, "B": width})()

    def _bound(self, graph: str, addresses: Mapping[str, int], sizes: Mapping[str, int]) -> Bound:
        return self.device.bound(self._sessions[graph], self._ports[graph], addresses, sizes)


def _lines_of(pools: Mapping[str, Pool]) -> int:
    return next(iter(pools.values())).shape[0]


def _pieces(count: int, width: int) -> list[slice]:
    most = max(_MOST_BYTES // max(width, 1), 1)
    return [slice(first, min(first + most, count)) for first in range(0, count, most)]
