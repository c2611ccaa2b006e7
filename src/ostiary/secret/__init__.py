"""Secret declarations to values, and values to the text a program sees. Pure: time and randomness are passed in."""

from ostiary.secret.certificate import issue_certificate, needs_renewal
from ostiary.secret.generate import generate, renew
from ostiary.secret.private_key import generate_private_key
from ostiary.secret.public import PublicValue, no_public_value, public_value, public_values
from ostiary.secret.render import render
from ostiary.secret.value import (
    AsciiValue,
    BinaryValue,
    CertificateValue,
    PrivateKeyValue,
    Value,
    decode_values,
    encode_values,
)

__all__ = [
    "AsciiValue",
    "BinaryValue",
    "CertificateValue",
    "PrivateKeyValue",
    "PublicValue",
    "Value",
    "decode_values",
    "encode_values",
    "generate",
    "generate_private_key",
    "issue_certificate",
    "needs_renewal",
    "no_public_value",
    "public_value",
    "public_values",
    "render",
    "renew",
]
