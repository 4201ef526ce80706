"""Triton kernels compiled ahead of time, on a machine without a GPU.

    from mythos_export.kernels.op import calls_of
    from mythos_export.kernels.triton_build import build_for, files_of

    manifest = build_for(calls_of(graph), "fp16", bundle / "kernels", architectures=(80, 90))
    files_of(manifest)                   # names of the files beside kernels.json

A cubin runs on its own architecture (and, below sm_90, on later ones of the same major version). The PTX of sm_80, 86
and 89 can be compiled by a driver for any later GPU; that of sm_90, 100 and 120 is specific to its architecture (its
`target` ends in "a") and only guards against another driver version. The kernels have not run: the state in the
manifest is "built, not executed".

`build` the request and the manifest, `resources` what can be asked for and what a kernel may use, `worker` what runs in
the process of its own that triton is given.
"""

from __future__ import annotations

from typing import Any

from .build import FORMAT_VERSION, MANIFEST, build, build_for, compiler, kernels_for, missing, plans_for
from .resources import ARCHITECTURES


def files_of(manifest: dict[str, Any]) -> tuple[str, ...]:
    """Every file that a build wrote, the manifest first; relative to its folder."""
    binaries = [binary for kernel in manifest["kernels"] for binary in kernel["binaries"]]
    return MANIFEST, *(binary[kind]["file"] for binary in binaries for kind in ("cubin", "ptx"))


__all__ = [
    "ARCHITECTURES",
    "FORMAT_VERSION",
    "MANIFEST",
    "build",
    "build_for",
    "compiler",
    "files_of",
    "kernels_for",
    "missing",
    "plans_for",
]
