"""Pickles, read without making anything that they ask for.

A pickle is a program for a small machine. This one runs it with all classes and functions replaced by their names: what
it asks for becomes an `Opaque` with the same fields, a tensor becomes a `PickledTensor` that says where its values are,
and nothing is imported or called. Only text keys of dictionaries are kept: no others matter, and text cannot be made to
collide.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any

from mythos_model.checkpoint.pickled import STORAGES, CodeRefused, Global, Opaque, StorageRef, meaning_of_call

MOST_STEPS = 8_000_000  # of one pickle; a training checkpoint with ten thousand tensors has one million


class PickleProblem(Exception):
    """What is wrong with a pickle, as a phrase."""


def unpickle(stream: IO[bytes]) -> tuple[Any, dict[str, StorageRef]]:
    """The object of the next pickle in a stream, and the storages that it refers to, by key.

    Raises:
        PickleProblem: damaged, or no pickle.
        CodeRefused: it calls a function of the kind that hostile files call.
    """
    machine = _Machine()
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if step >= MOST_STEPS:
                raise PickleProblem(f"it holds more than {MOST_STEPS} objects beside the weights' data")
            if opcode.name == "STOP":
                return machine.stack.pop(), machine.storages
            machine.do(opcode.name, argument)
    except (PickleProblem, CodeRefused):
        raise
    except Exception as error:  # damaged bytes raise almost anything
        raise PickleProblem(f"its pickle is damaged ({type(error).__name__})") from error
    raise PickleProblem("its pickle is cut off")


_MARK = object()
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_NOTHING = {"PROTO", "FRAME", "NEXT_BUFFER", "READONLY_BUFFER"}


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0  # fields
        self.storages: dict[str, StorageRef] = {}

    def do(self, op: str, argument: Any) -> None:
        stack = self.stack
        if op in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if op == "MEMOIZE" else argument] = stack[-1]
        elif op in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif op == "MARK":
            stack.append(_MARK)
        elif op in _EMPTY:
            stack.append(_EMPTY[op]())
        elif op in _VALUES:
            stack.append(_VALUES[op])
        elif op in _OPERATIONS:
            _OPERATIONS[op](self)
        elif op == "GLOBAL":
            stack.append(Global(*argument.split(" ", 1)))
        elif op == "INST":
            self.make_object(Global(*argument.split(" ", 1)), *self.marked())
        elif op.startswith(("EXT", "PERSID")):
            raise PickleProblem("its pickle refers to things outside the file")
        elif op not in _NOTHING:  # all that is left are values
            stack.append(argument)

    def marked(self) -> list[Any]:
        """What stands above the last mark; both are taken off."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise PickleProblem("its pickle is damaged (no mark)")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def take(self, count: int) -> None:
        found = tuple(self.stack[-count:])
        if len(found) < count:
            raise PickleProblem("its pickle is damaged (too few values)")
        del self.stack[-count:]
        self.stack.append(found)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        into = target.fields if isinstance(target, Opaque) else target
        if not isinstance(into, dict):
            raise PickleProblem("its pickle is damaged (keys without a dictionary)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is str:
                if key in into:
                    raise PickleProblem(f"it holds the key {key[:80]!r} twice, and one would win silently")
                into[key] = value

    def make_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set_items(items)

    def make_object(self, called: Any, *arguments: Any) -> None:
        self.stack.append(meaning_of_call(called, arguments))

    def append(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Opaque):
            for part in state if isinstance(state, tuple) else (state,):  # a pair: __dict__, and what is in slots
                if isinstance(part, dict):
                    self.copied += len(part)
                    if self.copied > MOST_STEPS:
                        raise PickleProblem("it copies the same fields over and over")
                    target.fields |= part

    def pair(self, make: Callable[..., Any]) -> None:
        arguments = self.stack.pop()
        called = self.stack.pop()
        self.stack.append(make(called, arguments))

    def pair_with_keywords(self, make: Callable[..., Any]) -> None:
        self.stack.pop()
        self.pair(make)

    def persistent(self) -> None:
        kind, *rest = self.stack.pop()
        if kind == "module":  # of old files: the class, with its source
            self.stack.append(rest[0])
            return
        storage, key, _location, numel, *view = rest
        if kind != "storage" or type(key) is not str or type(numel) is not int or any(view):
            raise PickleProblem("its pickle refers to things outside the file")
        name = storage.name.removesuffix("Storage") if isinstance(storage, Global) else ""
        if name not in STORAGES:
            raise PickleProblem(f"it stores numbers as {name[:40]!r}, which this program cannot read")
        ref = StorageRef(key, STORAGES[name], numel)
        if self.storages.setdefault(key, ref) != ref or not 0 <= numel < 1 << 60:
            raise PickleProblem("its pickle is damaged (a storage of two kinds)")
        self.stack.append(ref)


_OPERATIONS: dict[str, Callable[[_Machine], object]] = {
    "POP": lambda m: m.stack.pop(),
    "POP_MARK": lambda m: m.marked(),
    "DUP": lambda m: m.stack.append(m.stack[-1]),
    "APPEND": lambda m: m.append([m.stack.pop()]),
    "APPENDS": lambda m: m.append(m.marked()),
    "LIST": lambda m: m.stack.append(m.marked()),
    "TUPLE": lambda m: m.stack.append(tuple(m.marked())),
    "TUPLE1": lambda m: m.take(1),
    "TUPLE2": lambda m: m.take(2),
    "TUPLE3": lambda m: m.take(3),
    "DICT": lambda m: m.make_dict(m.marked()),
    "SETITEM": lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m: m.set_items(m.marked()),
    "EMPTY_SET": lambda m: m.stack.append(Opaque("builtins.set")),
    "FROZENSET": lambda m: m.stack.append(Opaque("builtins.frozenset", tuple(m.marked()))),
    "ADDITEMS": lambda m: m.marked(),
    "STACK_GLOBAL": lambda m: m.pair(_global),
    "REDUCE": lambda m: m.pair(meaning_of_call),
    "NEWOBJ": lambda m: m.pair(meaning_of_call),
    "NEWOBJ_EX": lambda m: m.pair_with_keywords(meaning_of_call),
    "OBJ": lambda m: m.make_object(*m.marked()),
    "BUILD": lambda m: m.build(),
    "BINPERSID": lambda m: m.persistent(),
}


def _global(module: Any, name: Any) -> Global:
    if type(module) is not str or type(name) is not str:
        raise PickleProblem("its pickle is damaged (a class without a name)")
    return Global(module, name)
