"""Values of secrets for one decision, imports included, and all that they rest on.

An import is looked up at each release and never kept: whether the other session still exists, exports the secret, and
has the version that was named, is judged by what its current version says, link by link where a secret travels over
several sessions. What comes from Azure is fetched by whoever runs the resolution (`outside`), never on the way.
Source: session language, "Secret sharing".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from ostiary.broker.exports import exported_secret, is_exported
from ostiary.broker.memory import FOR_EVER
from ostiary.broker.outside import Errand, Errands
from ostiary.broker.session_records import SessionRecords, StoredSession
from ostiary.errors import InputError, ReleaseRefusedError, SecretUnavailableError
from ostiary.secret import (
    CertificateValue,
    ReleaseContext,
    Released,
    Value,
    import_value,
    made_of,
    needs_renewal,
    release_values,
    renew,
)
from ostiary.secret.certificate import renewal_time
from ostiary.session.model import (
    AadTokenSecret,
    AkvSecret,
    ImportedSecret,
    JwtSecret,
    Secret,
    X509CaSecret,
    X509Secret,
)
from ostiary.store import Expect

MAX_IMPORT_CHAIN = 8
"""Over how many sessions a secret may travel."""

_Link = tuple[str, str]
"""Session and secret."""


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """Values of a current version that are to be stored in place of those that it has."""

    stored: StoredSession
    values: Mapping[str, Value] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class _Imported:
    """The value, and the secret at the beginning of the chain, which alone knows its kind."""

    value: Released
    origin: Secret


class Resolution:
    """One decision at one instant. It reads records as they are now, and remembers which.

    rests_on: the records that were looked at, in the versions that were found, absent ones included. If one moved
    meanwhile, it is there twice, and nothing can rest on both.
    renewals: values that were made anew on the way; they must be stored before anything made of them is used.
    until: when something that was used is due to be made anew. lasting: whether nothing was made for this instant only.
    """

    def __init__(
        self,
        records: SessionRecords,
        *,
        random: Callable[[int], bytes],
        now: datetime,
        renewing: bool = True,
        vaulted: bool = True,
        errands: Errands | None = None,
    ) -> None:
        """renewing: make anew what is due. Else values are taken as they are, and `renewals` stays empty.

        vaulted: use what sessions keep in key vaults. Else that cannot be had, whatever was looked at before, so that
        all who resolve by the same records find the same.

        errands: what was fetched from outside; None: nothing may be, because nobody was admitted yet.
        """
        self._records = records
        self._random = random
        self._now = now
        self._renewing = renewing
        self._vaulted = vaulted
        self._errands = errands
        self._expect: dict[Expect, None] = {}
        self._looked_at: dict[str, Mapping[str, Value]] = {}
        self._imported: dict[_Link, _Imported] = {}
        self._renewals: dict[str, Renewal] = {}
        self.until = FOR_EVER
        self.lasting = True

    @property
    def rests_on(self) -> tuple[Expect, ...]:
        return tuple(self._expect)

    @property
    def renewals(self) -> tuple[Renewal, ...]:
        return tuple(self._renewals.values())

    def released(
        self, stored: StoredSession, wanted: Collection[str], *, software_identity: bytes | None = None
    ) -> dict[str, Released]:
        """The values of the secrets `wanted` of a current version, ready to be rendered; nothing else is looked at.

        software_identity: measurement of the program that will receive them, None if it was not attested.
        Guarantees: what is imported was exported to this session, by every session on the way, in the versions of
        `rests_on`. The caller must commit its decision on those.
        Raises SecretUnavailableError whose message names the secret and whose causes say why, ReleaseRefusedError for
        what `secret` cannot make, StoreError, and Pending (`outside`) if something has to be fetched first.
        """
        self._rest_on(stored.is_current)
        return self._released(self._with_usable_values(stored), wanted, software_identity, ())

    def session(self, name: str) -> StoredSession:
        """The current version of a session that an import names. Raises ReleaseRefusedError: there is none."""
        return self._current(name)

    def provided(
        self, stored: StoredSession, values: Mapping[str, Released], names: Collection[str]
    ) -> dict[str, Released]:
        """What `released` returned, with the key of a certificate only where `names` has the secret of that key too."""
        return {
            name: replace(value, private_key=None)
            if isinstance(value, CertificateValue)
            and not self._has_key(stored, stored.secrets[name], lambda key: key in names)
            else value
            for name, value in values.items()
        }

    def _released(
        self,
        stored: StoredSession,
        wanted: Collection[str],
        software_identity: bytes | None,
        chain: tuple[_Link, ...],
    ) -> dict[str, Released]:
        session = stored.parsed.session
        secrets = stored.secrets
        imports: dict[str, Released] = {}
        for name in made_of(secrets, wanted):
            secret = secrets[name]
            self.lasting &= not isinstance(secret, JwtSecret | AadTokenSecret | AkvSecret)
            if isinstance(secret, ImportedSecret):
                imports[name] = self._import(stored, secret, software_identity, chain).value
            elif isinstance(secret, AadTokenSecret | AkvSecret):
                imports[name] = self._fetched(stored, secret, imports)
        values = self._values(stored, imports)
        context = ReleaseContext(now=self._now, software_identity=software_identity, imports=imports)
        return release_values(session, values, wanted, context)

    def _fetched(
        self, stored: StoredSession, secret: AadTokenSecret | AkvSecret, imports: Mapping[str, Released]
    ) -> Released:
        if self._errands is None:
            raise SecretUnavailableError(
                f"secret {secret.name!r} cannot be fetched",
                "what Azure holds is fetched for programs that were admitted, not to decide that, nor for the public",
            )
        errand = Errand(stored=stored, secret=secret, imports=dict(imports), rests_on=self.rests_on)
        fetched = self._errands.value(errand)
        for condition in fetched.rests_on:
            self._rest_on(condition)
        return fetched.value

    def _import(
        self,
        importer: StoredSession,
        secret: ImportedSecret,
        software_identity: bytes | None,
        chain: tuple[_Link, ...],
    ) -> _Imported:
        link = (importer.parsed.session.name, secret.name)
        if link not in self._imported:
            try:
                self._check_chain(link, chain)
                self._imported[link] = self._fetch(importer, secret, software_identity, (*chain, link))
            except (InputError, ReleaseRefusedError) as error:
                raise SecretUnavailableError(f"secret {secret.name!r} cannot be imported", *error.chain) from None
        return self._imported[link]

    def _check_chain(self, link: _Link, chain: tuple[_Link, ...]) -> None:
        if link in chain:
            circle = " <- ".join(f"{session}:{name}" for session, name in (*chain, link))
            raise ReleaseRefusedError(f"the import goes in a circle, {circle}; one of the sessions must hold the value")
        if len(chain) >= MAX_IMPORT_CHAIN:
            raise ReleaseRefusedError(
                f"the secret travels over more than {MAX_IMPORT_CHAIN} sessions; import it from the first of them"
            )

    def _fetch(
        self,
        importer: StoredSession,
        secret: ImportedSecret,
        software_identity: bytes | None,
        chain: tuple[_Link, ...],
    ) -> _Imported:
        if secret.cas is not None:
            raise ReleaseRefusedError(f"it is of another CAS, {secret.cas.url}, and this version imports from none")
        exporter = self._current(secret.session)
        source = exported_secret(exporter.parsed, secret, importer.parsed)
        value = self._released(exporter, (source.name,), software_identity, chain)[source.name]
        origin: Secret = source
        if isinstance(source, ImportedSecret):
            origin = self._imported[exporter.parsed.session.name, source.name].origin
        with_key = self._exports_key(exporter, source, importer)
        return _Imported(value=import_value(secret, source=origin, value=value, with_key=with_key), origin=origin)

    def _exports_key(self, exporter: StoredSession, certificate: Secret, importer: StoredSession) -> bool:
        return self._has_key(exporter, certificate, lambda key: is_exported(exporter.secrets[key], importer.parsed))

    def _has_key(self, stored: StoredSession, certificate: Secret, admitted: Callable[[str], bool]) -> bool:
        """Whether a secret with the key of `certificate` is admitted too, or the key is part of that secret itself."""
        if isinstance(certificate, X509Secret | X509CaSecret) and certificate.private_key is None:
            return True
        return any(admitted(name) for name in self._key_names(stored, certificate))

    def _key_names(self, stored: StoredSession, certificate: Secret) -> tuple[str, ...]:
        """The secrets of a session that hold the key of one of its certificates, which may itself be imported."""
        if isinstance(certificate, X509Secret | X509CaSecret):
            return () if certificate.private_key is None else (certificate.private_key,)
        if not isinstance(certificate, ImportedSecret):
            return ()
        origin = self._current(certificate.session)
        names = self._key_names(origin, origin.secrets[certificate.secret])
        return tuple(
            secret.name
            for secret in stored.secrets.values()
            if isinstance(secret, ImportedSecret)
            and (secret.cas, secret.session) == (None, certificate.session)
            and secret.secret in names
        )

    def _current(self, name: str) -> StoredSession:
        stored = self._records.current(name)
        if stored is None:
            self._rest_on(Expect(name=f"session/{name}", version=0))
            raise ReleaseRefusedError(f"there is no session {name}; create it, or correct the name in the import")
        self._rest_on(stored.is_current)
        # What a key vault gave is good for this time: the version of the record says nothing of the vault.
        self.lasting &= stored.in_vault is None
        return self._with_usable_values(stored)

    def _with_usable_values(self, stored: StoredSession) -> StoredSession:
        if self._vaulted or stored.in_vault is None:
            return stored
        return stored.without_values(
            SecretUnavailableError, f"the values of session {stored.parsed.session.name} lie in a key vault"
        )

    def _values(self, stored: StoredSession, imports: Mapping[str, Released]) -> Mapping[str, Value]:
        name = stored.parsed.session.name
        if not imports and name in self._looked_at:
            return self._looked_at[name]
        values = self._looked_at.get(name, stored.values)
        if self._renewing and (imports or _due(values, self._now)):
            values = renew(stored.parsed.session, values, random=self._random, now=self._now, imports=imports)
            kept = self._without_vaulted_keys(stored, values)
            if kept != stored.values:
                self._renewals[name] = Renewal(stored=stored, values=kept)
        due = (renewal_time(value) for value in values.values() if isinstance(value, CertificateValue))
        self.until = min((self.until, *(instant for instant in due if instant > self._now)))
        self._looked_at[name] = values
        return values

    def _without_vaulted_keys(self, stored: StoredSession, values: Mapping[str, Value]) -> Mapping[str, Value]:
        """`values` without certificates whose key a vault holds: what is fetched is never stored, not inside one."""

        def is_vaulted(name: str | None) -> bool:
            secret = None if name is None else stored.secrets[name]
            if isinstance(secret, ImportedSecret):
                imported = self._imported.get((stored.parsed.session.name, secret.name))
                secret = None if imported is None else imported.origin
            return isinstance(secret, AkvSecret)

        vaulted = {
            secret.name
            for secret in stored.secrets.values()
            if isinstance(secret, X509Secret | X509CaSecret) and is_vaulted(secret.private_key)
        }
        return {name: value for name, value in values.items() if name not in vaulted}

    def _rest_on(self, condition: Expect) -> None:
        # A record that moved while we looked stands here in both versions, so that no commit can rest on this.
        self._expect[condition] = None


def _due(values: Mapping[str, Value], now: datetime) -> bool:
    return any(isinstance(value, CertificateValue) and needs_renewal(value, now) for value in values.values())
