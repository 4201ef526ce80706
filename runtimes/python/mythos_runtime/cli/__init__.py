"""The command line `mythos`; one command, one file. Packages add commands under the entry points COMMANDS.

Exit codes: 0 done and verified; 1 the result is wrong; 2 the request or the input is wrong; 3 this machine lacks
something needed; 130 interrupted; 141 nobody reads what is written. Text that was generated, tables and documents go to
stdout, progress and errors to stderr. With --json the last line of stdout is one JSON document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mythos_runtime.cli.doctor import doctor
from mythos_runtime.cli.heap import return_large_blocks
from mythos_runtime.cli.inspect import inspect
from mythos_runtime.cli.package import package
from mythos_runtime.cli.run import run
from mythos_runtime.cli.serve import serve
from mythos_runtime.cli.terminal import Group

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

__all__ = ["mythos"]

COMMANDS = "mythos_runtime.commands"
_ELSEWHERE = dict.fromkeys(("verify", "bench", "plan"), "mythos-export")  # commands, and the package that brings them


def _entry_points() -> EntryPoints:
    from importlib import metadata  # with which `email` comes: not where the command is one of these here

    return metadata.entry_points(group=COMMANDS)


class Mythos(Group):
    """The commands here, and those that other packages bring."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *_entry_points().names})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        own = super().get_command(context, name)
        if own is not None:
            return own
        for entry in _entry_points().select(name=name):
            command: click.Command = entry.load()
            return command
        if name in _ELSEWHERE:
            raise click.UsageError(f"the command {name} comes with {_ELSEWHERE[name]}: pip install {_ELSEWHERE[name]}")
        return None


@click.group(cls=Mythos)
def mythos() -> None:
    """Work with bundles made by mythos-export."""
    return_large_blocks()


for command in (run, serve, package, inspect, doctor):
    mythos.add_command(command)
