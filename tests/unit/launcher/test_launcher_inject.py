"""Injection files in real mount namespaces: as root, as root without CAP_SYS_ADMIN, and as an ordinary user."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ostiary.launcher.configuration import InjectionFile
from ostiary.launcher.inject import MAX_MIRRORED_ENTRIES, MEMORY_BYTES, inject

# Injects what its first argument says, then runs the Python text in the second. `told` becomes its answer, one line.
CHILD = """
import json, os, stat, sys
from pathlib import Path
from ostiary.errors import OstiaryError
from ostiary.launcher.configuration import InjectionFile
from ostiary.launcher.inject import inject
told = {}
try:
    inject([InjectionFile(path=p, permission=m, content=c.encode()) for p, m, c in json.loads(sys.argv[1])])
except OstiaryError as error:
    told = {"error": type(error).__name__, "text": str(error)}
else:
    exec(sys.argv[2])
print(json.dumps(told), flush=True)
"""

File = tuple[str, int, str]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A command that runs Python with certain rights. `user`: the effective user's id."""

    command: Sequence[str]
    user: int


def run(way: Way, files: Sequence[File], script: str, source: str) -> dict[str, Any]:
    """What `script` put into `told`, in a process in which `files` were injected."""
    environment = {**os.environ, "PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*way.command, "-c", CHILD, json.dumps(files), script]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text


def works(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


WITHOUT_SYS_ADMIN = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]


@pytest.fixture(params=["root", "root without SYS_ADMIN", "user"])
def way(request: pytest.FixtureRequest, other_user_python: list[str]) -> Way:
    if request.param == "user":
        if not works([*other_user_python[:-2], "unshare", "--user", "--mount", "true"]):
            pytest.skip("no user namespaces for ordinary users here")
        return Way(command=other_user_python, user=65534 if os.geteuid() == 0 else os.geteuid())
    if os.geteuid() != 0 or not works(["unshare", "--mount", "true"]):
        pytest.skip("needs root that may mount")
    if request.param == "root":
        return Way(command=[sys.executable], user=0)
    if not works([*WITHOUT_SYS_ADMIN, "unshare", "--user", "--mount", "true"]):
        pytest.skip("no user namespaces for root here")
    return Way(command=[*WITHOUT_SYS_ADMIN, sys.executable], user=0)


@pytest.fixture
def any_way() -> Way:
    """For refusals that do not depend on rights: as whoever runs the tests."""
    if not works(["unshare", "--mount", "true"] if os.geteuid() == 0 else ["unshare", "--user", "--mount", "true"]):
        pytest.skip("no mount namespaces here")
    return Way(command=[sys.executable], user=os.geteuid())


READ = """
for name in json.loads(sys.argv[1]):
    path = Path(name[0])
    told[name[0]] = [path.read_text(), stat.S_IMODE(path.stat().st_mode), path.stat().st_uid]
"""


def test_an_existing_file_is_hidden_and_untouched(way: Way, source: str, open_directory: Path) -> None:
    path = open_directory / "config"
    path.write_text("on disk")
    path.chmod(0o666)
    told = run(
        way,
        [(str(path), 0o640, "injected")],
        READ + "path.write_text('changed'); told['now'] = path.read_text()",
        source,
    )
    assert told == {str(path): ["injected", 0o640, way.user], "now": "changed"}
    assert path.read_text() == "on disk"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_a_missing_file_leaves_an_empty_closed_placeholder(way: Way, source: str, open_directory: Path) -> None:
    path = open_directory / "key.pem"
    script = READ + "(path.parent / 'log').write_text('kept')"
    assert run(way, [(str(path), 0o400, "injected")], script, source) == {str(path): ["injected", 0o400, way.user]}
    assert path.stat().st_size == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0
    assert (open_directory / "log").read_text() == "kept", "the directory is the real one"
    again = run(way, [(str(path), 0o400, "injected")], READ, source)
    assert again[str(path)][0] == "injected", "the placeholder of an earlier start is a mount point like any other"


def test_missing_directories_exist_in_memory_only(way: Way, source: str, open_directory: Path) -> None:
    real = open_directory / "real"
    real.mkdir()
    real.chmod(0o777)
    (open_directory / "file").write_text("real file")
    (open_directory / "link").symlink_to("file")
    path = open_directory / "new" / "deep" / "key.pem"
    script = (
        READ
        + """
base = path.parents[2]
told["entries"] = sorted(os.listdir(base))
told["directory mode"] = stat.S_IMODE((base / "new").stat().st_mode)
told["link"] = [os.readlink(base / "link"), (base / "link").read_text()]
(base / "real" / "log").write_text("kept")
(base / "new" / "log").write_text("lost")
"""
    )
    told = run(way, [(str(path), 0o600, "injected")], script, source)
    assert told == {
        str(path): ["injected", 0o600, way.user],
        "entries": ["file", "link", "new", "real"],
        "directory mode": 0o755,
        "link": ["file", "real file"],
    }
    assert sorted(os.listdir(open_directory)) == ["file", "link", "real"]
    assert (real / "log").read_text() == "kept", "existing directories are the real ones"


def test_directories_missing_below_the_root(way: Way, source: str) -> None:
    path = "/ostiary-test-missing/etc/key.pem"
    script = (
        READ
        + """
told["here"] = os.getcwd()
told["entries"] = sorted(os.listdir("/"))
told["proc"] = Path("/proc/self/stat").read_text().split()[0] == str(os.getpid())
told["tty"] = os.path.exists("/proc/tty/drivers")
told["nested"] = os.path.ismount("/dev/shm")
import subprocess
told["namespace"] = subprocess.run(["unshare", "--user", "true"]).returncode
"""
    )
    told = run(way, [(path, 0o600, "injected")], script, source)
    assert told.pop(path) == ["injected", 0o600, way.user]
    assert told.pop("entries") == sorted([*os.listdir("/"), "ostiary-test-missing"])
    assert told == {"here": "/", "proc": True, "tty": True, "nested": os.path.ismount("/dev/shm"), "namespace": 0}
    assert not os.path.exists("/ostiary-test-missing")


IN_A_CHROOT = """
for entry in /*; do
    if [ -L "$entry" ]; then cp -P "$entry" "$0$entry"
    elif [ -d "$entry" ]; then mkdir "$0$entry" && mount --rbind "$entry" "$0$entry"
    fi
done
exec chroot "$0" "$@"
"""


def test_in_a_chroot_whose_root_is_no_mount_point(source: str, open_directory: Path) -> None:
    """As in a build environment. Nothing that is mounted there shows outside."""
    if os.geteuid() != 0 or not works(["unshare", "--mount", "true"]):
        pytest.skip("needs root that may mount")
    root = open_directory / "root"
    root.mkdir()
    shown = open_directory / "key.pem"
    command = ["unshare", "--mount", "sh", "-c", IN_A_CHROOT, str(root), sys.executable]
    before = Path("/proc/self/mounts").read_text()
    files = [(str(shown), 0o400, "injected"), ("/ostiary-test-missing/key.pem", 0o400, "injected too")]
    told = run(Way(command=command, user=0), files, READ, source)
    assert told == {str(shown): ["injected", 0o400, 0], "/ostiary-test-missing/key.pem": ["injected too", 0o400, 0]}
    assert Path("/proc/self/mounts").read_text() == before


def test_many_files_nested_in_each_others_directories(way: Way, source: str, open_directory: Path) -> None:
    (open_directory / "a").mkdir(mode=0o777)
    (open_directory / "a").chmod(0o777)
    (open_directory / "a" / "old").write_text("old")
    names = ["a/new/x", "a/new/y", "a/new/deeper/z", "a/old", "b/c/d", "plain", "/ostiary-test-missing/k"]
    files = [(str(open_directory / name), 0o600, f"content of {name}") for name in names]
    told = run(way, files, READ, source)
    assert told == {path: [content, 0o600, way.user] for path, _, content in files}
    assert sorted(os.listdir(open_directory)) == ["a"], "`plain` needed no placeholder: its directory is a copy"
    assert (open_directory / "a" / "old").read_text() == "old"


@pytest.mark.parametrize("way", ["root without SYS_ADMIN", "user"], indirect=True)
def test_a_directory_that_cannot_be_written_to_is_shown_as_a_copy(way: Way, source: str, open_directory: Path) -> None:
    """It belongs to a user who does not exist in the program's user namespace."""
    closed = open_directory / "closed"
    closed.mkdir()
    (closed / "neighbour").write_text("still here")
    closed.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(closed, 1234, 1234)
    else:
        closed.chmod(0o555)
    path = closed / "key.pem"
    script = READ + "told['neighbour'] = (path.parent / 'neighbour').read_text()\n"
    script += "told['mode'] = stat.S_IMODE(path.parent.stat().st_mode)"
    told = run(way, [(str(path), 0o600, "injected")], script, source)
    assert told[str(path)] == ["injected", 0o600, way.user]
    assert (told["neighbour"], told["mode"]) == ("still here", 0o555), "nobody may add to the copy"
    assert os.listdir(closed) == ["neighbour"]


def test_a_directory_open_to_all_stays_so_as_a_copy(way: Way, source: str, open_directory: Path) -> None:
    """Such as /tmp."""
    open_directory.chmod(0o1777)
    path = open_directory / "new" / "key.pem"
    script = "told['mode'] = stat.S_IMODE(path.parents[1].stat().st_mode)\n(path.parents[1] / 'x').write_text('lost')"
    told = run(way, [(str(path), 0o600, "injected")], READ + script, source)
    assert told["mode"] == 0o1777
    assert os.listdir(open_directory) == []


def test_no_other_process_of_the_host_sees_the_file(way: Way, source: str, open_directory: Path) -> None:
    """Looked at while the program lives."""
    files = [(str(open_directory / name), 0o644, "injected") for name in ("there", "missing", "new/file")]
    (open_directory / "there").write_text("on disk")
    script = "print('ready', flush=True)\nsys.stdin.readline()\n" + READ
    command = [*way.command, "-c", CHILD, json.dumps(files), script]
    environment = {**os.environ, "PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, cwd="/", **pipes) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert (open_directory / "there").read_text() == "on disk"
        assert not (open_directory / "new").exists()
        mounts = Path("/proc/self/mountinfo").read_text()
        told = json.loads(child.communicate("\n", timeout=30)[0])
    assert str(open_directory) not in mounts
    assert {path: told[path][0] for path, _, _ in files} == {path: "injected" for path, _, _ in files}


def test_the_files_lie_in_memory_that_is_not_swapped(way: Way, source: str, open_directory: Path) -> None:
    path = open_directory / "key.pem"
    script = """
lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
told["mounts"] = [line[4:] for line in lines if "ostiary" in line]
"""
    (mount,) = run(way, [(str(path), 0o400, "injected")], script, source)["mounts"]
    point, flags, *_, kind, _, options = mount
    assert point == str(path), "nothing but the file is left mounted"
    assert {"nosuid", "nodev"} <= set(flags.split(","))
    assert kind == "ramfs" or (kind == "tmpfs" and "noswap" in options and f"size={MEMORY_BYTES // 1024}k" in options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("link", "is a symbolic link here; write the path it stands for, .*/directory"),
        ("link/key.pem", "is a symbolic link here; write the path it stands for, .*/directory/key.pem"),
        ("dangling", "is a symbolic link here"),
        ("directory", "is a directory here; name a file"),
        ("file/key.pem", "file is not a directory here"),
        ("file/deep/key.pem", "file is not a directory here"),
        ("x" * 300, "no place for it can be made"),
        ("/proc/cpuinfo", "nothing can be injected into /proc"),
        ("/proc", "nothing can be injected into /proc"),
        ("/sys/ostiary/key.pem", "no place for it can be made|injected"),
    ],
)
def test_paths_refused(name: str, message: str, any_way: Way, source: str, open_directory: Path) -> None:
    (open_directory / "directory").mkdir()
    (open_directory / "file").touch()
    (open_directory / "link").symlink_to("directory")
    (open_directory / "dangling").symlink_to("nowhere")
    before = sorted(os.listdir(open_directory))
    told = run(any_way, [(str(open_directory / name), 0o400, "secret")], "told['text'] = 'injected'", source)
    assert told.get("error", "ConfigurationError") == "ConfigurationError"
    assert_matches(message, told["text"])
    assert "secret" not in told["text"]
    assert sorted(os.listdir(open_directory)) == before


def test_a_file_below_an_injected_file_is_refused(any_way: Way, source: str, open_directory: Path) -> None:
    files = [(str(open_directory / "a"), 0o400, "x"), (str(open_directory / "a" / "b"), 0o400, "y")]
    told = run(any_way, files, "", source)
    assert told["error"] == "ConfigurationError"
    assert_matches("a/b: .*/a is not a directory here", told["text"])


def test_a_directory_with_too_many_entries_is_refused(any_way: Way, source: str, open_directory: Path) -> None:
    for number in range(MAX_MIRRORED_ENTRIES + 1):
        (open_directory / str(number)).symlink_to("x")
    told = run(any_way, [(str(open_directory / "new" / "key"), 0o400, "x")], "", source)
    assert told["error"] == "ConfigurationError"
    assert_matches("has 4097 entries, too many .* make the file's directory beforehand", told["text"])


def test_a_kernel_that_gives_no_namespace_stops_the_start(source: str, open_directory: Path) -> None:
    """Never shown openly instead. Namespaces are forbidden here by the limits of a surrounding user namespace."""
    outer = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    if not works([*outer, "echo 0 > /proc/sys/user/max_user_namespaces", "sh"]) or not works(
        [*WITHOUT_SYS_ADMIN, "true"]
    ):
        pytest.skip("no user namespaces here")
    way = Way(command=[*outer, script, "sh", *WITHOUT_SYS_ADMIN, sys.executable], user=0)
    told = run(way, [(str(open_directory / "key"), 0o400, "x")], "", source)
    assert told["error"] == "OutsideError"
    assert_matches(
        "private mount namespace, and the kernel does not give one: .*: as root in a container", told["text"]
    )
    assert_matches("user.max_user_namespaces is not 0, kernel.unprivileged_userns_clone", told["text"])
    assert os.listdir(open_directory) == []


def test_without_files_no_namespace_is_made() -> None:
    before = os.readlink("/proc/self/ns/mnt")
    inject([])
    assert os.readlink("/proc/self/ns/mnt") == before


def test_repr_hides_the_content() -> None:
    assert "secret" not in repr(InjectionFile(path="/k", permission=0o400, content=b"secret"))
