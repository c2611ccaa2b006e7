"""Pieces that every operation of the OpenAPI document is made of."""

from __future__ import annotations

from ostiary.server.answers import JsonValue


def json_answer(description: str, schema: str) -> JsonValue:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def errors(descriptions: dict[str, str]) -> dict[str, JsonValue]:
    return {status: json_answer(description, "Error") for status, description in descriptions.items()}


def parameter(name: str, place: str, description: str, *, required: bool) -> JsonValue:
    return {"name": name, "in": place, "required": required, "description": description, "schema": {"type": "string"}}


def json_body(schema: str, most: int) -> JsonValue:
    return {
        "required": True,
        "description": f"at most {most} bytes, of any content type",
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }
