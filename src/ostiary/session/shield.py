"""Settings of the network shield among a service's variables. The runtime enforces them; here they are only warned of.

Source: session language, section 14.
"""

from __future__ import annotations

import re

from ostiary.session.findings import quote
from ostiary.session.node import Mapping, Node, Scalar
from ostiary.session.placeholder import MARK
from ostiary.session.reading import Reading

_PREFIX = "SCONE_NETWORK_SHIELD"
_MODES = ("disabled", "unprotected", "protected")
_PEER_MODES = ("unprotected", "protected", "refuse")
_UNSUPPORTED = ("unprotected", "refuse")
_PEER = re.compile(
    rf"{_PREFIX}_(?:(?P<server>SERVER_.+?)(?:_(?:PORT|IDENTITY|CLIENT_AUTH|FLAGS))?"
    r"|(?P<client>CLIENT_.+?)(?:_(?:DESTINATION|DESTINATION_IP|SERVER_DNS_NAME|IDENTITY|SERVER_AUTH|FLAGS))?)"
)


def check_network_shield(reading: Reading, node: Mapping) -> None:
    """Warn of unknown modes and of companions that are missing; the runtime refuses to start with them."""
    texts = {name: _text(value) for name, value in node.values.items() if name.startswith(_PREFIX)}
    _check_mode(reading, node, texts, _PREFIX, _MODES)
    _check_mode(reading, node, texts, f"{_PREFIX}_UNSUPPORTED_PROTOCOLS", _UNSUPPORTED)
    peers: dict[str, Scalar] = {}
    for name in texts:
        found = _PEER.fullmatch(name)
        if found is not None:
            peer = f"{_PREFIX}_{found['server'] or found['client']}"
            peers.setdefault(peer, node.keys.get(peer, node.keys[name]))
    for peer, key in peers.items():
        _check_mode(reading, node, texts, peer, _PEER_MODES)
        for companion in _companions(peer, texts):
            if companion not in texts:
                reading.findings.warning(
                    key, f"{companion} is missing, and the program will not start without it; add it"
                )


def _companions(peer: str, texts: dict[str, str | None]) -> list[str]:
    protected = texts.get(peer) == "protected"
    if peer.startswith(f"{_PREFIX}_SERVER_"):
        return [f"{peer}_PORT", *([f"{peer}_CLIENT_AUTH"] if protected else [])]
    destination = f"{peer}_DESTINATION"
    unix = (texts.get(destination) or "").startswith("unix:")
    needed = [destination]
    if not unix:
        needed.append(f"{destination}_IP")
    elif protected:
        needed.append(f"{peer}_SERVER_DNS_NAME")
    return [*needed, *([f"{peer}_SERVER_AUTH"] if protected else [])]


def _check_mode(
    reading: Reading, node: Mapping, texts: dict[str, str | None], name: str, known: tuple[str, ...]
) -> None:
    text = texts.get(name)
    if text is not None and text not in known:
        reading.findings.warning(
            node.values[name], f"unknown mode {quote(text)}{reading.findings.did_you_mean(text, known)}"
        )


def _text(node: Node) -> str | None:
    """The text of a variable, None if a placeholder decides on it."""
    return node.text if isinstance(node, Scalar) and MARK not in node.text else None
