"""The engine: requests whose loops run no deeper than needed, exactly, packed into common calls.

from mythos_runtime.engine import EngineOptions, Request, open_engine

engine = open_engine("bundle", EngineOptions(most_running=8))
running = engine.submit(Request([1, 2, 3], max_new_tokens=16))
while engine.busy:
    for token in engine.tick():
        print(token.running, token.id, token.depth)

Of two kinds, which give the same: `native` is that of the C++ runtime; `engine` is this package's own, which is
imported only where it serves.
"""

from mythos_runtime.engine.interface import AnyEngine
from mythos_runtime.engine.opening import open_engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.request import Budget, Request, Running, Token

__all__ = ["AnyEngine", "Budget", "EngineOptions", "Request", "Running", "Token", "open_engine"]
