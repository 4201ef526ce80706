"""What all commands share: errors without tracebacks, options that every command has, and steps as they run."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
from rich.console import Console

import mythos_runtime
from mythos_runtime.cli.streams import CLOSED_PIPE, OutputLost, checked_streams, give_up, shows
from mythos_runtime.outputs import FULL

INTERRUPTED = 130
LACKS = 3


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise


out, err = _Console(), _Console(stderr=True)


def escape(text: str) -> str:
    return text.replace("[", "\\[")


def mark(text: str, plain: str, stream: Any = None) -> str:
    """The text where a stream, stderr by default, can show it, else the plain one."""
    return text if shows(stream or sys.stderr, text) else plain


def write(text: str) -> None:
    """Text on stdout at once, as it stands."""
    sys.stdout.write(text)
    sys.stdout.flush()


def report(error: BaseException, verbose: bool = False) -> None:
    """One line about an error; `verbose`: after where it came from."""
    if verbose:
        err.print("".join(traceback.format_exception(error)), markup=False, highlight=False, soft_wrap=True)
    err.print(f"[bold red]error:[/] {escape(_words(error))}", highlight=False, soft_wrap=True)


def report_usage(error: click.ClickException) -> None:
    """The same of what click refuses, with where to read more; without any argument a group shows its help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    text = " ".join(line.strip() for line in error.format_message().splitlines())
    if isinstance(error, click.NoSuchOption):
        alike = [*(error.possibilities or ())]  # by likeness; click would show them by the alphabet
        text = f"there is no option {error.option_name}" + (f"; did you mean {alike[0]}?" if alike else "")
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None and not text.endswith("?"):
        text = text.rstrip(".") + f"; see {context.command_path} --help"
    err.print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)


def examples(*lines: str) -> str:
    """What stands below a command's options: lines to begin from, as they are."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno in FULL:  # often without a name of the file
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{FULL[error.errno]}; make room and run it again"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error) or ("not enough memory" if isinstance(error, MemoryError) else type(error).__name__)


@contextlib.contextmanager
def plain_errors(interrupted: str = "interrupted", verbose: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """A user's mistake is one line and an exit code, never a traceback; `interrupted` is what Ctrl-C leaves said.

    Errors that are meant for users have an `exit_code`. A machine without memory or room is no fault of ours either.
    """
    try:
        yield
    except (KeyboardInterrupt, click.Abort):
        err.print(interrupted, highlight=False)
        sys.exit(INTERRUPTED)
    except (click.ClickException, click.exceptions.Exit, OutputLost):
        raise
    except Exception as error:
        code = LACKS if isinstance(error, (OSError, MemoryError)) else getattr(error, "exit_code", None)
        if not isinstance(code, int):
            raise
        report(error, verbose())
        sys.exit(code)


class Command(click.Command):
    """A command with --version and -v. As a program it checks all that it writes, and never shows a traceback."""

    interrupted = "interrupted"
    """What Ctrl-C leaves said."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.context_settings = {"help_option_names": ["-h", "--help"], **self.context_settings}
        self.params += [
            click.Option(["-v", "--verbose"], **_FLAG, callback=_verbose, help="Say more; of an error, its origin."),
            click.Option(["--version"], **_FLAG, callback=_version, help="Show the version and exit."),
        ]

    def main(  # type: ignore[override]  # one signature for both ways that click tells apart
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        call = {"args": args, "prog_name": prog_name, "complete_var": complete_var, "standalone_mode": False, **extra}
        if not standalone_mode:
            return super().main(**call)
        said: dict[str, bool] = call.setdefault("obj", {})
        code: Any = 0
        try:
            with checked_streams():
                try:
                    with plain_errors(self.interrupted, lambda: said.get("verbose", False)):
                        code = super().main(**call)
                except click.ClickException as error:
                    report_usage(error)
                    code = error.exit_code
                except SystemExit as end:
                    code = end.code
        except OutputLost as error:
            code = error.exit_code
            give_up(sys.stdout)
            if code == CLOSED_PIPE:
                give_up(sys.stderr)
            else:
                with contextlib.suppress(OSError):  # the disk that is full may be under stderr too
                    report(error)
        sys.exit(code if isinstance(code, int) else 0)


class Group(Command, click.Group):
    """A group of commands, with what a command has."""


_FLAG: dict[str, Any] = {"is_flag": True, "is_eager": True, "expose_value": False}


def _version(context: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        write(f"{context.find_root().info_name} {mythos_runtime.__version__}\n")
        context.exit()


def _verbose(context: click.Context, _: click.Parameter, given: bool) -> None:
    if given and isinstance(context.obj, dict):
        context.obj["verbose"] = True


def detail(text: str) -> None:
    """A line on stderr for who asked for more with -v."""
    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.obj, dict) and context.obj.get("verbose"):
        err.print(text, markup=False, highlight=False, style="dim", soft_wrap=True)


def bounded_threads(threads: int | None) -> int | None:
    """The threads asked for, but no more than the cores that this process may use; says so where that is fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads is None or threads <= cores:
        return threads
    err.print(f"--threads {threads}: this process may use {cores} cores, so it takes {cores}", highlight=False)
    return cores
