"""Pages and states in tensors where the row graphs run."""

from __future__ import annotations

from typing import Any

import numpy as np

from mythos_runtime.engine.states import ENCODED, HALTED, TOKEN, MirroredStates
from mythos_runtime.spec import LoopSpec


class TorchPlace:
    """Tensors on a device; see `engine.pages.Place`."""

    def __init__(self, torch: Any, device: str) -> None:
        """`torch` is the module."""
        self.torch, self.device = torch, device

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype | str) -> Any:
        dtype = np.dtype(dtype)
        if self.device == "cpu":
            return self.torch.from_numpy(np.zeros(shape, dtype))  # which the system gives as it is touched
        try:
            return self.torch.zeros(shape, dtype=getattr(self.torch, dtype.name), device=self.device)
        except self.torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    def read(self, there: Any) -> np.ndarray:
        array: np.ndarray = there.cpu().numpy()
        return array

    def write(self, array: np.ndarray) -> Any:
        return self.torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class DeviceStates(MirroredStates):
    """Lines of state on a device.

    Attributes:
        arrays: tensors. Their last line is read and written for rows that pad a call.
    """

    spare = 1

    def __init__(self, spec: LoopSpec, lines: int, place: TorchPlace) -> None:
        self.place = place
        super().__init__(spec, lines)

    def _zeros(self, lines: int, row: tuple[int, ...], dtype: str) -> Any:
        return self.place.zeros((lines + self.spare, *row), dtype)

    def begin(self, ids: np.ndarray, encoded: Any, initial: np.ndarray | None = None) -> np.ndarray:
        """As `States.begin`; `encoded` [r, D] is on the device."""
        with self.taken(len(encoded)) as lines:
            at = self.place.write(lines)
            self.arrays[ENCODED][at] = encoded
            self.arrays[TOKEN][at] = self.place.write(ids)
            for tensor in self._tensors:
                held = self.arrays[tensor.name]
                if tensor.start in ("noise", "initial"):
                    assert initial is not None
                    held[at] = self.place.write(initial.astype(tensor.dtype))
                elif tensor.start == "encoded":
                    held[at] = encoded.to(held.dtype)
                else:
                    held[at] = self.place.torch.full_like(held[:1], tensor.start == "ones")
        return lines

    def copy(self, lines: np.ndarray) -> np.ndarray:
        with self.taken(len(lines)) as copies:
            to, of = self.place.write(copies), self.place.write(lines)
            for tensor in self.arrays.values():
                tensor[to] = tensor[of]
        self._copied(lines, copies)
        return copies

    def answers(self, lines: np.ndarray, early: np.ndarray) -> Any:
        answers = self.arrays[self._answer][self.place.write(lines)]
        if self._spent is not None and early.any():
            at, some = self.place.write(lines[early]), self.place.write(np.flatnonzero(early))
            rest = (1 - self.arrays[self._spent][at]).clamp(min=0).masked_fill(self.arrays[HALTED][at], 0)
            answers[some] += rest[:, None] * self.arrays[self._h][at]
        return answers
