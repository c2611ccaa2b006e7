"""`pkcs11:` URIs that name one key of one token. Pure.

Source: RFC 7512. Attributes that we do not know are refused, all of them: a constraint that was written and not heard
could select another key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from ostiary.errors import ConfigurationError

SCHEME = "pkcs11:"
_PATH = ("token", "manufacturer", "serial", "model", "slot-id", "object", "id", "type")
_QUERY = ("module-path", "pin-source")
_NUMBER = re.compile(r"[0-9]{1,20}")
_TYPES = ("private", "public")
"""Of a key pair; both name the pair."""


@dataclass(frozen=True, kw_only=True)
class KeyUri:
    """token … model: as the token says them. object_label, object_id: of the key. None: any.

    module_path: the library to load. pin_file: a file whose first line is the PIN.
    """

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    slot_id: int | None = None
    object_label: str | None = None
    object_id: bytes | None = None
    module_path: str | None = None
    pin_file: str | None = None

    def __str__(self) -> str:
        key = self.object_label or (self.object_id or b"").hex()
        return f"{key!r} on token {self.token!r}" if self.token else f"{key!r}"


def parse_key_uri(text: str) -> KeyUri:
    """Read a URI that names a key by `object` or `id`. Raises ConfigurationError; no message repeats a PIN."""
    path, _, query = text.removeprefix(SCHEME).partition("?")
    found = {**_attributes(path, ";", _PATH), **_attributes(query, "&", _QUERY)}
    kind, slot = _text(found, "type"), _text(found, "slot-id")
    if kind not in (None, *_TYPES):
        raise ConfigurationError(f"PKCS#11 URI: type={kind} is no key pair; expected type=private, or no type")
    if slot is not None and not _NUMBER.fullmatch(slot):
        raise ConfigurationError(f"PKCS#11 URI: slot-id={slot}, expected a number")
    if "object" not in found and "id" not in found:
        raise ConfigurationError("PKCS#11 URI: it names no key; add object=LABEL or id=%01")
    return KeyUri(
        token=_text(found, "token"),
        manufacturer=_text(found, "manufacturer"),
        serial=_text(found, "serial"),
        model=_text(found, "model"),
        slot_id=None if slot is None else int(slot),
        object_label=_text(found, "object"),
        object_id=found.get("id"),
        module_path=_text(found, "module-path"),
        pin_file=_pin_file(_text(found, "pin-source")),
    )


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise ConfigurationError(
                "PKCS#11 URI: pin-value puts the PIN where everyone on this machine can read it",
                "leave it out and be asked, or give pin-source=file:/PATH; change the PIN, it is known now",
            )
        if not equals or name not in known:
            raise ConfigurationError(f"PKCS#11 URI: {name!r} is no attribute here; there are {', '.join(known)}")
        if name in found:
            raise ConfigurationError(f"PKCS#11 URI: {name} stands there twice")
        found[name] = unquote_to_bytes(value)
    return found


def _text(found: dict[str, bytes], name: str) -> str | None:
    value = found.get(name)
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"PKCS#11 URI: {name} is not UTF-8") from None


def _pin_file(source: str | None) -> str | None:
    """A path, or a `file:` URI of one. Others, `|program` of the RFC among them, run or ask things: not here."""
    if source is None:
        return None
    path = source.removeprefix("file://").removeprefix("file:")
    if not path.startswith("/"):
        raise ConfigurationError(f"PKCS#11 URI: pin-source={source}, expected file:/PATH")
    return path
