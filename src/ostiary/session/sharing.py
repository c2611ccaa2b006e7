"""Secrets of other sessions and of Azure's key vault, and who may have ours. Source: session language, section 9."""

from __future__ import annotations

import re
from dataclasses import replace

from ostiary.session import language
from ostiary.session.findings import quote, template_hint
from ostiary.session.model import AkvSecret, ExportTarget, KeyVault, NamespaceTarget, SessionTarget
from ostiary.session.node import Mapping as MappingNode
from ostiary.session.node import Node, Scalar
from ostiary.session.normal import JsonObject, JsonValue, Tagged, present
from ostiary.session.reading import Fields, Reading, describe
from ostiary.session.reference import Reference, read_reference
from ostiary.session.variable import read_key_variable, read_secret_variable

_VAULT = re.compile(r"(?:https://)?([A-Za-z0-9.-]{1,253})/?")
_AZURE_DOMAINS = (".vault.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net", ".vault.microsoftazure.de")


def read_exports(reading: Reading, node: Node | None) -> tuple[tuple[ExportTarget, ...], list[JsonValue]]:
    """The targets of a secret's `export`, and their normal form."""
    targets: list[ExportTarget] = []
    forms: list[JsonValue] = []
    for element in () if node is None else reading.elements(node):
        if isinstance(element, MappingNode) and "to" in element.values:
            reading.findings.error(element.keys["to"], "to: is for volumes; write the target itself")
            continue
        found = read_reference(reading, element, "export")
        if found is not None:
            targets.append(_target(found))
            forms.append(found.form)
    return tuple(targets), forms


def _target(found: Reference) -> ExportTarget:
    if found.namespace is not None and found.session is None:
        return NamespaceTarget(namespace=found.namespace)
    return SessionTarget(session=found.session or "", session_hash=found.session_hash, cas=found.cas)


def read_akv(reading: Reading, fields: Fields, name: str) -> tuple[AkvSecret, JsonObject]:
    """`import_akv` of the secret `name`, token and key still to be resolved, and its normal form."""
    vault, vault_text = read_vault(reading, fields)
    secret_name = fields.text("secret_name")
    token, key = fields.text("token"), fields.text("decryption_key")
    secret = AkvSecret(name=name, vault=vault, secret_name=secret_name or name, token=token or "", decryption_key=key)
    return secret, present(vault=vault_text, secret_name=secret_name, token=token, decryption_key=key)


def resolve_akv(reading: Reading, node: Node, secret: AkvSecret) -> AkvSecret:
    """`secret`, whose `import_akv` is `node`, with the names of its token and key. `reading.secrets` is complete."""
    if not isinstance(node, MappingNode):
        return secret
    key_node = node.values.get("decryption_key")
    key = None if secret.decryption_key is None or key_node is None else _read_key(reading, key_node)
    return replace(secret, token=read_token(reading, node), decryption_key=key)


def read_secret_store(reading: Reading, node: Node | None) -> tuple[KeyVault | None, JsonValue]:
    """`secret_config.store_in`: a key vault, or None for the service itself; and its normal form."""
    if node is None:
        return None, None
    store = reading.fields(node, "secret_config").get("store_in")
    if store is None:
        return None, None
    if isinstance(store, Scalar) and store.tag == "!cas" and not store.text:
        return None, None
    if not isinstance(store, MappingNode) or store.tag != "!akv":
        reading.findings.error(store, f"found {_spelt(store)}, expected !cas, or !akv {{token: …, vault: …}}")
        return None, None
    fields = reading.fields(store, "store_in")
    vault, vault_text = read_vault(reading, fields)
    form = present(token=fields.text("token"), vault=vault_text)
    return KeyVault(vault=vault, token=read_token(reading, store)), {"store_in": Tagged("akv", form)}


def _spelt(node: Node) -> str:
    tag = node.tag if isinstance(node, Scalar | MappingNode) else ""
    return f"{tag} with {describe(node)}" if tag else f"{describe(node)} without a tag"


def read_vault(reading: Reading, fields: Fields) -> tuple[str, str | None]:
    """The vault's host, and how it is written."""
    if not fields.near("vault"):
        fields.require("vault", "write its host, such as myvault.vault.azure.net")
    text, node = fields.text("vault"), fields.get("vault")
    if node is None or not text:
        return "", None
    found = _VAULT.fullmatch(text)
    if found is None:
        reading.findings.error(
            node, f"found {describe(node)}, expected a host, with https:// or nothing before it{template_hint(text)}"
        )
        return "", None
    host = found[1].lower()
    if not host.endswith(_AZURE_DOMAINS):
        reading.findings.warning(node, f"{quote(host)} is outside Azure's vault domains; check the name")
    return host, text


def read_token(reading: Reading, node: MappingNode) -> str:
    """The name of the aad-token secret that `token` names, or the only one that the session has."""
    token = node.values.get("token")
    if token is not None and not (isinstance(token, Scalar) and token.is_null):
        return read_secret_variable(reading, token, "aad-token") or ""
    tokens = [name for name, facts in reading.secrets.items() if facts.kind == "aad-token"]
    if len(tokens) != 1:
        found = "no aad-token" if not tokens else f"{len(tokens)} of them"
        reading.findings.error(
            node,
            f"token is missing, and the session has {found}; write token: $$SCONE::<aad-token secret>$$",
            path=node.path.child("token"),
        )
        return ""
    return tokens[0]


def _read_key(reading: Reading, node: Node) -> str | None:
    variable = read_key_variable(reading, node, level=language.KEYS["import_akv"]["decryption_key"])
    if variable is None:
        reading.findings.error(node, "expected $$SCONE::name$$ of a binary secret of 32 bytes")
        return None
    return variable.placeholder.name
