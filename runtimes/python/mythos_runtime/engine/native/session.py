"""The whole model in the C++ runtime: what `load` opens where that is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mythos_runtime.engine.native.model import NativeModel
from mythos_runtime.session import Session
from mythos_runtime.stores import HOST, Store


class NativeSession:
    """See `session.Session`. ONNX Runtime's own binding is loaded by the first call that hands a past over, which the C
    interface does not take: two of the same library take 30 MB.

    Attributes:
        model: what runs everything else.
    """

    name, provider, runs_rows = "onnxruntime", "cpu", True
    store: Store = HOST

    def __init__(self, model: NativeModel, open_session: Callable[[], Session]) -> None:
        """`open_session`: the same graph, in ONNX Runtime's own binding."""
        self.model, self._open_session = model, open_session
        self.description, self.operators = model.description, model.operators
        self._session: Session | None = None

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._session is None:
            self._session = self._open_session()
        return self._session.run(inputs)
