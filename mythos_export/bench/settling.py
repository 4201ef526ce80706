"""Between two that are timed in turns: nobody measures what the one before left running."""

from __future__ import annotations

import time

_TRIES, _SECONDS, _IDLE = 100, 0.01, 0.001


def settle() -> None:
    """Wait until no thread of this process is at work; for a second at most, since some never rest.

    Threads of other libraries look for work for a while after a call (ONNX Runtime's, as it comes, for 45 ms; a session
    of this runtime has them sleep), on cores that the next one is timed on: what was timed for 0.1 s behind such a call
    was up to 1.4 times as slow for it.
    """
    for _ in range(_TRIES):
        before = time.process_time()
        time.sleep(_SECONDS)
        if time.process_time() - before < _IDLE:
            return
