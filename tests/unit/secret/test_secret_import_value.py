"""What crosses from one session to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.import_value import describe_source, import_value
from ostiary.secret.render import render
from ostiary.secret.value import AadTokenValue, AsciiValue, BinaryValue, CertificateValue, Released, Value
from ostiary.session.model import (
    AadTokenSecret,
    AsciiSecret,
    BinarySecret,
    ImportedSecret,
    PrivateKeySecret,
    RemoteCas,
    Secret,
    X509CaSecret,
    X509Secret,
)
from ostiary.session.placeholder import parse_template

IMPORTED = ImportedSecret(name="mine", session="other", secret="theirs")
AAD = AadTokenSecret(name="t", tenant_id="t", client_id="c", application_secret="hunter2")
HASH = bytes(range(32))


@pytest.mark.parametrize("kind", [None, "ascii"])
@pytest.mark.parametrize("size", [None, 5])
def test_a_value_of_the_kind_and_size_that_were_written_comes_across(kind: str | None, size: int | None) -> None:
    """Feature F093: a kind on an import is checked at release."""
    secret, value = replace(IMPORTED, kind=kind, size=size), AsciiValue(text="value")
    assert import_value(secret, source=AsciiSecret(name="theirs"), value=value, with_key=False) == value


@pytest.mark.parametrize(
    ("kind", "size", "source", "value", "message"),
    [
        (
            "binary",
            None,
            AsciiSecret(name="t"),
            AsciiValue(text="hunter2"),
            "is of kind ascii, expected binary; correct",
        ),
        (
            "x509",
            None,
            X509CaSecret(name="t"),
            None,
            "is of kind x509-ca, expected x509; correct the kind, or leave it",
        ),
        ("x509-ca", None, X509Secret(name="t"), None, "is of kind x509, expected x509-ca"),
        (
            "binary",
            None,
            ImportedSecret(name="t", session="s", secret="u"),
            AsciiValue(text="hunter2"),
            "is of kind ascii, expected binary",
        ),
        (
            None,
            4,
            AsciiSecret(name="t"),
            AsciiValue(text="hunter2"),
            "has size 7, expected 4; correct the size, or leave",
        ),
        (None, 4, BinarySecret(name="t"), BinaryValue(data=b"hunter2"), "has size 7, expected 4"),
        ("ascii", None, AAD, AadTokenValue(text="hunter2"), "is of kind aad-token, expected ascii"),
        (None, 4, X509Secret(name="t"), None, "is of a kind that has no size; leave size out"),
    ],
)
def test_another_kind_or_size_is_refused(
    chain: Mapping[str, Value], kind: str | None, size: int | None, source: Secret, value: Released | None, message: str
) -> None:
    """Feature F093."""
    with pytest.raises(ReleaseRefusedError) as caught:
        import_value(
            replace(IMPORTED, kind=kind, size=size), source=source, value=value or chain["leaf"], with_key=True
        )
    assert caught.value.message.startswith("secret 'mine': '/session=other,secret=theirs' ")
    assert message in caught.value.message
    assert "hunter2" not in caught.value.message


def test_a_certificate_leaves_its_key_behind_unless_the_key_is_exported_too(chain: Mapping[str, Value]) -> None:
    """Feature F153: the key comes with the import only if the exporter exports it to the same session."""
    leaf, source = chain["leaf"], X509Secret(name="theirs")
    assert isinstance(leaf, CertificateValue)
    assert import_value(IMPORTED, source=source, value=leaf, with_key=True) == leaf
    without = import_value(IMPORTED, source=source, value=leaf, with_key=False)
    assert without == replace(leaf, private_key=None)
    assert render(parse_template("$$SCONE::mine:crt$$"), {"mine": without})
    for form in (":privatekey", ".key", ":pkcs12-with-private-key", ":privatekey:der"):
        with pytest.raises(ReleaseRefusedError, match="the certificate's private key is not known here"):
            render(parse_template(f"$$SCONE::mine{form}$$"), {"mine": without})


@pytest.mark.parametrize("kind", ["x509", "x509-ca"])
def test_a_certificate_of_undeclared_kind_may_be_either(chain: Mapping[str, Value], kind: str) -> None:
    source = ImportedSecret(name="theirs", session="first", secret="t")
    assert import_value(replace(IMPORTED, kind=kind), source=source, value=chain["leaf"], with_key=True)


def test_a_key_that_is_exported_itself_comes_across(keys: Mapping[str, Value]) -> None:
    key = keys["P-256"]
    assert import_value(IMPORTED, source=PrivateKeySecret(name="theirs"), value=key, with_key=False) == key


def test_a_source_is_described_as_the_language_writes_it() -> None:
    assert describe_source(IMPORTED) == "'/session=other,secret=theirs'"
    version = replace(IMPORTED, session_hash=HASH, cas=RemoteCas(url="cas.example:8081"))
    assert describe_source(version) == f"'cas.example:8081/session=other,session_hash={HASH.hex()},secret=theirs'"
