"""A session as frozen dataclasses: what the parser makes, and what everything else decides on.

Values are already checked; a dataclass never holds an unparsed hash, duration or placeholder. Digests and keys are
bytes, text stays text. Absent optional members are None or empty. Field names are those of the session language.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from ostiary.session.placeholder import Template


@dataclass(frozen=True, kw_only=True)
class Signer:
    """`signer` of an attestation variant. Bounds are inclusive, 0 to 65535; None leaves that side open."""

    mrsigner: bytes
    isvprodid: int
    isvsvn_min: int | None = None
    isvsvn_max: int | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One attestation variant: all factors given must hold. `mrenclave`: any of these; empty means not a factor.

    The parser refuses a variant without any factor.
    """

    mrenclave: tuple[bytes, ...] = ()
    signer: Signer | None = None


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
    """

    name: str
    image_name: str | None = None
    command: tuple[Template | HostArgument, ...] = ()
    environment: tuple[tuple[str, Template | HostVariable], ...] = ()
    pwd: str | None = None
    attestation: tuple[Variant, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InjectionFile:
    """`permission`: mode bits, 0 to 0o777."""

    path: str
    content: Template
    permission: int = 0o700


@dataclass(frozen=True, kw_only=True)
class Image:
    name: str
    injection_files: tuple[InjectionFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AsciiSecret:
    """`value` None: generated, `size` printable ASCII characters."""

    name: str
    value: str | None = field(default=None, repr=False)
    size: int = 20
    export_public: bool = False


@dataclass(frozen=True, kw_only=True)
class BinarySecret:
    """`value` None: generated, `size` bytes."""

    name: str
    value: bytes | None = field(default=None, repr=False)
    size: int = 20
    export_public: bool = False


@dataclass(frozen=True, kw_only=True)
class PrivateKeySecret:
    """`key_type`: P-256, P-384, Ed25519, RSA-2048 or RSA-3072. `value`: PKCS#8 PEM, or None to generate."""

    name: str
    key_type: str = "P-256"
    value: str | None = field(default=None, repr=False)
    migrate: bool = False
    export_public: bool = False


@dataclass(frozen=True, kw_only=True)
class X509CaSecret:
    """`private_key` and `issuer` name secrets of this session; `issuer` None: self-signed. `value`: PEM, or None."""

    name: str
    private_key: str | None = None
    issuer: str | None = None
    common_name: str | None = None
    valid_for: timedelta | None = None
    value: str | None = None
    export_public: bool = False


@dataclass(frozen=True, kw_only=True)
class X509Secret:
    """As X509CaSecret, for an end entity. `endpoint`: "server", "client" or None."""

    name: str
    private_key: str | None = None
    issuer: str | None = None
    common_name: str | None = None
    endpoint: str | None = None
    dns: tuple[str, ...] = ()
    valid_for: timedelta | None = None
    value: str | None = None
    export_public: bool = False


Secret = AsciiSecret | BinarySecret | PrivateKeySecret | X509CaSecret | X509Secret


@dataclass(frozen=True, kw_only=True)
class KeySubject:
    """Admits TLS clients whose key has this hash: SHA-256 of the DER SubjectPublicKeyInfo, 32 bytes."""

    key_hash: bytes


@dataclass(frozen=True, kw_only=True)
class CreatorSubject:
    """`CREATOR`: the key that uploaded this version."""


@dataclass(frozen=True, kw_only=True)
class AnySubject:
    """`ANY`: everyone."""


@dataclass(frozen=True, kw_only=True)
class NoneSubject:
    """`NONE`: nobody."""


Subject = KeySubject | CreatorSubject | AnySubject | NoneSubject


@dataclass(frozen=True, kw_only=True)
class AccessPolicy:
    """Who may do what; any subject that admits is enough, an empty tuple admits nobody."""

    read: tuple[Subject, ...] = (CreatorSubject(),)
    update: tuple[Subject, ...] = (CreatorSubject(),)


@dataclass(frozen=True, kw_only=True)
class SecurityAttestation:
    """`security.attestation`. mode: "hardware" or "none". tolerate: values of the language.

    ignore_advisories: advisory ids by name; ignore_all_advisories: the text was `*`, which has effect only in
    combination with `debug-mode` in `tolerate`.
    """

    mode: str = "hardware"
    tolerate: frozenset[str] = frozenset()
    ignore_advisories: frozenset[str] = frozenset()
    ignore_all_advisories: bool = False


@dataclass(frozen=True, kw_only=True)
class Session:
    """One version of a session. `creator`: PEM certificate of the uploader, None if nothing refers to it."""

    version: str
    name: str
    predecessor: bytes | None = None
    services: tuple[Service, ...] = ()
    images: tuple[Image, ...] = ()
    secrets: tuple[Secret, ...] = ()
    access_policy: AccessPolicy = AccessPolicy()
    attestation: SecurityAttestation = SecurityAttestation()
    creator: str | None = None
