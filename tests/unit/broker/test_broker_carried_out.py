"""What this version does not carry out is refused by name, and never ignored."""

from __future__ import annotations

import pytest

from ostiary.broker.carried_out import check_release
from ostiary.errors import ReleaseRefusedError
from ostiary.session.model import (
    Security,
    SecurityAttestation,
    Service,
    Session,
    Variable,
    Variant,
)
from ostiary.session.placeholder import Placeholder

X = Variable(placeholder=Placeholder(name="x"))
APP = Service(name="app", image_name="img", attestation=(Variant(mrenclave=(bytes(32),)),))


def session(**members: object) -> Session:
    return Session(version="0.3.12", name="s", **members)  # type: ignore[arg-type]


def attestation(**members: object) -> Session:
    return session(security=Security(attestation=SecurityAttestation(**members)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "service", "says"),
    [
        (session(security=X), APP, "$$SCONE::x$$"),
        (session(security=Security(attestation=X)), APP, "$$SCONE::x$$"),
        (session(security=Security(service_access_token=X)), APP, "$$SCONE::x$$"),
        (attestation(tolerate=frozenset({X})), APP, "$$SCONE::x$$"),
    ],
)  # fmt: skip
def test_what_a_start_would_have_to_do_is_refused_at_the_start(asked: Session, service: Service, says: str) -> None:
    with pytest.raises(ReleaseRefusedError, match="service s/app asks for what this version") as caught:
        check_release(asked, service, asked.security)
    assert any(says in cause for cause in caught.value.causes)


def test_a_variable_in_the_attestation_is_left_to_the_appraisal() -> None:
    service = Service(name="app", attestation=(X,))
    assert check_release(session(), service, Security()) == SecurityAttestation()


def test_the_attestation_service_of_microsoft_is_carried_out() -> None:
    asked = attestation(mode="maa", url="https://t.r.attest.azure.net")
    assert check_release(asked, APP, asked.security).mode == "maa"
