"""The operators as TensorRT plug-ins (IPluginV3), for TensorRT-RTX and for full TensorRT: their Python API is the same.

    register(tensorrt_rtx)                              # before an engine with plug-ins is loaded
    register(tensorrt_rtx, bundle / "kernels")          # before a graph with nodes of the domain `mythos` is parsed

Experimental: TensorRT-RTX's documents do not promise plug-ins. Shapes, formats and serialization are used, and tested,
by every build; `enqueue` has not been executed. An engine holds its kernels, and needs Python to launch them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mythos_export.kernels.gqa.tensorrt import PLUGIN as GQA
from mythos_export.kernels.mla.tensorrt import PLUGIN as MLA
from mythos_export.kernels.moe.tensorrt import PLUGIN as MOE
from mythos_export.kernels.plugin.driver import CudaDriver
from mythos_export.kernels.plugin.launch import Launcher
from mythos_export.kernels.plugin.program import PROGRAM, Program
from mythos_export.kernels.plugin.record import PluginRecord

PLUGINS = {record.operator: record for record in (MOE, MLA, GQA)}
NAMESPACE, VERSION = "mythos", "1"
VARIANT = "variant"
"""The attribute by which a node of the graph that TensorRT is given says which plans are for its sizes."""

_registered: dict[str, list[Any]] = {}  # creators by module; TensorRT keeps plain pointers to them


def register(trt: ModuleType, kernels: Path | None = None) -> None:
    """Make the operators known to a TensorRT, once a process.

    Args:
        trt: tensorrt or tensorrt_rtx.
        kernels: a folder of `triton_build`, from which nodes of a graph take their kernels; an engine brings its own.
    """
    registry = trt.get_plugin_registry()
    for old in _registered.pop(trt.__name__, []):
        registry.deregister_creator(old)
    make = _classes(trt)
    creators = [make(record, kernels) for record in PLUGINS.values()]
    for creator in creators:
        if not registry.register_creator(creator, NAMESPACE):
            raise RuntimeError(f"{trt.__name__} does not take the plug-in {NAMESPACE}::{creator.name}")
    _registered[trt.__name__] = creators


@functools.cache
def _classes(trt: Any) -> Any:
    """The creator's class for a TensorRT module; the base classes are its own."""
    floats = {"fp32": trt.DataType.FLOAT, "fp16": trt.DataType.HALF, "bf16": trt.DataType.BF16}

    class Plugin(
        trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime  # type: ignore[misc]
    ):
        """One node, or its copy in an execution context."""

        def __init__(self, record: PluginRecord, program: Program, arrays: dict[str, np.ndarray]) -> None:
            trt.IPluginV3.__init__(self)
            trt.IPluginV3OneCore.__init__(self)
            trt.IPluginV3OneBuild.__init__(self)
            trt.IPluginV3OneRuntime.__init__(self)
            self.plugin_name, self.plugin_namespace, self.plugin_version = record.operator, NAMESPACE, VERSION
            self.num_outputs = 1
            self._record, self._program = record, program
            self._arrays = arrays  # the program's fields. A field is only a pointer: whoever makes it keeps the memory
            self._launcher: Launcher | None = None
            self._fields: Any = None

        def get_capability_interface(self, type: Any) -> Any:
            return self

        def clone(self) -> Any:
            return Plugin(self._record, self._program, self._arrays)

        # -- while a network is built ---------------------------------------------------------------------------------

        def get_output_data_types(self, input_types: Sequence[Any]) -> list[Any]:
            return [floats[self._program.precision]]

        def get_output_shapes(self, inputs: Sequence[Any], shape_inputs: Sequence[Any], builder: Any) -> list[Any]:
            extents = self._record.bind(inputs)
            known = {**{n: builder.constant(int(v)) for n, v in self._program.attributes.items()}, **extents}

            def times(a: Any, b: Any) -> Any:
                return builder.operation(trt.DimensionOperation.PROD, a, b)

            shape = trt.DimsExprs(len(self._record.output))
            for axis, factors in enumerate(self._record.output):
                shape[axis] = functools.reduce(times, [known[name] for name in factors])
            return [shape]

        def supports_format_combination(self, pos: int, in_out: Sequence[Any], num_inputs: int) -> bool:
            integer = pos < num_inputs and self._record.inputs[pos].integer
            wanted = trt.DataType.INT64 if integer else floats[self._program.precision]
            desc = in_out[pos].desc
            return bool(desc.format == trt.TensorFormat.LINEAR and desc.type == wanted)

        def configure_plugin(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            pass

        def get_workspace_size(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
            return 0  # see `Launcher.run`

        def get_valid_tactics(self) -> list[int]:
            return []

        def get_fields_to_serialize(self) -> Any:
            self._fields = trt.PluginFieldCollection(  # kept: TensorRT reads it after this call
                [trt.PluginField(name, array, trt.PluginFieldType.CHAR) for name, array in self._arrays.items()]
            )
            return self._fields

        # -- while an engine runs -------------------------------------------------------------------------------------

        def on_shape_change(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            pass

        def set_tactic(self, tactic: int) -> None:
            pass

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def enqueue(
            self,
            input_desc: Sequence[Any],
            output_desc: Sequence[Any],
            inputs: Sequence[int],
            outputs: Sequence[int],
            workspace: int,
            stream: int,
        ) -> None:
            if self._launcher is None:
                self._launcher = Launcher(self._program, CudaDriver())
            launch(self._record, self._launcher, [tuple(desc.dims) for desc in input_desc], inputs, outputs[0], stream)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc, name-defined]
        """Makes plug-ins: of a graph's node, with the kernels of a folder, or of what an engine holds."""

        def __init__(self, record: PluginRecord, kernels: Path | None) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_namespace, self.plugin_version = record.operator, NAMESPACE, VERSION
            names = [*(name for name, _ in record.attributes), VARIANT]
            self.field_names = trt.PluginFieldCollection([trt.PluginField(name) for name in names])
            self._record, self._kernels = record, kernels

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            found = {field.name: np.asarray(field.data) for field in fields}
            if PROGRAM in found:
                program = Program.from_fields({name: array.tobytes() for name, array in found.items()})
            elif self._kernels is None:
                raise RuntimeError(f"{name}: this process has no compiled kernels for mythos::{self._record.operator}")
            else:
                attributes = {name: kind(found[name].item()) for name, kind in self._record.attributes}
                variant = found[VARIANT].tobytes().rstrip(b"\0").decode()  # the parser hands over C strings
                program = Program.from_build(self._kernels, self._record.operator, variant, attributes)
            arrays = {name: np.frombuffer(value, np.uint8) for name, value in program.to_fields().items()}
            return Plugin(self._record, program, arrays)

    return Creator


def launch(
    record: PluginRecord,
    launcher: Launcher,
    shapes: Sequence[Sequence[int]],
    inputs: Sequence[int],
    out: int,
    stream: int,
) -> None:
    """One call of an operator: shapes and addresses in its order, its result's address, the stream to put it into."""
    buffers = {given.name: address for given, address in zip(record.inputs, inputs, strict=True)}
    sizes = record.sizes_of(shapes, launcher.attributes)
    launcher.run({**buffers, "out": out}, sizes, stream)
