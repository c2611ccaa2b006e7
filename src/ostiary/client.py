"""The client of the REST API on 8081: sessions, proposals and decisions, over TLS that knows the service by its
certificate.

It runs beside people and programs, never beside the store: it imports the rooms below only. What a proposal means and
what is signed to decide about it, `ostiary.board` says; nothing that a service claims of it is signed unseen.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlencode, urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ostiary.board import Choice, ProposalFacts, decision_message, verify_decision
from ostiary.board.proposal import MAX_NOTE_CHARS, State, json_text
from ostiary.board.shown import Proposal, Summary, read_summary, verify_facts, verify_shown
from ostiary.errors import (
    AwayError,
    ConfigurationError,
    ConflictError,
    IdentityRequiredError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    OstiaryError,
    OutsideError,
    SwappedError,
    TooLargeError,
)
from ostiary.member_key import MemberKey
from ostiary.session.signed import signer_pem

DEFAULT_PORT = 8081
CONNECT_SECONDS = 10.0
"""For each address tried, and again for the TLS handshake."""
ANSWER_SECONDS = 60.0
"""For each wait on the network while a request is sent or answered."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A list of as many proposals as may wait at a service, with the longest names and notes. A checker that could not read
it would be blind to all of them. Two sessions of 1 MiB in JSON, and all that they differ in, are less."""
MAX_WAIT_FOR_PROPOSALS_SECONDS = 60
"""The longest that a service waits before it answers that nothing is new."""
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 8.0
DEFAULT_RETRIES = 3

_HASH_BYTES = 32
_NO_SUCH_PATH = "no such path;"
"""So begins what the listeners of a service say where they have nothing, which tells nothing of sessions."""
_REFUSALS: dict[int, type[OstiaryError]] = {
    400: InputError,
    401: IdentityRequiredError,
    403: NotAuthorizedError,
    404: NotFoundError,
    409: ConflictError,
    413: TooLargeError,
}


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a service listens. `str(address)` is its URL."""

    host: str
    port: int = DEFAULT_PORT

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"https://{self.authority}/"


def parse_address(text: str) -> Address:
    """`HOST`, `HOST:PORT` or `https://HOST[:PORT][/]`; an IPv6 address stands in brackets.

    Raises ConfigurationError.
    """
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        raise _no_address(text) from None
    bare = parts.scheme == "https" and parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in text)
    # `urlsplit` drops line ends, so they are looked for in what was written.
    if not bare or not parts.hostname or not text.isprintable() or " " in text or port == 0:
        raise _no_address(text)
    return Address(host=parts.hostname, port=port)


def _no_address(text: str) -> ConfigurationError:
    return ConfigurationError(f"{text!r} is no address of a CAS; write HOST, HOST:PORT or https://HOST:PORT")


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """session_hash: 32 bytes. warnings: each a sentence and its causes, from the outside in."""

    session_hash: bytes
    warnings: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class StoredText:
    """A version as the service gives it. session_hash: 32 bytes, None if the service did not say."""

    text: str = field(repr=False)
    session_hash: bytes | None


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """proposal: its id, 64 hex digits. session_hash: 32 bytes, of the version that it would make. expires: UTC."""

    proposal: str
    state: State
    session_hash: bytes
    expires: datetime
    warnings: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Listed:
    """cursor: changes whenever the list does."""

    proposals: tuple[Summary, ...]
    cursor: str


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What the proposal has come to with a decision. needed, approvals: None where the service does not say.

    apply_after: the end of the time lock, if one runs.
    """

    state: State
    approvals: int | None
    needed: int | None
    apply_after: datetime | None = None


class Client:
    """One service, for one identity. Each request has a connection of its own.

    anchors: PEM certificates. The service's chain must lead to one of them, or be one of them; names in it are not
    compared with the host, for the anchor is the identity and addresses change. None: any server is accepted, and
    whoever sits on the way reads and changes everything; for tests only.
    identity: PEM of a private key and its certificate, to show as client certificate; None shows none.
    retries: how often a request is tried again after a network failure, after 0.5 s, 1 s, 2 s, … at most 8 s. An
    upload is tried again only while no connection has come about: later, it may have happened.

    All methods raise OutsideError (not the service of the anchors, an answer that no CAS gives; AwayError: no
    connection, broken, no answer in time, a failure of the service) and, for what the service refuses: InputError,
    TooLargeError, IdentityRequiredError, NotAuthorizedError, NotFoundError, ConflictError, with the service's sentences
    as causes.
    """

    def __init__(
        self,
        address: Address,
        *,
        anchors: str | None,
        identity: str | None,
        retries: int = DEFAULT_RETRIES,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = address
        self._anchors = anchors
        self._context = _trusting(anchors)
        if identity is not None:
            _show(self._context, identity)
        self._retries = retries
        self._wait = wait

    def upload(self, text: str) -> Uploaded:
        """Make `text` the current version of the session that it names; it is durable on return."""
        return self._upload("POST", "/v1/sessions", text, doing="uploading the session")

    def upload_signed(self, signed: str) -> Uploaded:
        """As `upload`, of the JSON of a signed session."""
        return self._upload("PUT", "/v1/signed_sessions", signed, doing="uploading the signed session")

    def upload_encrypted(self, encrypted: str) -> Uploaded:
        """As `upload`, of the JSON of an encrypted session."""
        return self._upload("PUT", "/v1/encrypted_sessions", encrypted, doing="uploading the encrypted session")

    def _upload(self, method: str, path: str, text: str, *, doing: str) -> Uploaded:
        members = self._request(method, path, text.encode(), doing=doing)
        session_hash = _digest(members.get("hash"))
        if session_hash is None:
            raise self._strange("its answer to an upload has no session hash")
        return Uploaded(session_hash=session_hash, warnings=_warnings(members.get("warnings")))

    def read(self, name: str, *, session_hash: bytes | None = None) -> StoredText:
        """The current version of session `name`, or the one with `session_hash`, in normal form."""
        query = "" if session_hash is None else f"?hash={session_hash.hex()}"
        path = f"/v1/sessions/{_in_path(name)}{query}"
        members = self._request("GET", path, None, doing=f"reading session {name!r}")
        text = members.get("session")
        if not isinstance(text, str):
            raise self._strange("its answer to a read has no session")
        return StoredText(text=text, session_hash=_digest(members.get("hash")))

    def read_hash(self, name: str) -> bytes:
        """The hash, 32 bytes, of the current version of session `name`."""
        path = f"/v1/session_hashes/{_in_path(name)}"
        session_hash = _digest(
            self._request("GET", path, None, doing=f"reading the hash of session {name!r}").get("hash")
        )
        if session_hash is None:
            raise self._strange("its answer has no session hash")
        return session_hash

    def sessions(self, namespace: str) -> tuple[str, ...]:
        """The names of the sessions of a namespace, `/` for those that are in none, in no order."""
        found: list[str] = []
        start: int | None = 0
        while start is not None:
            query = urlencode({"namespace": namespace, "from": start})
            doing = f"listing the sessions of {namespace!r}"
            members = self._request("GET", f"/v1/sessions?{query}", None, doing=doing)
            names, following = members.get("sessions"), members.get("next")
            if not isinstance(names, list) or not all(isinstance(name, str) and name.isprintable() for name in names):
                raise self._strange("its answer has no list of sessions")
            if following is not None and (not isinstance(following, int) or following <= start):
                raise self._strange("its list of sessions never ends")
            found += names
            start = following
        return tuple(found)

    def denial(self, denial: str) -> dict[str, object]:
        """The denial with that id, signed by the service. Verifies nothing."""
        return self._request("GET", f"/v1/denials/{quote(denial, safe='')}", None, doing=f"reading denial {denial!r}")

    def denials(self, session: str, *, before: str | None = None) -> tuple[dict[str, object], ...]:
        """Denials of a session in short, the newest first; with `before` those older than that one."""
        query = urlencode({"session": session, **({} if before is None else {"before": before})})
        members = self._request("GET", f"/v1/denials?{query}", None, doing=f"listing denials of session {session!r}")
        listed = members.get("denials")
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise self._strange("its answer has no denials")
        return tuple(listed)

    def propose(self, text: str, *, note: str = "", break_glass: bool = False) -> Proposed:
        """Propose `text` as the next version of the session that it names, for those who decide; durable on return.

        A note that no proposal can have is an InputError, and nothing is sent.
        """
        json_text("note", note, max_chars=MAX_NOTE_CHARS)
        members = self._send("/v1/proposals", {"session": text, "note": note, "break_glass": break_glass}, "proposing")
        session_hash, expires = _digest(members.get("hash")), _time(members.get("expires"))
        proposal, state = _digest(members.get("proposal")), _state(members.get("state"))
        if session_hash is None or expires is None or proposal is None or state is None:
            raise self._strange("its answer to a proposal has no id, state, hash or expiry")
        return Proposed(
            proposal=proposal.hex(),
            state=state,
            session_hash=session_hash,
            expires=expires,
            warnings=_warnings(members.get("warnings")),
        )

    def proposals(
        self,
        *,
        session: str | None = None,
        waiting_for: bytes | None = None,
        every_state: bool = False,
        after: str | None = None,
        wait_seconds: int = 0,
    ) -> Listed:
        """Proposals in short, as the service says; verifies nothing. Of one session, or of all that we may see.

        waiting_for: SHA-256, 32 bytes, of a member's SubjectPublicKeyInfo (DER): only those that wait for its decision.
        every_state: closed ones, too, of one session. after: the cursor of a list that we have: while nothing in it
        changes the answer waits, for wait_seconds, at most MAX_WAIT_FOR_PROPOSALS_SECONDS.
        """
        wait = min(wait_seconds, MAX_WAIT_FOR_PROPOSALS_SECONDS)
        asked = {
            "session": session,
            "waiting-for": None if waiting_for is None else waiting_for.hex(),
            "state": "all" if every_state else "open",
            "after": after,
            "wait": str(wait) if wait else None,
        }
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        members = self._request("GET", f"/v1/proposals?{query}", None, doing="listing proposals", wait_seconds=wait)
        listed, cursor = members.get("proposals"), members.get("cursor")
        if not isinstance(listed, list) or not isinstance(cursor, str):
            raise self._strange("its answer has no proposals")
        if not all(isinstance(one, dict) for one in listed):
            raise self._strange("its answer has proposals that are none")
        return Listed(proposals=tuple(read_summary(one) for one in listed), cursor=cursor)

    def proposal(self, proposal: str) -> Proposal:
        """The proposal with that id, 64 hex digits, held against what follows from it (`board.shown.verify_shown`).

        Raises SwappedError beside what all methods raise, and ConfigurationError if the CAS is not known by one
        certificate: then nobody can tell whose proposal it is.
        """
        cas = self.cas
        path = f"/v1/proposals/{quote(proposal, safe='')}"
        members = self._request("GET", path, None, doing=f"showing proposal {proposal!r}")
        return verify_shown(members, asked=proposal, cas=cas)

    def decide(self, proposal: Proposal, choice: Choice, *, key: MemberKey, reason: str = "") -> Counted:
        """Sign a decision about exactly this proposal, and hand it in; it is counted, and durable, on return.

        A decision may be made again, or become more cautious: approve, withdraw, reject. Raises ConflictError if it
        would become less so or the proposal is closed, NotAuthorizedError for a key that is no member's, what `key`
        raises, SwappedError: a proposal of another CAS, and OutsideError: the key signed, but its signature does not
        hold. InputError: a reason that cannot be signed.
        """
        if proposal.facts.cas != self.cas:
            raise SwappedError("the proposal is of another CAS than this one")
        return self._decide(proposal.facts, choice, key, reason)

    def reject_unread(self, proposal: str, *, key: MemberKey, reason: str) -> Counted:
        """Reject the proposal with that id, 64 hex digits, whose session nobody here can read.

        For members that must not be got around by a session of a newer language; it is read nowhere, and rejected for
        that. Raises as `decide` and `proposal` do, but for what concerns the texts.
        """
        cas = self.cas
        path = f"/v1/proposals/{quote(proposal, safe='')}"
        members = self._request("GET", path, None, doing=f"showing proposal {proposal!r}")
        return self._decide(verify_facts(members, asked=proposal, cas=cas), Choice.REJECT, key, reason)

    def _decide(self, facts: ProposalFacts, choice: Choice, key: MemberKey, reason: str) -> Counted:
        signature = key.sign(decision_message(facts, choice, reason))
        try:
            verify_decision(facts, signer=key.spki, choice=choice, reason=reason, signature=signature)
        except InputError as error:
            raise OutsideError("the key signed, but its signature does not hold; nothing was sent") from error
        body = {
            "signer": signer_pem(key.spki),
            "decision": choice.value,
            "reason": reason,
            "signature": base64.b64encode(signature).decode("ascii"),
        }
        path = f"/v1/proposals/{facts.proposal_hash().hex()}/decisions"
        members = self._send(path, body, f"to {choice.value} the proposal")
        state, approvals, needed = _state(members.get("state")), members.get("approvals"), members.get("needed")
        if state is None:
            raise self._strange("its answer to a decision has no state")
        return Counted(
            state=state,
            approvals=approvals if isinstance(approvals, int) else None,
            needed=needed if isinstance(needed, int) else None,
            apply_after=_time(members.get("apply_after")),
        )

    @property
    def cas(self) -> bytes:
        """The identity of the service, as proposals name it: SHA-256 of its root key's SubjectPublicKeyInfo, DER.

        Raises ConfigurationError unless we know the service by exactly one certificate.
        """
        try:
            known = x509.load_pem_x509_certificates((self._anchors or "").encode())
            keys = {one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for one in known}
        except (ValueError, UnsupportedAlgorithm):
            keys = set()
        if len(keys) != 1:
            raise ConfigurationError(
                f"proposals need a CAS that is known by one certificate; this one is known by {len(keys) or 'none'}",
                "give --cas-ca with the cas-ca.pem of `ostiary serve`",
            )
        return hashlib.sha256(keys.pop()).digest()

    def session_encryption_key(self) -> bytes:
        """The X25519 public key, 32 bytes, for which sessions are encrypted so that this service can read them."""
        members = self._request("GET", "/v1/session_encryption_key", None, doing="showing its session encryption key")
        key = _digest(members.get("session_encryption_key"))
        if key is None:
            raise self._strange("its answer has no session encryption key")
        return key

    def _send(self, path: str, body: Mapping[str, object], doing: str) -> dict[str, object]:
        return self._request("POST", path, json.dumps(body).encode(), doing=doing)

    def _request(
        self, method: str, path: str, body: bytes | None, *, doing: str, wait_seconds: float = 0
    ) -> dict[str, object]:
        status, content = self._patiently(method, path, body, wait_seconds)
        members = _object(content)
        if 200 <= status < 300 and members is not None:
            return members
        told = _sentences(None if members is None else members.get("msg"))
        refusal = _REFUSALS.get(status)
        if status >= 500 and told:
            raise AwayError(f"CAS {self.address.authority} failed at {doing}", *told)
        if status == 404 and told and told[0].startswith(_NO_SUCH_PATH):
            raise self._strange(*told, f"a CAS has its client API on port {DEFAULT_PORT}, unless it was told another")
        if refusal is None or not told:
            strange = self._strange(f"its answer has status {status}", *told)
            # So do proxies in front of a service that is away.
            raise AwayError(*strange.chain) if status >= 500 else strange
        raise refusal(f"CAS {self.address.authority} refused {doing}", *told)

    def _patiently(self, method: str, path: str, body: bytes | None, wait_seconds: float) -> tuple[int, bytes]:
        left, wait = self._retries, FIRST_WAIT_SECONDS
        while True:
            try:
                return self._once(method, path, body, wait_seconds)
            except _NetworkError as error:
                if left <= 0 or error.final or (error.sent and body is not None):
                    raise (OutsideError if error.final else AwayError)(*error.chain) from error
            self._wait(wait)
            left, wait = left - 1, min(2 * wait, MAX_WAIT_SECONDS)

    def _once(self, method: str, path: str, body: bytes | None, wait_seconds: float) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            self.address.host, self.address.port, timeout=CONNECT_SECONDS, context=self._context
        )
        with contextlib.closing(connection):
            self._connect(connection)
            try:
                connection.sock.settimeout(ANSWER_SECONDS + wait_seconds)
                content_type = "application/yaml" if path == "/v1/sessions" else "application/json"
                connection.request(method, path, body, {"Content-Type": content_type, "Connection": "close"})
                response = connection.getresponse()
                content = response.read(MAX_ANSWER_BYTES + 1)
                if response.length and len(content) <= MAX_ANSWER_BYTES:
                    raise http.client.IncompleteRead(content, response.length)
            except (OSError, http.client.HTTPException) as error:
                raise self._broken(error, path if body is not None else None) from error
        if len(content) > MAX_ANSWER_BYTES:
            raise self._strange(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        return response.status, content

    def _connect(self, connection: http.client.HTTPSConnection) -> None:
        authority = self.address.authority
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            message = f"the server at {authority} is not the CAS that was asked for"
            raise _NetworkError(message, f"its certificate: {error.verify_message}", final=True) from error
        except (OSError, UnicodeError) as error:
            # Another try ends the same way if the other end speaks, but not TLS, or the name cannot be one.
            spoke = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
            final = spoke or isinstance(error, UnicodeError)
            raise _NetworkError(f"cannot connect to CAS {authority}", _reason(error), final=final) from error

    def _broken(self, error: OSError | http.client.HTTPException, sent: str | None) -> _NetworkError:
        """sent: the path that something was sent to, if anything was."""
        after = () if sent is None else ("the session may have been stored: `session read` tells",)
        if sent is not None and sent.startswith("/v1/proposals"):
            after = ("it may have been counted all the same: `board list --closed` and `board status` tell",)
        message = f"the connection to CAS {self.address.authority} broke before its answer was complete"
        return _NetworkError(message, _reason(error), *after, sent=True)

    def _strange(self, *causes: str) -> OutsideError:
        return OutsideError(f"the server at {self.address.authority} did not answer as a CAS does", *causes)


class _NetworkError(OutsideError):
    """One try failed. final: another would fail the same way. sent: the service may have seen the request."""

    def __init__(self, message: str, *causes: str, final: bool = False, sent: bool = False) -> None:
        super().__init__(message, *causes)
        self.final = final
        self.sent = sent


def _trusting(anchors: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    if anchors is None:
        context.verify_mode = ssl.CERT_NONE
        return context
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=anchors)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError("the certificate of the CAS cannot be read", _reason(error)) from error
    return context


def _show(context: ssl.SSLContext, identity: str) -> None:
    """Load key and certificate by way of memory that has no name: `ssl` takes files only."""
    fd = os.memfd_create("ostiary-identity", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(identity.encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    except (OSError, ValueError) as error:
        raise ConfigurationError("the client identity cannot be used for TLS", _reason(error)) from error
    finally:
        os.close(fd)


def _in_path(name: str) -> str:
    return quote(name.lstrip("/") or name[:1], safe="/~")


def _object(content: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _digest(value: object) -> bytes | None:
    try:
        digest = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return None
    return digest if len(digest) == _HASH_BYTES else None


def _state(value: object) -> State | None:
    return State(value) if isinstance(value, str) and value in set(State) else None


def _time(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return None if time is None or time.tzinfo is None else time.astimezone(UTC)


def _sentences(value: object) -> tuple[str, ...]:
    """The sentences of a list, on one line each. Services repeat the cause at the end of what failed: told once."""
    if not isinstance(value, list):
        return ()
    sentences = [_printable(sentence) for sentence in value if isinstance(sentence, str)]
    if len(sentences) > 1:
        sentences[0] = sentences[0].removesuffix(f": {sentences[1]}")
    return tuple(sentences)


def _warnings(value: object) -> tuple[tuple[str, ...], ...]:
    warnings = [_sentences(warning) for warning in value] if isinstance(value, list) else []
    return tuple(warning for warning in warnings if warning)


def _printable(sentence: str) -> str:
    """What another machine says, for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in sentence)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "it was closed"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__
