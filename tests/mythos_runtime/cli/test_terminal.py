"""What every command does: writes checked, errors in one line, versions, progress."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from golden_bundles import Bundles

from mythos_runtime import __version__
from mythos_runtime.cli import mythos
from mythos_runtime.cli.progress import Steps
from mythos_runtime.cli.terminal import Command, write
from mythos_runtime.errors import ResultError

MYTHOS = [sys.executable, "-c", "from mythos_runtime.cli import mythos; mythos(prog_name='mythos')"]
EXPORT = [
    sys.executable,
    "-c",
    "from mythos_export.cli import export_command; export_command(prog_name='mythos-export')",
]
FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "command",
    [
        [*MYTHOS, "run", "BUNDLE", "--ids", "1,2"],
        [*MYTHOS, "inspect", "BUNDLE", "--json"],
        [*MYTHOS, "--help"],
        [*EXPORT, "--version"],
    ],
    ids=["run", "inspect", "help", "export"],
)
def test_a_full_disk_is_one_line_and_exit_code_3(command: list[str], bundles: Bundles) -> None:
    words = [str(bundles["mla_decode"]) if word == "BUNDLE" else word for word in command]
    with FULL.open("w") as full:
        result = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    last = result.stderr.splitlines()[-1]
    assert (result.returncode, last) == (3, "error: cannot write to the standard output: No space left on device")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("what", ["stdout", "stderr"])
def test_a_closed_pipe_ends_a_command_quietly(what: str, bundles: Bundles) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, what: writing}
    command = [*MYTHOS, "run", str(bundles["mla_decode"]), "--ids", "1,2", "--max-new-tokens", "30"]
    result = subprocess.run(command, **streams)
    os.close(writing)
    assert (result.returncode, result.stderr or b"") == (141, b"")


def test_a_terminal_without_unicode(bundles: Bundles) -> None:
    command = [*MYTHOS, "run", str(bundles["mla_decode"]), "--ids", "1,2", "--max-new-tokens", "3"]
    result = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    assert b" ####" in result.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["run", "--version"], ["doctor", "--version"]])
def test_every_command_has_a_version(arguments: list[str]) -> None:
    result = CliRunner().invoke(mythos, arguments, prog_name="mythos")
    assert (result.exit_code, result.output) == (0, f"mythos {__version__}\n")


def test_the_shell_completes_as_the_documents_say() -> None:
    environment = {**os.environ, "COMP_WORDS": "mythos ins", "COMP_CWORD": "1", "_MYTHOS_COMPLETE": "bash_complete"}
    assert subprocess.run(MYTHOS, capture_output=True, text=True, env=environment).stdout == "plain,inspect\n"
    said = (Path(__file__).parents[3] / "docs" / "running.md").read_text()
    assert "_MYTHOS_COMPLETE=bash_source mythos" in said and "_MYTHOS_EXPORT_COMPLETE" in said


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ResultError("NaN"), 1, "error: NaN\n"),
        (click.UsageError("which?"), 2, "error: which?\n"),
        (PermissionError(13, "Permission denied", "x"), 3, "error: x: Permission denied\n"),
        (
            OSError(28, "No space left on device"),
            3,
            "error: there is no space left on the disk; make room and run it again\n",
        ),
        (MemoryError(), 3, "error: not enough memory\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_are_one_line_and_their_exit_code(error: BaseException, code: int, words: str) -> None:
    @click.command(cls=Command)
    def failing() -> None:
        write("begun\n")
        raise error

    result = CliRunner().invoke(failing)
    assert (result.exit_code, result.stdout) == (code, "begun\n")
    assert result.stderr.endswith(words)
    assert "Traceback" not in result.stderr
    if code == 1:
        assert "Traceback" in CliRunner().invoke(failing, ["-v"]).stderr


def test_a_fault_of_ours_is_no_users_mistake() -> None:
    @click.command(cls=Command)
    def broken() -> None:
        raise AssertionError("impossible")

    assert isinstance(CliRunner().invoke(broken).exception, AssertionError)


def test_commands_of_another_package_are_named() -> None:
    from importlib import metadata

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "entry_points", lambda **_: metadata.EntryPoints())
        patch.setattr(mythos, "commands", {})
        result = CliRunner().invoke(mythos, ["verify", "x"])
    assert (result.exit_code, "pip install mythos-export" in result.stderr) == (2, True)


def test_steps_tell_how_long_they_still_take(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    steps = Steps(lambda: now)
    steps("load")
    now = 2.0
    steps("verify", 0.0)
    now = 5.0
    steps.log()  # too early for a line
    assert steps.line() == "verify  3 s"
    now = 12.0
    steps.phase("verify, case 5 of 20", 0.25)
    assert steps.line() == "verify, case 5 of 20  10 s, 25% done, about 30 s left"
    steps.log()
    steps("TensorRT: build")
    now = 400.0
    assert steps.line() == "TensorRT: build  6 min"
    steps.finish()
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "✓ load 2.0 s",
        "… verify, case 5 of 20  10 s, 25% done, about 30 s left",
        "✓ verify 398.0 s",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "Missing argument 'BUNDLE'; see mythos run --help"),
        (["run", "x", "--tmperature", "1"], "there is no option --tmperature; did you mean --temperature?"),
        (["run", "x", "--zzz"], "there is no option --zzz; see mythos run --help"),
        (
            ["serve", "x", "--port", "y"],
            "Invalid value for '--port': 'y' is not a valid integer range; see mythos",
        ),
        (["nothing"], "No such command 'nothing'; see mythos --help"),
    ],
)
def test_what_click_refuses_is_one_line_too(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(mythos, arguments, prog_name="mythos")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {words}") and result.stderr.count("\n") == 1


def test_short_helps_are_whole_and_every_command_has_an_example() -> None:
    def commands(command: click.Command, parent: click.Context | None, name: str) -> Iterator[tuple[str, str, Any]]:
        context = click.Context(command, info_name=name, parent=parent)
        yield context.command_path, command.get_help(context), command
        if isinstance(command, click.Group):
            for each in command.list_commands(context):
                yield from commands(command.get_command(context, each), context, each)  # type: ignore[arg-type]

    for name, text, command in commands(mythos, None, "mythos"):
        assert "...\n" not in text.partition("Options:")[2], name
        assert name == "mythos" or f"Examples:\n    {name}" in text, name
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, (name, option.name)
