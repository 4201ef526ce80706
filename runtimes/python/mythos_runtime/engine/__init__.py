"""The engine: requests whose loops run no deeper than needed, exactly, packed into common calls.

from mythos_runtime.engine import Request, open_engine

engine = open_engine("bundle")
running = engine.submit(Request([1, 2, 3], max_new_tokens=16))
while engine.busy:
    for token in engine.tick():
        print(token.running, token.id, token.depth)
"""

from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.interface import AnyEngine
from mythos_runtime.engine.opening import open_engine
from mythos_runtime.engine.request import Budget, Request, Running, Token

__all__ = ["AnyEngine", "Budget", "Engine", "Request", "Running", "Token", "open_engine"]
