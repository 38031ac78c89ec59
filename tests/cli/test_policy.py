# SPDX-License-Identifier: MIT
"""`yester policy`, and that `yester forget` keeps to it."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from yester.cli.config import read_config
from yester.core.retention import LIVE_POLICY, Policy
from yester.fs import mounting


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".config" / "yester" / "config.toml"


@pytest.fixture
def three(run: Run, folder: Path) -> list[str]:
    """Names of three snapshots of `letters`."""
    for number in range(3):
        (folder / "ann.txt").write_text(f"dear Ann {number}\n")
        run("backup", folder)
    return names(run)


def names(run: Run) -> list[str]:
    return [snapshot["name"] for snapshot in run("snapshots", "--json").json]


def test_a_policy_is_kept_in_the_configuration_and_forget_keeps_to_it(run: Run, three: list[str], config: Path) -> None:
    done = run("policy", "set", "letters", "--keep-last", "1", "--keep-tag", "t")
    assert (done.code, done.out) == (0, "letters: last 1, tags t\n")
    assert read_config(config).source("letters").policy == Policy(last=1, tags=frozenset({"t"}))
    assert names(run) == three, "nothing is forgotten by that"
    tested = run("policy", "test", "letters")
    assert [line.split(maxsplit=2)[1:] for line in tested.out.splitlines()[1:4]] == [
        [three[0], "forget"], [three[1], "forget"], [three[2], "keep    newest, last"],
    ]  # fmt: skip
    assert tested.out.splitlines()[-1] == "letters keeps last 1, tags t: 1 of 3 snapshots"
    assert names(run) == three
    assert run("forget").code == 0
    assert names(run) == three[2:]


def test_options_of_forget_go_before_the_policy(run: Run, three: list[str]) -> None:
    run("policy", "set", "letters", "--keep-last", "1")
    assert run("forget", "letters", "--keep-last", "2").code == 0
    assert names(run) == three[1:]


def test_policies_are_shown_with_who_says_so(run: Run, three: list[str], config: Path) -> None:
    run("policy", "set", "letters", "--keep-daily", "all")
    config.write_text(config.read_text() + '[sources."live/Work"]\npaths = []\n')
    done = run("policy", "show")
    rows = [line.split("  ") for line in done.out.splitlines()]
    assert [row[0] for row in rows] == ["SOURCE", "letters", "live/Work"]
    assert str(config) in done.out.splitlines()[1]
    assert "what is usual" in done.out.splitlines()[2]
    assert run("policy", "show", "letters", "--json").json == [{"source": "letters", "keep": {"daily": "all"}, "is_configured": True}]
    assert run("policy", "show", "lettres").code == 1


def test_a_policy_is_taken_away(run: Run, three: list[str], config: Path) -> None:
    run("policy", "set", "letters", "--keep-last", "1")
    assert run("policy", "set", "letters", "--none").out == "letters: no policy of its own any more\n"
    assert config.read_text() == ""
    done = run("policy", "test", "letters")
    assert done.code == 1
    assert "so everything is kept" in done.err
    assert run("forget", "letters").code == 2


def test_a_policy_is_tried_without_being_set_and_at_another_time(run: Run, three: list[str], config: Path) -> None:
    done = run("policy", "test", "letters", "--keep-last", "2", "--at", "2001-01-01", "--json")
    assert done.json["at"].startswith("2001-01-01T23:59:59")
    assert [snapshot["reasons"] for snapshot in done.json["snapshots"]] == [["future"], ["future"], ["newest", "future"]]
    assert [snapshot["keep"] for snapshot in run("policy", "test", "letters", "--keep-last", "2", "--json").json["snapshots"]] == [
        False,
        True,
        True,
    ]
    assert not config.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["letters"], 2, "a policy says what to keep"),
        (["letters", "--none", "--keep-last", "1"], 2, "a policy says what to keep"),
        (["lettres", "--keep-last", "1"], 1, "there is no source 'lettres'"),
        (["letters", "--keep-last", "0"], 2, "a policy must say what to keep"),
    ],
)
def test_what_cannot_be_set_changes_nothing(run: Run, three: list[str], config: Path, arguments: list[str], code: int, part: str) -> None:
    done = run("policy", "set", *arguments)
    assert done.code == code
    assert part in done.err
    assert not config.exists()


def test_a_live_folder_thins_by_its_policy(run: Run, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted: list[mounting.LiveOptions] = []
    monkeypatch.setattr(mounting, "check_fuse", lambda *_: None)
    monkeypatch.setattr(mounting, "serve_live", lambda _store, live, *_: mounted.append(live))
    (tmp_path / "Work").mkdir()
    run("live", tmp_path / "Work", "-f")
    config.parent.mkdir(parents=True)
    config.write_text('[sources."live/Work"]\nkeep.last = 3\n')
    done = run("policy", "set", "live/Work", "--keep-last", "4")
    assert (done.code, done.err) == (0, "note: a live folder that is mounted goes on with the one it has until it is mounted again\n")
    run("live", tmp_path / "Work", "-f")
    assert [live.policy for live in mounted] == [LIVE_POLICY, Policy(last=4)]
