"""`mythos doctor`."""

from __future__ import annotations

import json

import click
from rich.table import Table

from mythos_export.cli.terminal import out, plain_errors


@click.command()
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def doctor(as_json: bool) -> None:
    """List what this machine can build and run, and what to install for the rest."""
    with plain_errors():
        from mythos_export.doctor import examine

        findings = examine()
        table = Table("", "what", "found", "to get it")
        for finding in findings:
            table.add_row(
                "[green]✓[/]" if finding.works else "[yellow]–[/]", finding.what, finding.found, finding.remedy
            )
        out.print(table)
        if as_json:
            click.echo(json.dumps([finding.__dict__ for finding in findings]))
