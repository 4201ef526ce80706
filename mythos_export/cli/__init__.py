"""The command lines `mythos-export` and `mythos`; one command, one file.

Exit codes: 0 done and verified; 1 the result is wrong; 2 the request or the input is wrong; 3 this machine lacks
something needed. Progress and errors go to stderr. With --json the last line of stdout is one JSON document.
"""

from __future__ import annotations

import click

from mythos_export.cli.bench import bench
from mythos_export.cli.doctor import doctor
from mythos_export.cli.export import export_command
from mythos_export.cli.inspect import inspect
from mythos_export.cli.run import run
from mythos_export.cli.verify import verify

__all__ = ["export_command", "mythos"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def mythos() -> None:
    """Work with bundles made by mythos-export."""


for command in (inspect, verify, run, bench, doctor):
    mythos.add_command(command)
