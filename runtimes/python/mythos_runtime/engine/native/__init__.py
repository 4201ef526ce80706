"""The C++ runtime's engine in Python: the same requests, ticks and tokens as `mythos_runtime.engine.engine`, call for
call, without what Python does around each call.

    engine = NativeEngine.open(folder, spec, Options(threads=2), EngineOptions(memory=1 << 30))
    running = engine.submit(Request([1, 2, 3], max_new_tokens=16))
    while engine.busy: engine.tick()

`library` finds libmythos_runtime.so, `structs` are the C interface's (mythos_engine.h).
"""

from mythos_runtime.engine.native.cache import NativeCache
from mythos_runtime.engine.native.engine import NativeEngine
from mythos_runtime.engine.native.library import find_runtime_library, why_no_native_engine
from mythos_runtime.engine.native.model import NativeModel
from mythos_runtime.engine.native.session import NativeSession

__all__ = [
    "NativeCache",
    "NativeEngine",
    "NativeModel",
    "NativeSession",
    "find_runtime_library",
    "why_no_native_engine",
]
