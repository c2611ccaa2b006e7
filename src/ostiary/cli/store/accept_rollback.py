"""`ostiary store accept-rollback`."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ostiary.cli.store.options import DATA, AsJson, Data
from ostiary.errors import ConfigurationError


def accept_rollback(
    config: Annotated[
        Path,
        typer.Option("--config", metavar="FILE", help="The settings of the state that `ostiary serve` starts with."),
    ],
    data: Data = DATA,
    successor: Annotated[
        Path | None,
        typer.Option(
            "--successor",
            metavar="FILE",
            help="The settings to go on with; default: the same. With witnesses the log needs another name there.",
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option("--signature", metavar="FILE", help="The owner's signature over what this prints without it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a state that the anchor holds to be turned back, or with another anchor. Needs the owner's key.

    What was committed since that state is lost for good. Without --signature this changes nothing, and prints the
    statement that the owner has to sign: the state found, and what the anchor remembers instead. The owner is whoever
    holds the key that `ostiary serve --owner` recorded. With the signature, statement and signature become an entry of
    the audit log, and the anchor is moved. Witnesses have to be told the log's new key, in place of the old one, by
    those who run them. The service must not run.

    Examples:

      ostiary store accept-rollback --config cas.toml > statement

      openssl dgst -sha256 -sign owner.key -out signature statement

      ostiary store accept-rollback --config cas.toml --signature signature
    """
    from ostiary.broker import accept_rollback as recovery
    from ostiary.broker.storage import parse_storage
    from ostiary.cli.storage_options import StorageOptions, storage_document

    before = parse_storage(data, storage_document(StorageOptions(), config))
    after = before if successor is None else parse_storage(data, storage_document(StorageOptions(), successor))
    if signature is None:
        print(recovery.statement_to_sign(before, after, random=os.urandom), end="")
        print(
            "nothing was changed; have the owner sign exactly these lines, then give --signature FILE", file=sys.stderr
        )
        return
    try:
        signed = signature.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--signature {signature}: {error.strerror}") from error
    accepted = recovery.accept_rollback(before, after, signed, now=datetime.now(UTC), random=os.urandom)
    told = {"seq": accepted.head.seq, "digest": accepted.head.digest.hex(), "log_key": accepted.log_key}
    if as_json:
        print(json.dumps(told))
        return
    print(f"accepted: head {told['seq']}, digest {told['digest']}")
    if accepted.log_key:
        print(f"every witness must be told this log key in place of the old one: {accepted.log_key}")
