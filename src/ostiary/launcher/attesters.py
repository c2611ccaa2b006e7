"""Which attester a start asks, and the list of all of them."""

from __future__ import annotations

import json

from ostiary.attester.table import Row, candidates, choose, rows_at
from ostiary.errors import OutsideError
from ostiary.launcher.options import Listing, Options

TYPE_CHECKING = False  # spares the launcher the import of typing; type checkers take the name for true
if TYPE_CHECKING:
    from ostiary.attester.table import Attester


def choose_attester(options: Options) -> Attester:
    """The attester that the options name, or the first that is available.

    Raises OutsideError if none is named and none available, with the reason of each and what can be done.
    """
    try:
        row = choose(_rows(options), name=options.attester, hardware=options.hardware)
    except OutsideError as error:
        raise OutsideError(
            *error.chain, "where the session has `mode: none`, --no-attestation starts the program without evidence"
        ) from None
    return row.make(row.path)


def list_attesters(listing: Listing) -> str:
    """Every attester: what its evidence is about, or why it is not available here. Text, or JSON on one line::

        {"attesters": [{"name": "gramine", "tees": ["sgx"], "hardware": true, "path": "/dev/attestation",
                        "available": false, "reason": "…" | null, "chosen": false}, …]}

    chosen: a start with the same options and environment would have evidence of it.
    """
    rows = _rows(listing)
    reasons = {row.name: row.unavailable() for row in rows}
    considered = candidates(rows, name=listing.attester, hardware=listing.hardware)
    chosen = next((row.name for row in considered if reasons[row.name] is None), None)
    if listing.json:
        return json.dumps({"attesters": [_members(row, reasons[row.name], chosen) for row in rows]}) + "\n"
    return "".join(
        f"{'*' if row.name == chosen else ' '} {row.name:<13}{_sentence(row, reasons[row.name])}\n" for row in rows
    )


def _rows(options: Options | Listing) -> tuple[Row, ...]:
    paths = {"software": options.platform_socket}
    if options.attester is not None and options.attester_path is not None:
        paths[options.attester] = options.attester_path
    return rows_at(paths)


def _sentence(row: Row, reason: str | None) -> str:
    return f"available: {row.gives}" if reason is None else f"not available: {reason}"


def _members(row: Row, reason: str | None, chosen: str | None) -> dict[str, object]:
    return {
        "name": row.name,
        "tees": list(row.tees),
        "hardware": row.hardware,
        "path": row.path,
        "available": reason is None,
        "reason": reason,
        "chosen": row.name == chosen,
    }
