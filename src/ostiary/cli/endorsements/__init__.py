"""`ostiary endorsements`: what vendors say of their hardware, fetched ahead of time, carried, and looked at."""

from __future__ import annotations

import typer

from ostiary.cli.endorsements.export import export
from ostiary.cli.endorsements.fetch import fetch
from ostiary.cli.endorsements.forecast import forecast
from ostiary.cli.endorsements.import_ import import_
from ostiary.cli.endorsements.show import show

app = typer.Typer(
    help="Certificates, TCB data and revocation lists of hardware vendors: fetch, carry, show, foresee.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command()(fetch)
app.command()(export)
app.command(name="import")(import_)
app.command()(show)
app.command()(forecast)
