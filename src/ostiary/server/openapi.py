"""The OpenAPI 3.1 document of the client API. A test holds it against the routes."""

from __future__ import annotations

from ostiary import __version__
from ostiary.server.answers import JsonValue

_HASH: JsonValue = {
    "type": "string",
    "pattern": "^[0-9a-f]{64}$",
    "description": "SHA-256 of the session's normal form",
}

_SCHEMAS: JsonValue = {
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
            "/v1/sessions": {"post": _upload("uploadSessionV1")},
            "/session/{name}": {"get": _read("readSession")},
            "/v1/sessions/{name}": {"get": _read("readSessionV1")},
            "/v1/values/{selector}": {"get": _values()},
            "/v1/version": {"get": _plain("version", "Version of this service", {"type": "object"})},
            "/v1/openapi.json": {"get": _plain("openapi", "This document", {"type": "object"})},
        },
        "components": {"schemas": _SCHEMAS},
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
            "201": _json("the new current version", "Uploaded"),
            **_errors(
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


def _read(operation: str) -> JsonValue:
    return {
        "operationId": operation,
        "summary": "Read the current version of a session, or a version of its past",
        "parameters": [
            _parameter("name", "path", "session name; `/` is not escaped, a leading one is dropped", required=True),
            _parameter("hash", "query", "hash of the version wanted", required=False),
        ],
        "responses": {
            "200": _json("the session", "Session"),
            **_errors(
                {
                    "400": "`hash` is not 64 hex digits",
                    "401": "a client certificate is needed",
                    "403": "the key may not read this session",
                    "404": "no such session or version",
                }
            ),
        },
    }


def _values() -> JsonValue:
    selector = "session=NAME[,session_hash=HASH][,secret=SECRET]; `=` and `,` are not escaped"
    return {
        "operationId": "readValues",
        "summary": "Read what a session exports publicly: one value, or all",
        "parameters": [_parameter("selector", "path", selector, required=True)],
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
            **_errors({"400": "not of this form", "404": "does not exist or is not public"}),
        },
    }


def _health_check() -> JsonValue:
    return {
        "operationId": "noSessionNamed",
        "summary": "Always 404: reading needs a name. Some clients use it to see whether the service is up",
        "responses": _errors({"404": "no session is named"}),
    }


def _plain(operation: str, summary: str, schema: JsonValue) -> JsonValue:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {"application/json": {"schema": schema}}}},
    }


def _json(description: str, schema: str) -> JsonValue:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _errors(descriptions: dict[str, str]) -> dict[str, JsonValue]:
    return {status: _json(description, "Error") for status, description in descriptions.items()}


def _parameter(name: str, place: str, description: str, *, required: bool) -> JsonValue:
    return {"name": name, "in": place, "required": required, "description": description, "schema": {"type": "string"}}
