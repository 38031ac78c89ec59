# SPDX-License-Identifier: MIT
"""`yester desktop`: what it puts into a home beside what is there, and takes away again; which folder it opens for a path."""

import configparser
import contextlib
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import yester
from tests.cli.conftest import Finished, Run
from yester.cli import desktop_files
from yester.cli.command_desktop import find_versions
from yester.cli.main import main
from yester.errors import BusyError, MountError, NotFoundError
from yester.fs import mount_table
from yester.fs.mount_table import FSTYPE, MountedAt

UCA = ".config/Thunar/uca.xml"
OTHERS = [
    ".local/share/nautilus-python/extensions/yester.py",
    ".local/share/nautilus/scripts/Previous versions",
    ".local/share/nemo/actions/yester.nemo_action",
    ".local/share/kio/servicemenus/yester.desktop",
]
ALL = ["thunar", "nautilus", "nemo", "dolphin"]
ACTIONS = """<?xml version="1.0" encoding="UTF-8"?>
<!-- mine --><actions>
<action>
  <name>Größe &amp; mehr</name><unique-id>17-1</unique-id>
  <command>du %f &gt; /tmp/x</command><patterns>*</patterns><directories/>
</action>
</actions>
<!-- end -->
""".encode()
SYSTEM_ACTIONS = b"<actions><action><name>Open Terminal Here</name><unique-id>1</unique-id></action></actions>\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    """A home with nothing in it but what the system gives to all: one action of Thunar."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_DIRS", f"{tmp_path / 'none'}:{tmp_path / 'etc'}")
    write(tmp_path / "etc" / "Thunar" / "uca.xml", SYSTEM_ACTIONS)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def actions(data: bytes) -> list[tuple[str | None, str | None]]:
    return [(action.findtext("name"), action.findtext("command")) for action in ET.fromstring(data)]


def test_install_writes_a_file_for_each_program(run: Run, home: Path) -> None:
    done = run("desktop", "install", *ALL)
    assert (done.code, done.err) == (0, "")
    assert sorted(files(home)) == sorted([UCA, *OTHERS])
    assert all(f"{home / name} installed\n" in done.out for name in files(home))


def test_installing_again_changes_nothing(run: Run, home: Path) -> None:
    run("desktop", "install", *ALL)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in home.rglob("*") if path.is_file()}
    done = run("desktop", "install", *ALL)
    assert done.code == 0
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in home.rglob("*") if path.is_file()} == before
    assert len(re.findall(" there$", done.out, re.MULTILINE)) == len(before)


def test_remove_leaves_nothing_behind(run: Run, home: Path) -> None:
    run("desktop", "install", *ALL)
    done = run("desktop", "remove")
    assert done.code == 0
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*")) == [".config", ".local", ".local/share"]
    again = run("desktop", "remove")
    assert (again.code, again.err) == (0, "")


def test_remove_can_be_for_one(run: Run, home: Path) -> None:
    run("desktop", "install", *ALL)
    run("desktop", "remove", "nautilus", "thunar")
    assert sorted(files(home)) == sorted(OTHERS[2:])


def test_only_installed_file_managers_get_it_unless_they_are_named(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    none = run("desktop", "install")
    assert (none.code, files(home)) == (1, {})
    assert "nothing was changed" in none.err
    write(tmp_path / "bin" / "nemo", b"#!/bin/sh\n").chmod(0o755)
    assert run("desktop", "install").code == 0
    assert list(files(home)) == [".local/share/nemo/actions/yester.nemo_action"]


def test_the_folders_are_those_of_the_environment(run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    run("desktop", "install", "thunar", "nemo")
    assert files(home) == {}
    assert (tmp_path / "c/Thunar/uca.xml").is_file()
    assert (tmp_path / "d/nemo/actions/yester.nemo_action").is_file()


# --- Thunar's file


@pytest.mark.parametrize(
    "mine",
    [
        ACTIONS,
        ACTIONS.replace(b"\n", b"\r\n"),
        b"<actions></actions>",
        SYSTEM_ACTIONS,
        b"\xef\xbb\xbf" + ACTIONS,
        b"<actions>\n</actions  >",
    ],
    ids=["usual", "crlf", "empty", "that of the system", "byte order mark", "space in the tag"],
)
def test_actions_that_are_there_stay_byte_for_byte(run: Run, home: Path, mine: bytes) -> None:
    file = write(home / UCA, mine)
    file.chmod(0o640)
    assert run("desktop", "install", "thunar").code == 0
    merged = file.read_bytes()
    assert actions(merged)[:-1] == actions(mine)
    assert actions(merged)[-1][0] == "Previous versions"
    assert run("desktop", "install", "thunar").code == 0
    assert file.read_bytes() == merged
    assert run("desktop", "remove").code == 0
    assert files(home) == {UCA: (0o640, mine)}


def test_an_empty_list_in_one_tag_gets_the_action(run: Run, home: Path) -> None:
    file = write(home / UCA, b"<!-- a --><actions/><!-- b -->")
    run("desktop", "install", "thunar")
    assert [name for name, _ in actions(file.read_bytes())] == ["Previous versions"]
    run("desktop", "remove")
    assert actions(file.read_bytes()) == []
    assert file.read_bytes().startswith(b"<!-- a -->")
    assert file.read_bytes().endswith(b"<!-- b -->")


def test_without_a_file_of_ones_own_the_actions_of_the_system_stay(run: Run, home: Path) -> None:
    run("desktop", "install", "thunar")
    assert [name for name, _ in actions((home / UCA).read_bytes())] == ["Open Terminal Here", "Previous versions"]


def test_a_copy_of_the_systems_actions_that_was_changed_since_stays(run: Run, home: Path) -> None:
    run("desktop", "install", "thunar")
    changed = (home / UCA).read_bytes().replace(b"Open Terminal Here", b"Terminal")
    (home / UCA).write_bytes(changed)
    run("desktop", "remove")
    assert actions((home / UCA).read_bytes()) == [("Terminal", None)]


def test_an_action_that_thunar_wrote_anew_is_known_and_keeps_its_new_name(run: Run, home: Path) -> None:
    write(home / UCA, ACTIONS)
    run("desktop", "install", "thunar")
    tree = ET.fromstring((home / UCA).read_bytes())
    tree[1][1].text = "Older ones"
    assert tree[1][1].tag == "name"
    tree.append(ET.fromstring("<action><name>Last</name></action>"))
    rewritten = ET.tostring(tree)
    (home / UCA).write_bytes(rewritten)
    assert run("desktop", "install", "thunar").code == 0
    assert (home / UCA).read_bytes() == rewritten
    run("desktop", "remove")
    assert [name for name, _ in actions((home / UCA).read_bytes())] == ["Größe & mehr", "Last"]


def test_the_action_of_another_installation_is_replaced(run: Run, home: Path) -> None:
    folders = desktop_files.Folders(home / ".config", home / ".local/share", ())
    write(home / UCA, ACTIONS)
    desktop_files.install(ALL, folders, ["/gone/yester", "desktop", "open"])
    found = {entry["state"] for entry in run("desktop", "status", "--json").json}
    assert found == {"outdated"}
    done = run("desktop", "install", *ALL)
    assert len(re.findall(" updated$", done.out, re.MULTILINE)) == 5
    assert not any(b"/gone/" in data for _, data in files(home).values())
    assert [name for name, _ in actions((home / UCA).read_bytes())] == ["Größe & mehr", "Previous versions"]
    run("desktop", "remove")
    assert files(home) == {UCA: (0o644, ACTIONS)}


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\0\xff" * 50,
        ACTIONS[:-40],
        ACTIONS.replace(b"</name>", b"</nam>"),
        ACTIONS.replace("ö".encode(), b"\xf6"),
        b"<html><actions></actions></html>",
        ACTIONS + b"<actions></actions>",
        "<actions></actions>".encode("utf-16"),
    ],
    ids=["empty", "bytes", "cut", "tags", "latin-1", "html", "two", "utf-16"],
)
def test_a_file_that_is_not_understood_stays_and_is_named(run: Run, home: Path, nonsense: bytes) -> None:
    write(home / UCA, nonsense)
    done = run("desktop", "install", *ALL)
    assert done.code == 3
    assert f"{home / UCA} was left as it is: it " in done.err
    assert files(home)[UCA] == (0o644, nonsense)
    assert sorted(files(home)) == sorted([UCA, *OTHERS])
    assert run("desktop", "status", "--json").json[0]["state"] == "left"
    assert run("desktop", "remove").code == 3
    assert files(home) == {UCA: (0o644, nonsense)}


def test_a_link_to_the_file_stays_a_link(run: Run, home: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "dotfiles" / "uca.xml", ACTIONS)
    (home / UCA).parent.mkdir(parents=True)
    (home / UCA).symlink_to(target)
    run("desktop", "install", "thunar")
    assert len(actions(target.read_bytes())) == 2
    run("desktop", "remove")
    assert (home / UCA).is_symlink()
    assert target.read_bytes() == ACTIONS


# --- what cannot be written


def test_a_file_of_that_name_that_is_not_ours_stays(run: Run, home: Path) -> None:
    mine = dict.fromkeys(OTHERS, (420, b"mine\n"))
    for name in mine:
        write(home / name, b"mine\n")
    done = run("desktop", "install", "nautilus", "nemo", "dolphin")
    assert done.code == 1
    assert done.err.count("was not written by yester") == len(mine)
    assert "nothing was changed" in done.err
    assert run("desktop", "remove").code == 0
    assert files(home) == mine


def test_a_service_menu_that_lost_its_permission_to_run_gets_it_back(run: Run, home: Path) -> None:
    run("desktop", "install", "dolphin")
    menu = home / ".local/share/kio/servicemenus/yester.desktop"
    menu.chmod(0o640)
    run("desktop", "install", "dolphin")
    assert stat.S_IMODE(menu.stat().st_mode) == 0o740


def test_what_stands_in_the_way_is_named_and_the_rest_is_done(run: Run, home: Path) -> None:
    write(home / ".config", b"a file")
    done = run("desktop", "install", *ALL)
    assert done.code == 3
    assert f"{home / UCA} was left as it is: Not a directory" in done.err
    assert sorted(files(home)) == sorted([".config", *OTHERS])


def test_a_read_only_home_is_left_as_it_is(run: Run, home: Path) -> None:
    write(home / UCA, ACTIONS)
    before = files(home)
    with read_only(home) as prefix:
        for arguments in (["install", *ALL], ["remove"]):
            done = run_apart(home, "desktop", *arguments, prefix=prefix)
            assert done.code == (1 if arguments[0] == "install" else 0)
            assert files(home) == before
    run("desktop", "install", *ALL)
    before = files(home)
    with read_only(home) as prefix:
        done = run_apart(home, "desktop", "remove", prefix=prefix)
    assert (done.code, files(home)) == (1, before)
    assert len(re.findall("was left as it is: (?:Read-only file system|Permission denied)", done.err)) == 5


@contextlib.contextmanager
def read_only(home: Path) -> Iterator[list[str]]:
    """What to put before a command for which the home shall be read-only. Permissions do not hold root back: that needs a mount."""
    if os.geteuid() == 0:
        yield ["unshare", "--mount", "sh", "-euc", f'mount --bind -o ro "{home}" "{home}"; exec "$@"', "sh"]
        return
    folders = [home, *(path for path in home.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield []
    for folder in folders:
        folder.chmod(0o755)


def run_apart(home: Path, *arguments: str | Path, prefix: list[str] | None = None, **variables: str) -> Finished:
    """Run `yester ARGUMENTS…` in a process of its own, as file managers do."""
    own = {"HOME": str(home), "PYTHONPATH": str(Path(yester.__file__).parent.parent), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    command = [*(prefix or []), sys.executable, "-m", "yester", *map(str, arguments)]
    done = subprocess.run(command, env=own | variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    return Finished(done.returncode, done.stdout, done.stderr)


# --- what the files say


ODD = '/opt/it\'s "a" $HOME \\ `id` ü/yester'


@pytest.fixture
def odd_home(home: Path) -> Path:
    """A home into which a yester in a folder with an odd name was put."""
    folders = desktop_files.Folders(home / ".config", home / ".local/share", ())
    outcomes = desktop_files.install(ALL, folders, [ODD, "desktop", "open"])
    assert {outcome.state for outcome in outcomes} == {desktop_files.State.INSTALLED}
    return home


def words_of(manager: str) -> list[str]:
    return [ODD, "desktop", "open", "--with", manager, "--"]


def split_exec(line: str) -> list[str]:
    """The words of an `Exec` line, as the Desktop Entry Specification reads them."""
    line = line.replace("\\\\", "\\")
    return [re.sub(r"\\(.)", r"\1", quoted) if quoted else plain for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)]


def test_menu_files_of_nemo_and_dolphin_quote_an_odd_path(odd_home: Path) -> None:
    for name, section, manager, code in (
        (OTHERS[2], "Nemo Action", "nemo", "%F"),
        (OTHERS[3], "Desktop Action versions", "dolphin", "%f"),
    ):
        parser = configparser.RawConfigParser(delimiters="=")
        parser.read(odd_home / name, "utf-8")
        assert split_exec(parser[section]["Exec"]) == [*words_of(manager), code]
        assert parser[section]["Name"] == "Previous versions"


def test_thunars_action_quotes_an_odd_path(odd_home: Path) -> None:
    [(_, command)] = actions((odd_home / UCA).read_bytes())
    assert command is not None
    done = subprocess.run(["sh", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
    assert done.stdout.decode().split("\0") == [*words_of("thunar"), "%f", ""]


def test_nautilus_script_gives_the_path_as_it_is(run: Run, home: Path, tmp_path: Path) -> None:
    program = write(tmp_path / "it's $HOME" / "yester", b'#!/bin/sh\nprintf "%s\\0" "$@"\n')
    program.chmod(0o755)
    folders = desktop_files.Folders(home / ".config", home / ".local/share", ())
    desktop_files.install(["nautilus"], folders, [str(program)])
    for selected, expected in (("/a/%f $(id)\n b.txt\n", "/a/%f $(id)\n b.txt"), ("", str(tmp_path))):
        own = {"PATH": os.environ["PATH"], "NAUTILUS_SCRIPT_SELECTED_FILE_PATHS": selected}
        done = subprocess.run([home / OTHERS[1]], env=own, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.split("\0")[:-1] == ["--with", "nautilus", "--", expected]


def test_nautilus_extension_is_python_with_the_command_in_it(odd_home: Path) -> None:
    text = (odd_home / OTHERS[0]).read_text("utf-8")
    namespace: dict[str, object] = {}
    compile(text, OTHERS[0], "exec")
    [line] = [line for line in text.splitlines() if line.startswith("COMMAND = ")]
    exec(line, namespace)
    assert namespace["COMMAND"] == words_of("nautilus")


@pytest.mark.parametrize("name", ["100% mine", "new\nline", "\udcff"])
def test_a_yester_whose_path_the_files_cannot_hold_is_refused(
    home: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = write(tmp_path / name / "yester", b"")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "desktop", "install", "nemo"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "nothing was changed" in capfd.readouterr().err
    assert files(home) == {}


# --- which folder is opened


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a live folder: its directories have `.snapshots`, and the mount table says that it is ours."""
    live = tmp_path / "live"
    (live / "letters").mkdir(parents=True)
    for folder in (live, live / "letters"):
        write(folder / ".snapshots" / "2026-11-22_10-00-00" / "ann.txt", b"")
        write(folder / "ann.txt", b"")
    (live / "new" / ".snapshots").mkdir(parents=True)
    table = [
        MountedAt(Path("/"), "ext4", "/dev/sda", 1),
        MountedAt(tmp_path, "ext4", "/dev/sda", 2),
        MountedAt(live, FSTYPE, "/store:live/work", 3),
    ]
    monkeypatch.setattr(mount_table, "mounts", lambda: table)
    return live


def test_in_a_live_folder_it_is_the_versions_of_the_folder(live: Path, tmp_path: Path) -> None:
    (live / "link").symlink_to("letters")
    (tmp_path / "way").symlink_to(live)
    for path, versions in (
        ("letters/ann.txt", "letters"),
        ("letters/gone.txt", "letters"),
        ("letters", "letters"),
        ("ann.txt", ""),
        ("", ""),
        ("link", ""),
        ("link/ann.txt", "letters"),
        ("letters/.snapshots", "letters"),
        ("letters/.snapshots/2026-11-22_10-00-00/ann.txt", "letters"),
    ):
        for folder in (live, tmp_path / "way"):
            if folder == live or path:
                assert find_versions(folder / path) == live / versions / ".snapshots", path


def test_a_relative_path_is_one_of_the_current_folder(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(live / "letters")
    assert find_versions(Path("ann.txt")) == live / "letters" / ".snapshots"


def test_without_versions_the_person_is_told_why(live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError, match="has no old versions yet"):
        find_versions(live / "new")
    with pytest.raises(NotFoundError, match="there is no folder"):
        find_versions(live / "away" / "ann.txt")
    with pytest.raises(NotFoundError, match="is in no live folder"):
        find_versions(tmp_path / "elsewhere" / "ann.txt")
    monkeypatch.setattr(mount_table, "mounts", lambda: [MountedAt(live, FSTYPE, "/store", 3)])
    with pytest.raises(NotFoundError, match="is an old version already"):
        find_versions(live / "letters" / "ann.txt")
    monkeypatch.setattr(MountedAt, "is_dead", lambda _: True)
    with pytest.raises(MountError, match="is gone"):
        find_versions(live / "ann.txt")


def test_a_snapshot_mount_that_hangs_stops_nobody(live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(_: MountedAt) -> bool:
        message = "hangs"
        raise BusyError(message)

    monkeypatch.setattr(MountedAt, "is_dead", hang)
    monkeypatch.setattr(mount_table, "mounts", lambda: [MountedAt(live, FSTYPE, "/store", 3)])
    with pytest.raises(NotFoundError, match="is in no live folder"):
        find_versions(tmp_path / "elsewhere")


# --- telling the person


@pytest.mark.parametrize("works", ["notify-send", "zenity", "kdialog", ""])
def test_what_cannot_be_opened_is_said_on_the_screen_with_what_works(home: Path, tmp_path: Path, works: str) -> None:
    """Each program that does not work is there, but fails as notify-send does without a service, or is not there at all."""
    programs = tmp_path / "bin"
    said = tmp_path / "said"
    os.mkfifo(said)
    write(programs / "notify-send", b"#!/bin/sh\nexit 1\n").chmod(0o755)
    if works:
        write(programs / works, f'#!/bin/sh\n{{ echo "$0"; printf "%s\\n" "$@"; }} >{said}\n'.encode()).chmod(0o755)
    with subprocess.Popen(["cat", said], stdout=subprocess.PIPE, text=True) as reader:
        done = run_apart(home, "desktop", "open", tmp_path / "<b>&.txt", PATH=f"{programs}:/nowhere", DISPLAY=":99")
        if not works:
            said.write_text("nothing\n")
        shown, _ = reader.communicate(timeout=30)
    assert done.code == 1
    assert "is in no live folder" in done.err
    if not works:
        assert shown == "nothing\n"
        return
    assert shown.splitlines()[0] == str(programs / works)
    assert "is in no live folder" in shown
    assert ("<b>&.txt" if works == "zenity" else "&lt;b&gt;&amp;.txt") in shown


def test_without_a_screen_nothing_is_shown_on_it(home: Path, tmp_path: Path) -> None:
    write(tmp_path / "bin" / "notify-send", f"#!/bin/sh\ntouch {tmp_path}/shown\n".encode()).chmod(0o755)
    done = run_apart(home, "desktop", "open", tmp_path, PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert done.code == 1
    assert not (tmp_path / "shown").exists()
