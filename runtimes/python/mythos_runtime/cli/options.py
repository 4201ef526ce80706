"""Options that several commands have, in the same words."""

from __future__ import annotations

import click

LINKLESS = "--weights means nothing to this bundle, whose weights are in it: leave it out"

verify_option = click.option(
    "--verify",
    type=click.Choice(["hashes", "sizes"]),
    default="hashes",
    show_default=True,
    help="What of the bundle's files is checked at load; sizes reads none of them whole.",
)
