"""TensorRT's plug-ins without a TensorRT: what `kernels/tensorrt/caller.cpp` calls, from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from case_calls import Calls
from operator_cases import OperatorCase

NAMES = ("libmythos_tensorrt_plugins.so", "plugin_caller.so")
_BUILD = Path(__file__).parents[3] / "build"
_PACKED = _BUILD / "gpu" / "kernels"  # for a machine that cannot build them (benchmarks.gpu.pack)
LIBRARY, CALLER = ((_BUILD / "kernels" if (_BUILD / "kernels" / name).exists() else _PACKED) / name for name in NAMES)
FLOAT, HALF, INT8, INT32, BOOL, BF16, INT64 = 0, 1, 2, 3, 4, 7, 8  # nvinfer1::DataType
TYPES = {"float32": FLOAT, "float16": HALF, "bfloat16": BF16, "int64": INT64, "int32": INT32, "bool": BOOL}
BUILDING, RUNNING = 0, 1  # nvinfer1::TensorRTPhase
_CHAR, _FLOAT32, _INT64 = 6, 1, 10  # nvinfer1::PluginFieldType


class _Field(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
    )


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 8),
        ("data", ctypes.c_void_p),
    )


Given = tuple[int, Sequence[int], int]
"""A tensor of a call: its type, its shape, its address."""


class Plugins:
    """The library of plug-ins, opened."""

    def __init__(self, library: Path = LIBRARY, caller: Path = CALLER) -> None:
        self.caller = ctypes.CDLL(str(caller))
        for name in ("open", "create", "clone", "attach", "fields"):
            getattr(self.caller, f"caller_{name}").restype = ctypes.c_void_p
        self.caller.caller_error.restype = ctypes.c_size_t
        self.caller.caller_supports.restype = ctypes.c_bool
        self._library = ctypes.c_void_p(self.caller.caller_open(str(library).encode()))
        assert self._library, library
        self.refusal()

    def creators(self) -> dict[str, list[str]]:
        """By namespace, name and version: the names of its fields."""
        words = ctypes.create_string_buffer(10_000)
        self.caller.caller_creators(self._library, words, len(words))
        lines = [line.split() for line in words.value.decode().splitlines()]
        return {" ".join(line[:3]): line[3:] for line in lines}

    def refusal(self) -> str:
        """Why something was refused in this thread since it asked last."""
        words = ctypes.create_string_buffer(2000)
        length = self.caller.caller_error(self._library, words, len(words))
        return words.value.decode(errors="replace") if length else ""

    def create(self, op: str, fields: Mapping[str, Any], phase: int) -> Plugin:
        """A plug-in of these fields: text and bytes, integers, floats; (type, length, data) is taken as it is. Raises
        ValueError with the reason that the library gives."""
        kept = []
        made = (_Field * len(fields))()
        for place, (name, value) in zip(made, fields.items(), strict=True):
            if isinstance(value, tuple):
                kind, length, held = value
            elif isinstance(value, int | float):
                kind, length = (_INT64, 1) if isinstance(value, int) else (_FLOAT32, 1)
                held = (ctypes.c_int64 if isinstance(value, int) else ctypes.c_float)(value)
            else:
                code = value.encode() if isinstance(value, str) else value
                kind, length, held = _CHAR, len(code), ctypes.create_string_buffer(code, max(len(code), 1))
            kept.append(held)
            place.name, place.type, place.length = name.encode(), kind, length
            place.data = None if held is None else ctypes.addressof(held)
        plugin = self.caller.caller_create(self._library, op.encode(), made, len(made), phase)
        if not plugin:
            raise ValueError(self.refusal())
        return Plugin(self, plugin)


class Plugin:
    """One plug-in; what it was made of need not be there any more."""

    def __init__(self, plugins: Plugins, address: int) -> None:
        self._plugins, self._caller, self._address = plugins, plugins.caller, ctypes.c_void_p(address)

    def __del__(self) -> None:
        self._caller.caller_delete(self._address)

    def clone(self) -> Plugin:
        return Plugin(self._plugins, self._caller.caller_clone(self._address))

    def attach(self) -> Plugin:
        """The copy that an execution context has."""
        return Plugin(self._plugins, self._caller.caller_attach(self._address))

    def fields(self) -> dict[str, bytes]:
        """What an engine keeps."""
        count = ctypes.c_int32()
        address = self._caller.caller_fields(self._address, ctypes.byref(count))
        held = (_Field * count.value).from_address(address)
        assert all(field.type == _CHAR for field in held)
        return {field.name.decode(): ctypes.string_at(field.data, field.length) for field in held}

    def outputs(self, inputs: Sequence[Given], count: int = 1) -> list[tuple[int, tuple[int, ...]]]:
        """The results' types and shapes."""
        tensors = _tensors([*inputs, *[(0, (), 0)] * count])
        self._held(self._caller.caller_outputs(self._address, tensors, len(inputs), count))
        return [(tensor.type, tuple(tensor.shape[: tensor.rank])) for tensor in tensors[len(inputs) :]]

    def supports(self, position: int, tensors: Sequence[Given], results: int = 1, format: int = 0) -> bool:
        """Whether that tensor may have its type, and this format; the last ones are the results."""
        made = _tensors(tensors)
        made[position].format = format
        return bool(self._caller.caller_supports(self._address, position, made, len(tensors) - results, results))

    def configure(self, inputs: Sequence[Given], outputs: Sequence[Given]) -> None:
        tensors = _tensors([*inputs, *outputs])
        self._held(self._caller.caller_configure(self._address, tensors, len(inputs), len(outputs)))

    def run(self, inputs: Sequence[Given], outputs: Sequence[Given], stream: int = 0) -> None:
        """Put the kernels into a stream. Raises ValueError with the reason."""
        tensors = _tensors([*inputs, *outputs])
        placed = ctypes.c_void_p(stream)
        self._held(self._caller.caller_run(self._address, tensors, len(inputs), len(outputs), placed))

    def _held(self, status: int) -> None:
        if status:
            raise ValueError(self._plugins.refusal())


def given_of(tensor: torch.Tensor) -> Given:
    """A contiguous tensor, wherever it is."""
    return TYPES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape), tensor.data_ptr()


def node_of(plugins: Plugins, case: OperatorCase, calls: Calls, folder: Path) -> Plugin:
    """The plug-in that a graph's node becomes, with the kernels of a folder."""
    variant = calls[0][1][0].variant
    attributes = {name: value for name, value in case.attributes.items() if name != "format"}
    return plugins.create(case.op, {**attributes, "variant": variant, "kernels": str(folder)}, BUILDING)


def _tensors(given: Sequence[Given]) -> Any:
    made = (_Tensor * len(given))()
    for place, (kind, shape, address) in zip(made, given, strict=True):
        place.type, place.rank, place.data = kind, len(shape), address
        place.shape[: len(shape)] = list(shape)
    return made
