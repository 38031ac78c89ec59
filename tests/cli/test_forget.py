# SPDX-License-Identifier: MIT
"""`forget`, `undelete`, `pin`, `unpin` and `snapshots --forgotten`: what they say, and with which code they end."""

from pathlib import Path
from typing import Any

import click
import pytest

from tests.cli.conftest import Run
from yester.cli.command_live import refuse_to_begin_empty
from yester.cli.keep_options import keep_options
from yester.cli.options import ForgottenName
from yester.core.retention import Policy
from yester.errors import ConflictError
from yester.fs.live_control import carry_out
from yester.fs.live_orders import Order
from yester.fs.live_start import empty_start
from yester.store.live import LiveFolders
from yester.store.store import Store


@pytest.fixture
def three(run: Run, folder: Path) -> list[str]:
    """Names of three snapshots of `letters`; the second has the tag `t`, the third a remark."""
    for number, options in enumerate(([], ["--tag", "t"], ["--message", "sent"])):
        (folder / "ann.txt").write_text(f"dear Ann {number}\n")
        run("backup", folder, *options)
    return [f"letters@{snapshot['name']}" for snapshot in run("snapshots", "--json").json]


def listed(run: Run, *options: str) -> list[str]:
    return [f"{snapshot['source']}@{snapshot['name']}" for snapshot in run("snapshots", *options, "--json").json]


def test_a_policy_is_tried_then_applied_and_says_how_to_get_back_what_it_forgot(run: Run, three: list[str]) -> None:
    tried = run("forget", "letters", "--keep-last", "1", "--keep-tag", "t", "--dry-run")
    assert tried.code == 0
    assert "nothing was changed: 1 of 3 snapshots would be forgotten" in tried.out
    lines = tried.out.splitlines()[1:4]
    assert [line.split(maxsplit=2)[1:] for line in lines] == [
        [three[0], "forget"], [three[1], "keep    tag t"], [three[2], "keep    newest, last"],
    ]  # fmt: skip
    assert listed(run) == three
    done = run("forget", "--keep-last", "1", "--keep-tag", "t")
    assert done.code == 0
    assert "forgot 1 of 3 snapshots; `yester undelete` brings them back until " in done.out
    assert listed(run) == three[1:]
    assert "nothing to forget: all 2 snapshots are kept" in run("forget", "--keep-last", "all").out


def test_json_tells_verdicts_and_reasons(run: Run, three: list[str]) -> None:
    done = run("forget", "--keep-last", "1", "--keep-remarked", "--keep-within", "0s", "--json").json
    assert (done["forgotten"], done["dry_run"], done["policies"]) == (2, False, {"letters": {"last": 1, "remarked": True}})
    assert done["recoverable_until"].endswith("Z")
    assert [snapshot["action"] for snapshot in done["snapshots"]] == ["forget", "forget", "keep"]
    assert [reason["rule"] for reason in done["snapshots"][2]["reasons"]] == ["newest", "last", "remarked"]


def test_wrong_usage_changes_nothing_and_says_what_to_write(run: Run, three: list[str]) -> None:
    for arguments in (
        [], ["letters"], ["letters", three[0]], ["letters", "--keep-last", "0"], ["letters", "--keep-last", "-1"], ["--all", "--yes"],
        [three[0], "--keep-last", "1"], ["letters", "--keep-last", "x"],
        ["letters", "--keep-within", "soon"], ["letters", "--all", "--keep-last", "1"],
    ):  # fmt: skip
        done = run("forget", *arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert "hint: " in done.err or "Usage: " in done.err
    assert "--keep-last 5" in run("forget", "letters").err
    assert run("forget", "nobody", "--keep-last", "1").code == 1
    assert listed(run) == three


def test_single_snapshots_are_forgotten_listed_and_had_back(run: Run, three: list[str]) -> None:
    assert run("forget", three[0], three[2]).code == 0
    assert listed(run) == [three[1]]
    assert listed(run, "--forgotten") == [three[0], three[2]]
    [first, _] = run("snapshots", "--forgotten", "letters", "--json").json
    assert first["kept_until"] > first["forgotten"]
    table = run("snapshots", "--forgotten").out
    assert "KEPT UNTIL" in table
    assert first["id"][:12] in table
    last = run("forget", three[1])
    assert last.code == 1
    assert "the last snapshot of 'letters'; nothing was changed" in last.err
    assert "--yes" in last.err
    assert run("forget", three[1], "--yes").code == 0
    assert "3 forgotten snapshots can be had back" in run("stats").out
    assert run("stats", "--json").json["forgotten_snapshots"] == 3
    assert "but forgotten ones" in run("snapshots", "letters").err
    assert "was forgotten" in run("ls", first["id"]).err
    back = run("undelete", three[1], first["id"][:8])
    assert (back.code, back.out) == (0, f"{three[0]} is back, and pinned\n{three[1]} is back, and pinned\n")
    assert run("undelete", "letters", "--no-pin").out == f"{three[2]} is back\n"
    assert listed(run) == three
    assert [snapshot["pinned"] is not None for snapshot in run("snapshots", "--json").json] == [True, True, False]
    assert run("undelete", three[0]).code == 1
    assert run("snapshots", "--forgotten").err == "no forgotten snapshots\n"


def test_a_pinned_snapshot_is_kept_until_the_pin_is_taken_away(run: Run, three: list[str]) -> None:
    assert run("pin", three[0], "--message", "the wedding").out == f"pinned {three[0]}\n"
    assert "(pinned: the wedding)" in run("snapshots").out
    refused = run("forget", three[0])
    assert (refused.code, three[0] in refused.err) == (1, True)
    assert f"yester unpin {three[0]}" in refused.err
    run("forget", "--keep-last", "1")
    assert listed(run) == [three[0], three[2]]
    assert run("unpin", three[0]).out == f"{three[0]} is not pinned any more\n"
    assert run("unpin", three[0]).out == f"{three[0]} was not pinned\n"
    run("forget", "--keep-last", "1")
    assert listed(run) == [three[2]]
    for arguments in (["pin", "letters:ann.txt"], ["unpin", "letters:old"], ["pin", "letters", "--message", "two\nlines"]):
        assert run(*arguments).code == 2


def test_a_whole_source_is_forgotten_when_it_is_meant(run: Run, three: list[str]) -> None:
    assert run("forget", "letters", "--all").code == 1
    assert "3 of 3 snapshots would be forgotten" in run("forget", "letters", "--all", "--dry-run").out
    assert run("forget", "letters", "--all", "--yes", "--json").json["forgotten"] == 3
    assert listed(run) == []


def test_all_pins_of_a_source_are_taken_away_at_once(run: Run, three: list[str]) -> None:
    assert run("forget", "letters", "--all", "--yes").code == 0
    assert run("undelete", "letters").code == 0
    done = run("unpin", "letters", "--all")
    assert (done.code, done.out) == (0, "".join(f"{name} is not pinned any more\n" for name in three))
    assert [snapshot["pinned"] for snapshot in run("snapshots", "--json").json] == [None] * 3
    assert run("unpin", "letters", "--all").out == "no snapshot of letters is pinned\n"
    assert run("unpin", "lettres", "--all").code == 1


def test_a_removed_live_folder_whose_versions_were_had_back_does_not_begin_empty(run: Run, three: list[str], tmp_path: Path) -> None:
    """Nobody would look for what he had beside an empty folder."""
    next_node, nodes = empty_start(0)
    with Store.open(tmp_path / "store") as store:
        LiveFolders(store.environment).create("Work", next_node=next_node, nodes=nodes)
        carry_out(store, "Work", Order(), mount_point=None)
    assert run("forget", "live/Work", "--remove-folder", "--yes").code == 0
    assert run("undelete", "live/Work").code == 0
    with pytest.raises(ConflictError, match=r"was removed, but the store .* has versions of it; nothing was mounted") as caught:
        refuse_to_begin_empty(tmp_path / "store", None, "Work")
    assert "--from live/Work" in caught.value.hint
    refuse_to_begin_empty(tmp_path / "store", None, "Other")


def test_live_folders_are_thinned_without_being_told_how_and_removed_when_told(run: Run, three: list[str], tmp_path: Path) -> None:
    next_node, nodes = empty_start(0)
    with Store.open(tmp_path / "store") as store:
        LiveFolders(store.environment).create("Work", next_node=next_node, nodes=nodes)
        carry_out(store, "Work", Order(), mount_point=None)
    done = run("forget")
    assert (done.code, "nothing to forget: all 1 snapshots are kept" in done.out) == (0, True)
    assert "left alone, since nothing says what to keep of them: letters" in done.err
    assert "within 1h" in run("forget", "live/Work", "--dry-run").out
    [version] = listed(run, "live/Work")
    assert "is based on it; nothing was changed" in run("forget", version, "--yes").err
    assert "--remove-folder" in run("forget", "live/Work", "--all", "--yes").err
    assert run("forget", "live/Work", "--remove-folder").code == 1
    assert "would remove the live folder Work" in run("forget", "live/Work", "--remove-folder", "--dry-run").out
    assert run("status", "--json").json["live_folders"] != []
    assert "removed the live folder Work\n" in run("forget", "live/Work", "--remove-folder", "--yes").out
    assert run("status", "--json").json["live_folders"] == []
    assert listed(run, "--forgotten") == [version]


def test_completion_offers_what_is_forgotten(run: Run, three: list[str], tmp_path: Path) -> None:
    run("forget", *three[:2])
    context = click.Context(click.Command("undelete"))
    context.params["store_path"] = tmp_path / "store"
    parameter = click.Argument(["name"])

    def offered(incomplete: str) -> list[Any]:
        return [item.value for item in ForgottenName().shell_complete(context, parameter, incomplete)]

    assert offered("") == offered("letters@") == [three[1], three[0]]
    assert offered("x") == []
    context.params["store_path"] = tmp_path / "nowhere"
    assert offered("") == []


def test_the_options_of_a_policy_are_one_policy() -> None:
    given: list[Policy | None] = []

    @click.command()
    @keep_options
    def command(policy: Policy | None) -> None:
        given.append(policy)

    command(["--keep-daily", "7", "--keep-yearly", "all", "--keep-tag", "a", "--keep-tag", "b"], standalone_mode=False)
    command([], standalone_mode=False)
    assert given[0] is not None
    assert given[0].options() == {"daily": 7, "yearly": "all", "tags": ["a", "b"]}
    assert given[1] is None
