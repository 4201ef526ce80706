"""What all commands share: errors without tracebacks, and the list of steps as they run."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

out, err = Console(), Console(stderr=True)


@contextlib.contextmanager
def plain_errors(interrupted: str = "interrupted") -> Iterator[None]:
    """A user's mistake is one line and an exit code, never a traceback; `interrupted` is what Ctrl-C leaves said."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(interrupted)
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, _expected()):
            raise
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


def _expected() -> tuple[Any, ...]:
    """The errors that a user's request can meet, each with its `exit_code`; importing them brings torch along."""
    from mythos_export.errors import ExportError
    from mythos_model.errors import ModelError
    from mythos_runtime.errors import RuntimeBundleError

    return (ExportError, ModelError, RuntimeBundleError)


def escape(text: str) -> str:
    return text.replace("[", "\\[")


@contextlib.contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Shows the step that runs, and leaves each finished one with its seconds."""
    running, since = "", time.perf_counter()

    def finish() -> None:
        if running:
            seconds = time.perf_counter() - since
            err.print(f"  [green]✓[/] {escape(running)} [dim]{seconds:.1f} s[/]", highlight=False)

    with err.status("") as status:

        def step(name: str) -> None:
            nonlocal running, since
            if not name.startswith(("TensorRT: ", "Triton: ")):  # their own phases only change the line below
                finish()
                running, since = name, time.perf_counter()
            status.update(escape(name))

        yield step
        finish()
