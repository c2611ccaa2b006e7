"""Paths that a session names: files, mount points, the working directory. Source: session language, 5, 8.3, 10."""

from __future__ import annotations

from ostiary.session.findings import template_hint
from ostiary.session.node import Node, Scalar
from ostiary.session.reading import Reading, describe

MAX_PATH_BYTES = 4095


def read_file_path(reading: Reading, node: Node) -> str:
    """The path of a file, without empty and `.` parts. A relative one is taken from the service's `pwd`: a warning."""
    path = _read(reading, node)
    if path.endswith("/"):
        reading.findings.error(node, f"found {describe(node)}, which is a directory; name the file in it")
    elif path and not path.startswith("/"):
        reading.findings.warning(
            node, f"{describe(node)} is relative and taken from the service's pwd; write it from /"
        )
    return path


def read_directory(reading: Reading, node: Node) -> str:
    """An absolute path, without empty and `.` parts: the host's choice of a directory must not decide."""
    path = _read(reading, node)
    if path and not path.startswith("/"):
        reading.findings.error(
            node, f"found {describe(node)}, expected an absolute path such as /app{template_hint(path)}"
        )
    return path.rstrip("/") or "/"


def read_mount_point(reading: Reading, node: Node) -> str:
    """The directory of a volume, without empty and `.` parts. A relative one is taken from `pwd`: a warning."""
    path = _read(reading, node)
    if path and not path.startswith("/"):
        reading.findings.warning(
            node, f"{describe(node)} is relative and taken from the service's pwd; write it from /"
        )
    return path.rstrip("/") or path[:1]


def _read(reading: Reading, node: Node) -> str:
    text = reading.text(node)
    if not isinstance(node, Scalar) or node.is_null:
        return ""
    if not text or not text.isprintable():
        reading.findings.error(node, f"found {describe(node)}, expected a path without control or invisible characters")
    elif len(text.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        reading.findings.error(node, f"found a path of over {MAX_PATH_BYTES} bytes, which no system takes")
    elif ".." in text.split("/"):
        reading.findings.error(node, f"found {describe(node)}, expected a path without .. in it")
    return _plain(text)


def _plain(path: str) -> str:
    """Without empty and `.` parts; a slash at the end stays."""
    parts = path.split("/")
    kept = [part for part in parts[1:-1] if part not in ("", ".")]
    last = parts[-1] if len(parts) > 1 else ""
    first = parts[0]
    if len(parts) == 1:
        return first
    return "/".join([first, *kept, "" if last == "." else last])
