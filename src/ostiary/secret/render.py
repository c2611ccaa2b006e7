"""From a template and values to the text a program sees."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ostiary.errors import ReleaseRefusedError
from ostiary.secret.format import Format, forms_of
from ostiary.secret.value import Released
from ostiary.session.placeholder import Placeholder, Template

MAX_RENDERED_BYTES = 1024 * 1024

# Legal in JSON text, but some YAML readers take them for line breaks or refuse them in double-quoted text.
_FRAGILE_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ReleaseRefusedError(
            "a text has half a surrogate pair, which has no UTF-8 form; correct the session"
        ) from None


def render(template: Template, values: Mapping[str, Released], *, literal: Callable[[str], bytes] = _utf8) -> bytes:
    """The template with each placeholder replaced, other text as `literal` encodes it, by default in UTF-8.

    Guarantees: one pass, what was put in is never looked at again; every placeholder is replaced, or nothing is
    returned; the result has at most MAX_RENDERED_BYTES bytes.
    Does not guarantee that the result suits its place (an argument takes no NUL), nor that the service may use these
    secrets: pass in only the values that it may.

    Raises ReleaseRefusedError naming placeholder, secret and format, never a value: unknown secret, format or encoding,
    an encoding on raw bytes, a certificate's key that is not known, a result over the bound.
    Source: session language, "Placeholders", "Deprecated dot form", "Encodings".
    """
    replaced: dict[Placeholder, bytes] = {}
    parts: list[bytes] = []
    size = 0
    for part in template.parts:
        if isinstance(part, Placeholder) and part not in replaced:
            replaced[part] = _replace(part, values)
        parts.append(replaced[part] if isinstance(part, Placeholder) else literal(part))
        size += len(parts[-1])
        if size > MAX_RENDERED_BYTES:
            raise ReleaseRefusedError(
                f"a text with its secrets is over {MAX_RENDERED_BYTES} bytes; split it into several files"
            )
    return b"".join(parts)


def text_of(placeholder: Placeholder, values: Mapping[str, Released]) -> str:
    """What one placeholder stands for where only text will do. Raises ReleaseRefusedError, also for raw bytes."""
    return _replace(placeholder, values, only_text=True).decode()


def _replace(placeholder: Placeholder, values: Mapping[str, Released], *, only_text: bool = False) -> bytes:
    try:
        value, form = _find(placeholder, values)
        if only_text:
            _require_text(form, "this place")
        data = form.encode(value)
        return data if not placeholder.encoding else _encode(placeholder.encoding, data, form)
    except ReleaseRefusedError as error:
        raise ReleaseRefusedError(f"placeholder {placeholder}: {error.message}", *error.causes) from None


def _find(placeholder: Placeholder, values: Mapping[str, Released]) -> tuple[Released, Format[Any]]:
    """The value and its format. A name is cut at its last dot only if it is no secret's name as a whole."""
    name, form = placeholder.name, placeholder.format
    value = values.get(name)
    if value is not None:
        return value, _choose(forms_of(value).formats, form, f"secret {name!r}, {forms_of(value).kind},")
    stem, dot, dot_form = name.rpartition(".")
    value = values.get(stem)
    if not dot or value is None:
        raise ReleaseRefusedError(f"there is no secret {name!r}; declare it in secrets")
    if form:
        raise ReleaseRefusedError(f"there is no secret {name!r}, and .{dot_form} takes no format; write {stem}:{form}")
    return value, _choose(
        forms_of(value).dot_forms, dot_form, f"secret {stem!r}, {forms_of(value).kind}, as .{dot_form}"
    )


def _choose(formats: Mapping[str, Format[Any]], form: str, where: str) -> Format[Any]:
    if form not in formats:
        known = ", ".join(repr(name) for name in formats if name) or "none"
        raise ReleaseRefusedError(f"{where} has no format {form!r}; its formats are: {known}")
    return formats[form]


def _encode(encoding: str, data: bytes, form: Format[Any]) -> bytes:
    encode = ENCODINGS.get(encoding)
    if encode is None:
        raise ReleaseRefusedError(f"there is no encoding {encoding!r}; known are: {', '.join(ENCODINGS)}")
    _require_text(form, encoding)
    return encode(data.decode()).encode()


def _require_text(form: Format[Any], place: str) -> None:
    if not form.text:
        raise ReleaseRefusedError(
            f"{place} is for text, and this format is raw bytes; use a format such as base64 or pem"
        )


def _escape_json(text: str) -> str:
    """RFC 7159 section 7, without the quotes around; also right inside YAML 1.1 and 1.2 double quotes."""
    escaped = json.dumps(text, ensure_ascii=False)[1:-1]
    return _FRAGILE_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped)


ENCODINGS: Mapping[str, Callable[[str], str]] = {"escape(json)": _escape_json}
