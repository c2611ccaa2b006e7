"""Which key is meant, in one text: `ssh:…`, `pkcs11:…`, or else a file."""

from __future__ import annotations

from pathlib import Path

from ostiary.errors import ConfigurationError
from ostiary.member_key.file import KeyFile
from ostiary.member_key.key import KeyPlace
from ostiary.member_key.pkcs11_uri import SCHEME, KeyUri, parse_key_uri
from ostiary.member_key.ssh_agent import AgentKey, agent_path

AGENT_SCHEME = "ssh:"


def choose_key(text: str) -> KeyPlace:
    """The place that `text` names: `ssh:SHA256:…` or `ssh:COMMENT` in our SSH agent, a `pkcs11:` URI, or else a file.

    A file whose name begins so is written `./ssh:…`. Touches nothing yet. Raises ConfigurationError.
    """
    if text.startswith(AGENT_SCHEME):
        wanted = text.removeprefix(AGENT_SCHEME)
        if not wanted:
            raise ConfigurationError("ssh: names no key; write ssh:SHA256:… or ssh:COMMENT, as `ssh-add -l` lists them")
        return AgentKey(path=agent_path(), wanted=wanted)
    if text.startswith(SCHEME):
        return _in_token(parse_key_uri(text))
    return KeyFile(path=Path(text))


def _in_token(uri: KeyUri) -> KeyPlace:
    try:
        from ostiary.member_key.pkcs11 import TokenKey
    except ImportError:
        raise ConfigurationError(
            "PKCS#11 tokens need a package that is not installed", "pip install 'ostiary[pkcs11]'"
        ) from None
    return TokenKey(uri=uri)
