"""The OpenAPI document says what the routes do, no more and no less."""

from __future__ import annotations

from typing import Any, cast

from starlette.routing import Route

from ostiary.broker.cas import Cas
from ostiary.server.client_api import client_api
from ostiary.server.openapi import openapi_document


def test_every_route_is_documented_and_every_documented_operation_has_a_route() -> None:
    application = client_api(cast(Cas, None))
    routes = {
        (route.path.replace(":path", "").rstrip("/") or "/", method)
        for route in application.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    document = cast(dict[str, Any], openapi_document())
    documented = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert routes == documented


def test_operation_ids_are_unique_and_every_reference_leads_somewhere() -> None:
    document = cast(dict[str, Any], openapi_document())
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    identifiers = [operation["operationId"] for operation in operations]
    assert len(identifiers) == len(set(identifiers))
    references = set(_references(document))
    assert references == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        return [value for key, value in node.items() if key == "$ref"] + [
            found for value in node.values() for found in _references(value)
        ]
    if isinstance(node, list):
        return [found for value in node for found in _references(value)]
    return []
