"""The far end of a worker: `python -m mythos_export.workers.far MODULE:CLASS`, requests on stdin, answers on stdout."""

from __future__ import annotations

import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from typing import IO, Any

from mythos_export.errors import ExportError, ToolFailed
from mythos_export.workers.messages import Message, receive, send

GRACE_S = 1.0  # for a worker to end by itself once nobody listens any more


def main(name: str) -> None:
    """Answer requests until stdin ends."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what libraries print is no answer: it goes to the log
    lock = threading.Lock()

    def report(phase: str, part: float | None = None) -> None:
        with lock:
            send(answers, {"phase": phase, "part": part})

    module, _, member = name.partition(":")
    answering = getattr(importlib.import_module(module), member)(report)
    waiting: queue.Queue[Message | None] = queue.Queue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    while (request := waiting.get()) is not None:
        answer = _answer(answering, request)
        with lock:
            send(answers, answer)


def _answer(answering: Any, request: Message) -> Message:
    try:
        values = getattr(answering, request.pop("do"))(**request)
    except ExportError as error:
        reason, details = (error.reason, error.details) if isinstance(error, ToolFailed) else (str(error), ())
        return {"error": reason, "class": type(error).__name__, "details": details}
    except Exception as error:  # whatever it is, the keeper has to be told what; where it was is in the log
        traceback.print_exc()
        first, *others = str(error).strip().splitlines() or ["no message"]
        return {"error": f"{type(error).__name__}: {first[:500]}", "class": None, "details": others}
    arrays = values.pop("arrays", None)
    return {"answer": values, "arrays": arrays}


def _listen(requests: IO[bytes], waiting: queue.Queue[Message | None]) -> None:
    """Queues the requests. When the keeper is gone, killed even, a worker that is still busy ends, and its children."""
    while (request := receive(requests)) is not None:
        waiting.put(request)
    waiting.put(None)
    time.sleep(GRACE_S)
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
