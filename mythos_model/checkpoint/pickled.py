"""What the names in a pickle of weights stand for: tensors, storages, plain containers; all else is opaque."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

MOST_AXES = 64


class CodeRefused(Exception):
    """The pickle calls a function that could do anything; the text is its name."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or a function."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True, repr=False)
class Opaque:
    """An object of a class that was not made: its name, what it would have been made from, its fields."""

    kind: str
    args: tuple[Any, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.kind}>"


@dataclass(frozen=True, slots=True)
class StorageRef:
    """The storage that a tensor is in: its key in the file, its dtype (None: bytes), its elements."""

    key: str
    dtype: torch.dtype | None
    numel: int


@dataclass(eq=False, slots=True, repr=False)
class PickledTensor:
    """A tensor in a pickle; `problem` says why it cannot be read, as the end of a sentence."""

    storage: StorageRef | None
    dtype: torch.dtype
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0
    problem: str | None = None


def meaning_of_call(called: Any, arguments: Any) -> Any:
    """What a call stands for: a tensor or a plain value where the function is known, else an Opaque.

    Raises:
        CodeRefused: it is a call of the kind that hostile files make.
    """
    if not isinstance(called, Global):
        raise CodeRefused("a function that it makes itself")
    arguments = arguments if isinstance(arguments, tuple) else ()
    name = str(called)
    if name in _BUILDERS:
        return _BUILDERS[name](*arguments)
    if name.startswith("torch.") and "_rebuild_" in called.name:
        return PickledTensor(None, torch.float32, problem=_unreadable(called.name))
    if _is_code(called):
        raise CodeRefused(name)
    return Opaque(name, arguments)


STORAGES: dict[str, torch.dtype | None] = {
    "Untyped": None,
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "QInt8": torch.int8,  # only in tensors that are refused
    "QUInt8": torch.uint8,
    "QInt32": torch.int32,
}


def _tensor(
    storage: StorageRef, offset: int, shape: Any, stride: Any, _grad: Any = None, _hooks: Any = None, bits: Any = None
) -> PickledTensor:
    sizes = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) <= MOST_AXES
    problem = None if sizes else "has a shape that no tensor can have"
    if bits:
        problem = "is a conjugated or negated view; save what it stands for, with resolve_conj() and resolve_neg()"
    return PickledTensor(storage, storage.dtype or torch.uint8, shape, stride, offset, problem)


def _tensor_with_dtype(
    storage: StorageRef, offset: int, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Global, bits: Any = None
) -> PickledTensor:
    found = getattr(torch, dtype.name, None) if dtype.module == "torch" else None
    tensor = _tensor(storage, offset, shape, stride, grad, hooks, bits)
    if isinstance(found, torch.dtype):
        tensor.dtype = found
    else:
        tensor.problem = f"is stored as {dtype}, which this program cannot read"
    return tensor


def _numpy_scalar(kind: Opaque, data: Any = b"", *_rest: Any) -> Any:
    """A plain number where it is one: numpy's sizes in bytes after a letter, such as f8."""
    try:
        return struct.unpack("<" + _NUMPY[kind.args[0]], data)[0]
    except (KeyError, IndexError, AttributeError, TypeError, struct.error):
        return Opaque("numpy.generic")


_NUMPY = dict(f8="d", f4="f", f2="e", i8="q", i4="i", i2="h", i1="b", u8="Q", u4="I", u2="H", u1="B", b1="?")


def _text_bytes(text: Any, encoding: Any = "latin1") -> Any:
    """Bytes as the older protocols write them: those of numpy's scalars, which are short."""
    latin = isinstance(text, str) and len(text) <= 64 and encoding in ("latin1", "latin-1")
    return text.encode("latin-1") if latin else Opaque("_codecs.encode")


_BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": lambda data, *_: data,
    "torch._tensor._rebuild_from_type": lambda called, kind, arguments, *_: meaning_of_call(called, arguments),
    "torch._tensor._rebuild_from_type_v2": lambda called, kind, arguments, *_: meaning_of_call(called, arguments),
    "torch.Size": lambda sizes=(): tuple(sizes[:MOST_AXES]),
    "collections.OrderedDict": lambda: {},
    "collections.defaultdict": lambda *_: {},
    "_codecs.encode": _text_bytes,
    "copyreg._reconstructor": lambda kind, *_: meaning_of_call(kind, ()),
    "copy_reg._reconstructor": lambda kind, *_: meaning_of_call(kind, ()),
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}

_REBUILT = {
    "sparse": "is sparse",
    "nested": "is a nested tensor",
    "qtensor": "is quantised",
    "meta": "is on the meta device and has no values",
    "wrapper_subclass": "is of a class of its own (a distributed or quantised tensor)",
}


def _unreadable(function: str) -> str:
    found = next(
        (text for word, text in _REBUILT.items() if word in function), "is of a kind that this program cannot read"
    )
    return found + "; save a plain tensor in its place"


# Whoever calls these from a file of weights means harm, or saved a program; nothing here would run them in any case.
_CODE_MODULES = frozenset(
    ("os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "pty", "ctypes", "runpy", "importlib", "imp", "code")
    + ("codeop", "pdb", "bdb", "webbrowser", "commands", "multiprocessing", "asyncio", "tempfile", "urllib", "requests")
    + ("pickle", "marshal")
)
_HARMLESS_BUILTINS = frozenset(
    ("set", "frozenset", "complex", "slice", "range", "bytearray", "bytes", "object", "list", "dict", "tuple", "int")
    + ("float", "str", "bool", "getattr")
)


def _is_code(called: Global) -> bool:
    top = called.module.partition(".")[0]
    if top in ("builtins", "__builtin__"):
        return called.name not in _HARMLESS_BUILTINS
    method = "." in called.name and called.name.rpartition(".")[2][:1].islower()  # Path.touch
    return top in _CODE_MODULES or method
