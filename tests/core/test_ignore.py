# SPDX-License-Identifier: MIT
"""Rules that leave files out: what each form means, and that git means the same."""

import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from yester.core.ignore import RuleStack, split_rules
from yester.errors import UsageError

Tree = dict[bytes, "Tree | None"]
"""Directories by name; files are `None`."""


def excludes(rules: list[str], path: bytes, *, is_directory: bool = False) -> bool:
    return RuleStack().with_rules(b"", rules).excludes(path, is_directory=is_directory)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("build", b"build"),
        ("build", b"src/build"),
        ("*.o", b"src/.o"),
        ("/build", b"build"),
        ("src/build", b"src/build"),
        ("src/*/x", b"src/a/x"),
        ("src/**/x", b"src/x"),
        ("src/**/x", b"src/a/b/x"),
        ("src/**", b"src/a/b"),
        ("**/a/x", b"a/x"),
        ("**/a/x", b"b/a/x"),
        ("**", b"a/b"),
        ("?.o", b"a.o"),
        ("[a-c].o", b"b.o"),
        ("[!a-c].o", b"x.o"),
        ("[^a-c].o", b"x.o"),
        ("[]-].o", b"].o"),
        ("[]-].o", b"-.o"),
        ("[[:digit:]x].o", b"7.o"),
        (r"[\]].o", b"].o"),
        (r"[a\-c].o", b"-.o"),
        (r"\!x", b"!x"),
        (r"\#x", b"#x"),
        ("x   ", b"x"),
        (r"x\ ", b"x "),
        (r"x\  ", b"x "),
        ("x\r\n", b"x"),
        ("x\n", b"x"),
        ("\ufeffx", b"x"),
        (" x", b" x"),
        ("x\t", b"x\t"),
        ("a\\\\b", b"a\\b"),
        ("a\\b", b"ab"),
    ],
)
def test_a_rule_excludes_what_it_describes(rule: str, path: bytes) -> None:
    assert excludes([rule], path)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("build", b"builder"),
        ("build", b"build/below"),  # the caller never asks below an excluded directory
        ("*.o", b"x.oo"),
        ("/build", b"src/build"),
        ("src/build", b"a/src/build"),
        ("src/*", b"src/a/b"),
        ("src/*/x", b"src/a/b/x"),
        ("src/**", b"src"),
        ("a/b**/c", b"a/bx/y/c"),
        ("?.o", b".o"),
        ("a?b", b"a/b"),
        ("a[!x]b", b"a/b"),
        ("a[,-0]b", b"a/b"),
        ("[z-a]", b"m"),
        ("#x", b"#x"),
        ("", b""),
        ("   ", b" "),
        ("/", b"x"),
        ("!", b"!"),
        ("!x", b"x"),
        ("x//", b"x"),
        ("X", b"x"),
    ],
)
def test_a_rule_keeps_what_it_does_not_describe(rule: str, path: bytes) -> None:
    assert not excludes([rule], path)


def test_a_rule_that_ends_with_a_slash_is_for_directories_only() -> None:
    assert excludes(["build/"], b"src/build", is_directory=True)
    assert not excludes(["build/"], b"src/build")
    assert excludes(["build"], b"src/build", is_directory=True)


def test_the_last_matching_rule_wins() -> None:
    assert not excludes(["*.log", "!keep.log"], b"keep.log")
    assert excludes(["!keep.log", "*.log"], b"keep.log")
    assert excludes(["*.log", "!keep.log", "keep.*"], b"keep.log")
    assert excludes(["/a/*", "!b"], b"a/c")
    assert not excludes(["/a/*", "!b"], b"a/b")
    assert excludes(["!b", "/a/*"], b"a/b")


def test_keeping_a_directory_says_nothing_of_what_is_in_it() -> None:
    assert excludes(["build/", "!src/"], b"src/build", is_directory=True)
    assert excludes(["*.o", "!keep.o"], b"keep.o/x.o")


def test_a_stack_without_rules_is_false_and_excludes_nothing() -> None:
    empty = RuleStack()
    assert not empty
    assert not empty.excludes(b"x", is_directory=True)
    assert not empty.with_rules(b"a", ["# only a comment", "", "/", "!"])


def test_adding_rules_leaves_the_stack_they_are_added_to_as_it_was() -> None:
    outer = RuleStack().with_rules(b"", ["*.o"])
    inner = outer.with_rules(b"keep", ["!*.o"])
    assert outer.excludes(b"keep/x.o", is_directory=False)
    assert not inner.excludes(b"keep/x.o", is_directory=False)


def test_rules_added_later_win_and_reach_only_below_their_base() -> None:
    stack = RuleStack().with_rules(b"", ["*.o", "!b.o"]).with_rules(b"a", ["/x", "!/y.o", "b.o"])
    verdicts = {
        path: stack.excludes(path, is_directory=False) for path in (b"x", b"a/x", b"a/c/x", b"ab/x", b"a/y.o", b"a/b.o", b"b.o", b"a/z.o")
    }
    assert [path for path, excluded in verdicts.items() if excluded] == [b"a/x", b"a/b.o", b"a/z.o"]


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe", b"new\nline", b"end\n", b"voil\xc3\xa0", b"trailing ", b"back\\slash", b"[x]", b"*", b"tab\t", b"\x85", b"-", b"]"],
)
def test_names_of_any_bytes_are_matched_as_they_are(name: bytes) -> None:
    escaped = re.sub(rb"([][\\*? ])", rb"\\\1", name).decode("utf-8", "surrogateescape")
    rule = escaped + "/" if name.endswith(b"\n") else escaped  # a line's own end is no part of the rule
    assert excludes([rule], b"a\nb/" + name, is_directory=True)
    assert not excludes([rule], name + b"\n", is_directory=True)
    assert not excludes([rule], b"x" + name, is_directory=True)
    assert excludes(["*"], name)
    assert excludes(["?" * len(name)], name)
    assert not excludes(["?" * (len(name) - 1)], name)


@pytest.mark.parametrize("rule", ["a[b", "[", "[!", "[]", "a\\", "[[:nonsense:]]", "!x/[a-"])
def test_what_can_never_match_is_refused_with_the_rule_and_its_origin(rule: str) -> None:
    with pytest.raises(UsageError) as caught:
        RuleStack().with_rules(b"", ["good", rule], origin="src/.gitignore")
    assert repr(rule) in caught.value.message
    assert "src/.gitignore" in caught.value.message
    assert caught.value.hint


def test_a_rule_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError):
        RuleStack().with_rules(b"", ["\ud800"])


@pytest.mark.parametrize("seed", range(12))
def test_git_keeps_the_same_paths_under_random_nested_rules(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    # Many trees in one repository share one run of git; a single one has rules at the root of the repository.
    tree: Tree = make_tree(rng)
    if seed % 3 == 0:
        tree = {b"case%d" % number: make_tree(rng) for number in range(20)}
    rules = {folder: make_rules(rng) for folder, _ in walk(b"", tree, only_folders=True) if rng.random() < 0.5 or folder.count(b"/") == 0}
    paths = [path for path, _ in walk(b"", tree)]
    create_on_disk(tmp_path, tree, rules)
    by_git = ask_git(tmp_path, paths)
    kept = set(walk_with_rules(b"", tree, rules, RuleStack()))
    differences = [(path, by_git[path]) for path in paths if (path in kept) != (by_git[path] == KEPT)]
    assert differences == []


KEPT = b""
NAMES = [
    *(b"a", b"b", b"ab", b"A", b"0", b"fo", b"oo", b"foo", b"bar", b"foobar", b"build", b"src", b".hid", b"x.o", b"keep.o", b"foo.py"),
    *(b"b-c", b"]", b"[x]", b"*", b"!bang", b"#hash", b"a b", b"end ", b"back\\slash", b"\\", b"n\nl", b"voil\xc3\xa0", b"\xff\xfe"),
]
MEMBERS = [
    *(b"a", b"b-f", b"x", b".", b"-", b"o", b"/", b"z-a", b"0-9", b" ", b"!", b"^", b"[", b"&&", b"||", b"\\]", b"\\\\", b"\\a"),
    *(b"\xc3\xa0", b"[:alpha:]", b"[:digit:]", b"[:space:]", b"[:punct:]", b"[:graph:]", b"[:bad:]"),
]
DIFFERS_FROM_GIT = re.compile(rb"!?[^*?[\\]*[^/*?[\\]\*\*+(/|\\/| *\r?\Z)|.*\*\*\\/", re.DOTALL)
"""Plain text and then `**` that ends a component; `**` before an escaped slash. `core.ignore` says why."""


def make_tree(rng: random.Random, depth: int = 3) -> Tree:
    return {name: make_tree(rng, depth - 1) if depth and rng.random() < 0.45 else None for name in rng.sample(NAMES, rng.randint(3, 6))}


def make_rules(rng: random.Random) -> list[bytes]:
    rules = [make_rule(rng) for _ in range(rng.randint(1, 5))]
    return [rule for rule in rules if not DIFFERS_FROM_GIT.match(rule)]


def make_rule(rng: random.Random) -> bytes:
    rule = b"/".join(make_component(rng) for _ in range(rng.choice([1, 1, 1, 2, 2, 3])))
    rule = rng.choice([b"", b"", b"", b"/"]) + rule + rng.choice([b"", b"", b"", b"/"])
    rule = rng.choice([b"", b"", b"!"]) + rule + rng.choice([b""] * 20 + [b" ", b"  ", b"\\ ", b"\t", b"\r"])
    return rule.replace(b"\n", b"?")


def make_component(rng: random.Random) -> bytes:  # noqa: PLR0911 (one return a form)
    name = rng.choice(NAMES)
    at = rng.randrange(len(name))
    match rng.randrange(20):
        case 0 | 1:
            return b"*" + name[at:]
        case 2 | 3:
            return name[:at] + b"*"
        case 4:
            return b"*"
        case 5:
            return b"**"
        case 6:
            return name[:at] + b"?" + name[at + 1 :]
        case 7 | 8 | 9:
            members = rng.choice([b"", b"", b"!", b"^", b"]", b"!]"]) + b"".join(rng.choices(MEMBERS, k=rng.randint(1, 3)))
            return name[:at] + b"[" + members + rng.choice([b"]", b"]", b"]", b""]) + name[at + 1 :]
        case 10:
            return name[:at] + b"\\" + name[at:]
        case 11:
            return rng.choice([b"**" + name, name + b"**", b"***"])
        case 12:
            return bytes(rng.choices(b"ab*?/[]!\\. -^fo", k=rng.randint(1, 6)))
        case _:
            return name


def walk(base: bytes, tree: Tree, *, only_folders: bool = False) -> Iterator[tuple[bytes, Tree | None]]:
    if only_folders:
        yield base, tree
    for name, below in tree.items():
        path = base + b"/" + name if base else name
        if not only_folders:
            yield path, below
        if below is not None:
            yield from walk(path, below, only_folders=only_folders)


def create_on_disk(root: Path, tree: Tree, rules: dict[bytes, list[bytes]]) -> None:
    for path, below in walk(b"", tree):
        full = os.path.join(os.fsencode(root), path)
        if below is None:
            os.close(os.open(full, os.O_CREAT | os.O_WRONLY))
        else:
            os.mkdir(full)
    for folder, lines in rules.items():
        with open(os.path.join(os.fsencode(root), folder, b".gitignore"), "wb") as file:
            file.write(b"".join(line + b"\n" for line in lines))


def ask_git(root: Path, paths: list[bytes]) -> dict[bytes, bytes]:
    """The rule by which git leaves each path out, or `KEPT`."""
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "XDG_CONFIG_HOME": str(root)}
    subprocess.run(["git", "init", "--quiet", root], check=True, env=environment, capture_output=True)
    command = ["git", "check-ignore", "--no-index", "--verbose", "--non-matching", "-z", "--stdin"]
    answer = subprocess.run(command, cwd=root, env=environment, input=b"\0".join(paths), capture_output=True, check=False)
    assert answer.returncode in (0, 1), answer.stderr
    fields = answer.stdout.split(b"\0")[:-1]
    assert fields[3::4] == paths
    return {path: KEPT if rule.startswith(b"!") else rule for path, rule in zip(fields[3::4], fields[2::4], strict=True)}


def walk_with_rules(base: bytes, tree: Tree, rules: dict[bytes, list[bytes]], stack: RuleStack) -> Iterator[bytes]:
    """What is left of `tree` when rules are used as a backup uses them. Rules that are refused count as none."""
    for line in rules.get(base, []):
        try:
            stack = stack.with_rules(base, [line.decode("utf-8", "surrogateescape")])
        except UsageError:
            continue
    for name, below in tree.items():
        path = base + b"/" + name if base else name
        if not stack.excludes(path, is_directory=below is not None):
            yield path
            if below is not None:
                yield from walk_with_rules(path, below, rules, stack)


def test_lines_of_a_rule_file_end_where_git_ends_them() -> None:
    assert split_rules(b"\xef\xbb\xbf*.tmp\r\nname\x0bwith\xc2\x85odd\r\n!x") == ["*.tmp", "name\x0bwith\x85odd", "!x"]
    assert split_rules(b"bytes\xff\n") == ["bytes\udcff", ""]


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("*a" * 40 + "b", b"a" * 250),
        ("*[ab]?" * 30 + "c", b"ab" * 120),
        ("**/" * 30 + "x", b"d/" * 500 + b"y"),
        ("**/a/" * 20 + "x", b"a/" * 500 + b"y"),
        ("**/*a*a*a/" * 10 + "x", b"aaaaaaaaaa/" * 50 + b"y"),
    ],
)
def test_no_rule_takes_long_to_match(rule: str, path: bytes) -> None:
    """Trying all ways to divide a name among the stars would take longer than the time-out of this test, by far."""
    rules = RuleStack().with_rules(b"", [rule])
    assert not rules.excludes(path, is_directory=False)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("*ab*b*c", b"xabxabbxc"),
        ("**/a/**/a/b/**/c", b"a/x/a/a/b/y/c"),
        ("**/**/a*b/**/**/c", b"z/aab/c"),
        ("a/**/b*/**/d", b"a/b1/b2/d"),
        ("*a/**", b"ba/x/y"),
    ],
)
def test_what_stars_can_be_divided_to_match_is_matched(rule: str, path: bytes) -> None:
    assert RuleStack().with_rules(b"", [rule]).excludes(path, is_directory=False)
