"""The images of a session: nodes to `Image`, and their normal form. Source: session language, 8.3 and 10.2."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ostiary.session.model import Image, InjectionFile
from ostiary.session.name import read_image_name
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import JsonObject, JsonValue, Octal, present
from ostiary.session.path_text import read_file_path
from ostiary.session.placeholder import Template
from ostiary.session.reading import Reading, describe, first_repeated
from ostiary.session.template import SecretFacts, read_template

DEFAULT_PERMISSION = 0o700
MAX_PERMISSION = 0o777

_READ_BITS = 0o444
_OCTAL = re.compile(r"0o?([0-7]{1,4})")


def read_image(reading: Reading, node: Node, secrets: Mapping[str, SecretFacts]) -> tuple[Image, JsonObject]:
    """One image with its injection files."""
    fields = reading.fields(node, "image")
    name_node = fields.require("name", "give the image a name")
    name = "" if name_node is None else read_image_name(reading, name_node)
    files: list[tuple[InjectionFile, JsonObject]] = []
    files_node = fields.get("injection_files")
    if files_node is not None:
        elements = reading.sequence(files_node, "injection files")
        files = [_read_file(reading, element, secrets) for element in elements]
        named = ((file.path, element) for (file, _), element in zip(files, elements, strict=True) if file.path)
        for path, again, first in first_repeated(named):
            reading.findings.error(again, f"the file {path} stands on line {first.line} already; keep one of them")
    forms: list[JsonValue] = [form for _, form in files]
    return (
        Image(name=name, injection_files=tuple(file for file, _ in files)),
        present(name=name, injection_files=forms),
    )


def _read_file(reading: Reading, node: Node, secrets: Mapping[str, SecretFacts]) -> tuple[InjectionFile, JsonObject]:
    empty = Template(parts=())
    if isinstance(node, Scalar) and not node.is_null:
        reading.not_yet(node, "an injection file without content (a template on disk)")
        return InjectionFile(path="", content=empty), {}
    fields = reading.fields(node, "injection file")
    path_node, content_node = fields.require("path", "name the file"), fields.get("content")
    if content_node is None and not fields.mistaken and not fields.near("content"):
        reading.not_yet(fields.node, "an injection file without content (a template on disk)")
    text = "" if content_node is None else reading.text(content_node)
    content = empty if content_node is None else read_template(reading, content_node, text, secrets, raw_allowed=True)
    path = "" if path_node is None else read_file_path(reading, path_node)
    permission = _read_permission(reading, fields.get("permission"))
    form = present(
        path=path_node.text if isinstance(path_node, Scalar) else None,
        content=text,
        permission=None if permission == DEFAULT_PERMISSION else Octal(permission),
    )
    return InjectionFile(path=path, content=content, permission=permission), form


def _read_permission(reading: Reading, node: Node | None) -> int:
    """Mode bits, always read as octal: `0o400`, `0400`, quoted or not."""
    if node is None:
        return DEFAULT_PERMISSION
    octal = _OCTAL.fullmatch(node.text) if isinstance(node, Scalar) else None
    permission = MAX_PERMISSION + 1 if octal is None else int(octal[1], 8)
    if permission > MAX_PERMISSION:
        reading.findings.error(
            node, f"found {describe(node)}, expected an octal number from 0o000 to 0o777 such as 0o400"
        )
        return DEFAULT_PERMISSION
    if not permission & _READ_BITS:
        reading.findings.warning(node, f"with 0o{permission:03o} nobody may read the file; 0o400 lets its owner read")
    return permission
