"""The command lines `mythos-export` and `mythos`; one command, one file. Conventions as in `mythos_runtime.cli`."""

from __future__ import annotations

from mythos_export.cli.bench import bench
from mythos_export.cli.export import export_command
from mythos_export.cli.plan import plan
from mythos_export.cli.verify import verify
from mythos_runtime.cli import mythos

__all__ = ["export_command", "mythos"]

for command in (verify, bench, plan):
    mythos.add_command(command)
