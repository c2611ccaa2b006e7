"""Private keys of people who decide, wherever they lie: in a file, an SSH agent, a PKCS#11 token. They sign, no more.

Each kind is one file and answers the same two questions (`key.py`). One text says which key is meant (`choose.py`).
"""

from ostiary.member_key.choose import choose_key
from ostiary.member_key.file import KeyFile, KnownKey
from ostiary.member_key.key import Asking, KeyPlace, MemberKey

__all__ = ["Asking", "KeyFile", "KeyPlace", "KnownKey", "MemberKey", "choose_key"]
