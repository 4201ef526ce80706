"""The structs of the C interface that the engine needs (mythos_runtime.h, mythos_engine.h), field for field."""

from __future__ import annotations

import struct
from ctypes import POINTER, Structure, c_char_p, c_double, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p


class LoadOptions(Structure):
    """mythos_load_options."""

    _fields_ = (
        ("backend", c_char_p),
        ("threads", c_int),
        ("verify", c_int),
        ("verify_weights", c_int),
        ("provider", c_char_p),
        ("op_library", c_char_p),
        ("weights", c_char_p),
    )


class ForwardOptions(Structure):
    """mythos_forward_options."""

    _fields_ = (
        ("max_loops", c_int64),
        ("halt_threshold", c_double),
        ("state_seed", c_uint64),
        ("initial_state", c_void_p),
    )


class EngineOptions(Structure):
    """mythos_engine_options."""

    _fields_ = (
        ("memory", c_int64),
        ("max_loops", c_int64),
        ("most_rows", c_int64),
        ("most_running", c_int64),
        ("chunk", c_int64),
        ("patience", c_double),
        ("loops_per_call", c_int64),
        ("max_lag", c_int64),
        ("loops_per_token", c_double),
        ("latency_ms", c_double),
        ("prefixes", c_int64),
        ("speculate", c_int64),
    )


class Request(Structure):
    """mythos_request."""

    _fields_ = (
        ("prompt", POINTER(c_int64)),
        ("prompt_count", c_size_t),
        ("max_new_tokens", c_int64),
        ("max_loops", c_int64),
        ("halt_threshold", c_double),
        ("policy", c_char_p),
        ("temperature", c_double),
        ("top_k", c_int64),
        ("top_p", c_double),
        ("min_p", c_double),
        ("repetition_penalty", c_double),
        ("seed", c_uint64),
        ("row", c_uint64),
        ("state_seed", c_uint64),
        ("eos", POINTER(c_int64)),
        ("eos_count", c_size_t),
        ("stop", POINTER(POINTER(c_int64))),
        ("stop_lengths", POINTER(c_size_t)),
        ("stop_count", c_size_t),
        ("loops_per_token", c_double),
        ("latency_ms", c_double),
        ("depths", POINTER(c_int64)),
        ("depth_count", c_size_t),
    )


class Token(Structure):
    """mythos_token."""

    _fields_ = (
        ("request", c_uint64),
        ("id", c_int64),
        ("depth", c_int32),
        ("capped", c_int32),
        ("reused", c_int64),
        ("logits", c_void_p),
        ("finished", c_char_p),
        ("error", c_char_p),
    )


_CODES = {c_uint64: "Q", c_int64: "q", c_int32: "i", c_void_p: "P", c_char_p: "P"}
TOKEN = struct.Struct("@" + "".join(_CODES[kind] for _, kind in Token._fields_))
"""The same, of many at once, with addresses as integers: a tick has one for each request, and fields of ctypes take
longer than all else that Python does with a token."""


class Tick(Structure):
    """mythos_tick."""

    _fields_ = (("count", c_size_t), ("tokens", POINTER(Token)))


class Usage(Structure):
    """mythos_usage, with the mythos_counts in it laid out flat."""

    _fields_ = (
        ("running", c_int64),
        ("waiting", c_int64),
        ("pages", c_int64),
        ("pages_free", c_int64),
        ("states", c_int64),
        ("states_free", c_int64),
        ("prefixes", c_int64),
        ("steps", c_int64),
        ("rows", c_int64),
        ("late", c_int64),
        ("drafted", c_int64),
        ("accepted", c_int64),
    )
