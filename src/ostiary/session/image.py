"""The images of a session: nodes to `Image`, and their normal form. Source: session language, 8.3 and 10.2."""

from __future__ import annotations

import re
from collections.abc import Collection

from ostiary.session import language
from ostiary.session.findings import quote
from ostiary.session.model import Image, ImageVolume, InjectionFile
from ostiary.session.name import read_image_name, read_segment
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import JsonObject, JsonValue, Octal, present
from ostiary.session.path_text import read_file_path, read_mount_point
from ostiary.session.reading import Reading, describe, first_repeated
from ostiary.session.template import read_template
from ostiary.session.volume import DEFAULT_UPDATE_POLICY

DEFAULT_PERMISSION = 0o700
MAX_PERMISSION = 0o777

_READ_BITS = 0o444
_OCTAL = re.compile(r"0o?([0-7]{1,4})")


def read_image(reading: Reading, node: Node, volumes: Collection[str]) -> tuple[Image, JsonObject]:
    """One image with its injection files and volumes. volumes: the names of the session's volumes."""
    fields = reading.fields(node, "image")
    name_node = fields.require("name", "give the image a name")
    name = "" if name_node is None else read_image_name(reading, name_node)
    files, file_forms = _read_files(reading, fields.get("injection_files"))
    mounts, mount_forms = _read_volumes(reading, fields.get("volumes"), volumes)
    provided_node = fields.get("provide_secrets")
    provided = None if provided_node is None else _read_provided(reading, provided_node)
    form = present(name=name, injection_files=file_forms, volumes=mount_forms)
    if provided is not None:
        # An empty list means none, and no list means all.
        form["provide_secrets"] = list(provided)
    return Image(name=name, injection_files=files, volumes=mounts, provide_secrets=provided), form


def _read_files(reading: Reading, node: Node | None) -> tuple[tuple[InjectionFile, ...], list[JsonValue]]:
    if node is None:
        return (), []
    elements = reading.sequence(node, "injection files")
    files = [_read_file(reading, element) for element in elements]
    named = ((file.path, element) for (file, _), element in zip(files, elements, strict=True) if file.path)
    for path, again, first in first_repeated(named):
        reading.findings.error(again, f"the file {path} stands on line {first.line} already; keep one of them")
    return tuple(file for file, _ in files), [form for _, form in files]


def _read_file(reading: Reading, node: Node) -> tuple[InjectionFile, JsonObject]:
    if isinstance(node, Scalar) and not node.is_null:
        return InjectionFile(path=read_file_path(reading, node), content=None), {"path": node.text}
    fields = reading.fields(node, "injection file")
    path_node, content_node = fields.require("path", "name the file"), fields.get("content")
    text = None if content_node is None else reading.text(content_node)
    content = (
        None if content_node is None or text is None else read_template(reading, content_node, text, raw_allowed=True)
    )
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


def _read_volumes(
    reading: Reading, node: Node | None, volumes: Collection[str]
) -> tuple[tuple[ImageVolume, ...], list[JsonValue]]:
    if node is None:
        return (), []
    elements = reading.sequence(node, "volumes")
    mounts = [_read_mount(reading, element, volumes) for element in elements]
    named = ((mount.path, element) for (mount, _), element in zip(mounts, elements, strict=True) if mount.path)
    for path, again, first in first_repeated(named):
        reading.findings.error(again, f"{path} is a mount point on line {first.line} already; choose another path")
    return tuple(mount for mount, _ in mounts), [form for _, form in mounts]


def _read_mount(reading: Reading, node: Node, volumes: Collection[str]) -> tuple[ImageVolume, JsonObject]:
    fields = reading.fields(node, "image volume")
    name_node = fields.require("name", "name a volume of this session")
    name = "" if name_node is None else read_segment(reading, name_node)
    if name_node is not None and name and name not in volumes:
        reading.findings.error(
            name_node,
            f"there is no volume {quote(name)}{reading.findings.did_you_mean(name, volumes)}; add it to volumes",
        )
    path_node = fields.require("path", "write where it is mounted")
    path = "" if path_node is None else read_mount_point(reading, path_node)
    policy_node = fields.get("update_policy")
    policy = (
        DEFAULT_UPDATE_POLICY
        if policy_node is None
        else reading.choice(policy_node, language.UPDATE_POLICIES, "update_policy")
    )
    form = present(
        name=name,
        path=path_node.text if isinstance(path_node, Scalar) else None,
        update_policy=None if policy == DEFAULT_UPDATE_POLICY else policy,
    )
    return ImageVolume(name=name, path=path, update_policy=policy), form


def _read_provided(reading: Reading, node: Node) -> tuple[str, ...]:
    names = []
    for element in reading.sequence(node, "secret names; [] means none"):
        name = read_segment(reading, element)
        names.append(name)
        if name and name not in reading.secrets:
            reading.findings.error(
                element, f"there is no secret {quote(name)}{reading.findings.did_you_mean(name, reading.secrets)}"
            )
    return tuple(names)
