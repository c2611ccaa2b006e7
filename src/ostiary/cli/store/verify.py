"""`ostiary store verify`."""

from __future__ import annotations

import json

from ostiary.cli.store.options import (
    DATA,
    SCHEMA,
    AsJson,
    Config,
    Data,
    Database,
    File,
    Schema,
    Sealing,
    Tpm,
    opened,
    settings,
)
from ostiary.errors import TamperedError


def verify(
    data: Data = DATA,
    database: Database = None,
    schema: Schema = SCHEMA,
    config: Config = None,
    file: File = None,
    sealing: Sealing = None,
    tpm: Tpm = None,
    as_json: AsJson = False,
) -> None:
    """Read every row of the database and hold it against the head, with the key in DIR.

    What is found is exactly what the head was made over. That it is the newest head there ever was only an anchor can
    tell: the service asks it at its start. Reads one snapshot, so a service may run meanwhile.

    Exit codes: 0 verified; 65 the database does not verify, and stderr says which row and how; 1 it cannot be read.

    Examples:

      ostiary store verify

      ostiary store verify --json --data /var/lib/cas | jq -r .digest

      ostiary store verify --data /etc/cas --config /etc/cas/cas.toml

      ostiary store verify --data /etc/cas --sealing tpm --store 'host=db dbname=cas sslmode=verify-full'
    """
    from ostiary.audit import Frontier
    from ostiary.broker.open_storage import kept_key
    from ostiary.cli.store.progress import Bar
    from ostiary.store import offline

    key = kept_key(settings(data, config, sealing=sealing, tpm=tpm))
    try:
        with opened(data, database, schema, config=config, file=file) as found, Bar("verifying") as bar:
            verified = offline.verify(found.backend, key, log=Frontier(), progress=bar)
    except TamperedError as error:
        if as_json:
            print(json.dumps({"verified": False, "class": offline.class_of(error), "message": str(error)}))
        raise
    head = verified.head
    if as_json:
        print(
            json.dumps(
                {
                    "verified": True,
                    "seq": head.seq,
                    "digest": head.digest.hex(),
                    "records": verified.records,
                    "leaves": head.log_size,
                    "log_root": head.log_root.hex(),
                }
            )
        )
        return
    print(f"verified: {verified.records} records and {head.log_size} leaves of the audit log under head {head.seq}")
    print(f"digest:   {head.digest.hex()}")
    print(f"log root: {head.log_root.hex()}")
