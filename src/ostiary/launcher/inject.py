"""Injection files: shown to this process and what it executes, never to the host, never on a disk.

The process moves into a mount namespace of its own. The files live in a file system in memory that is not swapped out,
and each is bound over its path there. What has to be there to bind over:

- something exists at the path, not a directory: it is hidden, and untouched;
- nothing does, and a file can be made beside: an empty file with mode 0 is made and stays behind, its name for all to
  see, as container runtimes do. The directory stays the real one, so the program's other files in it are kept;
- directories are missing or cannot be written to: the nearest directory that exists is shown as a copy in memory, with
  every entry bound back to the real one and the missing directories (mode 0755) added. What the program adds or removes
  directly in that copy is lost at its end.

Not protected from: a host that may trace this process or enter its namespaces, which is root and, without TEE, the
same user.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from ostiary.errors import ConfigurationError, OutsideError
from ostiary.launcher import kernel
from ostiary.launcher.configuration import InjectionFile

MEMORY_BYTES = 16 * 1024 * 1024
"""Room for the files, 8 MiB at most, and for what the program writes to them."""
MEMORY_INODES = 16384
MAX_MIRRORED_ENTRIES = 4096
"""Entries of a directory that is shown as a copy; each becomes a mount, of which the kernel allows 100,000."""

# Where file systems are mounted while they are filled: any directory that no file can be injected into.
_STAGINGS = ("/proc/tty", "/proc/fs", "/proc/sys")
_FORBIDDEN_ROOT = "/proc"


def inject(files: Sequence[InjectionFile]) -> None:
    """Show `files` to this process and its descendants only. Does nothing if there are none.

    Guarantees on return: every file is at its path with its content and permission, owned by the effective user, in
    memory that is never swapped; no other namespace sees it; nothing of it was written anywhere else.
    Does not guarantee: that the program may still mount, or run set-user-id programs of other users, where an ordinary
    user started it, for the way there leads through a user namespace with one user in it.
    Raises ConfigurationError for a path that cannot be injected at, OutsideError if the kernel refuses. The process is
    then in no state to start a program in.
    """
    if not files:
        return
    _enter_private_namespace()
    staging = _staging()
    view = _View(staging)
    ordered = sorted(files, key=lambda file: file.path)
    for file in ordered:
        view.make_mount_point(file.path)
    try:
        _show(ordered, staging)
    except OSError as error:
        raise OutsideError("injection files cannot be put into memory", _reason(error)) from None


def _show(files: Sequence[InjectionFile], staging: str) -> None:
    _mount_memory(staging)
    for number, file in enumerate(files):
        _write(f"{staging}/{number}", file)
        kernel.mount(f"{staging}/{number}", file.path, flags=kernel.MS_BIND)
    kernel.unmount(staging)


def _write(path: str, file: InjectionFile) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0)
    with os.fdopen(fd, "wb") as stream:
        stream.write(file.content)
        os.fchmod(fd, file.permission)


def _enter_private_namespace() -> None:
    """A mount namespace whose mounts no other sees, and which sees no new ones. Raises OutsideError."""
    try:
        _unshare()
        _make_mounts_private()
    except OSError as error:
        raise OutsideError(
            "injection files need a private mount namespace, and the kernel does not give one",
            _reason(error),
            "as root in a container, add the capability SYS_ADMIN; as an ordinary user, see that the sysctl settings "
            "user.max_user_namespaces is not 0, kernel.unprivileged_userns_clone (Debian) is 1 and "
            "kernel.apparmor_restrict_unprivileged_userns (Ubuntu) is 0, and that no seccomp filter forbids unshare",
        ) from None


def _make_mounts_private() -> None:
    """Raises OSError."""
    try:
        kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # After a chroot `/` is an ordinary directory, and only mount points can be made private. So it becomes one.
        staging = _staging()
        kernel.mount("", _FORBIDDEN_ROOT, flags=kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("/", staging, flags=kernel.MS_BIND | kernel.MS_REC)
        kernel.mount("", staging, flags=kernel.MS_REC | kernel.MS_PRIVATE)
        os.chroot(staging)
        os.chdir("/")


def _unshare() -> None:
    if os.geteuid() == 0:
        try:
            return kernel.unshare(kernel.CLONE_NEWNS)
        except PermissionError:
            pass  # root of a container without capabilities; its user namespace may still do
    return unshare_as_user()


def unshare_as_user() -> None:
    """A mount namespace by way of a user namespace in which the effective user and group are themselves.

    Raises OSError.
    """
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("gid_map", f"{group} {group} 1"), ("uid_map", f"{user} {user} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _staging() -> str:
    for path in _STAGINGS:
        if os.path.isdir(path):
            return path
    raise OutsideError(f"injection files need one of the directories {', '.join(_STAGINGS)}; is /proc mounted?")


def _mount_memory(where: str) -> None:
    """A file system in memory that is never swapped out. tmpfs can promise that since Linux 6.4 and to root only;
    ramfs always does, but has no bound: there the program's own memory limit is the only one."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    try:
        options = f"mode=0700,size={MEMORY_BYTES},nr_inodes={MEMORY_INODES},noswap"
        kernel.mount("ostiary", where, kind="tmpfs", flags=flags, data=options)
    except OSError:
        kernel.mount("ostiary", where, kind="ramfs", flags=flags, data="mode=0700")


class _View:
    """The tree as the program will see it, mount points being made. `_in_memory`: directories that exist there only."""

    def __init__(self, staging: str) -> None:
        self._staging = staging
        self._in_memory: set[str] = set()

    def make_mount_point(self, path: str) -> None:
        """See to it that something other than a directory exists at `path`, for this process at least."""
        try:
            ancestor, missing = _nearest_directory(path)
            if missing is None:
                return
            if not missing and self._placeholder_made(path):
                return
            if ancestor not in self._in_memory:
                self._mirror(ancestor)
            for directory in missing:
                os.mkdir(directory)
                os.chmod(directory, 0o755)  # noqa: S103 - as the session language has it
                self._in_memory.add(directory)
            _make_placeholder(path)
        except OSError as error:
            raise ConfigurationError(f"injection file {path}: no place for it can be made", _reason(error)) from None

    def _placeholder_made(self, path: str) -> bool:
        try:
            _make_placeholder(path)
        except OSError:
            return False
        return True

    def _mirror(self, directory: str) -> None:
        """Cover a directory by one in memory that shows the same entries."""
        original, writable = os.stat(directory), os.access(directory, os.W_OK)
        entries = _entries(directory)
        _mount_memory(self._staging)
        # Unbindable while it is filled: /proc, below which it stands, is itself an entry of /.
        kernel.mount("", self._staging, flags=kernel.MS_UNBINDABLE)
        for entry in entries:
            _bind_back(entry, f"{self._staging}/{entry.name}")
        kernel.mount("", self._staging, flags=kernel.MS_PRIVATE)
        _take_after(original, self._staging, writable=writable)
        if directory == "/":
            self._become_root()
        else:
            kernel.mount(self._staging, directory, flags=kernel.MS_MOVE)
        self._in_memory.add(directory)

    def _become_root(self) -> None:
        os.chdir(self._staging)
        kernel.mount(self._staging, "/", flags=kernel.MS_MOVE)
        os.chroot(".")


def _nearest_directory(path: str) -> tuple[str, list[str] | None]:
    """The deepest existing directory above `path`, and the directories missing between; None if `path` itself exists.

    Raises ConfigurationError for what cannot be injected at: below /proc, a directory, through a symbolic link.
    """
    if path == _FORBIDDEN_ROOT or path.startswith(f"{_FORBIDDEN_ROOT}/"):
        raise ConfigurationError(f"injection file {path}: nothing can be injected into {_FORBIDDEN_ROOT}")
    parts = path.split("/")[1:]
    ancestor = "/"
    for depth in range(1, len(parts) + 1):
        here = "/" + "/".join(parts[:depth])
        try:
            mode = os.lstat(here).st_mode
        except FileNotFoundError:
            return ancestor, ["/" + "/".join(parts[:end]) for end in range(depth, len(parts))]
        if stat.S_ISLNK(mode):
            raise ConfigurationError(
                f"injection file {path}: {here} is a symbolic link here; write the path it stands for, "
                f"{os.path.realpath(path)}"
            )
        if depth == len(parts) and stat.S_ISDIR(mode):
            raise ConfigurationError(f"injection file {path}: is a directory here; name a file")
        if depth < len(parts) and not stat.S_ISDIR(mode):
            raise ConfigurationError(f"injection file {path}: {here} is not a directory here")
        ancestor = here
    return ancestor, None


def _make_placeholder(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0))


def _entries(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as scan:
        entries = list(scan)
    if len(entries) > MAX_MIRRORED_ENTRIES:
        raise ConfigurationError(
            f"{directory} has {len(entries)} entries, too many to show beside an injected file (at most "
            f"{MAX_MIRRORED_ENTRIES}); make the file's directory beforehand, writable for this user"
        )
    return entries


def _bind_back(entry: os.DirEntry[str], place: str) -> None:
    if entry.is_symlink():
        os.symlink(os.readlink(entry.path), place)
        return
    if entry.is_dir(follow_symlinks=False):
        os.mkdir(place)
    else:
        _make_placeholder(place)
    kernel.mount(entry.path, place, flags=kernel.MS_BIND | kernel.MS_REC)


def _take_after(original: os.stat_result, place: str, *, writable: bool) -> None:
    """Give the copy owner and mode of its original.

    In a user namespace most owners cannot be kept, and the copy stays the user's own. So where the user may not write
    to the original, the write bits go.
    """
    mode = stat.S_IMODE(original.st_mode)
    try:
        os.chown(place, original.st_uid, original.st_gid)
    except OSError:
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    os.chmod(place, mode if writable else mode & ~0o222)


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
