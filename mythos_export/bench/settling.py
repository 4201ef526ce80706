"""Between two that are timed in turns: nobody measures what the one before left running."""

from __future__ import annotations

import time

_TRIES, _SECONDS, _IDLE = 100, 0.01, 0.001


def settle() -> None:
    """Wait until no thread of this process is at work; for a second at most, since some never rest.

    ONNX Runtime's threads look for work for some 45 ms after a call (measured), on cores that the next one is timed on:
    of turns of 0.1 s that follow each other, the later one was up to 1.4 times as slow for it.
    """
    for _ in range(_TRIES):
        before = time.process_time()
        time.sleep(_SECONDS)
        if time.process_time() - before < _IDLE:
            return
