"""The steps of long work as they run, with an estimate where the work says how far it is.

On a terminal one line changes in place; elsewhere a line is written now and then, so that a log shows life too.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from mythos_runtime.cli.streams import OutputLost
from mythos_runtime.cli.terminal import err, escape, mark

_NOTE = "note: "  # how a line begins that is no step, but something to know
_PHASES = ("TensorRT: ", "Triton: ")  # how phases within a step begin that come as names
LOG_SECONDS = 5.0
_MIN_PART = 0.02  # of less nothing can be told


class Steps:
    """Shows the step that runs, and leaves each finished one with its seconds.

    Called with the name of each step as it begins, and again while it runs with the part of it that is done, 0 to 1.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running = self._phase = ""
        self._since = self._logged = clock()
        self._part: float | None = None

    def __call__(self, name: str, part: float | None = None) -> None:
        if name.startswith(_PHASES):
            self.phase(name, part)
            return
        if name.startswith(_NOTE):
            err.print(f"  {escape(name)}", style="yellow", highlight=False, soft_wrap=True)
            return
        with self._lock:
            if name != self._running:
                self.finish()
                self._running, self._since = name, self._clock()
                self._logged = self._since
            self._phase, self._part = name, part

    def phase(self, name: str, part: float | None = None) -> None:
        """Show what the step is at, and the part of the step that is done."""
        with self._lock:
            self._phase, self._part = name, part

    def finish(self) -> None:
        """Leave the running step as done."""
        if self._running:
            seconds = self._clock() - self._since
            err.print(f"  [green]{mark('✓', 'ok')}[/] {escape(self._running)} [dim]{seconds:.1f} s[/]", highlight=False)
        self._running = ""

    def line(self) -> str:
        """What runs, for how long, and how long it may still take."""
        if not self._phase:
            return ""
        seconds = self._clock() - self._since
        text = f"{self._phase}  {_duration(seconds)}"
        if self._part is not None and self._part >= _MIN_PART:
            text += f", {self._part:.0%} done, about {_duration(seconds * (1 - self._part) / self._part)} left"
        return text

    def log(self) -> None:
        """Write the line where the step has run for some seconds since the last; for what is no terminal."""
        with self._lock:
            now = self._clock()
            if self._running and now - self._logged >= LOG_SECONDS:
                self._logged = now
                err.print(f"  {mark('…', '...')} {escape(self.line())}", highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 6000 else f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def steps() -> Iterator[Steps]:
    """Steps on stderr; what runs is shown until the block ends."""
    shown = Steps()
    done = threading.Event()
    with contextlib.ExitStack() as stack:
        status = None
        if err.is_terminal:
            status = stack.enter_context(err.status("", spinner="dots" if mark("⠋", "") else "line"))

        def tick() -> None:
            with contextlib.suppress(OutputLost):  # the command's own next line meets the same
                while not done.wait(0.5):
                    if status is not None:
                        status.update(escape(shown.line()))
                    else:
                        shown.log()

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield shown
            shown.finish()
        finally:
            done.set()
            ticking.join()
