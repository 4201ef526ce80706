"""`mythos doctor`."""

from __future__ import annotations

import json
import sys

import click

from mythos_runtime.cli.terminal import Command, examples, mark, out, write


@click.command(
    cls=Command,
    short_help="List what this machine can build and run, and what it lacks.",
    epilog=examples("mythos doctor", "mythos doctor --json"),
)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def doctor(as_json: bool) -> None:
    """List what this machine can build and run, and what to install for the rest."""
    from mythos_runtime.doctor import examine

    findings = examine()
    width = max(len(finding.what) for finding in findings)
    signs = {
        True: ("green", mark("✓", "+", sys.stdout)),
        False: ("yellow", mark("–", "-", sys.stdout)),
        None: ("dim", mark("·", " ", sys.stdout)),
    }
    for finding in findings:  # lines, not a table: a path that is cut or folded cannot be copied
        style, sign = signs[finding.works]
        out.print(f"[{style}]{sign}[/] {finding.what:{width}}  ", end="", highlight=False)
        first, _, rest = (finding.found or finding.remedy).partition("\n")
        out.print(first, markup=False, highlight=False, soft_wrap=True)
        more = [*rest.splitlines(), *(finding.remedy.splitlines() if finding.found else [])]
        for line in more:
            out.print(" " * (width + 4) + line, markup=False, highlight=False, soft_wrap=True, style="dim")
    if as_json:
        write(json.dumps([finding.__dict__ for finding in findings]) + "\n")
