"""`ostiary endorsements forecast`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ostiary.cli.endorsements.options import (
    AmdRootOption,
    AtOption,
    CaOption,
    ConfigOption,
    DataOption,
    IntelRootOption,
    PcsOption,
    SecondsOption,
    anchors_of,
    open_state,
    sources_of,
    time_of,
)
from ostiary.errors import ConfigurationError, EvidenceFormatError

if TYPE_CHECKING:
    from datetime import datetime

    from ostiary.broker.cas import Cas
    from ostiary.broker.forecast import Foreseen, Judge, Verdict
    from ostiary.broker.last_evidence import LastEvidence
    from ostiary.evidence.endorsements.choice import Held
    from ostiary.evidence.endorsements.piece import Anchors, Endorsement

EXIT_REFUSED = 1


def forecast(
    evidence: Annotated[
        list[Path] | None,
        typer.Argument(metavar="EVIDENCE", help="Files with quotes or SNP reports, raw; judged without a session."),
    ] = None,
    data: DataOption = None,
    config: ConfigOption = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="BUNDLE", help="Endorsements of today, beside those of the service."),
    ] = None,
    given: Annotated[
        Path | None, typer.Option("--given", metavar="BUNDLE", help="Early or future endorsements to judge by.")
    ] = None,
    tcb_info: Annotated[
        list[Path] | None,
        typer.Option("--tcb-info", metavar="FILE", help="The same: TCB info as Intel's service answers. Repeatable."),
    ] = None,
    issuer_chain: Annotated[
        Path | None,
        typer.Option("--issuer-chain", metavar="PEM", help="Of --tcb-info, if no endorsement of today has it."),
    ] = None,
    early: Annotated[
        bool, typer.Option("--early", help="The same: fetched from --pcs, published and not counting yet.")
    ] = False,
    pcs: PcsOption = "intel",
    endorsements_ca: CaOption = None,
    seconds: SecondsOption = 10.0,
    at: AtOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of JSON objects.")] = False,
    intel_root: IntelRootOption = None,
    amd_root: AmdRootOption = None,
) -> None:
    """Say which services would be refused on which platforms by early or future TCB data, and what ends when.

    With --data, the last evidence of every service on every platform is judged by the sessions as they are now; opening
    the directory stands in its audit log as a start of the service. Evidence in files is judged as by a session that
    tolerates nothing. Exit code 1: something is refused now, or by the data that was given.

    Examples:

      ostiary endorsements forecast --data ostiary-data --early

      ostiary endorsements forecast --data ostiary-data --given early.json --json

      ostiary endorsements forecast quote.bin --bundle bundle.json --tcb-info tcb.json
    """
    from ostiary.broker.forecast import forecast as foresee
    from ostiary.cli.endorsements.bundle import endorsements_in

    if (data is None) == (not evidence):
        raise ConfigurationError("name either EVIDENCE files or a data directory with --data")
    anchors, now = anchors_of(intel_root, amd_root), time_of(at)
    today = endorsements_in(bundle, anchors, now) if bundle else ()
    with _state(data, config, evidence or [], anchors, today, now) as state:
        later = list(endorsements_in(given, anchors, now)) if given else []
        later += [_tcb_info(path, issuer_chain, state, anchors, now) for path in tcb_info or []]
        if early:
            later += _early(state, pcs, endorsements_ca, seconds, anchors)
        foreseen = foresee(state.evidence, held=state.held, given=later, anchors=anchors, judge=state.judge, now=now)
    _print(foreseen, as_json=as_json)
    if any(one.would_be_refused for one in foreseen):
        raise typer.Exit(EXIT_REFUSED)


@dataclass(frozen=True, kw_only=True)
class _State:
    """What is judged, by what, and by whom."""

    evidence: tuple[LastEvidence, ...]
    held: Held
    judge: Judge
    chain: bytes


@contextmanager
def _state(
    data: Path | None,
    config: Path | None,
    files: list[Path],
    anchors: Anchors,
    today: tuple[Endorsement, ...],
    now: datetime,
) -> Iterator[_State]:
    from ostiary.broker.forecast import judge_by_sessions, judge_without_session
    from ostiary.evidence.endorsements.choice import Kept
    from ostiary.evidence.endorsements.part import Part

    mine = {one.part: Kept(endorsement=one, origin="vendor") for one in today}
    if data is None:
        yield _State(
            evidence=tuple(_last(path, now) for path in files),
            held=mine.get,
            judge=judge_without_session,
            chain=_chain(mine.values()),
        )
        return
    with _cas(data, config, anchors) as cas:
        shelf = cas.endorsements.shelf
        found = tuple(cas.last_evidence.all())

        async def prepare() -> None:
            for name in {one.session for one in found}:
                await cas.sessions.prepare(name)

        asyncio.run(prepare())

        def held(part: Part) -> Kept | None:
            return mine.get(part) or shelf.held(part)

        kept = [one for part in shelf.parts() if (one := held(part)) is not None]
        yield _State(evidence=found, held=held, judge=judge_by_sessions(cas), chain=_chain([*mine.values(), *kept]))


@contextmanager
def _cas(data: Path, config: Path | None, anchors: Anchors) -> Iterator[Cas]:
    import os

    from ostiary.broker.open import close_cas, make_cas

    store = open_state(data, config)
    try:
        cas = make_cas(store, roots=anchors.intel + anchors.amd, now=lambda: time_of(None), random=os.urandom)
    except BaseException:
        store.close()
        raise
    try:
        yield cas
    finally:
        close_cas(cas)


def _last(path: Path, now: datetime) -> LastEvidence:
    from ostiary.broker.last_evidence import LastEvidence
    from ostiary.cli.endorsements.evidence_file import read_evidence

    tee, data = read_evidence(path)
    return LastEvidence(session="", service=str(path), tee=tee, platform="", at=now, evidence=data)


def _chain(kept: Iterable[object]) -> bytes:
    """Who signed the TCB info that is there; Intel has one signer at a time."""
    from ostiary.evidence.endorsements.choice import Kept

    chains = [
        one.endorsement.piece.chain for one in kept if isinstance(one, Kept) and one.endorsement.part.kind == "tcb-info"
    ]
    return chains[0] if chains else b""


def _tcb_info(path: Path, issuer_chain: Path | None, state: _State, anchors: Anchors, now: datetime) -> Endorsement:
    from urllib.parse import quote

    from ostiary.evidence.endorsements.part import Part
    from ostiary.evidence.endorsements.piece import verify_piece
    from ostiary.evidence.endorsements.vendors import members_as_written, read_answer

    try:
        body = path.read_bytes()
        chain = state.chain if issuer_chain is None else issuer_chain.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", "name a file with TCB info") from error
    if not chain:
        raise ConfigurationError("--tcb-info: nothing says who signed it; give --issuer-chain, or --given a bundle")
    if not body.isascii():
        raise EvidenceFormatError(f"{path}: not ASCII text")
    info = json.loads(members_as_written(body.decode(), str(path)).get("tcbInfo", "{}"))
    tee = "tdx" if info.get("id") == "TDX" else "sgx"
    part = Part(kind="tcb-info", name=f"{tee}/{str(info.get('fmspc')).lower()}")
    return verify_piece(read_answer(part, {"tcb-info-issuer-chain": quote(chain)}, body), anchors, now=now)


def _early(state: _State, pcs: str | None, ca: Path | None, seconds: float, anchors: Anchors) -> list[Endorsement]:
    from ostiary.broker.vendors import Vendors
    from ostiary.cli.endorsements.asking import fetch_all
    from ostiary.evidence.endorsements.choice import parts_of

    wanted = {part for one in state.evidence for part in parts_of(one.tee, one.evidence)}
    changing = sorted(part for part in wanted if part.kind in ("tcb-info", "qe-identity"))
    sources = sources_of(pcs, None, ca, seconds=seconds, update="early")
    fetched, failed = fetch_all(Vendors(sources, anchors, now=lambda: time_of(None)), changing, {})
    for error in failed.values():
        raise error
    return fetched


def _print(foreseen: tuple[Foreseen, ...], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_object(one) for one in foreseen], indent=1))
        return
    if not foreseen:
        print("no evidence of hardware is kept, so there is nothing to foresee", file=sys.stderr)
    for one in foreseen:
        last = one.last
        name = f"{last.session}/{last.service}" if last.session else last.service
        where = f"{last.tee} {last.platform[:16]}".strip()
        print(f"{name} on {where}: {_said(one.now)}")
        if one.then is not None:
            print(f"  by the given data: {_said(one.then)}")
        for end in one.ends:
            renewed = "unless it is renewed" if end.renewable else "for good"
            print(f"  {end.at:%Y-%m-%dT%H:%M:%SZ}  {end.what} ends, {renewed}")


def _said(verdict: Verdict) -> str:
    if verdict.admitted:
        return f"admitted, TCB status {verdict.status}"
    return f"refused: {'; '.join(verdict.reasons)}"


def _object(one: Foreseen) -> dict[str, object]:
    refused_from = one.refused_from
    return {
        "session": one.last.session,
        "service": one.last.service,
        "tee": one.last.tee,
        "platform": one.last.platform,
        "last_start": one.last.at.isoformat(),
        "now": _verdict(one.now),
        "with_given": None if one.then is None else _verdict(one.then),
        "refused_from": None if refused_from is None else f"{refused_from:%Y-%m-%dT%H:%M:%SZ}",
        "ends": [
            {"what": end.what, "at": f"{end.at:%Y-%m-%dT%H:%M:%SZ}", "renewable": end.renewable} for end in one.ends
        ],
    }


def _verdict(verdict: Verdict) -> dict[str, object]:
    return {
        "admitted": verdict.admitted,
        "tcb_status": verdict.status,
        "advisories": list(verdict.advisories),
        "reasons": list(verdict.reasons),
    }
