"""The JSON Schema for editors: it takes what the parser takes, and marks what is plainly wrong."""

from __future__ import annotations

import re

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from ruamel.yaml import YAML
from tests.property.test_session_parser import BASE, WHOLE
from tests.unit.session.test_session_features import GATED, at
from tests.unit.session.test_session_public_material import examples, policies
from tests.unit.session.texts import HEAD, A

from ostiary.errors import InputError
from ostiary.session import language, parse_session
from ostiary.session.schema import DIALECT, PROPERTIES, SECRET_PROPERTIES, schema

VALIDATOR = Draft202012Validator(schema())


def load(text: str) -> object:
    """The value of a session text, as an editor's YAML parser sees it. Tags of the language have no meaning here."""
    return YAML(typ="safe", pure=True).load(re.sub(r"!(akv|cas)\b", "", text))


def test_it_is_a_schema_of_its_dialect() -> None:
    Draft202012Validator.check_schema(schema())
    assert schema()["$schema"] == DIALECT


def test_it_knows_the_keys_of_the_language_and_no_others() -> None:
    assert {place: set(keys) for place, keys in PROPERTIES.items()} == {
        place: set(keys) for place, keys in language.KEYS.items()
    }
    of_kinds = {key for keys in language.KIND_KEYS.values() for key in keys}
    assert set(SECRET_PROPERTIES) == of_kinds | set(language.SECRET_KEYS)


def accepted() -> list[str]:
    own = [WHOLE, BASE, *(at("0.3.12", body) for _, body in GATED)]
    others = [example.text for example in examples() if example.accept] + [policy.text for policy in policies()]
    return [text for text in (*own, *others) if _is_accepted(text)]


def _is_accepted(text: str) -> bool:
    try:
        parse_session(text)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("text", accepted())
def test_what_the_parser_takes_is_not_marked(text: str) -> None:
    VALIDATOR.validate(load(text))


@pytest.mark.parametrize(
    "text",
    [
        "version: '0.3.12'",
        "name: a b",
        "name: a\nversion: 0.3.13",
        f"{HEAD}secret: []",
        f"{HEAD}salt: abc",
        f"{HEAD}services: [{{}}]",
        f"{HEAD}services: [{{name: a, comand: x}}]",
        f"{HEAD}services: [{{name: a, environment: [A=b]}}]",
        f"{HEAD}services: [{{name: a, attestation: {{mrenclav: {A}}}}}]",
        f"{HEAD}services: [{{name: a, attestation: {{signer: {{mrsigner: {A}}}}}}}]",
        f"{HEAD}services: [{{name: a, mrenclaves: [{A[1:]}]}}]",
        f"{HEAD}services: [{{name: a, platforms: }}]",
        f"{HEAD}secrets: [{{name: a}}]",
        f"{HEAD}secrets: [{{name: a, kind: x508}}]",
        f"{HEAD}secrets: [{{name: a, kind: ascii, key_type: P-256}}]",
        f"{HEAD}secrets: [{{name: a, kind: pgp-key, value: x}}]",
        f"{HEAD}secrets: [{{name: a, kind: ascii, size: 0}}]",
        f"{HEAD}secrets: [{{name: a, kind: ascii, export_public: 'true'}}]",
        f"{HEAD}secrets: [{{name: a, kind: ascii, export: {{sesion: b}}}}]",
        f"{HEAD}secrets: [{{name: a, import: {{session: b}}}}]",
        f"{HEAD}images: [{{name: a, provide_secrets: }}]",
        f"{HEAD}images: [{{name: a, injection_files: [{{path: /f, permission: 999}}]}}]",
        f"{HEAD}volumes: [{{name: a, files: plain}}]",
        f"{HEAD}access_policy: {{read: }}",
        f"{HEAD}access_policy: {{raed: ANY}}",
        f"{HEAD}access_policy: {{update: {{require_all: [CREATOR]}}}}",
        f"{HEAD}access_policy: {{update: {{require-at-least-0: [CREATOR]}}}}",
        f"{HEAD}access_policy: {{update: {{require-all: []}}}}",
        f"{HEAD}security: {{attestation: {{mode: sim}}}}",
        f"{HEAD}security: {{attestation: {{tolerate: [debug]}}}}",
        f"{HEAD}security: {{singleton_enclaves: 'yes'}}",
    ],
)
def test_what_is_plainly_wrong_is_marked(text: str) -> None:
    assert not _is_accepted(text)
    with pytest.raises(ValidationError):
        VALIDATOR.validate(load(text))
