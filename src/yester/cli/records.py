# SPDX-License-Identifier: MIT
"""Stored records as JSON values. Keys are stable: programs read them."""

import stat

from yester.cli.output import json_name, json_time
from yester.core.records import Entry
from yester.store.snapshots import StoredSnapshot

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
}


def snapshot_json(stored: StoredSnapshot) -> dict[str, object]:
    """A snapshot, without its tree."""
    snapshot = stored.snapshot
    return {
        "id": stored.id.hex(),
        "source": snapshot.source,
        "name": snapshot.name,
        "time": json_time(snapshot.time_ns),
        "finished": json_time(snapshot.finished_ns),
        "paths": [json_name(path) for path in snapshot.paths],
        "host": snapshot.host,
        "user": snapshot.user,
        "tags": list(snapshot.tags),
        "message": snapshot.message,
        "files": snapshot.totals.files,
        "directories": snapshot.totals.directories,
        "others": snapshot.totals.others,
        "size_bytes": snapshot.totals.size_bytes,
        "added_stored_bytes": snapshot.added.stored_bytes,
        "skipped": snapshot.skipped,
    }


def entry_json(entry: Entry, path: bytes) -> dict[str, object]:
    """A file, folder or special file at a path."""
    extra = entry.rare
    value: dict[str, object] = {
        "path": json_name(path),
        "kind": kind_name(entry),
        "mode": stat.S_IMODE(entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": json_time(entry.mtime_ns),
    }
    if stat.S_ISLNK(entry.mode):
        value["target"] = json_name(entry.content)
    if extra.nlink > 1:
        value["nlink"] = extra.nlink
    if extra.xattrs:
        value["xattrs"] = {json_name(name): attribute.hex() for name, attribute in extra.xattrs}
    return value


def kind_name(entry: Entry) -> str:
    """`file`, `dir`, `symlink`, `fifo`, `socket`, `block` or `char`."""
    return _KINDS[stat.S_IFMT(entry.mode)]
