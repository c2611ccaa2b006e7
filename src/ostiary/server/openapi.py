"""The OpenAPI 3.1 document of the client API. A test holds it against the routes."""

from __future__ import annotations

from ostiary import __version__
from ostiary.broker.read_denial import DEFAULT_LISTED, MAX_LISTED
from ostiary.server.answers import JsonValue
from ostiary.server.limits import MAX_ENCRYPTED_BODY_BYTES, MAX_SIGNED_BODY_BYTES
from ostiary.server.openapi_parts import errors, json_answer, json_body, parameter
from ostiary.server.openapi_proposals import PROPOSAL_SCHEMAS, proposal_paths
from ostiary.session.signed import MAX_SIGNATURES

_HASH: JsonValue = {
    "type": "string",
    "pattern": "^[0-9a-f]{64}$",
    "description": "SHA-256 of the session's normal form",
}

_KEY: JsonValue = {
    "type": "string",
    "pattern": "^[0-9a-f]{64}$",
    "description": "X25519 public key of this service, for which sessions are encrypted",
}

_DENIAL_ID: JsonValue = {"type": "string", "pattern": "^[0-9a-f]{16}$", "description": "as the program was told"}

_STAGE: JsonValue = {
    "enum": ["challenge", "admission", "password", "token", "evidence", "appraisal", "configuration", "file", "volume"],
    "description": "how far the start came: what was judged and failed",
}

_SCHEMAS: dict[str, JsonValue] = {
    "Uploaded": {
        "type": "object",
        "required": ["hash", "warnings"],
        "additionalProperties": False,
        "properties": {
            "hash": _HASH,
            "warnings": {
                "type": "array",
                "description": "each a list of sentences, what is doubtful first, then why",
                "items": {"type": "array", "items": {"type": "string"}},
            },
        },
    },
    "SignedSession": {
        "type": "object",
        "required": ["session", "signatures"],
        "additionalProperties": False,
        "properties": {
            "session": {"type": "string", "description": "one session in YAML, `creator` included if it names CREATOR"},
            "signatures": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_SIGNATURES,
                "items": {"$ref": "#/components/schemas/Signature"},
            },
        },
    },
    "Signature": {
        "type": "object",
        "required": ["signer", "signature"],
        "additionalProperties": False,
        "properties": {
            "signer": {
                "type": "string",
                "description": "SubjectPublicKeyInfo in PEM, Ed25519 or P-384; or base58check, version 10, of Ed25519",
            },
            "signature": {
                "type": "string",
                "description": (
                    "base64, or 128 hex digits, of a signature over the bytes 00 01 and the session hash: Ed25519, or "
                    "ECDSA with SHA-384 in DER"
                ),
            },
        },
    },
    "EncryptedSession": {
        "type": "object",
        "required": ["encrypted_session", "encryption_key"],
        "additionalProperties": False,
        "properties": {
            "encrypted_session": {
                "type": "string",
                "contentEncoding": "base64",
                "description": (
                    "encapsulated key and ciphertext of the JSON of a signed session: HPKE (RFC 9180) base mode, "
                    "DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, info `ostiary-session-v1`"
                ),
            },
            "encryption_key": _KEY,
        },
    },
    "SessionHash": {
        "type": "object",
        "required": ["hash"],
        "additionalProperties": False,
        "properties": {"hash": _HASH},
    },
    "SessionEncryptionKey": {
        "type": "object",
        "required": ["session_encryption_key"],
        "additionalProperties": False,
        "properties": {"session_encryption_key": _KEY},
    },
    "Session": {
        "type": "object",
        "required": ["hash", "session"],
        "additionalProperties": False,
        "properties": {
            "hash": _HASH,
            "session": {
                "type": "string",
                "description": "the session in its normal form, YAML; explicit values included",
            },
        },
    },
    "SignedDenial": {
        "type": "object",
        "required": ["denial", "signature"],
        "additionalProperties": False,
        "properties": {
            "denial": {"$ref": "#/components/schemas/Denial"},
            "signature": {
                "type": "object",
                "required": ["algorithm", "chain", "value"],
                "description": (
                    "over the bytes `ostiary-denial-v1`, a zero, and the canonical JSON (RFC 8785) of `denial`; the "
                    "chain leads to the certificate of this service"
                ),
                "properties": {
                    "algorithm": {"const": "ES256"},
                    "chain": {"type": "array", "items": {"type": "string", "description": "PEM"}},
                    "value": {"type": "string", "contentEncoding": "base64", "description": "ECDSA signature in DER"},
                },
            },
        },
    },
    "Denial": {
        "type": "object",
        "required": [
            *("form", "id", "time", "last_time", "times", "session", "session_hash", "service", "stage", "reasons"),
            *("evidence", "report", "advice"),
        ],
        "properties": {
            "form": {"const": 1},
            "id": _DENIAL_ID,
            "time": {"type": "string", "format": "date-time"},
            "last_time": {"type": "string", "format": "date-time", "description": "of the newest of equal denials"},
            "times": {"type": "integer", "description": "equal denials within a minute count here"},
            "session": {"type": "string"},
            "session_hash": _HASH,
            "service": {"type": "string"},
            "stage": _STAGE,
            "reasons": {"type": "array", "items": {"type": "string"}, "description": "from the outside in"},
            "evidence": {"type": ["object", "null"], "description": "what authentic evidence says; null without it"},
            "report": {
                "type": ["object", "null"],
                "description": "every factor with found, expected and whether it holds: general, and of each variant",
            },
            "advice": {
                "type": ["object", "null"],
                "description": (
                    "the smallest change of the session that would admit the program: operations, each with its "
                    "wisdom; obstacles; whether it suffices; and a patch in YAML"
                ),
            },
        },
    },
    "Denials": {
        "type": "object",
        "required": ["denials"],
        "additionalProperties": False,
        "properties": {
            "denials": {
                "type": "array",
                "description": "the newest first",
                "items": {
                    "type": "object",
                    "required": ["id", "time", "last_time", "times", "service", "stage", "reason"],
                    "properties": {
                        "id": _DENIAL_ID,
                        "time": {"type": "string", "format": "date-time"},
                        "last_time": {"type": "string", "format": "date-time"},
                        "times": {"type": "integer"},
                        "service": {"type": "string"},
                        "stage": _STAGE,
                        "reason": {"type": "string"},
                    },
                },
            }
        },
    },
    "Value": {
        "type": "object",
        "required": ["kind", "value", "expires", "renew"],
        "properties": {
            "kind": {"type": "string", "examples": ["string", "binary", "x509", "x509-ca"]},
            "value": {"type": "string", "description": "text; PEM for certificates and keys; hex for binary"},
            "expires": {"type": ["string", "null"], "format": "date-time"},
            "renew": {"type": ["string", "null"], "format": "date-time"},
        },
    },
    "Values": {
        "type": "object",
        "required": ["values"],
        "additionalProperties": False,
        "properties": {"values": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Value"}}},
    },
    "Sessions": {
        "type": "object",
        "required": ["sessions", "next"],
        "additionalProperties": False,
        "properties": {
            "sessions": {"type": "array", "items": {"type": "string"}},
            "next": {"type": ["integer", "null"]},
        },
    },
    "Error": {
        "type": "object",
        "required": ["msg", "version"],
        "properties": {
            "msg": {
                "type": "array",
                "items": {"type": "string"},
                "description": "what failed, then its causes, from the outside in; the last says what to do",
            },
            "version": {"type": "string", "description": "version of this service"},
        },
    },
}


def openapi_document() -> JsonValue:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ostiary client API",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": (
                "HTTPS only. Clients authenticate with any self-signed TLS client certificate; its public key is the "
                "identity. The content type of a request is not looked at."
            ),
        },
        "paths": {
            "/session": {"post": _upload("uploadSession"), "get": _health_check()},
            "/v1/sessions": {"post": _upload("uploadSessionV1"), "get": _list_sessions()},
            "/v1/signed_sessions": {"put": _upload_signed()},
            "/v1/encrypted_sessions": {"put": _upload_encrypted()},
            "/session/{name}": {"get": _read("readSession")},
            "/v1/sessions/{name}": {"get": _read("readSessionV1")},
            "/v1/session_hashes/{name}": {"get": _read_hash()},
            "/v1/session_encryption_key": {"get": _encryption_key()},
            "/v1/denials": {"get": _list_denials()},
            "/v1/denials/{denial}": {"get": _read_denial()},
            **proposal_paths(),
            "/v1/values/{selector}": {"get": _values()},
            "/v1/version": {"get": _plain("version", "Version of this service", {"type": "object"})},
            "/v1/openapi.json": {"get": _plain("openapi", "This document", {"type": "object"})},
        },
        "components": {"schemas": {**_SCHEMAS, **PROPOSAL_SCHEMAS}},
    }


def _upload(operation: str) -> JsonValue:
    return {
        "operationId": operation,
        "summary": "Create a session, or update it when `predecessor` is the hash of its current version",
        "requestBody": {
            "required": True,
            "description": "one session in YAML, at most 1 MiB, of any content type",
            "content": {"application/yaml": {"schema": {"type": "string"}}},
        },
        "responses": {
            "201": json_answer("the new current version", "Uploaded"),
            **errors(
                {
                    "400": "no valid session; says line, column and path of every mistake",
                    "401": "a client certificate is needed",
                    "403": "the key may not update this session",
                    "404": "`predecessor` is given and the session does not exist",
                    "409": "the session exists and `predecessor` is not its current hash",
                    "413": "over 1 MiB",
                }
            ),
        },
    }


def _upload_signed() -> JsonValue:
    return {
        "operationId": "uploadSignedSession",
        "summary": (
            "Create or update a session by signatures, which are all that counts: no client certificate is needed, and "
            "one that is shown plays no part. One signature that does not hold refuses the upload"
        ),
        "requestBody": json_body("SignedSession", MAX_SIGNED_BODY_BYTES),
        "responses": _upload_responses(
            {
                "400": "not of this form, no valid session, a signature that does not hold, or a creator that did not "
                "sign",
                "403": "the signers may not do this",
                "413": "over a bound",
            }
        ),
    }


def _upload_encrypted() -> JsonValue:
    return {
        "operationId": "uploadEncryptedSession",
        "summary": "As /v1/signed_sessions, of a signed session that was encrypted for this service",
        "requestBody": json_body("EncryptedSession", MAX_ENCRYPTED_BODY_BYTES),
        "responses": _upload_responses(
            {
                "400": "encrypted for another service, by another scheme, or what /v1/signed_sessions refuses",
                "403": "the signers may not do this",
                "413": "over a bound",
            }
        ),
    }


def _upload_responses(others: dict[str, str]) -> JsonValue:
    return {
        "201": json_answer("the new current version", "Uploaded"),
        **errors(
            {
                **others,
                "404": "`predecessor` is given and the session does not exist, or its namespace does not",
                "409": "the session exists and `predecessor` is not its current hash",
            }
        ),
    }


def _read_hash() -> JsonValue:
    return {
        "operationId": "readSessionHash",
        "summary": (
            "The hash of the current version, for anyone if this version or one before it has a `salt`, else for those "
            "who may read the session"
        ),
        "parameters": [
            parameter("name", "path", "session name; `/` is not escaped, a leading one is dropped", required=True)
        ],
        "responses": {
            "200": json_answer("the hash", "SessionHash"),
            **errors(
                {
                    "401": "there is no salt, and a client certificate is needed",
                    "403": "there is no salt, and the key may not read this session",
                    "404": "no such session",
                }
            ),
        },
    }


def _encryption_key() -> JsonValue:
    return {
        "operationId": "readSessionEncryptionKey",
        "summary": "The key for which sessions are encrypted; believe it over a connection whose server you know",
        "responses": {"200": json_answer("the key", "SessionEncryptionKey")},
    }


def _read(operation: str) -> JsonValue:
    return {
        "operationId": operation,
        "summary": "Read the current version of a session, or a version of its past",
        "parameters": [
            parameter("name", "path", "session name; `/` is not escaped, a leading one is dropped", required=True),
            parameter("hash", "query", "hash of the version wanted", required=False),
        ],
        "responses": {
            "200": json_answer("the session", "Session"),
            **errors(
                {
                    "400": "`hash` is not 64 hex digits",
                    "401": "a client certificate is needed",
                    "403": "the key may not read this session",
                    "404": "no such session or version",
                }
            ),
        },
    }


def _list_sessions() -> JsonValue:
    return {
        "operationId": "listSessions",
        "summary": "The sessions of a namespace, for those who may list them, or create some, by its access policy",
        "parameters": [
            parameter("namespace", "query", "session name; without it the root namespace", required=False),
            parameter("from", "query", "`next` of the answer before", required=False),
        ],
        "responses": {
            "200": json_answer("names, in no order; `next` is null in the last answer", "Sessions"),
            **errors(
                {
                    "400": "`from` is no `next` of an earlier answer",
                    "401": "a client certificate is needed",
                    "403": "the key may neither list nor create sessions in this namespace",
                    "404": "no such namespace",
                }
            ),
        },
    }


def _list_denials() -> JsonValue:
    return {
        "operationId": "listDenials",
        "summary": "Starts that a session denied, the newest first, for those who may read it",
        "parameters": [
            parameter("session", "query", "session name; a leading `/` is dropped", required=True),
            parameter("before", "query", "id of a denial: only those older than that one", required=False),
            parameter("limit", "query", f"at most {MAX_LISTED}, by default {DEFAULT_LISTED}", required=False),
        ],
        "responses": {
            "200": json_answer("the denials in short", "Denials"),
            **errors(
                {
                    "400": "no session is named, or `limit` is none",
                    "404": "no such session, or not for this caller; or `before` is none of its denials",
                }
            ),
        },
    }


def _read_denial() -> JsonValue:
    return {
        "operationId": "readDenial",
        "summary": "Why a start was denied and what would admit it, signed, for those who may read the session",
        "parameters": [parameter("denial", "path", "the id that the program was told", required=True)],
        "responses": {
            "200": json_answer("the denial", "SignedDenial"),
            **errors({"404": "no such denial, or not for this caller"}),
        },
    }


def _values() -> JsonValue:
    selector = "session=NAME[,session_hash=HASH][,secret=SECRET]; `=` and `,` are not escaped"
    return {
        "operationId": "readValues",
        "summary": "Read what a session exports publicly: one value, or all",
        "parameters": [parameter("selector", "path", selector, required=True)],
        "responses": {
            "200": {
                "description": "with `secret` one value, without it all",
                "content": {
                    "application/json": {
                        "schema": {
                            "oneOf": [{"$ref": "#/components/schemas/Value"}, {"$ref": "#/components/schemas/Values"}]
                        }
                    }
                },
            },
            **errors({"400": "not of this form", "404": "does not exist or is not public"}),
        },
    }


def _health_check() -> JsonValue:
    return {
        "operationId": "noSessionNamed",
        "summary": "Always 404: reading needs a name. Some clients use it to see whether the service is up",
        "responses": errors({"404": "no session is named"}),
    }


def _plain(operation: str, summary: str, schema: JsonValue) -> JsonValue:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {"application/json": {"schema": schema}}}},
    }
