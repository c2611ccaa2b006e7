"""--webhook-host and --webhook-ca of `ostiary serve`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ostiary.errors import ConfigurationError

if TYPE_CHECKING:
    from ostiary.broker.webhooks import WebhookHosts

_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def webhook_hosts(hosts: list[str], ca: Path | None) -> WebhookHosts:
    """Whom policy boards may have told. Raises ConfigurationError naming the option."""
    from ostiary.broker.webhooks import WebhookHosts

    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ConfigurationError(f"--webhook-host {host}: expected HOST or HOST:PORT, such as hooks.example")
    try:
        trusted = None if ca is None else ca.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--webhook-ca {ca}: cannot be read", str(error)) from error
    return WebhookHosts(hosts=frozenset(host.lower() for host in hosts), trusted=trusted)
