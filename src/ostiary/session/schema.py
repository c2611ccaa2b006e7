"""A JSON Schema (draft 2020-12) of session texts, for editors: it completes keys and marks mistakes while one types.

It is looser than the parser, which has the last word: it knows no versions, no references between sections, no tags.
"""

from __future__ import annotations

from collections.abc import Mapping

from ostiary.session import language
from ostiary.session.image import MAX_PERMISSION
from ostiary.session.name import MAX_NAME_CHARACTERS
from ostiary.session.normal import JsonObject, JsonValue
from ostiary.session.policy_board import MAX_MEMBERS, MAX_URL_CHARACTERS
from ostiary.session.secret import MAX_SIZE, MIN_SIZE
from ostiary.session.service import MAX_VERSION
from ostiary.session.tee import BANK_BYTES, MAX_GUEST_SVN, MAX_VMPL, measurement_bytes

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_VARIABLE: JsonObject = {"type": "string", "pattern": r"^\$\$SCONE::[^$]+\$\$$"}
_TEXT: JsonObject = {"type": ["string", "number", "boolean"]}
_BOOLEAN: JsonObject = {"type": "boolean"}
_SEGMENT: JsonObject = {
    "type": ["string", "number"],
    "pattern": r"^[A-Za-z0-9_.~-]+$",
    "maxLength": MAX_NAME_CHARACTERS,
}
_ANY: JsonObject = {}


def schema() -> JsonObject:
    """The schema, a JSON value. Its keys, kinds and choices are those of `language`."""
    return {
        "$schema": DIALECT,
        "title": "Session of a configuration and attestation service",
        "$ref": "#/$defs/session",
        "$defs": {
            **{_name(place): _object(place, keys) for place, keys in language.KEYS.items()},
            "secret": _secret(),
            "subject": _subject(),
        },
    }


def _object(place: str, keys: Mapping[str, int]) -> JsonObject:
    properties: dict[str, JsonValue] = {key: _property(place, key, level) for key, level in keys.items()}
    old: dict[str, JsonValue] = {
        key: {"deprecated": True, "description": f"Ended with 0.1; {advice}."}
        for key, advice in language.OLD_KEYS.get(place, {}).items()
    }
    required: JsonValue = list(_REQUIRED.get(place, ()))
    return {
        "type": "object",
        "properties": {**properties, **old},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _property(place: str, key: str, level: int) -> JsonObject:
    found = PROPERTIES[place][key]
    if key not in _REQUIRED.get(place, ()) and key not in language.NULL_IS_A_MISTAKE and place != "access_policy":
        found = _or_null(found)
    if level == language.V0_1:
        return found
    own = " Ostiary's own, not SCONE's." if key in language.OWN_KEYS.get(place, ()) else ""
    return {**found, "description": f"From {language.spell(level)}.{own}"}


def _or_null(found: JsonObject) -> JsonObject:
    """A key that is null says nothing."""
    return {"anyOf": [{"type": "null"}, found]} if found else found


def _secret() -> JsonObject:
    properties: dict[str, JsonValue] = {key: _or_null(found) for key, found in SECRET_PROPERTIES.items()}
    return {
        "type": "object",
        "properties": {**properties, "name": SECRET_PROPERTIES["name"]},
        "required": ["name"],
        "additionalProperties": False,
        "anyOf": [{"required": [source]} for source in ("kind", "import", "import_akv")],
        "allOf": [_of_kind(kind, keys) for kind, keys in language.KIND_KEYS.items()],
    }


def _of_kind(kind: str, keys: Mapping[str, int]) -> JsonObject:
    """A secret that is made here has the keys of its kind only."""
    common = [key for key in language.SECRET_KEYS if key != "value" or kind in language.KINDS_WITH_VALUE]
    imported: JsonValue = [{"required": ["import"]}, {"required": ["import_akv"]}]
    return {
        "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"], "not": {"anyOf": imported}},
        "then": {"propertyNames": {"enum": [*common, *keys]}},
    }


def _subject() -> JsonObject:
    entries: JsonObject = {"type": "array", "items": {"$ref": "#/$defs/subject"}, "minItems": 1}
    return {
        "anyOf": [
            {"enum": ["CREATOR", "ANY", "NONE"]},
            {"type": "string"},
            {
                "type": "object",
                "properties": {"signer": {"type": "string"}, "require-all": entries},
                "patternProperties": {"^require-at-least-[1-9][0-9]*$": entries},
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ]
    }


def _name(place: str) -> str:
    """A place as the name of a definition."""
    return place.replace(" ", "_").replace(".", "_")


def _to(place: str) -> JsonObject:
    return {"$ref": f"#/$defs/{_name(place)}"}


def _any(*schemas: JsonObject) -> JsonObject:
    return {"anyOf": list(schemas)}


def _or_variable(found: JsonObject) -> JsonObject:
    return _any(found, _VARIABLE)


def _list(element: JsonObject) -> JsonObject:
    return {"type": "array", "items": element}


def _one_or_more(element: JsonObject) -> JsonObject:
    return _any(element, _list(element))


def _choice(values: Mapping[str, int]) -> JsonObject:
    return {"enum": list(values)}


def _hex(size: int) -> JsonObject:
    """`size` bytes; digits without letters may be taken for a number by the reader of the text."""
    return {"type": ["string", "number"], "pattern": f"^[0-9a-fA-F]{{{2 * size}}}$"}


def _factor(tee: str, name: str) -> JsonObject:
    """What stands under a key of a TEE other than SGX."""
    if name in ("pcrs", "events"):
        return _to("tpm pcrs")
    most = {"guest_svn_min": MAX_GUEST_SVN, "vmpl_max": MAX_VMPL}.get(name)
    if most is not None:
        return _or_variable({"type": "integer", "minimum": 0, "maximum": most})
    return _one_or_more(_or_variable(_hex(measurement_bytes(tee, name))))


def _pcrs(size: int) -> JsonObject:
    values: JsonObject = dict.fromkeys(language.PCRS, _one_or_more(_or_variable(_hex(size))))
    return {"type": "object", "properties": values, "additionalProperties": False, "minProperties": 1}


_VERSION = _any(_choice(language.LEVELS), {"type": "number"})  # YAML makes a number of 0.2 and 0.3
_NUMBER = _any({"type": "integer", "minimum": 0, "maximum": MAX_VERSION}, _VARIABLE)
_DIGEST = _or_variable(_hex(32))
_OPERATION = _one_or_more(_to("subject"))
_REFERENCE_TEXT: JsonObject = {"type": "string"}  # the short form, and that of 0.2
_KEY_HASH: JsonObject = {"type": "string"}
_PERMISSION = _any(
    {"type": "integer", "minimum": 0, "maximum": MAX_PERMISSION}, {"type": "string", "pattern": "^0o?[0-7]{1,4}$"}
)

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "session": ("name",),
    "service": ("name",),
    "signer": ("mrsigner", "isvprodid"),
    "tdx": ("mrtd",),
    "tcb": ("grace",),
    "image": ("name",),
    "injection file": ("path",),
    "image volume": ("name", "path"),
    "volume": ("name",),
    "volume export": ("to",),
    "volume export target": ("session",),
    "volume import": ("session", "volume"),
    "import": ("session", "secret"),
    "import_akv": ("vault",),
    "store_in": ("vault",),
    "validity": ("for",),
    "policy_board": ("tolerated_faults", "members"),
    "board member": ("name", "signer"),
    "creator": ("signer",),
}
_CAS: Mapping[str, JsonObject] = {"cas_url": _TEXT, "cas_key": _KEY_HASH, "cas_software_key": _KEY_HASH}
_REFERENCE: Mapping[str, JsonObject] = {"session": _TEXT, "session_hash": _hex(32)}

PROPERTIES: Mapping[str, Mapping[str, JsonObject]] = {
    "session": {
        "version": _VERSION,
        "name": {"type": ["string", "number"], "pattern": r"^(/|[A-Za-z0-9_.~/-]+)$", "maxLength": MAX_NAME_CHARACTERS},
        "predecessor": _hex(32),
        "namespace_hash": _hex(32),
        "salt": _hex(16),
        "creator": _any({"type": "string"}, _to("creator")),
        "services": _list(_to("service")),
        "secrets": _list(_to("secret")),
        "secret_config": _to("secret_config"),
        "volumes": _list(_to("volume")),
        "images": _list(_to("image")),
        "access_policy": _or_variable(_to("access_policy")),
        "policy_board": _to("policy_board"),
        "security": _or_variable(_to("security")),
    },
    "service": {
        "name": _SEGMENT,
        "image_name": _TEXT,
        "command": _any(_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}),
        "environment": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
        "pwd": {"type": "string"},
        "fspf_path": {"type": "string"},
        "fspf_key": _DIGEST,
        "fspf_tag": _hex(16),
        "fspf_update_policy": _choice(language.FSPF_UPDATE_POLICIES),
        "mrenclaves": _one_or_more(_DIGEST),
        "attestation": _one_or_more(_or_variable(_to("attestation variant"))),
        "platforms": _one_or_more({"type": "string"}),
        "one_time_password_shared_secret": _TEXT,
        "persistency": {"const": "None"},
    },
    "attestation variant": {
        "mrenclave": _one_or_more(_DIGEST),
        "signer": _or_variable(_to("signer")),
        **{tee: _or_variable(_to(tee)) for tee in language.TEES},
    },
    **{tee: {name: _factor(tee, name) for name in language.KEYS[tee]} for tee in language.TEES},
    "tpm pcrs": {bank: _pcrs(size) for bank, size in BANK_BYTES.items()},
    "signer": {
        "mrsigner": _DIGEST,
        "isvprodid": _NUMBER,
        "isvsvn": _NUMBER,
        "isvsvn_min": _NUMBER,
        "isvsvn_max": _NUMBER,
    },
    "image": {
        "name": _TEXT,
        "injection_files": _list(_any({"type": "string"}, _to("injection file"))),
        "volumes": _list(_to("image volume")),
        "provide_secrets": _list(_SEGMENT),
    },
    "injection file": {"path": {"type": "string"}, "content": _TEXT, "permission": _PERMISSION},
    "image volume": {
        "name": _SEGMENT,
        "path": {"type": "string"},
        "update_policy": _choice(language.UPDATE_POLICIES),
    },
    "volume": {
        "name": _SEGMENT,
        "fspf_key": _DIGEST,
        "fspf_tag": _hex(16),
        "files": _choice(language.VOLUME_FILES),
        "export": _one_or_more(_any(_to("volume export"), _to("volume export target"), _REFERENCE_TEXT)),
        "import": _any(_to("volume import"), _REFERENCE_TEXT),
    },
    "volume export": {
        "to": _any(_to("volume export target"), _REFERENCE_TEXT),
        "update_policy": _choice(language.UPDATE_POLICIES),
        "volume_alias": _SEGMENT,
    },
    "volume export target": _REFERENCE,
    "volume import": {**_REFERENCE, "volume": _SEGMENT},
    "export": {**_REFERENCE, "namespace": _TEXT, **_CAS},
    "import": {**_REFERENCE, "secret": _SEGMENT, **_CAS},
    "import_akv": {"vault": _TEXT, "secret_name": _TEXT, "token": _VARIABLE, "decryption_key": _VARIABLE},
    "secret_config": {"store_in": _any({"enum": ["", None]}, _to("store_in"))},
    "store_in": {"token": _VARIABLE, "vault": _TEXT},
    "validity": {"for": _TEXT},
    "access_policy": dict.fromkeys(language.KEYS["access_policy"], _OPERATION),
    "policy_board": {
        "tolerated_faults": {"type": "integer", "minimum": 0, "maximum": MAX_MEMBERS - 1},
        "members": {"type": "array", "items": _to("board member"), "minItems": 1, "maxItems": MAX_MEMBERS},
        "decide_within": _TEXT,
        "time_lock": _TEXT,
        "on": _one_or_more(_choice(language.BOARD_OPERATIONS)),
        "break_glass": {"type": "integer", "minimum": 1, "maximum": MAX_MEMBERS},
        "notify": _one_or_more({"type": "string", "pattern": "^https://", "maxLength": MAX_URL_CHARACTERS}),
    },
    "board member": {
        "name": _SEGMENT,
        "signer": {"type": "string"},
        "power": _one_or_more(_choice(language.BOARD_POWERS)),
    },
    "creator": {"signer": {"type": "string"}},
    "security": {
        "attestation": _or_variable(_to("security.attestation")),
        "singleton_enclaves": _or_variable(_BOOLEAN),
        "service_access_token": _TEXT,
    },
    "security.attestation": {
        "mode": _or_variable(_choice(language.MODES)),
        "tolerate": _any(_list(_or_variable(_choice(language.TOLERATE))), _VARIABLE),
        "ignore_advisories": _any(
            {"const": "*"}, _list(_any({"pattern": r"^(\*|INTEL-SA-[0-9]{5})$"}, _VARIABLE)), _VARIABLE
        ),
        "trusted_scone_qe_pubkeys": _list(_hex(32)),
        "url": {"type": "string"},
        "certificates": _one_or_more({"type": "string"}),
        "min_rsa_signing_key_size": _any({"type": "integer"}, _VARIABLE),
        "must_be_sgx_local": _or_variable(_BOOLEAN),
        "one_time_password_shared_secret": _TEXT,
        "tcb": _or_variable(_to("tcb")),
        "max_age": _TEXT,
    },
    "tcb": {"grace": _TEXT},
}
"""What stands under each key of `language.KEYS`."""

SECRET_PROPERTIES: Mapping[str, JsonObject] = {
    "name": _SEGMENT,
    "kind": _choice(language.KINDS),
    "value": _ANY,
    "export": _one_or_more(_any(_to("export"), _REFERENCE_TEXT)),
    "import": _any(_to("import"), _REFERENCE_TEXT),
    "import_akv": _to("import_akv"),
    "export_public": _BOOLEAN,
    "size": {"type": "integer", "minimum": MIN_SIZE, "maximum": MAX_SIZE},
    "key_type": _choice(language.KEY_TYPES),
    "migrate": _BOOLEAN,
    "private_key": {"type": "string"},
    "issuer": _TEXT,
    "common_name": _TEXT,
    "valid_for": _TEXT,
    "endpoint": _choice(language.ENDPOINTS),
    "dns": _one_or_more(_TEXT),
    "san": _one_or_more({"type": "string", "pattern": "^(dns|ip):"}),
    "tenant_id": _TEXT,
    "client_id": _TEXT,
    "application_secret": _TEXT,
    "certificate_thumbprint": _TEXT,
    "signer": _TEXT,
    "alg": _choice(language.JWT_ALGORITHMS),
    "validity": _to("validity"),
    "payload": {"type": "object", "additionalProperties": {"type": "string"}},
}
"""What stands under each key of a secret."""
