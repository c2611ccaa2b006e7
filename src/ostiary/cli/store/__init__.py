"""`ostiary store`: the database of a service, looked at and looked after. One file a command."""

from __future__ import annotations

import typer

from ostiary.cli.store import accept_rollback, compact, export_encrypted, import_encrypted, log, stats, verify

app = typer.Typer(
    help="Verify, read, measure, copy and compact the database of a service, which may run meanwhile.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command(name="verify")(verify.verify)
app.command(name="log")(log.log)
app.command(name="stats")(stats.stats)
app.command(name="export-encrypted")(export_encrypted.export_encrypted)
app.command(name="import-encrypted")(import_encrypted.import_encrypted)
app.command(name="compact")(compact.compact)
app.command(name="accept-rollback")(accept_rollback.accept_rollback)
