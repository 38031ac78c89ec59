# SPDX-License-Identifier: MIT
"""What is written for systemd and for cron: what they understand, nothing of others, and nothing that is not needed."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yester.cli.config import parse_config
from yester.cli.crontab import CronTimers, with_block
from yester.cli.systemd_timers import SystemdTimers
from yester.cli.timers import Invocation, State, Timers, find_timers
from yester.engine.source_plan import Source
from yester.errors import ConflictError, NotFoundError, TimerError

ROOT = Path(__file__).parent.parent.parent
CONFIG = Path("/home/ann/.config/yester/config.toml")
INVOCATION = Invocation(("/opt/y e/bin/yester",), CONFIG, (("YESTER_STORE", "/srv/100%$x"),))


def sources(text: str) -> list[Source]:
    return list(parse_config(CONFIG, text).sources.values())


def scheduled(name: str = "D", every: str = "daily 03:00", more: str = "") -> list[Source]:
    return sources(f"[sources.'{name}']\npaths = ['/a']\nevery = '{every}'\n{more}")


# --- systemd


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SystemdTimers:
    """Timers in a folder, with a systemctl that only writes down what it is told. Timers are active once they were restarted."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f"""#!/bin/sh
echo "$@" >> {tmp_path}/told
for last; do :; done
case "$*" in
    *ActiveState*) [ -e "{tmp_path}/active-$last" ] && echo active;;
    *refused*) echo 'no such luck' >&2; exit 1;;
    *restart*) : > "{tmp_path}/active-$last";;
esac
exit 0
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return SystemdTimers(tmp_path / "units", is_system=False)


def told(tmp_path: Path) -> list[str]:
    lines = (tmp_path / "told").read_text().splitlines()
    (tmp_path / "told").write_text("")
    return [line.removeprefix("--user --no-pager --quiet ") for line in lines if "ActiveState" not in line]


def test_a_source_gets_a_service_and_a_timer_that_are_enabled(systemd: SystemdTimers, tmp_path: Path) -> None:
    [source] = scheduled("my docs", more="on_battery = false\n")
    assert systemd.look(source, INVOCATION) is State.OFF
    assert systemd.apply([source], INVOCATION)
    assert sorted(os.listdir(systemd.folder)) == ["yester-my\\x20docs.service", "yester-my\\x20docs.timer"]
    service = (systemd.folder / "yester-my\\x20docs.service").read_text()
    assert (
        'ExecStart="/opt/y e/bin/yester" "--config" "/home/ann/.config/yester/config.toml" "schedule" "run" "--due" "--" "my docs"\n'
        in service
    )
    assert 'Environment="YESTER_STORE=/srv/100%%$x"\n' in service
    assert "ConditionACPower=true\n" in service
    assert "IOSchedulingClass=idle\n" in service
    assert "User=" not in service
    timer = (systemd.folder / "yester-my\\x20docs.timer").read_text()
    assert "OnCalendar=*-*-* 03:00:00\nOnCalendar=hourly\nPersistent=true\nRandomizedDelaySec=300\n" in timer
    name = "yester-my\\x20docs.timer"
    assert told(tmp_path) == ["daemon-reload", f"enable {name}", f"restart {name}"]
    assert systemd.look(source, INVOCATION) is State.ON


def test_another_environment_is_written_and_is_no_reason_to_warn(systemd: SystemdTimers) -> None:
    systemd.apply(scheduled(), INVOCATION)
    other = Invocation(INVOCATION.program, CONFIG, (("XDG_STATE_HOME", "/state"),))
    assert systemd.look(scheduled()[0], other) is State.ON
    assert systemd.apply(scheduled(), other)
    assert 'Environment="XDG_STATE_HOME=/state"' in (systemd.folder / "yester-D.service").read_text()
    assert systemd.look(scheduled()[0], Invocation(("/other/yester",), CONFIG)) is State.OUTDATED


def test_applying_again_tells_systemd_nothing(systemd: SystemdTimers, tmp_path: Path) -> None:
    systemd.apply(scheduled(), INVOCATION)
    told(tmp_path)
    assert not systemd.apply(scheduled(), INVOCATION)
    assert told(tmp_path) == []


def test_what_changes_is_written_and_what_is_gone_is_disabled_and_removed(systemd: SystemdTimers, tmp_path: Path) -> None:
    systemd.apply([*scheduled("D"), *scheduled("E")], INVOCATION)
    told(tmp_path)
    [source] = scheduled("E", "15m")
    assert systemd.look(source, INVOCATION) is State.OUTDATED
    assert systemd.apply([source], INVOCATION)
    assert told(tmp_path) == ["disable --now yester-D.timer", "daemon-reload", "enable yester-E.timer", "restart yester-E.timer"]
    assert sorted(os.listdir(systemd.folder)) == ["yester-E.service", "yester-E.timer"]
    assert "OnCalendar=*-*-* *:00,15,30,45:00\n" in (systemd.folder / "yester-E.timer").read_text()
    systemd.apply([], INVOCATION)
    assert os.listdir(systemd.folder) == []


def test_units_of_others_and_of_other_configurations_stay(systemd: SystemdTimers, tmp_path: Path) -> None:
    other = Invocation(INVOCATION.program, Path("/other.toml"))
    systemd.apply(scheduled("D"), other)
    (systemd.folder / "yester-F.timer").write_text("[Timer]\n")
    systemd.apply(scheduled("E"), INVOCATION)
    systemd.apply([], INVOCATION)
    assert sorted(os.listdir(systemd.folder)) == ["yester-D.service", "yester-D.timer", "yester-F.timer"]
    told(tmp_path)
    for name in ("D", "F"):
        with pytest.raises(ConflictError, match="no timer was changed"):
            systemd.apply(scheduled(name), INVOCATION)
    assert told(tmp_path) == []


def test_what_systemd_refuses_is_told(systemd: SystemdTimers) -> None:
    with pytest.raises(TimerError, match=r"systemd refuses `systemctl --user .* enable yester-refused.timer`: no such luck"):
        systemd.apply(scheduled("refused"), INVOCATION)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", ["Documents", "my docs", "größe", "a-b_c", "100% $HOME ${x} \\ \"q\" 'r' ; # !"])
@pytest.mark.parametrize("every", ["daily 03:00", "15m", "Mon..Fri 18:00"])
def test_systemd_finds_nothing_wrong_with_a_unit(tmp_path: Path, name: str, every: str) -> None:
    [source] = scheduled("D", every, "on_battery = false\n")
    units = SystemdTimers(tmp_path, is_system=False)._units(
        replace(source, name=name), Invocation(("/bin/true",), CONFIG, INVOCATION.environment)
    )
    for unit, text in units.items():
        (tmp_path / unit).write_text(text)
    command = ["systemd-analyze", "verify", "--user", *(str(tmp_path / unit) for unit in units)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a place where systemd believes that it booted")
@pytest.mark.skipif(shutil.which("systemd-analyze") is None or not Path("/lib/systemd/systemd").exists(), reason="systemd is not installed")
def test_a_real_systemd_starts_a_backup(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("hello\n")
    groups_before = Path("/proc/self/cgroup").read_text()
    # Short, since the path of a socket ends at 108 bytes.
    with tempfile.TemporaryDirectory(prefix="yester-", dir="/tmp") as runtime:
        environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": runtime, "PATH": "/usr/bin:/bin"}
        environment |= {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        session = [sys.executable, "-P", str(ROOT / "tests" / "cli" / "systemd_session.py"), str(tmp_path / "docs")]
        script = 'mount -t tmpfs none /run/systemd && mkdir /run/systemd/system && exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *session],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    if done.returncode == 77:
        pytest.skip(f"systemd does not run here: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr
    assert Path("/proc/self/cgroup").read_text() == groups_before, "systemd must leave everybody else where he is"


# --- cron


def test_cron_gets_one_line_between_marks(cron: Path) -> None:
    cron.write_bytes(b"MAILTO=ann\n# caf\xe9\n5 4 * * * backup-old\n")
    before = cron.read_bytes()
    both = [*scheduled("D", "daily 03:07"), *scheduled("E", "weekly sun 04:30")]
    assert CronTimers().look(both[0], INVOCATION) is State.OFF
    assert CronTimers().apply(both, INVOCATION)
    assert cron.read_bytes().startswith(before)
    line = cron.read_text(errors="replace").splitlines()[-2]
    minutes, _, command = line.partition(" * * * * ")
    assert minutes == "0,7,15,30,45"
    assert shlex.split(command.replace("\\%", "%")) == [
        "YESTER_STORE=/srv/100%$x", "/opt/y e/bin/yester", "--config", str(CONFIG), "schedule", "run", "--due", ">/dev/null",
    ]  # fmt: skip
    assert not CronTimers().apply(both, INVOCATION), "nothing to change"
    assert CronTimers().look(both[0], INVOCATION) is State.ON
    assert CronTimers().look(both[0], Invocation(INVOCATION.program, CONFIG)) is State.ON, "in another environment"
    assert CronTimers().look(both[0], Invocation(("/other/yester",), CONFIG)) is State.OUTDATED
    assert CronTimers().look(scheduled("F", "5m")[0], INVOCATION) is State.OUTDATED
    assert CronTimers().has_any(CONFIG)
    assert CronTimers().apply([], INVOCATION)
    assert cron.read_bytes() == before
    assert not CronTimers().has_any(CONFIG)


def test_the_line_runs_as_a_shell_takes_it(cron: Path, tmp_path: Path) -> None:
    program = tmp_path / "a 'b' $c" / "yester"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$YESTER_STORE" "$@" > {tmp_path}/said\n')
    program.chmod(0o755)
    CronTimers().apply(scheduled(), Invocation((str(program),), CONFIG, (("YESTER_STORE", "/srv/$(reboot) `x`"),)))
    command = cron.read_text().splitlines()[-2].partition(" * * * * ")[2]
    subprocess.run(["/bin/sh", "-c", command], check=True)
    assert (tmp_path / "said").read_text().splitlines() == ["/srv/$(reboot) `x`", "--config", str(CONFIG), "schedule", "run", "--due"]


def test_a_crontab_that_cannot_be_read_is_not_taken_for_empty(cron: Path, tmp_path: Path) -> None:
    cron.write_text("5 4 * * * backup-old\n")
    (tmp_path / "broken").touch()
    assert not CronTimers().is_there()
    with pytest.raises(TimerError, match="cannot open the spool; nothing was changed"):
        CronTimers().apply(scheduled(), INVOCATION)
    assert cron.read_text() == "5 4 * * * backup-old\n"


@pytest.mark.parametrize("change", [lambda lines: lines[1:], lambda lines: lines[:-1], lambda lines: lines[::-1], lambda lines: lines * 2])
def test_marks_that_somebody_changed_are_left(cron: Path, change: Callable[[list[str]], list[str]]) -> None:
    CronTimers().apply(scheduled(), INVOCATION)
    text = "".join(change(cron.read_text().splitlines(keepends=True)))
    cron.write_text(text)
    with pytest.raises(ConflictError, match="not as they were written; nothing was changed"):
        CronTimers().apply([], INVOCATION)
    assert cron.read_text() == text


texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\0"), max_size=60)


@given(texts, st.lists(texts.map(lambda text: text.replace("\n", " ")), min_size=1, max_size=3))
def test_what_is_put_in_comes_out_again_and_leaves_the_rest(text: str, lines: list[str]) -> None:
    inside = with_block(text, CONFIG, lines)
    assert with_block(inside, CONFIG, lines) == inside
    assert with_block(inside, CONFIG, ["other"]) == with_block(text, CONFIG, ["other"])
    gone = with_block(inside, CONFIG, [])
    assert gone == text if not text or text.endswith("\n") else gone == text + "\n"


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/var/spool/cron/crontabs").is_dir(), reason="not root, or no cron is installed")
def test_a_real_crontab_takes_and_gives_back_the_line() -> None:
    code = """
from yester.cli.crontab import CronTimers
from yester.cli.timers import State
from tests.cli.test_timers import INVOCATION, scheduled
import subprocess
timers = CronTimers()
assert timers.is_there() and not timers.has_any(INVOCATION.config)
subprocess.run(["crontab", "-"], input=b"MAILTO=ann\\n5 4 * * * old\\n", check=True)
assert timers.apply(scheduled(), INVOCATION) and timers.look(scheduled()[0], INVOCATION) is State.ON
assert b"schedule run --due" in subprocess.run(["crontab", "-l"], capture_output=True, check=True).stdout
assert timers.apply([], INVOCATION)
assert subprocess.run(["crontab", "-l"], capture_output=True, check=True).stdout == b"MAILTO=ann\\n5 4 * * * old\\n"
"""
    # In a place where nobody has a crontab, so that the one of whoever runs this is not touched.
    script = 'mount -t tmpfs none /var/spool/cron/crontabs && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- which of the two


class Way:
    """One that is there, or not, or has timers."""

    def __init__(self, name: str, *, there: bool = True, used: bool = False) -> None:
        self.name = name
        self._there, self._used = there, used

    def is_there(self) -> bool:
        return self._there

    def has_any(self, config: Path) -> bool:
        return self._used

    def apply(self, sources: object, invocation: Invocation) -> bool:
        raise AssertionError

    def look(self, source: Source, invocation: Invocation) -> State:
        raise AssertionError


def found(kind: str, *ways: Timers) -> str | None:
    way = find_timers(kind, ways, CONFIG)
    return way.name if way is not None else None


def test_systemd_goes_before_cron_unless_cron_is_in_use() -> None:
    assert found("auto", Way("systemd"), Way("cron")) == "systemd"
    assert found("auto", Way("systemd", there=False), Way("cron")) == "cron"
    assert found("auto", Way("systemd"), Way("cron", used=True)) == "cron"
    assert found("cron", Way("systemd"), Way("cron")) == "cron"
    assert found("none", Way("systemd"), Way("cron")) is None


def test_timers_that_are_there_and_cannot_be_changed_are_not_doubled() -> None:
    with pytest.raises(NotFoundError, match="systemd does not answer here"):
        found("auto", Way("systemd", there=False, used=True), Way("cron"))


def test_where_nothing_can_start_backups_that_is_said() -> None:
    with pytest.raises(NotFoundError, match="neither systemd nor cron") as caught:
        found("auto", Way("systemd", there=False), Way("cron", there=False))
    assert "yester schedule run --due" in caught.value.hint
