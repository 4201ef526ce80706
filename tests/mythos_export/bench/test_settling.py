"""What is timed does not share its cores with what was timed before."""

from __future__ import annotations

import threading
import time

from mythos_export.bench.settling import settle


def test_it_waits_for_a_thread_that_is_at_work_still() -> None:
    until = time.perf_counter() + 0.15

    def spin() -> None:
        while time.perf_counter() < until:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    settle()
    assert time.perf_counter() >= until
    thread.join()


def test_it_gives_up_on_one_that_never_rests() -> None:
    ends = threading.Event()

    def spin() -> None:
        while not ends.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    started = time.perf_counter()
    settle()
    assert time.perf_counter() - started > 0.9
    ends.set()
    thread.join()
