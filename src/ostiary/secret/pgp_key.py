"""OpenPGP keys, made and read by Sequoia. Why Sequoia, and in which layout: docs/adr/0007."""

from __future__ import annotations

from collections.abc import Callable

from pysequoia import ArmorKind, CipherSuite, Profile, Tsk, armor

from ostiary.secret.value import PgpKeyValue

_USER_ID_BYTES = 16


def generate_pgp_key(random: Callable[[int], bytes]) -> PgpKeyValue:
    """A new version 4 key (RFC 4880): Ed25519 primary key, Ed25519 signing subkey, Curve25519 encryption subkey.

    It never expires and is not protected by a passphrase. The user id is `key-` and 32 hex digits from `random`; hex
    digits alone would mean a fingerprint to GnuPG. The keys come from Sequoia's own generator, the creation time from
    the system's clock.
    """
    user_id = f"key-{random(_USER_ID_BYTES).hex()}"
    key = Tsk.generate(user_id=user_id, profile=Profile.RFC4880, cipher_suite=CipherSuite.Cv25519)
    return PgpKeyValue(secret_key=bytes(key), public_key=bytes(key.extract_certificate()))


def armor_secret_key(value: PgpKeyValue) -> bytes:
    """The block `PGP PRIVATE KEY BLOCK` as `gpg --export-secret-keys --armor` writes it, one newline at the end."""
    return armor(value.secret_key, ArmorKind.SecretKey).encode("ascii")


def armor_public_key(value: PgpKeyValue) -> bytes:
    """The block `PGP PUBLIC KEY BLOCK` as `gpg --export --armor` writes it, one newline at the end."""
    return armor(value.public_key, ArmorKind.PublicKey).encode("ascii")
