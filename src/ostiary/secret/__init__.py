"""Secret declarations to values, and values to what a program sees. Pure: time, randomness, fetchers are passed in."""

from ostiary.secret.akv import decode_akv
from ostiary.secret.certificate import issue_certificate, needs_renewal
from ostiary.secret.dependency import made_of
from ostiary.secret.file_template import parse_file_template, render_file_template, require_callable, require_provided
from ostiary.secret.fragment import expand, fragment
from ostiary.secret.generate import generate, renew
from ostiary.secret.import_value import import_value
from ostiary.secret.outside import Sources, fetch_outside
from ostiary.secret.private_key import generate_private_key
from ostiary.secret.public import PublicValue, no_public_value, public_value, public_values
from ostiary.secret.release import ReleaseContext, release_values, secrets_used
from ostiary.secret.render import render
from ostiary.secret.value import (
    SESSION_CA,
    AadTokenValue,
    AsciiValue,
    BinaryValue,
    CertificateValue,
    FragmentValue,
    JwtValue,
    PgpKeyValue,
    PrivateKeyValue,
    PublicKeyValue,
    Released,
    SessionCaValue,
    Value,
    decode_values,
    encode_values,
)
from ostiary.secret.vault import VaultEntry

__all__ = [
    "SESSION_CA",
    "AadTokenValue",
    "AsciiValue",
    "BinaryValue",
    "CertificateValue",
    "FragmentValue",
    "JwtValue",
    "PgpKeyValue",
    "PrivateKeyValue",
    "PublicKeyValue",
    "PublicValue",
    "ReleaseContext",
    "Released",
    "SessionCaValue",
    "Sources",
    "Value",
    "VaultEntry",
    "decode_akv",
    "decode_values",
    "encode_values",
    "expand",
    "fetch_outside",
    "fragment",
    "generate",
    "generate_private_key",
    "import_value",
    "issue_certificate",
    "made_of",
    "needs_renewal",
    "no_public_value",
    "parse_file_template",
    "public_value",
    "public_values",
    "release_values",
    "render",
    "render_file_template",
    "renew",
    "require_callable",
    "require_provided",
    "secrets_used",
]
