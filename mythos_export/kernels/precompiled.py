"""Kernels that a bundle brings compiled (`--target cuda`): launched through the driver, with no compiler at run time.

Not executed on a GPU yet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mythos_export.kernels.cuda.driver import Driver
from mythos_export.kernels.cuda.launch import launch_of
from mythos_export.kernels.launch_plan import VARIABLE, KernelSpec, Sizes, least_sm
from mythos_runtime.errors import BackendMissing
from mythos_runtime.files import FileEntry, check_file

KERNELS = "kernels.json"  # what `triton_build` writes beside its files
_known: dict[str, Precompiled] = {}
"""By kernel: a kernel's name says its operator, precision and sizes. Of several bundles the last one serves."""


class OtherGpu(Exception):
    """What was compiled is for other GPUs than this one."""


class Precompiled:
    """The kernels of a folder of `triton_build` for one GPU; each is loaded when it is first launched."""

    def __init__(self, folder: Path, driver: Driver) -> None:
        """Raises OtherGpu; BackendMissing where no kernel for this GPU could be compiled either."""
        manifest = json.loads((folder / KERNELS).read_text(encoding="utf-8"))
        found = driver.capability()
        architecture = f"sm_{found}"
        self._driver, self._folder = driver, folder.absolute()  # read from later, wherever the process is then
        self._binaries: dict[str, dict[str, Any]] = {}
        self.specs: dict[str, KernelSpec] = {}
        for kernel in manifest["kernels"]:
            form, least = least_sm(kernel["constants"])
            if found < least:
                raise BackendMissing(
                    f"the weights of {folder.parent} are {form}, which Triton's kernels take from SM {least} on, and "
                    f"this GPU is SM {found}: export with --precision int8 for it, or run the bundle in plain PyTorch, "
                    f"on this GPU with {VARIABLE}=none, or with provider cpu"
                )
            for binary in kernel["binaries"]:
                if binary["architecture"] == architecture:
                    self._binaries[kernel["name"]] = binary
                    values = {name: kernel[name] for name in KernelSpec.__dataclass_fields__}
                    self.specs[kernel["name"]] = KernelSpec.from_json(values)
        if not self._binaries:
            built = ", ".join(manifest["architectures"])
            raise OtherGpu(
                f"the kernels in {folder} were compiled for {built}, this GPU is {architecture}: export again with "
                f"--target cuda --sm {found}"
            )
        self._functions: dict[str, int] = {}

    def launch(self, spec: KernelSpec, addresses: Mapping[str, int], sizes: Sizes, stream: int) -> None:
        """Put a kernel into a stream: addresses by buffer, the plan's resolved sizes."""
        binary = self._binaries[spec.name]
        if spec.name not in self._functions:
            image = self._image(binary)
            self._functions[spec.name] = self._driver.function(image, binary["entry"], binary["shared_bytes"])
        launch = launch_of(spec, self._functions[spec.name], binary["shared_bytes"], addresses, sizes)
        if launch is not None:
            self._driver.launch(launch, stream)

    def _image(self, binary: Mapping[str, Any]) -> bytes:
        """The cubin, held to its hash: the driver reads to the end that a damaged one claims. Raises BundleError."""
        cubin = binary["cubin"]
        check_file(self._folder, cubin["file"], FileEntry(cubin["sha256"], cubin["bytes"]), verify_hash=True)
        return (self._folder / str(cubin["file"])).read_bytes()


def use(folder: Path, driver: Driver) -> int:
    """Launch this folder's kernels from now on, in this process; returns how many there are.

    Raises:
        OtherGpu: none is for this one.
        BackendMissing: none can be.
    """
    ready = Precompiled(folder, driver)
    _known.update(dict.fromkeys(ready.specs, ready))
    return len(ready.specs)


def forget() -> None:
    """Have Triton compile everything again."""
    _known.clear()


def find(spec: KernelSpec) -> Precompiled | None:
    """What brings this very kernel: of another version of this package it may be another one of the same name."""
    ready = _known.get(spec.name)
    return ready if ready is not None and ready.specs[spec.name] == spec else None
