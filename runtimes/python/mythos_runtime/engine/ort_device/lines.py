"""Lines of pools on a device, moved by the bundle's graphs for that (`mythos_runtime.line_ports`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mythos_runtime.engine.ort_device.device import Buffer, OrtDevice
from mythos_runtime.line_ports import PUT_BYTES, TAKE_BYTES, move_ports
from mythos_runtime.ort import OrtSession
from mythos_runtime.ports import Ports

_MOST_BYTES = 64 << 20  # that are moved at a time, through a buffer of as many

Open = Callable[[str, Ports], OrtSession]
"""One of these graphs by its name, with its ports."""


class LineGraphs:
    """What moves lines of bytes: for forks, pages that are shared, and what the host reads and writes."""

    def __init__(self, device: OrtDevice, open_graph: Open) -> None:
        """`open_graph`: called once with each of `move_ports()`."""
        self.device = device
        self._ports = move_ports()
        self._sessions = {name: open_graph(name, ports) for name, ports in self._ports.items()}

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
        self._run(TAKE_BYTES, addresses, {"R": len(lines), "L": source.nbytes // width, "B": width})
        return rows

    def write(self, target: Buffer, lines: np.ndarray, rows: Buffer) -> None:
        """Set lines [n] of a buffer, n > 0, to the first n rows of int8 [n or more, width]."""
        width, numbers = rows.shape[1], self.device.put(lines)
        addresses = {"pool": target.address, "pool_next": target.address}
        addresses |= {"lines": numbers.address, "rows": rows.address}
        self._run(PUT_BYTES, addresses, {"R": len(lines), "L": target.nbytes // width, "B": width})

    def _run(self, graph: str, addresses: Mapping[str, int], sizes: Mapping[str, int]) -> None:
        self.device.bound(self._sessions[graph], self._ports[graph], addresses, sizes)()


def _pieces(count: int, width: int) -> list[slice]:
    most = max(_MOST_BYTES // max(width, 1), 1)
    return [slice(first, min(first + most, count)) for first in range(0, count, most)]
