"""The bundle's captured program, model.pt2, in eager PyTorch on the CPU."""

from __future__ import annotations

from mythos_export.bench.backends.backend import BundleBackend, Setting
from mythos_runtime import eager, read_manifest


class EagerProgram(BundleBackend):
    name = "PyTorch, model.pt2"
    backend = "eager"

    def missing(self, setting: Setting) -> str | None:
        if read_manifest(setting.bundle, verify_hashes=False).file_ending(".pt2", "model.pt2") is None:
            return "the bundle holds no model.pt2"
        return eager.missing()
