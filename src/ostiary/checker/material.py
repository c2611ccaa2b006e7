"""What rules may look at: a proposal as plain data. Pure.

old, new    the normal forms of the two sessions; `old` is null for a first version
diff        [{effect, path, meaning}], as `session diff --json` prints it; a first version is compared with one
            that asks for hardware evidence, gives nothing and is read by its creator alone
risks       [{kind, sentence}], the worst first
proposal    {id, cas, session, predecessor, session_hash, break_glass, created, note}, all of it covered by the id
admitted    [{service, tee, name, value}]: by which values a program is admitted, see `admitted`
variables   [{path, secret}]: where in `new` a placeholder stands, whose value may change without the text
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ostiary.board.proposal import ProposalFacts
from ostiary.board.risk import nothing_like, risks
from ostiary.checker.expression import Plain
from ostiary.errors import InputError
from ostiary.session import ParsedSession, Session, Variable, parse_template
from ostiary.session.diff import differences
from ostiary.session.model import Service, TeeVariant, Variant
from ostiary.session.normal import JsonValue

ANY = "any"
"""As `name` of what admits whoever asks."""
VARIABLE = "variable"
"""As `name` of what a configuration variable decides."""
_ASK_FOR_EVIDENCE = ("hardware", "maa")

Row = dict[str, str]


def material(facts: ProposalFacts, before: ParsedSession | None, after: ParsedSession) -> dict[str, Plain]:
    """The variables of rules for one proposal.

    Guarantees on return: `before` and `after` are the very versions that the facts name.
    Raises InputError if they are not, or a session says what rules cannot look at.
    """
    if after.hash != facts.session_hash or after.session.name != facts.session:
        raise InputError("the session that was shown is not the one that the proposal's id covers")
    if (None if before is None else before.hash) != facts.predecessor:
        raise InputError("the version that was shown as the current one is not the predecessor that the id covers")
    return {
        **compared(before, after),
        "proposal": {
            "id": facts.proposal_hash().hex(),
            "cas": facts.cas.hex(),
            "session": facts.session,
            "predecessor": None if facts.predecessor is None else facts.predecessor.hex(),
            "session_hash": facts.session_hash.hex(),
            "break_glass": facts.break_glass,
            "created": f"{facts.created.replace(tzinfo=None).isoformat(timespec='seconds')}Z",
            "note": facts.note,
        },
    }


def compared(before: ParsedSession | None, after: ParsedSession) -> dict[str, Plain]:
    """The variables of rules but `proposal`."""
    old, new = None if before is None else before.session, after.session
    found = differences(nothing_like(new) if old is None else old, new)
    diff: list[Plain] = [{"effect": d.effect.name.lower(), "path": d.path, "meaning": d.meaning} for d in found]
    seen: list[Plain] = [{"kind": risk.kind.value, "sentence": risk.sentence} for risk in risks(old, new)]
    return {
        "old": None if before is None else plain(before.normal),
        "new": plain(after.normal),
        "diff": diff,
        "risks": seen,
        "admitted": [{**row} for row in admitted(new)],
        "variables": [{**row} for row in variables(after.normal)],
    }


def plain(value: JsonValue) -> Plain:
    """Plain dicts, lists and scalars, which is all that the CEL library takes."""
    if isinstance(value, Mapping):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(element) for element in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return value


def admitted(session: Session) -> Iterator[Row]:
    """By which measurements each service admits programs, in the order of the text.

    tee: `sgx` or a key of the language; name: of the measurement; value: lower-case hex digits.
    An SGX variant with `mrenclave` is told by that, one without by its signer's `mrsigner`; a variant for another TEE
    has a row for each of its values. `variable` in place of a name: only the value of a secret will tell; value: its
    placeholder. `any`: no evidence is asked for, by the mode or for want of variants; value: "".
    """
    attestation = session.attestation
    asks = not isinstance(attestation, Variable) and attestation.mode in _ASK_FOR_EVIDENCE
    for service in session.services:
        if asks and service.attestation:
            yield from _of_service(service)
        else:
            yield _row(service.name, ANY, ANY, "")


def _of_service(service: Service) -> Iterator[Row]:
    for variant in service.attestation:
        if isinstance(variant, Variable):
            yield _row(service.name, ANY, "", variant)
        elif isinstance(variant, TeeVariant):
            yield from _of_tee(service.name, variant)
        else:
            yield from _of_sgx(service.name, variant)


def _of_sgx(service: str, variant: Variant) -> Iterator[Row]:
    signer = variant.signer
    if variant.mrenclave:
        yield from (_row(service, "sgx", "mrenclave", value) for value in variant.mrenclave)
    elif signer is not None:
        yield _row(service, "sgx", "mrsigner", signer if isinstance(signer, Variable) else signer.mrsigner)


def _of_tee(service: str, variant: TeeVariant) -> Iterator[Row]:
    if isinstance(variant.factors, Variable):
        yield _row(service, variant.tee, "", variant.factors)
        return
    for name, values in variant.factors.measurements:
        yield from (_row(service, variant.tee, name, value) for value in values)


def _row(service: str, tee: str, name: str, value: bytes | Variable | str) -> Row:
    if isinstance(value, Variable):
        return {"service": service, "tee": tee, "name": VARIABLE, "value": str(value.placeholder)}
    return {"service": service, "tee": tee, "name": name, "value": value if isinstance(value, str) else value.hex()}


def variables(value: JsonValue, path: str = "") -> Iterator[Row]:
    """Every placeholder in a normal form.

    path: as those of `diff`, elements that have a name by it. secret: the name in the placeholder.
    """
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from variables(member, f"{path}.{name}" if path else name)
    elif isinstance(value, str):
        for placeholder in parse_template(value).placeholders:
            yield {"path": path, "secret": placeholder.name}
    elif isinstance(value, Sequence):
        for index, element in enumerate(value):
            step = element.get("name", index) if isinstance(element, Mapping) else index
            yield from variables(element, f"{path}[{step}]")
