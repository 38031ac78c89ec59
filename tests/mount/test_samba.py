# SPDX-License-Identifier: MIT
"""A live folder as a Samba share, with the settings of docs/samba.md: what Windows' "Previous Versions" asks for is there.

The server has all its state in a folder of the test and listens on the loopback only. Started by root, it serves `nobody`, and sees the
folder at another place, since what leads to pytest's folders is closed to others; started by anybody else, it serves them only.
"""

import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.mount.conftest import Place, environment, run, wait_until
from tests.mount.richness import IS_ROOT

SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""Where the server is, for ordinary users, too."""
SEEN_AT = Path("/mnt")
"""Where the server of root sees the folder, in a mount namespace of its own."""
USER = "nobody" if IS_ROOT else pwd.getpwuid(os.getuid()).pw_name
PASSWORD = "pw"
VERSION_NAME = "%Y-%m-%d_%H-%M-%S"
WRITTEN = datetime(2026, 11, 1, 12, 30, 15, tzinfo=UTC)
SERVER = """\
[global]
  server role = standalone server
  interfaces = lo 127.0.0.1/8
  bind interfaces only = yes
  smb ports = {port}
  disable netbios = yes
  private dir = {state}/private
  lock directory = {state}/lock
  state directory = {state}/state
  cache directory = {state}/cache
  pid directory = {state}/pid
  ncalrpc dir = {state}/ncalrpc
  log file = {state}/log/%m.log
  load printers = no
  printcap name = /dev/null
  printing = bsd
"""


# --- the folder that is shared


@dataclass
class Live:
    """A live folder that is mounted, and when its versions were made."""

    place: Place
    versions: list[datetime] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where it is mounted."""
        return self.place.point

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is older than any version."""
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
        os.utime(file, (WRITTEN.timestamp(), WRITTEN.timestamp()))

    def make_version(self) -> None:
        """Publish a version."""
        self.place.make_version()
        times = [datetime.strptime(name, VERSION_NAME).replace(tzinfo=UTC) for name in os.listdir(self.folder / ".snapshots")]
        assert len(times) == len(self.versions) + 1
        self.versions.append(max(times))


@pytest.fixture(scope="module")
def live(module_place: Place) -> Iterator[Live]:
    """A live folder with two versions, and different from both."""
    module_place.mount_live(*(["--allow-other"] if IS_ROOT else []))
    live = Live(module_place)
    live.folder.chmod(0o777)
    live.write("report.odt", b"first")
    live.write("letters/an Größe.txt", b"dear Ann")
    live.write("letters/gone.txt", b"was here")
    live.write("quiet/same.txt", b"same")
    live.make_version()
    live.write("report.odt", b"second one")
    (live.folder / "letters" / "gone.txt").unlink()
    live.make_version()
    live.write("report.odt", b"the third one")
    yield live
    module_place.unmount()


# --- the server


@dataclass
class Share:
    """A folder as clients of the server see it."""

    live: Live
    config: Path
    port: int
    home: Path

    def client(self, command: str, *, fails: bool = False) -> str:
        """What smbclient says to a command."""
        words: list[str | Path] = ["//127.0.0.1/live", "-p", str(self.port), "-U", f"{USER}%{PASSWORD}", "-s", self.config, "-c", command]
        done = run(["smbclient", *words], self.home, cwd=self.home, TZ="UTC")
        said = done.stdout + done.stderr
        assert ("NT_STATUS_" in said) == fails, said
        return said

    def get(self, name: str) -> bytes:
        """Copy a file to this side of the connection."""
        copy = self.home / "copy"
        copy.unlink(missing_ok=True)
        self.client(f'get "{name}" copy')
        return copy.read_bytes()

    def put(self, name: str, data: bytes, *, fails: bool = False) -> None:
        """Write a file through the server."""
        (self.home / "new").write_bytes(data)
        self.client(f'put new "{name}"', fails=fails)


def recipe(path: Path) -> str:
    """The share as docs/samba.md has it, of this folder and for this person."""
    text = (ROOT / "docs" / "samba.md").read_text()
    block = re.search(r"^ *```ini\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    share = textwrap.dedent(block[1])
    for name, value in (("path", str(path)), ("valid users", USER)):
        share, count = re.subn(f"^  {name} = .*$", f"  {name} = {value}", share, flags=re.MULTILINE)
        assert count == 1
    return share


@pytest.fixture(scope="module")
def share(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Share]:
    """The folder, served."""
    if problem := samba_problem():
        pytest.skip(problem)
    state = tmp_path_factory.mktemp("samba")
    for name in ("private", "lock", "state", "cache", "pid", "ncalrpc", "log", "client"):
        (state / name).mkdir()
    port = find_free_port()
    config = state / "smb.conf"
    config.write_text(SERVER.format(state=state, port=port) + recipe(SEEN_AT if IS_ROOT else live.folder))
    own = environment(state, PATH=SBIN)
    account: list[str | Path] = ["pdbedit", "-s", config, "--create", "--password-from-stdin", "--user", USER]
    subprocess.run(account, env=own, input=f"{PASSWORD}\n{PASSWORD}\n", text=True, check=True, capture_output=True, timeout=60)
    command: list[str | Path] = ["smbd", "--foreground", "--no-process-group", "--debug-stdout", "-s", config]
    if IS_ROOT:
        command = ["unshare", "--mount", "sh", "-euc", 'mount --bind "$0" "$1"; shift; exec "$@"', live.folder, SEEN_AT, *command]
    with open(state / "output", "wb") as output:
        # In a session of its own: at its end it signals all of its process group.
        server = subprocess.Popen(
            command, env=own, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until(lambda: server.poll() is not None or is_listening(port), f"smbd listens on port {port}")
        assert server.poll() is None, (state / "output").read_text()
        yield Share(live, config, port, state / "client")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)


def samba_problem() -> str:
    """What is not installed; empty if all is."""
    for program in ("smbd", "smbclient"):
        if shutil.which(program, path=SBIN) is None:
            return f"Samba is not installed: no {program}"
    options = subprocess.run(["smbd", "--build-options"], env={"PATH": SBIN}, capture_output=True, text=True, check=True).stdout
    modules = re.search(r"^ *MODULESDIR: *(.*)", options, re.MULTILINE)
    if modules is None or not Path(modules[1], "vfs", "shadow_copy2.so").exists():
        return "Samba is not installed: no shadow_copy2, which is in samba-vfs-modules"
    return ""


def find_free_port() -> int:
    """A port of the loopback that nobody has, below those that the system gives to whoever asks for any."""
    for port in range(20_000, 30_000):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail("no port is free")


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def gmt(version: datetime) -> str:
    """A version as clients name it."""
    return version.strftime("@GMT-%Y.%m.%d-%H.%M.%S")


def names(listing: str) -> set[str]:
    """The names that smbclient's `ls` shows."""
    return {match[1] for match in re.finditer(r"^  (.+?) +[A-Z]* +\d+  \w{3} \w{3} ", listing, re.MULTILINE)} - {".", ".."}


# --- what Windows asks for


def test_the_versions_of_a_file_are_listed_newest_first(share: Share) -> None:
    first, second = share.live.versions
    said = share.client("allinfo report.odt")
    today, *old = re.split(r"^(?=@GMT-)", said, flags=re.MULTILINE)
    assert "13 bytes" in today
    assert [version.splitlines()[0] for version in old] == [gmt(second), gmt(first)]
    assert [re.findall(r"^size: (\d+)", version, re.MULTILINE) for version in old] == [["10"], ["5"]]
    for version in old:
        assert re.findall(r"^write_time: +(.*)", version, re.MULTILINE) == [WRITTEN.strftime("%a %b %e %H:%M:%S %Y UTC")]


def test_an_old_version_is_copied_out(share: Share) -> None:
    first, second = share.live.versions
    assert share.get(f"{gmt(first)}\\report.odt") == b"first"
    assert share.get(f"{gmt(second)}\\report.odt") == b"second one"
    assert share.get("report.odt") == b"the third one"


def test_a_folder_shows_what_it_had(share: Share) -> None:
    first, second = share.live.versions
    assert names(share.client("ls letters\\*")) == {"an Größe.txt"}
    assert names(share.client(f"ls {gmt(first)}\\letters\\*")) == {"an Größe.txt", "gone.txt"}
    assert names(share.client(f"ls {gmt(second)}\\letters\\*")) == {"an Größe.txt"}
    assert share.get(f"{gmt(first)}\\letters\\gone.txt") == b"was here"
    assert share.get(f"{gmt(first)}\\letters\\an Größe.txt") == b"dear Ann"


def test_a_folder_is_there_at_times_at_which_only_something_above_it_changed(share: Share) -> None:
    first, second = share.live.versions
    assert [name.name for name in (share.live.folder / "quiet" / ".snapshots").iterdir()] == [first.strftime(VERSION_NAME)]
    assert re.findall("^@GMT.*", share.client("allinfo quiet\\same.txt"), re.MULTILINE) == [gmt(first)]
    assert names(share.client(f"ls {gmt(second)}\\quiet\\*")) == {"same.txt"}
    assert share.get(f"{gmt(second)}\\quiet\\same.txt") == b"same"


def test_an_old_version_cannot_be_changed(share: Share) -> None:
    first = share.live.versions[0]
    share.put(f"{gmt(first)}\\new.txt", b"x", fails=True)
    share.put(f"{gmt(first)}\\report.odt", b"x", fails=True)
    share.client(f"del {gmt(first)}\\report.odt", fails=True)
    share.client(f"mkdir {gmt(first)}\\folder", fails=True)
    assert share.get(f"{gmt(first)}\\report.odt") == b"first"


def test_what_a_client_writes_is_an_ordinary_file_of_that_person(share: Share) -> None:
    data = os.urandom(3_000_000)
    share.put("new from Windows.bin", data)
    file = share.live.folder / "new from Windows.bin"
    assert file.read_bytes() == data
    status = file.stat()
    assert status.st_uid == pwd.getpwnam(USER).pw_uid
    assert stat.S_IMODE(status.st_mode) & 0o111 == 0, "map archive"
    assert os.listxattr(file) == [], "store dos attributes"
    share.client('rename "new from Windows.bin" renamed.bin')
    assert not file.exists()
    share.client("del renamed.bin")
    assert not (share.live.folder / "renamed.bin").exists()


def test_restoring_an_old_version_is_a_change_like_any_other(share: Share) -> None:
    share.put("plan.txt", b"plan A")
    share.live.make_version()
    then = share.live.versions[-1]
    share.put("plan.txt", b"plan B, later")
    share.live.make_version()
    share.put("plan.txt", share.get(f"{gmt(then)}\\plan.txt"))
    assert (share.live.folder / "plan.txt").read_bytes() == b"plan A"
    assert share.get(f"{gmt(share.live.versions[-1])}\\plan.txt") == b"plan B, later"
