"""The TensorRT engine itself, where there is a GPU it was built for. No machine of this project has run it yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from mythos_export.verify.stages.stage import Bundle, Stage
from mythos_export.verify.trace import Answer
from mythos_runtime.errors import BackendFailed, RequestError
from mythos_runtime.session import Options, Session, open_session
from mythos_runtime.tensorrt import missing_to_run


class Engine(Stage):
    """What comes out is compared; an engine does not show its loop from inside."""

    name: ClassVar[str] = "tensorrt engine"
    runner: ClassVar[str] = "TensorRT on a GPU"
    artifact: ClassVar[str] = "engines/"

    def __init__(self, session: Session) -> None:
        self.session = session

    @classmethod
    def applies(cls, bundle: Bundle) -> bool:
        return any(name.endswith(".engine") for name in bundle.manifest.files)

    @classmethod
    def lacking(cls, bundle: Bundle) -> str | None:
        return missing_to_run(bundle.manifest)

    @classmethod
    def takes(cls, bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> bool:
        """Whether some profile that the engine was built with holds the case's shapes."""
        target = bundle.manifest.target("tensorrt")
        profiles = target.details.get("profiles", []) if target is not None else []
        return any(_fits(profile["shapes"], inputs) for profile in profiles)

    @classmethod
    def open(cls, bundle: Bundle) -> Engine:
        options = Options(threads=bundle.threads)
        return cls(open_session(bundle.folder, bundle.manifest, "tensorrt", options))

    def answer(self, inputs: Mapping[str, np.ndarray]) -> Answer:
        try:
            return Answer(self.session.run(inputs))
        except RequestError as error:  # the engine's profiles are others than the manifest's, by which cases are chosen
            raise BackendFailed(str(error)) from error


def _fits(shapes: Mapping[str, list[list[int]]], inputs: Mapping[str, np.ndarray]) -> bool:
    for name, (least, _, most) in shapes.items():
        size = inputs[name].shape
        if any(not low <= dim <= high for low, dim, high in zip(least, size, most, strict=True)):
            return False
    return True
