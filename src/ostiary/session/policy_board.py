"""The policy board of a session: nodes to `PolicyBoard`, and its normal form. Ours, not SCONE's (docs/adr/0030)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

from ostiary.session import language
from ostiary.session.access import check_key_type, signer_key
from ostiary.session.duration import format_duration, parse_duration
from ostiary.session.findings import quote, template_hint
from ostiary.session.model import (
    AkvSecret,
    BoardMember,
    ImportedSecret,
    PolicyBoard,
    PrivateKeySecret,
    PublicKeySecret,
    Secret,
    SignerSubject,
    Variable,
)
from ostiary.session.name import read_segment
from ostiary.session.node import Node, Scalar
from ostiary.session.node import Sequence as SequenceNode
from ostiary.session.normal import JsonValue, present
from ostiary.session.pem import labels, private_key
from ostiary.session.placeholder import MARK, Placeholder
from ostiary.session.reading import Fields, Reading, describe, first_repeated
from ostiary.session.variable import read_secret_variable

MAX_MEMBERS = 64
MAX_WEBHOOKS = 8
MAX_URL_CHARACTERS = 2048
DEFAULT_DECIDE_WITHIN = timedelta(days=7)
MIN_DECIDE_WITHIN = timedelta(minutes=1)
MAX_PERIOD = timedelta(days=366)
"""Of `decide_within` and of `time_lock`."""

KEY_TYPES = ("Ed25519", "P-384", "P-256")
"""Of members' keys. P-256 is what security keys have; signed sessions do not take it."""

_LOOK_ALIKES = str.maketrans({"0": "o", "O": "o", "1": "l", "I": "l"})


def read_policy_board(
    reading: Reading, node: Node | None, secrets: Iterable[Secret]
) -> tuple[PolicyBoard | None, JsonValue]:
    """Who decides changes of the session, None if its access policy does. secrets: of the session.

    Guarantees, unless a mistake was found: `tolerated_faults + 1` of the members can approve; no key that the text
    tells stands under two names; no two names look alike; a break-glass quorum is larger than the ordinary one and can
    be reached. Does not guarantee that a member whose key is a variable has a key, or one of its own.
    """
    if node is None:
        return None, None
    fields = reading.fields(node, "policy_board")
    faults_node = fields.require("tolerated_faults", "say how many members may be away or dishonest, such as 1")
    faults = 0 if faults_node is None else reading.integer(faults_node, least=0, most=MAX_MEMBERS - 1)
    members, member_forms = _read_members(reading, fields, {secret.name: secret for secret in secrets})
    on, on_form = _read_on(reading, fields.get("on"))
    notify = _read_notify(reading, fields.get("notify"))
    if members and faults_node is not None:
        _check_quorum(reading, faults_node, faults + 1, len(members))
    board = PolicyBoard(
        tolerated_faults=faults,
        members=members,
        decide_within=_read_period(
            reading, fields.get("decide_within"), default=DEFAULT_DECIDE_WITHIN, least=MIN_DECIDE_WITHIN
        ),
        time_lock=_read_period(reading, fields.get("time_lock"), default=timedelta(0), least=timedelta(seconds=1)),
        on=on,
        break_glass=_read_break_glass(reading, fields.get("break_glass"), faults + 1, len(members)),
        notify=notify,
    )
    members_node = fields.get("members")
    if faults_node is not None and members_node is not None and fields.get("time_lock") is None:
        _check_veto(reading, members_node, board)
    within = None if board.decide_within == DEFAULT_DECIDE_WITHIN else format_duration(board.decide_within)
    return board, present(
        tolerated_faults=faults,
        members=member_forms,
        decide_within=within,
        time_lock=format_duration(board.time_lock) or None,
        on=on_form,
        break_glass=board.break_glass,
        notify=list(notify),
    )


def board_signer_key(text: str) -> bytes:
    """DER SubjectPublicKeyInfo of a member's key, from its PEM or its base58check text.

    Raises ValueError with one sentence: not a key, or of none of KEY_TYPES.
    """
    return signer_key(text, KEY_TYPES)


# --- members ---------------------------------------------------------------------------------------------------------


def _read_members(
    reading: Reading, fields: Fields, secrets: Mapping[str, Secret]
) -> tuple[tuple[BoardMember, ...], list[JsonValue]]:
    node = fields.require("members", "name at least one member and its key")
    if node is None:
        return (), []
    nodes = reading.sequence(node, "members")
    if not isinstance(node, SequenceNode):
        return (), []
    if not 1 <= len(nodes) <= MAX_MEMBERS:
        reading.findings.error(node, f"found {len(nodes)} members, expected 1 to {MAX_MEMBERS}")
    read = [_read_member(reading, element, secrets) for element in nodes]
    _check_names(reading, [(name, at) for _, _, (name, at), _ in read if name])
    _check_keys(reading, [(key, member.name, at) for member, _, _, (key, at) in read if key is not None])
    return tuple(member for member, _, _, _ in read), [form for _, form, _, _ in read]


_Found = tuple[BoardMember, JsonValue, tuple[str, Node], tuple[Hashable, Node]]
"""A member, its normal form, its name and its key each with the node where it stands."""


def _read_member(reading: Reading, node: Node, secrets: Mapping[str, Secret]) -> _Found:
    fields = reading.fields(node, "board member")
    name_node = fields.require("name", "people choose members by it")
    name = "" if name_node is None else read_segment(reading, name_node)
    signer_node = fields.require("signer", "give the public key that the member decides with")
    signer = None if signer_node is None else _read_signer(reading, signer_node)
    key = None if signer is None or signer_node is None else _key(reading, signer_node, signer, secrets)
    powers = _read_power(reading, fields.get("power"))
    member = BoardMember(
        name=name,
        signer=signer or SignerSubject(spki=b""),
        may_approve="approve" in powers,
        may_reject="reject" in powers,
    )
    if member.may_approve:
        reading.findings.warning(
            fields.node.values["power"],
            f"{quote(name)} alone approves any change, so that tolerated_faults does not hold; let it vote",
        )
    form = present(name=name, signer=signer_node.text if isinstance(signer_node, Scalar) else None, power=powers)
    return member, form, (name, name_node or node), (key, signer_node or node)


def _read_signer(reading: Reading, node: Node) -> SignerSubject | Variable | None:
    text = reading.text(node)
    if not isinstance(node, Scalar) or node.is_null:
        return None
    if text.startswith(MARK):
        name = read_secret_variable(reading, node, "public-key")
        return None if name is None else Variable(placeholder=Placeholder(name=name))
    try:
        return SignerSubject(spki=board_signer_key(text))
    except ValueError as error:
        found = "" if labels(text) else f"found {describe(node)}: "
        reading.findings.error(node, f"{found}no public key of a member: {error}{template_hint(text)}")
        return None


def _read_power(reading: Reading, node: Node | None) -> list[JsonValue]:
    """What the member may do alone, in the order of the language; none: it only votes."""
    if node is None:
        return []
    elements = reading.elements(node)
    if not elements:
        reading.findings.error(node, "an empty list of powers; write vote, or leave power out")
    words = [(reading.choice(element, language.BOARD_POWERS, "power"), element) for element in elements]
    for word, again, _ in first_repeated(words):
        reading.findings.error(again, f"{word} stands twice; remove one")
    for word, element in words:
        if word == "vote" and len(words) > 1:
            reading.findings.error(element, "every member votes; remove vote")
    named = {word for word, _ in words}
    return [word for word in language.BOARD_POWERS if word in named and word != "vote"]


def _check_names(reading: Reading, names: Sequence[tuple[str, Node]]) -> None:
    """Names that people would take for each other are mistakes."""
    seen: dict[str, tuple[str, Node]] = {}
    for name, node in names:
        looks = {name.casefold().translate(_LOOK_ALIKES), name.translate(_LOOK_ALIKES).casefold()}
        other = next((seen[look] for look in sorted(looks) if look in seen), None)
        if other is not None:
            is_same = "is the name" if other[0] == name else "looks like the name"
            reading.findings.error(
                node, f"{quote(name)} {is_same} of the member on line {other[1].line}; give it another"
            )
        for look in looks:
            seen.setdefault(look, (name, node))


def _check_keys(reading: Reading, keys: Sequence[tuple[Hashable, str, Node]]) -> None:
    seen: dict[Hashable, tuple[str, Node]] = {}
    for key, name, node in keys:
        if key in seen:
            other, at = seen[key]
            reading.findings.error(
                node,
                f"{quote(name)} has the key of {quote(other)} on line {at.line}, and a key counts once; remove one",
            )
        else:
            seen[key] = (name, node)


# --- keys behind variables -------------------------------------------------------------------------------------------


def _key(
    reading: Reading, node: Node, signer: SignerSubject | Variable, secrets: Mapping[str, Secret]
) -> Hashable | None:
    """What is equal for equal keys, as far as the text tells; None if it does not, or after a mistake."""
    if isinstance(signer, SignerSubject):
        return signer.spki
    match secrets.get(signer.placeholder.name):
        case PublicKeySecret() as secret:
            try:
                return _own_key(reading, node, secret, secrets)
            except ValueError as error:
                shown = quote(str(signer.placeholder))
                reading.findings.error(node, f"{shown} is no public key of a member: {error}")
        case ImportedSecret() as secret:
            # Two imports of one secret are one key.
            return replace(secret, name="", kind=None, size=None, exports=(), export_public=False)
        case AkvSecret():
            reading.findings.error(
                node,
                f"{quote(str(signer.placeholder))} lies in Azure, which is asked for programs that were admitted and "
                "never to count: the member would be nobody; write the key, or import it from a session",
            )
    return None


def _own_key(reading: Reading, node: Node, secret: PublicKeySecret, secrets: Mapping[str, Secret]) -> Hashable | None:
    """Raises ValueError with one sentence: a key that no member can have."""
    if secret.value is not None:
        return board_signer_key(secret.value)
    key = secrets.get(secret.private_key or "")
    if not isinstance(key, PrivateKeySecret):
        # Nothing is known of it but that it is one key, whatever stands for its public part.
        return ("private key", secret.private_key)
    key_type, spki = (key.key_type, None) if key.value is None else private_key(key.value)
    check_key_type(key_type, KEY_TYPES)
    if spki is None and not key.migrate:
        reading.findings.warning(
            node, f"each update makes {quote(key.name)} anew, and with it this member's key; write migrate: true there"
        )
    return spki or key.name


# --- periods, operations, webhooks, quorums --------------------------------------------------------------------------


def _read_period(reading: Reading, node: Node | None, *, default: timedelta, least: timedelta) -> timedelta:
    """From `least` to MAX_PERIOD."""
    if node is None:
        return default
    text = reading.text(node)
    if not isinstance(node, Scalar) or node.is_null:
        return default
    try:
        period = parse_duration(text)
    except ValueError as error:
        reading.findings.error(node, f"found {describe(node)}: {error}{template_hint(text)}")
        return default
    if not least <= period <= MAX_PERIOD:
        reading.findings.error(
            node, f"found {describe(node)}, expected {format_duration(least)} to {MAX_PERIOD.days} days"
        )
    return period


def _read_on(reading: Reading, node: Node | None) -> tuple[frozenset[str], list[JsonValue]]:
    """What the board decides, and the normal form, which is empty for updates alone."""
    if node is None:
        return frozenset({"update"}), []
    elements = reading.elements(node)
    words = [(reading.choice(element, language.BOARD_OPERATIONS, "operation"), element) for element in elements]
    for word, again, _ in first_repeated(words):
        reading.findings.error(again, f"{word} stands twice; remove one")
    named = frozenset(word for word, _ in words)
    for word, element in words:
        if word == "delete":
            reading.findings.note(element, "sessions are never deleted, so that delete has no effect")
    if named <= {"delete"}:
        reading.findings.error(node, "the board would decide nothing; write update, or leave policy_board out")
    elif "update" not in named:
        reading.findings.warning(node, "whoever may update the session can change its board, or remove it; add update")
    ordered: list[JsonValue] = [word for word in language.BOARD_OPERATIONS if word in named]
    return named, [] if ordered == ["update"] else ordered


def _read_notify(reading: Reading, node: Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    elements = reading.elements(node)
    if len(elements) > MAX_WEBHOOKS:
        reading.findings.error(node, f"found {len(elements)} addresses, expected at most {MAX_WEBHOOKS}")
    urls = [(reading.text(element), element) for element in elements]
    for url, element in urls:
        if isinstance(element, Scalar) and not element.is_null and not _is_webhook(url):
            reading.findings.error(
                element,
                f"found {describe(element)}, expected https://host/path without user, password or fragment"
                f"{template_hint(url)}",
            )
    for _, again, first in first_repeated(urls):
        reading.findings.error(again, f"the same address stands on line {first.line}; remove one")
    return tuple(url for url, _ in urls)


def _is_webhook(text: str) -> bool:
    """Whether `text` is an https address that anybody may see, within MAX_URL_CHARACTERS."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    clean = text.isascii() and text.isprintable() and not set(text) & set(' @#\\"<>')
    reachable = text.startswith("https://") and bool(parts.hostname) and port != 0
    return clean and reachable and len(text) <= MAX_URL_CHARACTERS


def _check_quorum(reading: Reading, node: Node, needed: int, members: int) -> None:
    if needed > members:
        reading.findings.error(
            node,
            f"{needed} members must approve, one more than tolerated_faults, and there are {members}; "
            "add members, or tolerate fewer faults",
        )
    elif needed == 1:
        reading.findings.warning(node, "with 0 one member alone decides; write 1, so that it takes two")
    elif needed == members:
        reading.findings.note(node, "every member must approve, so that one lost key stops all changes for good")


def _check_veto(reading: Reading, node: Node, board: PolicyBoard) -> None:
    """A veto that others need not wait for is one only for whoever is fast."""
    needed = board.tolerated_faults + 1
    for member in board.members:
        others = [one for one in board.members if one is not member]
        if member.may_reject and (len(others) >= needed or any(one.may_approve for one in others)):
            alone = needed == 1 or any(one.may_approve for one in others)
            enough = "one approval applies" if alone else f"{needed} approvals apply"
            reading.findings.warning(
                node,
                f"{enough} a change at once, so that the veto of {quote(member.name)} can come too late; "
                "add time_lock, such as 1 day",
            )
            return


def _read_break_glass(reading: Reading, node: Node | None, needed: int, members: int) -> int | None:
    """More than decide otherwise."""
    if node is None:
        return None
    if needed < members:
        quorum = reading.integer(node, least=needed + 1, most=members)
        if quorum == members:
            reading.findings.note(node, "every member must approve to break the glass, so that any one stops that, too")
        return quorum
    reading.findings.error(
        node,
        f"break_glass takes more than the {needed} approvals that suffice anyway, and the board has {members} "
        "members; leave it out",
    )
    return None
