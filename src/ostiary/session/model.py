"""A session as frozen dataclasses: what the parser makes, and what everything else decides on.

Values are already checked; a dataclass never holds an unparsed hash, duration or placeholder. Digests and keys are
bytes, text stays text. Absent optional members are None or empty. Field names are those of the session language.
Names of other sessions are absolute, without a leading slash. Where the language admits a configuration variable, a
`Variable` stands in place of the value: it is unknown until it is resolved, and nothing may be decided on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, TypeAlias

from ostiary.session.normal import JsonValue
from ostiary.session.placeholder import Placeholder, Template


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A configuration variable `$$SCONE::name[:format]$$`: its secret's value belongs here, once it is known.

    In a list it stands for one element, or for all elements of a fragment that is a list; a list that is written as
    one variable alone is a list with that one element.
    """

    placeholder: Placeholder


def variables_in(value: object) -> Iterator[Variable]:
    """Every variable that stands in a dataclass of this module, or in its members."""
    if isinstance(value, Variable):
        yield value
    elif isinstance(value, tuple | frozenset):
        for element in value:
            yield from variables_in(element)
    elif is_dataclass(value):
        for member in fields(value):
            yield from variables_in(getattr(value, member.name))


# --- services --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Signer:
    """`signer` of an attestation variant. Bounds are inclusive, 0 to 65535; None leaves that side open."""

    mrsigner: bytes | Variable
    isvprodid: int | Variable
    isvsvn_min: int | Variable | None = None
    isvsvn_max: int | Variable | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One attestation variant: all factors given must hold. `mrenclave`: any of these; empty means not a factor.

    The parser refuses a variant without any factor.
    """

    mrenclave: tuple[bytes | Variable, ...] = ()
    signer: Signer | Variable | None = None


@dataclass(frozen=True, kw_only=True)
class TeeFactors:
    """What a variant for another TEE than SGX asks for; all of it must hold.

    measurements: by the names of `evidence.claims.Claims`, in the order of the language; any of the values. With
    `tee.EVENTS` before its name, a PCR's events: each of them has one of these digests. The parser
    refuses a variant without any of `language.IDENTIFYING`.
    guest_svn_min, vmpl_max: of SNP alone, inclusive; None leaves that open.
    """

    measurements: tuple[tuple[str, tuple[bytes | Variable, ...]], ...]
    guest_svn_min: int | Variable | None = None
    vmpl_max: int | Variable | None = None


@dataclass(frozen=True, kw_only=True)
class TeeVariant:
    """A variant for another TEE than SGX. tee: of `language.TEES`. Ours, not SCONE's."""

    tee: str
    factors: TeeFactors | Variable


@dataclass(frozen=True, kw_only=True)
class HostVariable:
    """An environment entry written `\\@\\@NAME`: the host's variable of that name, empty if it has none."""

    name: str


@dataclass(frozen=True, kw_only=True)
class HostArgument:
    """A command word that is exactly `@@n`: the host's argument number n, counted from 1."""

    position: int


@dataclass(frozen=True, kw_only=True)
class Service:
    """One program with its configuration.

    command: argv after word splitting, placeholders still in place; empty if the session gives none.
    environment: name to value; the order means nothing.
    attestation: any variant admits; empty is possible only with `mode: none`.
    platforms: 16 bytes, the QE id of a platform that is admitted; an entry of 32 bytes never matches; empty: any.
    fspf_path, fspf_key (32 bytes), fspf_tag (16 bytes), fspf_update_policy: the main file system. With a path there is
    a key; the tag is None only with `no_rollback_protection`. fspf_update_policy: `rollback_protected_reinitializable`
    or `no_rollback_protection`.
    one_time_password_shared_secret: 16 bytes or more; the service's own, which beats the session's.
    """

    name: str
    image_name: str | None = None
    command: tuple[Template | HostArgument, ...] = ()
    environment: tuple[tuple[str, Template | HostVariable], ...] = ()
    pwd: str | None = None
    attestation: tuple[Variant | TeeVariant | Variable, ...] = ()
    platforms: tuple[bytes | Variable, ...] = ()
    fspf_path: str | None = None
    fspf_key: bytes | Variable | None = field(default=None, repr=False)
    fspf_tag: bytes | None = None
    fspf_update_policy: str = "rollback_protected_reinitializable"
    one_time_password_shared_secret: bytes | Variable | None = field(default=None, repr=False)


# --- images and volumes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class InjectionFile:
    """`content` None: the file at `path` is read at start and is the template. `permission`: bits, 0 to 0o777."""

    path: str
    content: Template | None
    permission: int = 0o700


@dataclass(frozen=True, kw_only=True)
class ImageVolume:
    """A volume mounted at `path`. update_policy: rollback_protected, ephemeral or no_rollback_protection."""

    name: str
    path: str
    update_policy: str = "rollback_protected"


@dataclass(frozen=True, kw_only=True)
class Image:
    """provide_secrets: the only secrets that files without content, and the runtime's call, may use.

    None: files may use all secrets of the session, the call none.
    """

    name: str
    injection_files: tuple[InjectionFile, ...] = ()
    volumes: tuple[ImageVolume, ...] = ()
    provide_secrets: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class VolumeExport:
    """A session of the same CAS that may use a volume, and how. update_policy: as in ImageVolume.

    volume_alias: the only name by which that session knows the volume; None: the volume's own name.
    """

    session: str
    session_hash: bytes | None = None
    update_policy: str = "rollback_protected"
    volume_alias: str | None = None


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume of this session. fspf_key (32 bytes) and fspf_tag (16 bytes): both, or neither: made at first use.

    files: "encrypted" or "authenticated-only".
    """

    name: str
    fspf_key: bytes | Variable | None = field(default=None, repr=False)
    fspf_tag: bytes | None = None
    files: str = "encrypted"
    exports: tuple[VolumeExport, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImportedVolume:
    """A volume of another session of the same CAS. volume: its name or alias there. session_hash: None: any version."""

    name: str
    session: str
    volume: str
    session_hash: bytes | None = None


# --- secrets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RemoteCas:
    """Another CAS. url: `host:port`. One of the key hashes (32 bytes) is given: of its owner, or of its software."""

    url: str
    cas_key: bytes | None = None
    cas_software_key: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class SessionTarget:
    """Exports to one session, not to those below it. session_hash: only to that version. cas: None: this CAS."""

    session: str
    session_hash: bytes | None = None
    cas: RemoteCas | None = None


@dataclass(frozen=True, kw_only=True)
class NamespaceTarget:
    """Exports to the session of this name and to all below it. "" is the root: every session of this CAS."""

    namespace: str


ExportTarget: TypeAlias = SessionTarget | NamespaceTarget


@dataclass(frozen=True, kw_only=True)
class _SecretBase:
    """What every secret has. value: None: the text does not give it. exports: who may import it."""

    name: str
    export_public: bool = False
    exports: tuple[ExportTarget, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AsciiSecret(_SecretBase):
    """`value` None: generated, `size` printable ASCII characters."""

    value: str | None = field(default=None, repr=False)
    size: int = 20


@dataclass(frozen=True, kw_only=True)
class BinarySecret(_SecretBase):
    """`value` None: generated, `size` bytes."""

    value: bytes | None = field(default=None, repr=False)
    size: int = 20


@dataclass(frozen=True, kw_only=True)
class PrivateKeySecret(_SecretBase):
    """`key_type`: P-256, P-384, Ed25519, RSA-2048 or RSA-3072. `value`: PKCS#8 PEM, or None to generate."""

    key_type: str = "P-256"
    value: str | None = field(default=None, repr=False)
    migrate: bool = False


@dataclass(frozen=True, kw_only=True)
class PublicKeySecret(_SecretBase):
    """`private_key` names the private-key secret that it belongs to. `value`: SPKI PEM. One of them is given."""

    private_key: str | None = None
    value: str | None = None


@dataclass(frozen=True, kw_only=True)
class X509CaSecret(_SecretBase):
    """`private_key` and `issuer` name secrets of this session; `issuer` None: self-signed. `value`: PEM, or None.

    Neither private_key nor value: of language 0.2, with a P-256 key of its own, issued by the session's own CA.
    """

    private_key: str | None = None
    issuer: str | None = None
    common_name: str | None = None
    valid_for: timedelta | None = None
    value: str | None = None


@dataclass(frozen=True, kw_only=True)
class X509Secret(_SecretBase):
    """As X509CaSecret, for an end entity. `endpoint`: "server", "client" or None.

    dns or san, not both. san: DNS names as text, the others as addresses; repeated entries are harmless.
    """

    private_key: str | None = None
    issuer: str | None = None
    common_name: str | None = None
    endpoint: str | None = None
    dns: tuple[str, ...] = ()
    san: tuple[str | IPv4Address | IPv6Address, ...] = ()
    valid_for: timedelta | None = None
    value: str | None = None


@dataclass(frozen=True, kw_only=True)
class SessionCaSecret(_SecretBase):
    """The certificate, never the key, of the CA that issues this session's certificates. Language 0.2."""

    value: ClassVar[None] = None


@dataclass(frozen=True, kw_only=True)
class AadTokenSecret(_SecretBase):
    """A token of Azure's directory, fetched at release.

    Either application_secret, or private_key (RSA, PKCS#8 PEM) with certificate_thumbprint.
    """

    tenant_id: str
    client_id: str
    application_secret: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    certificate_thumbprint: str | None = None
    value: ClassVar[None] = None


@dataclass(frozen=True, kw_only=True)
class ConfigFragmentSecret(_SecretBase):
    """A piece of a session, for configuration variables. value: not None, except that a fragment may be null.

    Numbers up to 18 digits and booleans are such; other scalars are text in their source spelling.
    """

    value: JsonValue = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PgpKeySecret(_SecretBase):
    """An OpenPGP key, always generated."""

    value: ClassVar[None] = None


@dataclass(frozen=True, kw_only=True)
class SoftwareIdentity:
    """`$$SCONE::self::software_identity$$`: the measurement, in hex, of the program that receives the token."""


@dataclass(frozen=True, kw_only=True)
class JwtSecret(_SecretBase):
    """A JSON web token, made at each release. signer: a private-key secret of type P-384. alg: ES384.

    validity: from its making. payload: claims in the order of the text; none of iat, nbf, exp.
    """

    signer: str
    alg: str
    validity: timedelta
    payload: tuple[tuple[str, str | Variable | SoftwareIdentity], ...] = field(default=(), repr=False)
    value: ClassVar[None] = None


@dataclass(frozen=True, kw_only=True)
class ImportedSecret(_SecretBase):
    """A secret of another session. kind, size: what it must be, None if the author does not say.

    session_hash: only of that version. cas: None: this CAS.
    """

    kind: str | None = None
    size: int | None = None
    session: str
    secret: str
    session_hash: bytes | None = None
    cas: RemoteCas | None = None
    value: ClassVar[None] = None


@dataclass(frozen=True, kw_only=True)
class AkvSecret(_SecretBase):
    """A secret of Azure's key vault, fetched at release. kind, size: as in ImportedSecret.

    vault: host name. secret_name: there. token: name of an aad-token secret. decryption_key: name of a binary secret of
    32 bytes, None if the vault holds the value itself.
    """

    kind: str | None = None
    size: int | None = None
    vault: str
    secret_name: str
    token: str
    decryption_key: str | None = None
    value: ClassVar[None] = None


Secret: TypeAlias = (
    AsciiSecret
    | BinarySecret
    | PrivateKeySecret
    | PublicKeySecret
    | X509CaSecret
    | X509Secret
    | SessionCaSecret
    | AadTokenSecret
    | ConfigFragmentSecret
    | PgpKeySecret
    | JwtSecret
    | ImportedSecret
    | AkvSecret
)


@dataclass(frozen=True, kw_only=True)
class KeyVault:
    """Azure's key vault as the place of this session's secrets. vault: its host. token: names an aad-token secret."""

    vault: str
    token: str


# --- access policy ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class KeySubject:
    """Admits TLS clients whose key has this hash: SHA-256 of the DER SubjectPublicKeyInfo, 32 bytes."""

    key_hash: bytes


@dataclass(frozen=True, kw_only=True)
class CertificateHashSubject:
    """Admits TLS clients whose certificate has this hash: SHA-256 of its PEM text with LF line ends, 32 bytes.

    Language 0.2 and older.
    """

    pem_hash: bytes


@dataclass(frozen=True, kw_only=True)
class CreatorSubject:
    """`CREATOR`: the key that uploaded this version."""


@dataclass(frozen=True, kw_only=True)
class AnySubject:
    """`ANY`: everyone."""


@dataclass(frozen=True, kw_only=True)
class NoneSubject:
    """`NONE`: nobody."""


@dataclass(frozen=True, kw_only=True)
class SignerSubject:
    """Admits uploads that this key signed. spki: DER SubjectPublicKeyInfo, Ed25519 or P-384; of a board also P-256."""

    spki: bytes


@dataclass(frozen=True, kw_only=True)
class RuleSubject:
    """`require-all` (needed is their number) or `require-at-least-N`: that many of `subjects` must be satisfied."""

    needed: int
    subjects: tuple[Subject, ...]


Subject: TypeAlias = (
    KeySubject
    | CertificateHashSubject
    | CreatorSubject
    | AnySubject
    | NoneSubject
    | SignerSubject
    | RuleSubject
    | Variable
)


@dataclass(frozen=True, kw_only=True)
class AccessPolicy:
    """Who may do what; any subject that admits is enough, an empty tuple admits nobody.

    create_sessions None: as update. list_sessions None: as read.
    """

    read: tuple[Subject, ...] = (CreatorSubject(),)
    update: tuple[Subject, ...] = (CreatorSubject(),)
    create_sessions: tuple[Subject, ...] | None = None
    list_sessions: tuple[Subject, ...] | None = None

    @property
    def effective_create_sessions(self) -> tuple[Subject, ...]:
        return self.update if self.create_sessions is None else self.create_sessions

    @property
    def effective_list_sessions(self) -> tuple[Subject, ...]:
        return self.read if self.list_sessions is None else self.list_sessions


@dataclass(frozen=True, kw_only=True)
class BoardMember:
    """One member of a policy board. signer: the key that it decides with; a variable is unknown, and decides nothing.

    Each member votes. may_approve: its approval alone is enough. may_reject: its rejection alone is final.
    """

    name: str
    signer: SignerSubject | Variable
    may_approve: bool = False
    may_reject: bool = False


@dataclass(frozen=True, kw_only=True)
class PolicyBoard:
    """Who decides changes together: any `tolerated_faults + 1` of the members. Ours, not SCONE's.

    decide_within: from the proposal on. time_lock: between the deciding approval and the change.
    on: of "update", "create_sessions" and "delete". break_glass: members that suffice whatever others reject; None: no
    number does. notify: https URLs that are told of proposals.
    """

    tolerated_faults: int
    members: tuple[BoardMember, ...]
    decide_within: timedelta
    time_lock: timedelta = timedelta(0)
    on: frozenset[str] = frozenset({"update"})
    break_glass: int | None = None
    notify: tuple[str, ...] = ()


# --- security --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TcbRules:
    """`tcb`, ours. grace: how long after it was superseded a TCB level is tolerated."""

    grace: timedelta | Variable


@dataclass(frozen=True, kw_only=True)
class SecurityAttestation:
    """`security.attestation`. mode: "hardware", "maa" or "none". tolerate: values of the language.

    ignore_advisories: advisory ids by name; ignore_all_advisories: the text was `*`, which has effect only in
    combination with `debug-mode` in `tolerate`.
    url: of Azure's attestation service, `https://host` without a final slash; given with mode maa. certificates: PEM
    CA certificates for the connection to it; empty: Microsoft's.
    must_be_sgx_local: only local attestation. one_time_password_shared_secret: 16 bytes or more, or None.
    max_age: how old the vendor's statements may be; None: as old as the vendor says. Ours, as `tcb` is.
    """

    mode: str | Variable = "hardware"
    tolerate: frozenset[str | Variable] = frozenset()
    ignore_advisories: frozenset[str | Variable] = frozenset()
    ignore_all_advisories: bool = False
    url: str | Variable | None = None
    certificates: tuple[str | Variable, ...] = ()
    must_be_sgx_local: bool | Variable = False
    one_time_password_shared_secret: bytes | Variable | None = field(default=None, repr=False)
    tcb: TcbRules | Variable | None = None
    max_age: timedelta | Variable | None = None


@dataclass(frozen=True, kw_only=True)
class Security:
    """`security`. singleton_enclaves: only instances that are provably fresh. service_access_token: not empty."""

    singleton_enclaves: bool | Variable = False
    service_access_token: str | Variable | None = field(default=None, repr=False)
    attestation: SecurityAttestation | Variable = SecurityAttestation()


# --- the session -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Session:
    """One version of a session.

    name: `/` is the root namespace. predecessor, namespace_hash: 32 bytes. salt: 16 bytes.
    secret_store: where the values of its secrets are kept; None: in the CAS.
    creator: who uploaded, a PEM certificate or the key that signed; None if nothing refers to it.
    """

    version: str
    name: str
    predecessor: bytes | None = None
    namespace_hash: bytes | None = None
    salt: bytes | None = None
    services: tuple[Service, ...] = ()
    images: tuple[Image, ...] = ()
    volumes: tuple[Volume | ImportedVolume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    secret_store: KeyVault | None = None
    access_policy: AccessPolicy | Variable = AccessPolicy()
    policy_board: PolicyBoard | None = None
    security: Security | Variable = Security()
    creator: str | SignerSubject | None = None

    @property
    def attestation(self) -> SecurityAttestation | Variable:
        """`security.attestation`; the variable that the whole section is, if it is one."""
        return self.security if isinstance(self.security, Variable) else self.security.attestation

    def board_decides(self, operation: str) -> bool:
        """Whether the policy board decides "update" or "create_sessions", which is as update unless it is given."""
        board = self.policy_board
        if board is None:
            return False
        follows = operation == "create_sessions" and self._creates_as_it_updates and "update" in board.on
        return operation in board.on or follows

    @property
    def _creates_as_it_updates(self) -> bool:
        return not isinstance(self.access_policy, Variable) and self.access_policy.create_sessions is None
