"""Which of Azure's clouds a service fetches from, as its owner says on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from ostiary.errors import ConfigurationError
from ostiary.secret.azure import PUBLIC_CLOUD, AzureCloud

_DOMAIN = re.compile(r"(?P<domain>[A-Za-z0-9][A-Za-z0-9.-]{0,252})(?::(?P<port>[0-9]{1,5}))?")


def azure_cloud(directory: str | None, vaults: str | None, ca: Path | None) -> AzureCloud:
    """The cloud with that directory, those vaults and those anchors; of the public one where nothing is said.

    directory: `https://HOST[:PORT]`. vaults: `DOMAIN[:PORT]`. ca: a PEM file, which is read here.
    Raises ConfigurationError, naming the option.
    """
    domain, port = (PUBLIC_CLOUD.vault_domain, PUBLIC_CLOUD.vault_port) if vaults is None else _vaults(vaults)
    return AzureCloud(
        directory=PUBLIC_CLOUD.directory if directory is None else _directory(directory),
        vault_domain=domain,
        vault_port=port,
        anchors=None if ca is None else _anchors(ca),
    )


def _directory(text: str) -> str:
    address = text.removesuffix("/")
    try:
        parts = urlsplit(address)
        plain = parts.hostname is not None and address == f"https://{parts.netloc}" and "@" not in parts.netloc
        plain = plain and parts.port != 0 and address.isascii() and address.isprintable() and " " not in address
    except ValueError:
        plain = False
    if not plain:
        raise ConfigurationError(
            f"--azure-directory {text}: expected https://HOST[:PORT], such as https://login.microsoftonline.us"
        )
    return address


def _vaults(text: str) -> tuple[str, int]:
    found = _DOMAIN.fullmatch(text)
    port = PUBLIC_CLOUD.vault_port if found is None or found["port"] is None else int(found["port"])
    if found is None or not 0 < port < 65536:
        raise ConfigurationError(f"--azure-vaults {text}: expected DOMAIN[:PORT], such as vault.usgovcloudapi.net")
    return found["domain"].lower(), port


def _anchors(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not PEM"
        raise ConfigurationError(f"--azure-ca {path}: {reason}", "name a file with PEM certificates") from error
