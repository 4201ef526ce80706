"""A loop whose iterations are captured once: what they carry and read has addresses of its own, and stays.

loop = DeviceLoop(condition, body, carried, extras, graphs)
loop.run(carried, extras)                   # until `condition` says no, on the device
loop.run_driven(carried, extras)            # the same, the host asks after every iteration
loop.run_fixed(carried, extras, 8)          # eight iterations, whatever the condition says
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mythos_runtime.device_loop.graphs import Graphs

Tensors = Sequence[Any]
_WARM = 2  # iterations before the capture, which loads kernels and takes memory


class DeviceLoop:
    """`while condition(*carried, *extras): carried = body(*carried, *extras)`, on tensors of these shapes."""

    def __init__(
        self,
        condition: Callable[..., Any],
        body: Callable[..., Tensors],
        carried: Tensors,
        extras: Tensors,
        graphs: Graphs,
        stays: Sequence[bool] | None = None,
    ) -> None:
        """Nothing is captured before it is run.

        Args:
            condition: -> bool [].
            body: -> tensors like `carried`. It may not look at values: it is run to be captured.
            stays: of every extra, whether it is the same tensor in every call, such as a weight; the others are copied
                into memory of the loop's own.
        """
        self._condition, self._body, self._graphs = condition, body, graphs
        self._stays = tuple(stays) if stays is not None else (False,) * len(extras)
        self.carried = [tensor.clone() for tensor in carried]
        self._extras = [tensor if stay else tensor.clone() for tensor, stay in zip(extras, self._stays, strict=True)]
        with graphs.private():
            self._flag = condition(*self.carried, *self._extras).clone()
            for _ in range(_WARM):
                self._iteration()
                self._put(carried, extras)
        self._whole: Any = None
        self._step: Any = None
        self._fixed: dict[int, Any] = {}

    def run(self, carried: Tensors, extras: Tensors) -> list[Any]:
        """From these values to the end; nothing is read back. Returns what is carried then."""
        if self._whole is None:
            with self._graphs.private():
                self._whole = self._graphs.capture_while(self._flag, self._iteration)
        self._put(carried, extras)
        self._graphs.launch(self._whole)
        return [tensor.clone() for tensor in self.carried]

    def run_driven(self, carried: Tensors, extras: Tensors) -> list[Any]:
        """As `run`, with the host asking for the condition before every iteration: where there is no WHILE node."""
        if self._step is None:
            with self._graphs.private():
                self._step = self._graphs.capture(self._iteration)
        self._put(carried, extras)
        while bool(self._flag):
            self._graphs.launch(self._step)
        return [tensor.clone() for tensor in self.carried]

    def run_fixed(self, carried: Tensors, extras: Tensors, iterations: int) -> list[Any]:
        """So many iterations in one launch, whatever the condition says."""
        if iterations not in self._fixed:

            def every() -> None:
                for _ in range(iterations):
                    self._iteration()

            with self._graphs.private():
                self._fixed[iterations] = self._graphs.capture(every)
        self._put(carried, extras)
        self._graphs.launch(self._fixed[iterations])
        return [tensor.clone() for tensor in self.carried]

    def close(self) -> None:
        """Free the graphs."""
        for executable in (self._whole, self._step, *self._fixed.values()):
            if executable is not None:
                self._graphs.free(executable)
        self._whole, self._step = None, None
        self._fixed.clear()

    def _iteration(self) -> None:
        new = self._body(*self.carried, *self._extras)
        held = {tensor.untyped_storage().data_ptr() for tensor in self.carried}
        # What the body hands on as it came must not be overwritten before it is read.
        safe = [t.clone() if t.untyped_storage().data_ptr() in held else t for t in new]
        for old, value in zip(self.carried, safe, strict=True):
            old.copy_(value)
        self._flag.copy_(self._condition(*self.carried, *self._extras))

    def _put(self, carried: Tensors, extras: Tensors) -> None:
        for own, value in zip(self.carried, carried, strict=True):
            own.copy_(value)
        for own, value, stay in zip(self._extras, extras, self._stays, strict=True):
            if not stay:
                own.copy_(value)
        self._flag.copy_(self._condition(*self.carried, *self._extras))
