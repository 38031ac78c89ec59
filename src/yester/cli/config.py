# SPDX-License-Identifier: MIT
"""`config.toml`: the store, and what is backed up, how often, by which rules, and how long it is kept (docs/config.md).

The only place that reads it, or the environment variables that say where it is. What is read is whole and right, or refused with the file,
the line where it can be told, the key and what would be right: a slip of the finger must not become a folder that is not backed up.
Only `read_store` looks at nothing but the store: a wrong rule must keep nobody from restoring.

Writing it: `config_edit`.
"""

import difflib
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from yester.cli.toml_lines import find_line
from yester.core.ignore import RuleStack
from yester.core.recurrence import Recurrence, parse_recurrence
from yester.core.retention import parse_policy
from yester.core.share import parse_share
from yester.core.times import parse_duration
from yester.engine.source_plan import Source, Upkeep
from yester.errors import NotFoundError, StoreAccessError, UsageError
from yester.store.live import LIVE_PREFIX

_BYTES_MAX = 1 << 20
"""A configuration is written by hand."""
_MAX_AGE_MIN_NS = 24 * 3600 * 10**9
"""A computer that was off over night is no reason for a warning, however often a source is backed up while it is on."""

Value = TypeVar("Value")


class _SourceTable(msgspec.Struct, frozen=True, kw_only=True):
    """`[sources.NAME]` as it stands in the file."""

    paths: tuple[str, ...] = ()
    store: str | None = None
    exclude: tuple[str, ...] = ()
    exclude_from: tuple[str, ...] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    tags: tuple[str, ...] = ()
    every: str | None = None
    on_battery: bool = True
    max_age: str | None = None
    keep: dict[str, object] | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    on_failure: tuple[str, ...] = ()
    hook_timeout: str | None = None
    ignore_hook_failure: bool = False


class _UpkeepTable(msgspec.Struct, frozen=True, kw_only=True):
    """`[upkeep]`."""

    every: str = "7d"
    sample: str = "2%"


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    store: str | None = None
    passphrase_file: str | None = None
    passphrase_command: str | None = None
    upkeep: object = {}
    sources: dict[str, object] = {}


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. A file that is not there says nothing."""

    path: Path
    store: Path | None
    passphrase_file: Path | None
    passphrase_command: str
    upkeep: Upkeep
    sources: Mapping[str, Source]

    def source(self, name: str) -> Source:
        """The source of a name.

        Raises:
            NotFoundError: the configuration has none.
        """
        if name not in self.sources:
            message = f"{self.path} has no source {name!r}; nothing was done"
            near = difflib.get_close_matches(name, self.sources, n=1)
            hint = f"is it {near[0]!r}?" if near else f"add it: yester schedule add {name} FOLDER --every daily"
            raise NotFoundError(message, hint=hint)
        return self.sources[name]


def config_path(option: str | None) -> Path:
    """Where the configuration is: what `--config` says, else $YESTER_CONFIG, else the place that XDG has for it. Absolute.

    Raises:
        UsageError: `--config` says nothing.
    """
    if option == "":
        message = "the path after --config is empty; nothing was done"
        raise UsageError(message)
    if is_config_named(option):
        return Path(os.path.abspath(option or os.environ["YESTER_CONFIG"]))
    config_home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(config_home) / "yester" / "config.toml"


def is_config_named(option: str | None) -> bool:
    """Whether `--config` or $YESTER_CONFIG says where the configuration is: then it should be there."""
    return bool(option or os.environ.get("YESTER_CONFIG"))


def read_config(path: Path) -> Config:
    """The configuration; an empty one if there is no file.

    Raises:
        UsageError: it has a mistake. StoreAccessError: the operating system refuses it.
    """
    return parse_config(path, read_text(path))


def read_store(path: Path) -> Path | None:
    """Only which store the configuration names, if any. Mistakes in what does not matter to that are not looked for.

    Raises:
        UsageError: it is no TOML, or the store is no path. StoreAccessError: the operating system refuses it.
    """
    text = read_text(path)
    raw = _parse_toml(path, text).get("store")
    if raw is None:
        return None
    place = _Place(path, text)
    return _absolute(place, ("store",), _converted(place, ("store",), raw, str))


def read_text(path: Path) -> str:
    """The text of the file; empty if there is none.

    Raises:
        UsageError: it cannot be a configuration. StoreAccessError: the operating system refuses it.
    """
    try:
        # Not blocking: a FIFO that nobody writes into would be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                if os.path.samefile(path, os.devnull):
                    return ""
                message = f"{path} is no ordinary file, so no configuration; nothing was done"
                raise UsageError(message, hint="write what it gives into a file, and name that")
            data = file.read(_BYTES_MAX + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        message = f"cannot read the configuration {path}: {error.strerror}; nothing was done"
        raise StoreAccessError(message, hint="see whose it is, or name another with --config or YESTER_CONFIG") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"the configuration {path} is not UTF-8, from byte {error.start} on; nothing was done"
        raise UsageError(message) from error
    if len(data) > _BYTES_MAX:
        message = f"{path} is larger than 1 MiB, so no configuration; nothing was done"
        raise UsageError(message)
    return text


def parse_config(path: Path, text: str) -> Config:
    """What the text of the file at `path` says; messages name that.

    Raises:
        UsageError: it has a mistake.
    """
    place = _Place(path, text)
    file = _to_struct(place, (), _parse_toml(path, text), _File)
    sources = {name: _parse_source(place, name, raw) for name, raw in file.sources.items()}
    store = _absolute(place, ("store",), file.store) if file.store is not None else None
    if file.passphrase_command is not None and not file.passphrase_command.strip():
        raise place.error(("passphrase_command",), "it is empty", 'write it as passphrase_command = "pass show backup", or leave it out')
    passphrase_file = _absolute(place, ("passphrase_file",), file.passphrase_file) if file.passphrase_file is not None else None
    return Config(path, store, passphrase_file, file.passphrase_command or "", _parse_upkeep(place, file.upkeep), sources)


# --- judging


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something stands, for messages."""

    path: Path
    text: str

    def error(self, keys: tuple[str, ...], problem: str, hint: str = "") -> UsageError:
        """The error for the value of these keys, one in the other."""
        line = find_line(self.text, keys)
        where = f"{self.path}, line {line}" if line else str(self.path)
        name = ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"' for key in keys)
        return UsageError(f"{where}: {name}{': ' if name else ''}{problem}; nothing was done", hint=hint)


def _parse_upkeep(place: _Place, raw: object) -> Upkeep:
    table = _to_struct(place, ("upkeep",), raw, _UpkeepTable)
    try:
        share = parse_share(table.sample)
    except UsageError as error:
        raise place.error(("upkeep", "sample"), error.message, 'write it as sample = "2%"') from error
    try:
        every_ns = None if table.every == "never" else parse_duration(table.every)
    except UsageError as error:
        raise place.error(("upkeep", "every"), error.message, 'write it as every = "7d", or "never"') from error
    return Upkeep(every_ns, share)


def _parse_source(place: _Place, name: str, raw: object) -> Source:
    keys = ("sources", name)
    table = _to_struct(place, keys, raw, _SourceTable)
    # Imported here: not for whoever wants to know only the store.
    from yester.engine.backup import BackupOptions, check_side_by_side, check_source_name
    from yester.engine.hooks import TIMEOUT_S, Hooks

    def checked(key: str, parse: Callable[[], Value]) -> Value:
        try:
            return parse()
        except UsageError as error:
            raise place.error((*keys, key) if key else keys, error.message, error.hint) from error

    if not name.startswith(LIVE_PREFIX):
        checked("", lambda: check_source_name(name))
    elif table.paths or table.every is not None:
        raise place.error(keys, "a live folder makes its versions itself, and can only have a policy", "leave keep = {…}, nothing else")
    every, keep = table.every, table.keep
    recurrence = checked("every", lambda: parse_recurrence(every)) if every is not None else None
    if recurrence is not None and not table.paths:
        raise place.error((*keys, "every"), "there is nothing to back up so often", 'say what: paths = ["/home/ann/Documents"]')
    limit = table.hook_timeout
    timeout_s = checked("hook_timeout", lambda: parse_duration(limit) / 10**9) if limit is not None else TIMEOUT_S
    if not timeout_s:
        raise place.error((*keys, "hook_timeout"), "a hook that may take no time cannot run", 'write it as hook_timeout = "10m"')
    paths = [_absolute(place, (*keys, "paths"), path) for path in table.paths]
    checked("paths", lambda: check_side_by_side(paths))
    if "" in table.tags:
        raise place.error((*keys, "tags"), "a tag is empty", "give it a name, or leave it out")
    checked("exclude", lambda: RuleStack().with_rules(b"", table.exclude))
    return Source(
        name=name,
        paths=tuple(paths),
        store=_absolute(place, (*keys, "store"), table.store) if table.store is not None else None,
        options=BackupOptions(
            source=name,
            exclude=table.exclude,
            exclude_from=tuple(_absolute(place, (*keys, "exclude_from"), path) for path in table.exclude_from),
            exclude_caches=table.exclude_caches,
            one_file_system=table.one_file_system,
            tags=table.tags,
        ),
        hooks=Hooks(table.before, table.after, table.on_failure, timeout_s, table.ignore_hook_failure),
        every=every or "",
        recurrence=recurrence,
        on_battery=table.on_battery,
        max_age_ns=checked("max_age", lambda: _max_age_ns(table.max_age, recurrence)),
        policy=checked("keep", lambda: parse_policy(keep)) if keep is not None else None,
    )


def _max_age_ns(text: str | None, recurrence: Recurrence | None) -> int | None:
    """What is given; else two runs may fail before somebody is told."""
    if text is not None:
        return parse_duration(text)
    return None if recurrence is None else max(2 * recurrence.longest_gap_ns(), _MAX_AGE_MIN_NS)


def _absolute(place: _Place, keys: tuple[str, ...], text: str) -> Path:
    """A path of the file. It must not depend on where a command happens to be started."""
    path = Path(os.path.expanduser(text))
    if not path.is_absolute() or "\0" in text:
        raise place.error(keys, f"{text!r} is no absolute path", "begin it with / or ~/")
    return Path(os.path.normpath(path))


Table = TypeVar("Table", bound=msgspec.Struct)


def _to_struct(place: _Place, keys: tuple[str, ...], raw: object, kind: type[Table]) -> Table:
    if isinstance(raw, dict):
        for key in raw:
            if key not in kind.__struct_fields__:
                near = difflib.get_close_matches(key, kind.__struct_fields__, n=1)
                hint = f"is it {near[0]}?" if near else f"there can be {', '.join(kind.__struct_fields__)}"
                raise place.error((*keys, key), "there is no such key", hint)
    return _converted(place, keys, raw, kind)


_WORDS = {
    "array": "a list",
    "object": "a table",
    "str": "a text in quotes",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "datetime": "a time",
}
"""What msgspec's words for types are to people."""


def _converted(place: _Place, keys: tuple[str, ...], raw: object, kind: type[Value]) -> Value:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$")
        inner = re.match(r"\.([A-Za-z_]+)", where)
        problem = re.sub(r"`(\w+)[^`]*`", lambda word: _WORDS.get(word[1], word[1]), problem[0].lower() + problem[1:])
        raise place.error((*keys, inner[1]) if inner else keys, problem, _hint_for(kind, inner)) from error


def _hint_for(kind: type, inner: re.Match[str] | None) -> str:
    """What the value of a key looks like."""
    examples = {"paths": '["/home/ann/Documents"]', "exclude": '["*.tmp"]', "exclude_from": '["~/.backup-rules"]', "tags": '["home"]'}
    examples |= {"before": '["pg_dump shop > ~/shop.sql"]', "after": '["rm ~/shop.sql"]', "on_failure": '["logger -p user.err failed"]'}
    examples |= {
        "hook_timeout": '"10m"',
        "ignore_hook_failure": "true",
        "exclude_caches": "true",
        "one_file_system": "true",
        "on_battery": "false",
    }
    examples |= {
        "every": '"daily 03:00"',
        "max_age": '"3d"',
        "keep": "{ last = 5, daily = 30 }",
        "store": '"/srv/backup"',
        "sample": '"2%"',
    }
    name = inner[1] if inner else "store" if kind is str else ""
    return f"write it as {name} = {examples[name]}" if name in examples else ""


def _parse_toml(path: Path, text: str) -> dict[str, object]:
    if not text.strip():
        return {}
    import tomllib

    try:
        return tomllib.loads(text)
    except RecursionError as error:
        message = f"the configuration {path} is not TOML that can be read: too many brackets in brackets; nothing was done"
        raise UsageError(message) from error
    except tomllib.TOMLDecodeError as error:
        message = f"the configuration {path} is not TOML: {error}; nothing was done"
        raise UsageError(message, hint='a text stands in quotes, a list in brackets: paths = ["/home/ann/Documents"]') from error
