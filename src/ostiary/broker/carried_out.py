"""What a session may say and this version of Ostiary does not carry out: it is refused by name, never ignored.

What can work without being carried out stays: an export to another CAS, a toleration that is never needed. Imports from
another CAS are refused where a value is asked for, by `resolution`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ostiary.errors import ReleaseRefusedError
from ostiary.session.model import Security, SecurityAttestation, Service, Session, Variable, variables_in


def check_release(session: Session, service: Service, security: Security | Variable) -> SecurityAttestation:
    """What `security.attestation` says, if the session asks for nothing at a start that is not carried out.

    service, security: of the session, with variables resolved; one that is left in `security` raises as well.
    Raises ReleaseRefusedError naming all of it.
    """
    found = tuple(_at_release(security))
    attestation = security if isinstance(security, Variable) else security.attestation
    if found or isinstance(attestation, Variable):
        raise ReleaseRefusedError(
            f"service {session.name}/{service.name} asks for what this version of Ostiary does not do yet", *found
        )
    return attestation


def _at_release(security: Security | Variable) -> Iterator[str]:
    for variable in dict.fromkeys(variables_in(security)):
        yield f"{variable.placeholder}: a variable that is not resolved"
