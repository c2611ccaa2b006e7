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

_CAS = {"cas_url": V0_3, "cas_key": V0_3, "cas_software_key": V0_3}
_REFERENCE = {"session": V0_3, "session_hash": V0_3}

KEYS: Mapping[str, Mapping[str, int]] = {
    "session": {
        "version": V0_1,
        "name": V0_1,
        "predecessor": V0_1,
        "namespace_hash": 11,
        "salt": 12,
        "creator": V0_1,
        "services": V0_1,
        "secrets": V0_1,
        "secret_config": 10,
        "volumes": V0_1,
        "images": V0_1,
        "access_policy": V0_1,
        "policy_board": 12,
        "security": 1,
    },
    "service": {
        "name": V0_1,
        "image_name": V0_1,
        "command": V0_1,
        "environment": V0_1,
        "pwd": V0_1,
        "fspf_path": V0_1,
        "fspf_key": V0_1,
        "fspf_tag": V0_1,
        "fspf_update_policy": 11,
        "mrenclaves": V0_1,
        "attestation": 7,
        "platforms": V0_3,
        "one_time_password_shared_secret": 10,
        "persistency": V0_1,
    },
    "attestation variant": {"mrenclave": 7, "signer": 7, "tdx": 12, "snp": 12, "nitro": 12, "tpm": 12},
    "tdx": dict.fromkeys(
        (
            *("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrseam", "mrsignerseam"),
            *("mrconfigid", "mrowner", "mrownerconfig", "mrservicetd"),
            *("pcrs", "events"),
        ),
        12,
    ),
    "snp": dict.fromkeys(
        (
            *("measurement", "host_data", "id_key_digest", "author_key_digest", "family_id", "image_id"),
            *("guest_svn_min", "vmpl_max", "pcrs", "events"),
        ),
        12,
    ),
    "nitro": dict.fromkeys(("pcr0", "pcr1", "pcr2", "pcr3", "pcr4", "pcr8"), 12),
    "tpm": {"pcrs": 12, "events": 12},
    "tpm pcrs": {"sha256": 12, "sha384": 12},
    "signer": {"mrsigner": 7, "isvprodid": 7, "isvsvn": 7, "isvsvn_min": 7, "isvsvn_max": 7},
    "image": {"name": V0_1, "injection_files": V0_1, "volumes": V0_1, "provide_secrets": 11},
    "injection file": {"path": V0_1, "content": V0_1, "permission": 10},
    "image volume": {"name": V0_1, "path": V0_1, "update_policy": 2},
    "volume": {"name": V0_1, "fspf_key": V0_1, "fspf_tag": V0_1, "files": 11, "export": V0_1, "import": V0_1},
    "volume export": {"to": 2, "update_policy": 2, "volume_alias": 10},
    "volume export target": _REFERENCE,
    "volume import": {**_REFERENCE, "volume": V0_3},
    "export": {**_REFERENCE, "namespace": 5, **_CAS},
    "import": {**_REFERENCE, "secret": V0_3, **_CAS},
    "import_akv": {"vault": 7, "secret_name": 7, "token": 7, "decryption_key": 10},
    "secret_config": {"store_in": 10},
    "store_in": {"token": 10, "vault": 10},
    "validity": {"for": 12},
    "access_policy": {"read": V0_1, "update": V0_1, "create_sessions": 5, "list_sessions": 12},
    "policy_board": dict.fromkeys(
        ("tolerated_faults", "members", "decide_within", "time_lock", "on", "break_glass", "notify"), 12
    ),
    "board member": {"name": 12, "signer": 12, "power": 12},
    "creator": {"signer": 10},
    "security": {"attestation": 1, "singleton_enclaves": 9, "service_access_token": 9},
    "security.attestation": {
        "mode": 1,
        "tolerate": 1,
        "ignore_advisories": 1,
        "trusted_scone_qe_pubkeys": 1,
        "url": 7,
        "certificates": 7,
        "min_rsa_signing_key_size": 7,
        "must_be_sgx_local": 11,
        "one_time_password_shared_secret": 8,
        "tcb": 12,
        "max_age": 12,
    },
    "tcb": {"grace": 12},
}
"""Keys by place; the level that each needs."""

TEES = ("tdx", "snp", "nitro", "tpm")
"""Keys of an attestation variant for a TEE other than SGX, and the names of these TEEs in claims."""
PCRS: Mapping[str, int] = {str(number): 12 for number in range(24)}
"""Keys of a bank of PCRs."""
IDENTIFYING: Mapping[str, tuple[frozenset[str], ...]] = {
    "tdx": (frozenset({"mrtd"}),),
    "snp": (frozenset({"measurement"}), frozenset({"id_key_digest"}), frozenset({"author_key_digest"})),
    "nitro": (frozenset({"pcr0"}), frozenset({"pcr8"})),
    "tpm": tuple(
        frozenset(f"{bank}:{number}" for number in numbers)
        for bank in KEYS["tpm pcrs"]
        for numbers in ((4,), (7, 9), (7, 11))
    ),
}
"""Factors that say together which program a variant admits; without one of these sets it would admit any (ADR 0023)."""

OWN_KEYS: Mapping[str, frozenset[str]] = {
    "session": frozenset({"policy_board"}),
    "attestation variant": frozenset(TEES),
    "security.attestation": frozenset({"tcb", "max_age"}),
}
"""Keys by place that are Ostiary's and not SCONE's; what stands below them is, too."""

OLD_KEYS: Mapping[str, Mapping[str, str]] = {
    "session": {"digest": "write predecessor if it is the hash of a version, else remove it"},
    "service": {"tags": "remove it, it has no effect"},
    "image": {"mrenclaves": "remove it, it has no effect", "tags": "remove it, it has no effect"},
}
"""Keys, by place, that 0.1 has and no later version, with what to do; each is a warning."""
ENDED_KEYS: Mapping[str, frozenset[str]] = {
    "session": frozenset({"exports", "board_members", "board_policy"}),
    "service": frozenset({"import"}),
    "image": frozenset({"import"}),
}
"""Keys, by place, of 0.1 that nothing carries out; each is a mistake that says what replaced them."""

SECRET_KEYS: Mapping[str, int] = {
    "name": V0_1,
    "kind": V0_1,
    "value": V0_1,
    "export": V0_1,
    "import": V0_1,
    "import_akv": 7,
    "export_public": V0_1,
}
_CA_KEYS = {"private_key": V0_3, "common_name": V0_3, "issuer": V0_3, "valid_for": V0_3}
KIND_KEYS: Mapping[str, Mapping[str, int]] = {
    "ascii": {"size": V0_1},
    "binary": {"size": V0_1},
    "private-key": {"key_type": 4, "migrate": 7},
    "public-key": {"private_key": 11},
    "x509-ca": _CA_KEYS,
    "x509": {**_CA_KEYS, "endpoint": V0_3, "dns": V0_3, "san": 10},
    "session-ca": {},
    "aad-token": {
        "tenant_id": 7,
        "client_id": 7,
        "application_secret": 7,
        "private_key": 7,
        "certificate_thumbprint": 7,
    },
    "config-fragment": {},
    "pgp-key": {},
    "jwt": {"signer": 12, "alg": 12, "validity": 12, "payload": 12},
}
"""Keys of a secret beside SECRET_KEYS, by kind."""

KINDS: Mapping[str, int] = {
    "ascii": V0_1,
    "binary": V0_1,
    "private-key": V0_3,
    "public-key": 11,
    "x509": V0_1,
    "x509-ca": V0_1,
    "session-ca": V0_1,
    "aad-token": 7,
    "config-fragment": 10,
    "pgp-key": 10,
    "jwt": 12,
}
KINDS_WITH_VALUE = frozenset({"ascii", "binary", "private-key", "public-key", "x509", "x509-ca", "config-fragment"})
CONFIDENTIAL_KINDS = frozenset({"private-key", "pgp-key", "aad-token", "jwt"})
"""Kinds that hardly anybody means to make public."""
KEY_TYPES: Mapping[str, int] = {"P-256": 4, "P-384": 4, "Ed25519": 4, "RSA-2048": 7, "RSA-3072": 7}
ENDPOINTS: Mapping[str, int] = {"server": V0_3, "client": V0_3}
JWT_ALGORITHMS: Mapping[str, int] = {"ES384": 12}
JWT_KEY_TYPE = "P-384"
MODES: Mapping[str, int] = {"hardware": 1, "maa": 7, "none": 1}
TOLERATE: Mapping[str, int] = {
    "debug-mode": 1,
    "hyperthreading": 1,
    "insecure-igpu": 1,
    "aepic-leak": 1,
    "software-hardening-needed": 1,
    "insecure-configuration": 1,
    "outdated-tcb": 1,
    "maa-managed-tcb": 1,
    "local-attestation-trust-cas-tcb": 11,
    "software-platform": 1,
    "sept-ve-disable-off": 12,
    "service-td": 12,
    "migration-agent": 12,
    "td-relaunch-advised": 12,
}
UPDATE_POLICIES: Mapping[str, int] = {"rollback_protected": 2, "ephemeral": 2, "no_rollback_protection": 2}
FSPF_UPDATE_POLICIES: Mapping[str, int] = {"rollback_protected_reinitializable": 11, "no_rollback_protection": 11}
VOLUME_FILES: Mapping[str, int] = {"encrypted": 11, "authenticated-only": 11}

NULL_IS_A_MISTAKE = frozenset(
    {
        *("platforms", "provide_secrets", "max_age"),
        *("policy_board", "power", "time_lock", "on"),
        *(key for place in (*TEES, "tpm pcrs") for key in KEYS[place]),
        *PCRS,
    }
)
"""Keys that must not be null: leaving them out would widen rights."""

NAMESPACE_LEVEL = 5
ROOT_LEVEL = 11
RELATIVE_LEVEL = 10
HOST_LEVEL = 8
KEY_HASH_LEVEL = V0_3
CERTIFICATE_LEVEL = V0_3
QUOTING_LEVEL = V0_3
REFERENCE_LEVEL = V0_3
"""From here on a session is named by a mapping; before, by `name[:hash]`."""
VARIABLE_LEVEL = 10
SUBJECT_VARIABLE_LEVEL = V0_1
SERVICE_KEY_VARIABLE_LEVEL = 5
VOLUME_KEY_VARIABLE_LEVEL = 7
GOVERNANCE_LEVEL = 10
BOARD_POWERS: Mapping[str, int] = {"vote": 12, "approve": 12, "reject": 12}
BOARD_OPERATIONS: Mapping[str, int] = {"update": 12, "create_sessions": 12, "delete": 12}
ENCODINGS: Mapping[str, int] = {"escape(json)": 10}

_OLD_KEY_FORMATS = {"pkcs8-v1:pem": 5, "pkcs8-v1:der": 5}
"""Ours: what OpenSSL 3.0 reads also of an Ed25519 key (docs/adr/0006)."""
_PEM_FORMATS = {"pem": 5, "pkcs8:pem": 5, "der": 5, "pkcs8:der": 5, **_OLD_KEY_FORMATS}
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
    **{f"privatekey:{form}": minor for form, minor in _OLD_KEY_FORMATS.items()},
    "chain": 5,
    "pkcs12-with-private-key": 9,
}
FORMATS: Mapping[str, Mapping[str, int]] = {
    "ascii": {"": V0_1},
    "binary": {"": V0_1, "bin": 5, "hex": 5, "base64": 6, "base64url": 10, "base32": 10, "base32nopad": 10},
    "private-key": {"": 5, **_PEM_FORMATS},
    "public-key": {"": 11, "spki:pem": 11, "spki:der": 11},
    "x509": _CERTIFICATE_FORMATS,
    "x509-ca": _CERTIFICATE_FORMATS,
    "session-ca": {"": V0_1},
    "aad-token": {"": 7},
    "config-fragment": {"": 10},
    "pgp-key": {
        f"{part}:{form}": 10 for part in ("privatekey", "publickey") for form in ("asciiarmored", "binary", "base64")
    },
    "jwt": {"": 12},
}
"""Formats of a placeholder by kind; "" is the bare placeholder."""
DOT_FORMS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(FORMATS, frozenset[str]()),
    "binary": frozenset({"hex"}),
    "x509": frozenset({"crt", "key", "chain"}),
    "x509-ca": frozenset({"crt", "key", "chain"}),
    "session-ca": frozenset({"crt"}),
}
"""Deprecated forms `$$SCONE::name.form$$` by kind."""
_RAW_CERTIFICATE_FORMATS = frozenset(
    {"crt:der", "privatekey:der", "privatekey:pkcs8:der", "privatekey:pkcs8-v1:der", "pkcs12-with-private-key"}
)
RAW_FORMATS: Mapping[str, frozenset[str]] = {
    "binary": frozenset({"", "bin"}),
    "private-key": frozenset({"der", "pkcs8:der", "pkcs8-v1:der"}),
    "public-key": frozenset({"spki:der"}),
    "x509": _RAW_CERTIFICATE_FORMATS,
    "x509-ca": _RAW_CERTIFICATE_FORMATS,
    "pgp-key": frozenset({"privatekey:binary", "publickey:binary"}),
}
"""Formats whose result is bytes rather than text."""


def spell(level: int) -> str:
    """A level as `version` spells it."""
    return {V0_1: "0.1", V0_2: "0.2"}.get(level, f"0.3.{level}")
