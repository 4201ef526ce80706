"""The near end of a worker: starts the process, asks it, and says what has become of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from mythos_export import errors
from mythos_export.errors import ExportError, ToolFailed
from mythos_export.progress import Progress, silent
from mythos_export.workers.messages import receive, send

TAIL = 8  # lines of the log that are shown
_ENDS = {
    "SIGABRT": "aborted (SIGABRT)",
    "SIGSEGV": "crashed (SIGSEGV)",
    "SIGKILL": "was killed (SIGKILL; often the machine ran out of memory)",
}


class Worker:
    """A Python process that answers requests, one at a time.

    Attributes:
        pid: of the process.
        log: where its stderr goes, with everything that libraries print.
    """

    def __init__(
        self,
        answers: str,
        what: str,
        *,
        environment: Mapping[str, str | None] | None = None,
        folders: Iterable[str] = (),
        log: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            answers: "module:class" of what answers over there.
            what: its name in errors.
            environment: variables beside this process's own; None takes one away.
            folders: where it finds modules too, beside where this process does.
            log: a file to append its stderr to; None: one of its own, which goes when the worker is closed.
        """
        self._what, self._own_log = what, log is None
        self.log = log or _temporary()
        self._phase: str | None = None
        self._timed_out = False
        places = [os.environ.get("PYTHONPATH"), *sys.path, *folders]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in places if p), **(environment or {})}
        with self.log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mythos_export.workers.far", answers],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={name: value for name, value in variables.items() if value is not None},
                start_new_session=True,  # a group of its own, so that its children can be ended with it
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self.pid = self._process.pid

    def ask(
        self, do: str, *, timeout_s: float | None = None, progress: Progress = silent, **values: Any
    ) -> dict[str, Any]:
        """One request and its answer.

        An exception of `progress`, or Ctrl-C, ends the process and its children; so does time that runs out.

        Args:
            do: the method that is called over there, with `values`: JSON, and under `arrays` numpy arrays by name.
            timeout_s: seconds that the answer may take.
            progress: called with every report.

        Raises:
            ExportError: of the class that the worker raised, where it is one of `mythos_export.errors`.
            ToolFailed: the worker raised something else, or is no more.
        """
        if self._requests.closed:
            raise self._dead()
        watch = None if timeout_s is None else threading.Timer(timeout_s, self._run_out)
        self._phase = None
        try:
            if watch is not None:
                watch.start()
            with contextlib.suppress(BrokenPipeError):  # a process that died says why below
                send(self._requests, {"do": do, **values})
            while (message := receive(self._answers)) is not None:
                if "phase" not in message:
                    break
                self._phase = message["phase"]
                progress(message["phase"], message["part"])
        except BaseException:
            self._end()
            raise
        finally:
            if watch is not None:
                watch.cancel()
        if message is None or self._timed_out:
            raise self._dead()
        if "error" in message:
            raise self._failed(message)
        answer: dict[str, Any] = message["answer"]
        if "arrays" in message:
            answer["arrays"] = message["arrays"]
        return answer

    def ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def close(self) -> None:
        """Let it end; removes its log, where that is its own."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._kill()
        self._end()
        if self._own_log:
            self.log.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run_out(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        """The process and its children, where any are left."""
        if not hasattr(os, "killpg"):
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _end(self) -> None:
        self._kill()
        self._process.wait()
        for stream in (self._requests, self._answers):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _dead(self) -> ToolFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):  # its stdout is closed: it is about to end
            self._process.wait(timeout=10)
        self._end()
        code = self._process.returncode
        if self._timed_out:
            end = "ran out of time and was stopped"
        elif code >= 0:
            end = f"left with exit status {code} and no answer"
        else:
            name = _signal(-code)
            end = _ENDS.get(name, f"was ended by {name}")
        return self._error(f"{self._what} {end}", returncode=code)

    def _failed(self, message: Mapping[str, Any]) -> ExportError:
        kind = getattr(errors, message["class"] or "ToolFailed")
        if kind is ToolFailed:
            return self._error(message["error"], details=tuple(message["details"]))
        error: ExportError = kind(message["error"])
        return error

    def _error(self, reason: str, **known: Any) -> ToolFailed:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        tail = tuple(line for line in lines if line.strip())[-TAIL:]
        return ToolFailed(reason, phase=self._phase, timed_out=self._timed_out, tail=tail, **known)


def _temporary() -> Path:
    handle, name = tempfile.mkstemp(prefix="mythos-worker-", suffix=".log")
    os.close(handle)
    return Path(name)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
