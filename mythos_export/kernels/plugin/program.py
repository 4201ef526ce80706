"""What a plug-in carries and an engine keeps: launch plans, and the compiled kernels that they call.

    program = Program.from_build(bundle / "kernels", "mla_attention", variant, {"scale": 0.125, "v_head_dim": 64})
    Program.from_fields(program.to_fields()) == program
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mythos_export.kernels.launch_plan import KernelSpec, Plan
from mythos_export.kernels.plugin.record import Attributes

KERNELS = "kernels.json"  # what `triton_build` writes beside its files
PROGRAM = "program"  # the field that tells a plug-in of an engine from a node of a graph
_FORMAT_VERSION = 2


@dataclass(frozen=True)
class Binary:
    """A kernel compiled for one architecture: its entry point, dynamic shared memory in bytes, and the cubin."""

    entry: str
    shared_bytes: int
    image: bytes


@dataclass(frozen=True)
class Program:
    """One operator's kernels for one set of sizes.

    Attributes:
        operator, attributes: of the node.
        plans: in order of preference.
        binaries: by kernel name and compute capability (86 for 8.6).
    """

    operator: str
    attributes: Attributes
    plans: tuple[Plan, ...]
    binaries: Mapping[tuple[str, int], Binary]

    @property
    def precision(self) -> str:
        """Of the operator's floats."""
        return self.plans[0].launches[0].precision

    @property
    def architectures(self) -> tuple[int, ...]:
        return tuple(sorted({architecture for _, architecture in self.binaries}))

    @classmethod
    def from_build(cls, folder: Path, operator: str, variant: str, attributes: Attributes) -> Program:
        """The part of what `triton_build.build` wrote into a folder that is for one operator and its sizes.

        Raises:
            ValueError: there is none.
        """
        manifest = json.loads((folder / KERNELS).read_text(encoding="utf-8"))
        planned = [plan for plan in manifest["plans"] if plan["operator"] == operator]
        chosen = [plan for plan in planned if plan["variant"] == variant]
        if not chosen:
            there = ", ".join(sorted({plan["variant"] for plan in planned})) or "none"
            raise ValueError(f"{folder} holds no kernels of mythos::{operator} for {variant!r}; there are: {there}")
        launched = {name for plan in chosen for name in plan["launches"]}
        described = {kernel["name"]: kernel for kernel in manifest["kernels"] if kernel["name"] in launched}
        binaries = {}
        for name, kernel in described.items():
            for binary in kernel["binaries"]:
                if binary["global_scratch_bytes"] or binary["profile_scratch_bytes"]:
                    raise ValueError(
                        f"{name} asks for scratch memory of Triton's own, which the plug-in does not hand over; "
                        "its trailing pointers are null"
                    )
                image = (folder / binary["cubin"]["file"]).read_bytes()
                architecture = int(binary["architecture"].removeprefix("sm_"))
                binaries[name, architecture] = Binary(binary["entry"], binary["shared_bytes"], image)
        specs = {name: _spec(kernel) for name, kernel in described.items()}
        plans = tuple(Plan.from_json(plan, specs) for plan in chosen)
        return cls(operator, dict(attributes), plans, binaries)

    def to_fields(self) -> dict[str, bytes]:
        """As the fields that TensorRT writes into an engine."""
        specs = {spec.name: spec for plan in self.plans for spec in plan.launches}
        document = {
            "format_version": _FORMAT_VERSION,
            "operator": self.operator,
            "attributes": dict(self.attributes),
            "plans": [plan.to_json() for plan in self.plans],
            "kernels": [spec.to_json() for spec in specs.values()],
            "binaries": [
                {"kernel": name, "architecture": sm, "entry": binary.entry, "shared_bytes": binary.shared_bytes}
                for (name, sm), binary in self.binaries.items()
            ],
        }
        images = {_field(name, sm): binary.image for (name, sm), binary in self.binaries.items()}
        return {PROGRAM: json.dumps(document).encode(), **images}

    @classmethod
    def from_fields(cls, fields: Mapping[str, bytes]) -> Program:
        """The inverse of `to_fields`; ValueError for an engine of another version of this package."""
        document = json.loads(fields[PROGRAM])
        if document["format_version"] != _FORMAT_VERSION:
            raise ValueError(
                f"the engine's plug-in has format version {document['format_version']}, this mythos-export knows "
                f"{_FORMAT_VERSION}: export the model again"
            )
        specs = {values["name"]: KernelSpec.from_json(values) for values in document["kernels"]}
        plans = tuple(Plan.from_json(plan, specs) for plan in document["plans"])
        binaries = {
            (b["kernel"], b["architecture"]): Binary(
                b["entry"], b["shared_bytes"], fields[_field(b["kernel"], b["architecture"])]
            )
            for b in document["binaries"]
        }
        return cls(document["operator"], document["attributes"], plans, binaries)


def _field(kernel: str, architecture: int) -> str:
    return f"{kernel}.sm_{architecture}.cubin"


def _spec(kernel: Mapping[str, Any]) -> KernelSpec:
    return KernelSpec.from_json({name: kernel[name] for name in KernelSpec.__dataclass_fields__})
