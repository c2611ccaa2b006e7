"""The owner's words about Azure's clouds: what they mean, and what is refused before the service starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.simulators.outside import LOOPBACK, make_certificate

from ostiary.cli.azure import azure_cloud
from ostiary.errors import ConfigurationError
from ostiary.secret.azure import PUBLIC_CLOUD


def test_nothing_said_is_the_public_cloud() -> None:
    assert azure_cloud(None, None, None) == PUBLIC_CLOUD
    assert PUBLIC_CLOUD.scope == "https://vault.azure.net/.default"


def test_another_cloud_has_its_own_directory_and_vaults(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text(make_certificate(LOOPBACK)[1])
    cloud = azure_cloud("https://login.microsoftonline.us/", "vault.USGovCloudAPI.net:8443", pem)
    assert (cloud.directory, cloud.vault_domain, cloud.vault_port, cloud.anchors) == (
        "https://login.microsoftonline.us",
        "vault.usgovcloudapi.net",
        8443,
        pem.read_text(),
    )
    assert cloud.scope == "https://vault.usgovcloudapi.net/.default"


@pytest.mark.parametrize(
    "text",
    [
        *("", "login.example", "http://login.example", "https://", "https://u@login.example", "https://a.example/x"),
        *("https://a.example?x", "https://a.example:99999", "https://a.example:0", "https://[::1", "https://a b"),
    ],
)
def test_a_directory_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--azure-directory .*: expected https://HOST\[:PORT\]"):
        azure_cloud(text, None, None)


@pytest.mark.parametrize("text", ["", "https://vault.example", ".example", "a.example:0", "a.example:65536", "a:b"])
def test_vaults_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--azure-vaults .*: expected DOMAIN\[:PORT\]"):
        azure_cloud(None, text, None)


def test_anchors_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^--azure-ca .*: No such file"):
        azure_cloud(None, None, tmp_path / "missing.pem")
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"^--azure-ca .*: not PEM"):
        azure_cloud(None, None, tmp_path / "binary")
