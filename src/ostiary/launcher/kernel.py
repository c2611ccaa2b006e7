"""The three system calls for private mounts that the standard library of Python 3.11 lacks, through the C library.

Source: Linux manual pages unshare(2), mount(2), umount2(2); constants of <sched.h> and <sys/mount.h>.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000

MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18

MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
for _function in (_libc.unshare, _libc.mount, _libc.umount2):
    _function.restype = ctypes.c_int


def unshare(flags: int) -> None:
    """Leave namespaces for new ones, by CLONE_* flags. Raises OSError."""
    _succeeded(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, *, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount, bind, move, or change how mounts propagate, by MS_* flags. Raises OSError that names `target`."""
    arguments = os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode()
    _succeeded(_libc.mount(*arguments), target)


def unmount(target: str) -> None:
    """Take a mount out of the tree; what is bound from it elsewhere stays. Raises OSError that names `target`."""
    _succeeded(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


def _succeeded(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
