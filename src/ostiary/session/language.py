"""What the session language knows, as tables: versions, keys and values, each with the version that brought it.

A level orders versions: 0.1 is -2, 0.2 is -1, 0.3.N is N; plain 0.3 gates like 0.3.9. Source: session language,
"Versions".
"""

from __future__ import annotations

from collections.abc import Mapping

V0_1 = -2
V0_2 = -1
V0_3 = 0
_PLAIN_0_3 = 9
_LAST_MINOR = 12

LEVELS: Mapping[str, int] = {
    "0.2": V0_2,
    "0.3": _PLAIN_0_3,
    **{f"0.3.{minor}": minor for minor in range(_LAST_MINOR + 1)},
}
"""Level by the spelling of `version`. A session without `version` has level V0_1."""

KEYS: Mapping[str, Mapping[str, int]] = {
    "session": {
        "version": V0_1,
        "name": V0_1,
        "predecessor": V0_1,
        "creator": V0_1,
        "services": V0_1,
        "secrets": V0_1,
        "images": V0_1,
        "access_policy": V0_1,
        "security": 1,
    },
    "service": {
        "name": V0_1,
        "image_name": V0_1,
        "command": V0_1,
        "environment": V0_1,
        "pwd": V0_1,
        "mrenclaves": V0_1,
        "attestation": 7,
        "persistency": V0_1,
    },
    "attestation variant": {"mrenclave": 7, "signer": 7},
    "signer": {"mrsigner": 7, "isvprodid": 7, "isvsvn": 7, "isvsvn_min": 7, "isvsvn_max": 7},
    "image": {"name": V0_1, "injection_files": V0_1},
    "injection file": {"path": V0_1, "content": V0_1, "permission": 10},
    "access_policy": {"read": V0_1, "update": V0_1},
    "security": {"attestation": 1},
    "security.attestation": {"mode": 1, "tolerate": 1, "ignore_advisories": 1, "trusted_scone_qe_pubkeys": 1},
}
"""Keys that mean something here, by place; the level that each needs."""

SECRET_KEYS: Mapping[str, int] = {"name": V0_1, "kind": V0_1, "value": V0_1, "export_public": V0_1}
KIND_KEYS: Mapping[str, Mapping[str, int]] = {
    "ascii": {"size": V0_1},
    "binary": {"size": V0_1},
    "private-key": {"key_type": 4, "migrate": 7},
    "x509-ca": {"private_key": V0_3, "common_name": V0_3, "issuer": V0_3, "valid_for": V0_3},
    "x509": {
        "private_key": V0_3,
        "common_name": V0_3,
        "issuer": V0_3,
        "valid_for": V0_3,
        "endpoint": V0_3,
        "dns": V0_3,
    },
}
"""Keys of a secret beside SECRET_KEYS, by kind."""

KINDS: Mapping[str, int] = {"ascii": V0_1, "binary": V0_1, "private-key": V0_3, "x509": V0_1, "x509-ca": V0_1}
KEY_TYPES: Mapping[str, int] = {"P-256": 4, "P-384": 4, "Ed25519": 4, "RSA-2048": 7, "RSA-3072": 7}
MODES: Mapping[str, int] = {"hardware": 1, "none": 1}
TOLERATE: Mapping[str, int] = dict.fromkeys(
    (
        "debug-mode",
        "hyperthreading",
        "insecure-igpu",
        "aepic-leak",
        "software-hardening-needed",
        "insecure-configuration",
        "outdated-tcb",
        "software-platform",
    ),
    1,
)

NOT_YET: Mapping[str, frozenset[str]] = {
    "session": frozenset({"namespace_hash", "salt", "secret_config", "volumes", "digest"}),
    "service": frozenset(
        {
            "fspf_path",
            "fspf_key",
            "fspf_tag",
            "fspf_update_policy",
            "platforms",
            "one_time_password_shared_secret",
            "tags",
            "import",
        }
    ),
    "image": frozenset({"volumes", "provide_secrets", "mrenclaves", "tags", "import"}),
    "secret": frozenset({"import", "export", "import_akv", "san"}),
    "secret kind": frozenset({"session-ca", "public-key", "aad-token", "config-fragment", "pgp-key", "jwt"}),
    "access_policy": frozenset({"create_sessions", "list_sessions"}),
    "access policy entry": frozenset({"signer", "require-all"}),
    "creator": frozenset({"signer"}),
    "security": frozenset({"singleton_enclaves", "service_access_token"}),
    "security.attestation": frozenset(
        {"url", "certificates", "min_rsa_signing_key_size", "must_be_sgx_local", "one_time_password_shared_secret"}
    ),
    "mode": frozenset({"maa"}),
    "toleration": frozenset({"maa-managed-tcb", "local-attestation-trust-cas-tcb"}),
}
"""Keys and values, by place, that the language has and this version of Ostiary does not carry out. Each is an error."""

NULL_IS_A_MISTAKE = frozenset({"platforms", "provide_secrets"})
"""Keys that must not be null: leaving them out would widen rights."""

NAMESPACE_LEVEL = 5
HOST_LEVEL = 8
KEY_HASH_LEVEL = V0_3
QUOTING_LEVEL = V0_3
ENCODINGS: Mapping[str, int] = {"escape(json)": 10}

_PEM_FORMATS = {"pem": 5, "pkcs8:pem": 5, "der": 5, "pkcs8:der": 5}
_CERTIFICATE_FORMATS = {
    "": V0_1,
    "crt": 5,
    "crt:pem": 5,
    "crt:der": 5,
    "privatekey": 5,
    "privatekey:pem": 5,
    "privatekey:pkcs8:pem": 5,
    "privatekey:der": 5,
    "privatekey:pkcs8:der": 5,
    "chain": 5,
    "pkcs12-with-private-key": 9,
}
FORMATS: Mapping[str, Mapping[str, int]] = {
    "ascii": {"": V0_1},
    "binary": {"": V0_1, "bin": 5, "hex": 5, "base64": 6, "base64url": 10, "base32": 10, "base32nopad": 10},
    "private-key": {"": 5, **_PEM_FORMATS},
    "x509": _CERTIFICATE_FORMATS,
    "x509-ca": _CERTIFICATE_FORMATS,
}
"""Formats of a placeholder by kind; "" is the bare placeholder."""
DOT_FORMS: Mapping[str, frozenset[str]] = {
    "ascii": frozenset(),
    "binary": frozenset({"hex"}),
    "private-key": frozenset(),
    "x509": frozenset({"crt", "key", "chain"}),
    "x509-ca": frozenset({"crt", "key", "chain"}),
}
"""Deprecated forms `$$SCONE::name.form$$` by kind."""
RAW_FORMATS: Mapping[str, frozenset[str]] = {
    "binary": frozenset({"", "bin"}),
    "private-key": frozenset({"der", "pkcs8:der"}),
    "x509": frozenset({"crt:der", "privatekey:der", "privatekey:pkcs8:der", "pkcs12-with-private-key"}),
    "x509-ca": frozenset({"crt:der", "privatekey:der", "privatekey:pkcs8:der", "pkcs12-with-private-key"}),
}
"""Formats whose result is bytes rather than text."""


def spell(level: int) -> str:
    """A level as `version` spells it."""
    return {V0_1: "0.1", V0_2: "0.2"}.get(level, f"0.3.{level}")
