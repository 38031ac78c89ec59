# SPDX-License-Identifier: MIT
"""The cases of the judge `posix`, by groups of system calls: tables, and the products of them.

No case says what should come out: the host's file system says it. A case that is not portable between good file systems does not
belong here but in the judge `limits`.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence

from steps import ROOT, USERS, Case, Step, step

_R, _W, _RW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
_NEW = os.O_CREAT | os.O_WRONLY
_OWNER, _MATE, _STRANGER = (USERS[name] for name in ("owner", "mate", "stranger"))
_LONG = "n" * 255
_TOO_LONG = "n" * 256
_NOREPLACE, _EXCHANGE = 1, 2
_PATH = "\0"
"""Stands in tables of calls for a path that is filled in."""


def file(path: str, mode: int = 0o644, data: bytes = b"0123456789", user: str = "owner") -> tuple[Step, ...]:
    """Steps that make a file."""
    made = (step("open", 90, path, _NEW, 0o600), step("write", 90, data), step("close", 90))
    return (*made, *belongs(path, user), step("chmod", path, mode))


def folder(path: str, mode: int = 0o755, user: str = "owner") -> tuple[Step, ...]:
    """Steps that make a folder."""
    return (step("mkdir", path, 0o700), *belongs(path, user), step("chmod", path, mode))


def belongs(path: str, user: str) -> tuple[Step, ...]:
    """Steps that give something to a user; none where there is only one user."""
    return (step("lchown", path, *USERS[user][:2]),) if user != ROOT and os.geteuid() == 0 else ()


def _as(user: str) -> str:
    """That user, or the only one there is."""
    return user if os.geteuid() == 0 else ROOT


def _things() -> dict[str, tuple[tuple[Step, ...], str]]:
    """What a path can lead to: how to make it, and the path."""
    loop = (step("symlink", "loop-b", "loop-a"), step("symlink", "loop-a", "loop-b"))
    things: dict[str, tuple[tuple[Step, ...], str]] = {
        "file": (file("file"), "file"),
        "two names": ((*file("file"), step("link", "file", "second")), "second"),
        "folder": (folder("folder"), "folder"),
        "full folder": ((*folder("folder"), *file("folder/in")), "folder"),
        "fifo": ((step("mkfifo", "fifo", 0o644), *belongs("fifo", "owner")), "fifo"),
        "socket": ((step("socket", "socket"), *belongs("socket", "owner")), "socket"),
        "link to file": ((*file("file"), step("symlink", "file", "link"), *belongs("link", "owner")), "link"),
        "link to folder": ((*folder("folder"), step("symlink", "folder", "link"), *belongs("link", "owner")), "link"),
        "link to nothing": ((step("symlink", "nothing", "link"), *belongs("link", "owner")), "link"),
        "link in a circle": (loop, "loop-a"),
        "below a circle": (loop, "loop-a/in"),
        "nothing": ((), "nothing"),
        "below nothing": ((), "nothing/in"),
        "below a file": (file("file"), "file/in"),
        "below a link to a folder": ((*folder("folder"), *file("folder/in"), step("symlink", "folder", "link")), "link/in"),
        "file with slash": (file("file"), "file/"),
        "folder with slash": (folder("folder"), "folder/"),
        "nothing with slash": ((), "nothing/"),
        "link to folder with slash": ((*folder("folder"), step("symlink", "folder", "link")), "link/"),
        "empty path": ((), ""),
        "dot": (folder("folder"), "folder/."),
        "dot dot": (folder("folder"), "folder/.."),
        "name of 255": (file(_LONG), _LONG),
        "name of 256": ((), _TOO_LONG),
        "below a name of 256": ((), f"{_TOO_LONG}/in"),
        "path of 4095": (file("file"), "./" * 2045 + "/file"),
        "path of 4096": (file("file"), "./" * 2046 + "file"),
        "in a folder without x": ((*folder("shut"), *file("shut/in"), step("chmod", "shut", 0o600)), "shut/in"),
        "in a folder without w": ((*folder("fixed"), *file("fixed/in"), step("chmod", "fixed", 0o555)), "fixed/in"),
        "bytes that are no text": (file("\udcff\udcfe"), "\udcff\udcfe"),
    }
    if os.geteuid() == 0:
        things["character device"] = ((step("mknod", "null", stat.S_IFCHR | 0o644, os.makedev(1, 3)), *belongs("null", "owner")), "null")
        things["block device"] = ((step("mknod", "block", stat.S_IFBLK | 0o644, os.makedev(7, 99)), *belongs("block", "owner")), "block")
        things["file of root"] = (file("root-file", user=ROOT), "root-file")
    return things


def _open_flags() -> dict[str, int]:
    return {
        "r": _R,
        "w": _W,
        "rw": _RW,
        "w trunc": _W | os.O_TRUNC,
        "r trunc": _R | os.O_TRUNC,
        "w append": _W | os.O_APPEND,
        "w creat": _NEW,
        "rw creat excl": _RW | os.O_CREAT | os.O_EXCL,
        "w creat trunc": _NEW | os.O_TRUNC,
        "w creat nofollow": _NEW | os.O_NOFOLLOW,
        "r directory": _R | os.O_DIRECTORY,
        "r nofollow": _R | os.O_NOFOLLOW,
        "r directory nofollow": _R | os.O_DIRECTORY | os.O_NOFOLLOW,
        "rw sync": _RW | os.O_SYNC,
        "path": os.O_PATH,
        "path nofollow": os.O_PATH | os.O_NOFOLLOW,
        "r noatime": _R | os.O_NOATIME,
    }


def _calls_on_a_path() -> Iterator[tuple[str, str, list[Step]]]:
    """Group, name, and the calls made on a path; descriptors are numbered from 1."""
    for mode in (0, 0o644, 0o755, 0o4755, 0o2755, 0o6777, 0o1777, 0o7777):
        yield "chmod", f"{mode:o}", [step("chmod", _PATH, mode)]
    for call in ("chown", "lchown"):
        pairs = [(-1, -1), (_OWNER[0], -1), (-1, _OWNER[1]), (-1, _MATE[1]), (_STRANGER[0], -1), (_STRANGER[0], _STRANGER[1]), (0, 0)]
        for uid, gid in pairs:
            yield "chown", f"{call} {uid}:{gid}", [step(call, _PATH, uid, gid)]
    for size in (0, 3, 10, 5000, 10_000_000, -1):
        yield "truncate", f"to {size}", [step("truncate", _PATH, size)]
    yield "unlink", "", [step("unlink", _PATH)]
    yield "rmdir", "", [step("rmdir", _PATH)]
    for mode in (0, 0o755, 0o1777, 0o6755):
        yield "mkdir", f"{mode:o}", [step("mkdir", _PATH, mode)]
    for mode in (0, 0o644, 0o4755):
        yield "mkfifo", f"{mode:o}", [step("mkfifo", _PATH, mode)]
    kinds = {"regular": stat.S_IFREG, "zero": 0, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "folder": stat.S_IFDIR}
    kinds |= {"character": stat.S_IFCHR, "block": stat.S_IFBLK}
    for name, kind in kinds.items():
        yield "mknod", name, [step("mknod", _PATH, kind | 0o644, os.makedev(1, 3))]
    for name, text in {"short": "file", "empty": "", "of 1000": "t/" * 500, "of 4095": "t" * 4095, "of 4096": "t" * 4096}.items():
        yield "symlink", name, [step("symlink", text, _PATH)]
    yield "readlink", "", [step("readlink", _PATH)]
    yield "link", "from", [step("link", _PATH, "new-name")]
    yield "link", "from, followed", [step("link_followed", _PATH, "new-name")]
    yield "rename", "to a new name", [step("rename", _PATH, "new-name")]
    for name, flags in _open_flags().items():
        yield "open", name, [step("open", 1, _PATH, flags, 0o640), step("fstat", 1), step("write", 1, b"abc")]
    times = {"past": (10**9, 2 * 10**9), "ns": (1, 123456789), "before 1970": (-5, -(10**9) - 7), "now": (-1, -1), "both omitted": (-2, -2)}
    times |= {"only mtime": (-2, 5 * 10**9), "only atime": (5 * 10**9, -2), "mtime now": (-2, -1)}
    times |= {"after 2038": (2**32 * 10**9, 2**33 * 10**9 + 1)}
    for name, (atime, mtime) in times.items():
        yield "utimensat", name, [step("utimens", _PATH, atime, mtime, 1), step("times", _PATH)]
    yield "utimensat", "of a link", [step("utimens", _PATH, 10**9, 10**9, 0), step("times", _PATH)]
    for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK | os.X_OK):
        yield "access", str(mode), [step("access", _PATH, mode)]
    yield "stat", "", [step("stat", _PATH), step("lstat", _PATH)]
    yield "statvfs", "", [step("statvfs", _PATH)]
    yield "chdir", "", [step("getcwd", _PATH)]
    yield "readdir", "", [step("list", _PATH)]
    yield "xattr", "user", [step("setxattr", _PATH, "user.one", b"value", 0), step("getxattr", _PATH, "user.one")]
    yield "xattr", "of a link", [step("lsetxattr", _PATH, "user.one", b"value", 0)]
    yield "xattr", "get what is not", [step("getxattr", _PATH, "user.none")]
    yield "xattr", "remove what is not", [step("removexattr", _PATH, "user.none")]
    yield "xattr", "list", [step("listxattr", _PATH)]


def on_a_path() -> Iterator[tuple[str, Case]]:
    """Each call on each kind of thing by each user."""
    for group, call, calls in _calls_on_a_path():
        for thing, (setup, path) in _things().items():
            if group == "open" and "device" in thing:
                continue  # a mount may be `nodev`: see the judge `limits`
            for user in ("owner", "stranger", ROOT) if os.geteuid() == 0 else (ROOT,):
                acts = tuple(_put(path, one, user) for one in calls)
                yield group, Case(f"{call} · {thing} · {user}", setup, acts)


def _put(path: str, one: Step, user: str) -> Step:
    """A step of a table, for a path and a user."""
    return Step(one.call, tuple(path if value == _PATH else value for value in one.arguments), user)


def on_two_paths() -> Iterator[tuple[str, Case]]:
    """Renaming and linking each kind of thing to each."""
    left_out = ("path of", "without", "bytes", "below a name", "of root", "circle")
    things = {name: thing for name, thing in _things().items() if not any(word in name for word in left_out)}
    operations: dict[str, tuple[str, tuple[int, ...]]] = {
        "rename": ("rename", ()),
        "rename, no replacing": ("renameat2", (_NOREPLACE,)),
        "rename, exchange": ("renameat2", (_EXCHANGE,)),
        "link": ("link", ()),
    }
    for group, (call, more) in operations.items():
        for source, (make_source, from_path) in things.items():
            for target, (make_target, to_path) in things.items():
                setup = (*folder("a"), *_below("a", make_source), *folder("b"), *_below("b", make_target))
                acts = (step(call, _prefixed("a", from_path), _prefixed("b", to_path), *more, user=_as("owner")),)
                yield group, Case(f"{source} → {target}", setup, acts)
    yield from _one_folder()


def _below(prefix: str, steps: Sequence[Step]) -> Iterator[Step]:
    """The same steps, in another folder."""
    for one in steps:
        at = {"open": [1], "link": [0, 1], "symlink": [1], "write": [], "close": []}.get(one.call, [0])
        arguments = [_prefixed(prefix, str(value)) if place in at else value for place, value in enumerate(one.arguments)]
        yield Step(one.call, tuple(arguments), one.user)


def _prefixed(prefix: str, path: str) -> str:
    return f"{prefix}/{path}" if path else path


def _one_folder() -> Iterator[tuple[str, Case]]:
    """Renames within one folder, to itself, into itself, and over the other name of the same file."""
    owner = _as("owner")
    two = (*file("a"), step("link", "a", "b"))
    tree = (*folder("a"), *folder("a/b"), *file("a/b/c"))
    more: dict[str, tuple[tuple[Step, ...], str, str]] = {
        "to itself": (file("a"), "a", "a"),
        "a folder to itself": (folder("a"), "a", "a"),
        "over its other name": (two, "a", "b"),
        "into itself": (tree, "a", "a/new"),
        "deep into itself": (tree, "a", "a/b/new"),
        "over its parent": (tree, "a/b", "a"),
        "file over its parent": (tree, "a/b/c", "a/b"),
        "dot": (tree, "a/.", "new"),
        "to dot": (tree, "a/b", "a/."),
        "to dot dot": (tree, "a/b", "a/.."),
        "upwards": (tree, "a/b", "b"),
        "empty folder over empty folder": ((*folder("a"), *folder("b")), "a", "b"),
        "file over file": ((*file("a"), *file("b", data=b"b")), "a", "b"),
        "name of 256": (file("a"), "a", _TOO_LONG),
        "name of 255": (file("a"), "a", _LONG),
    }
    for name, (setup, source, target) in more.items():
        for flags in (0, _NOREPLACE, _EXCHANGE, _NOREPLACE | _EXCHANGE, 4096):
            group = {0: "rename", _NOREPLACE: "rename, no replacing", _EXCHANGE: "rename, exchange"}.get(flags, "rename, odd flags")
            yield group, Case(f"{name}, flags {flags}", setup, (step("renameat2", source, target, flags, user=owner), step("list", ".")))


def rights() -> Iterator[tuple[str, Case]]:
    """What each permission bit lets each kind of user do; needs root."""
    acts: tuple[Step, ...]
    for bits in range(8):
        for user, shift in (("owner", 6), ("mate", 3), ("stranger", 0)):
            # All other bits are the opposite, so that a wrong class shows.
            mode = (0o777 & ~(7 << shift)) | bits << shift if bits < 4 else bits << shift
            yield from _in_a_folder_of(mode, user)
            for flags in (_R, _W, _RW, _W | os.O_TRUNC, _R | os.O_TRUNC, _W | os.O_APPEND):
                acts = (step("open", 1, "file", flags, 0, user=user),)
                yield "rights", Case(f"open {flags:o} of a file {mode:03o} by {user}", file("file", mode), acts)
            for wanted in range(8):
                yield (
                    "access",
                    Case(
                        f"access {wanted} of a file {mode:03o} by {user}", file("file", mode), (step("access", "file", wanted, user=user),)
                    ),
                )
            acts = (
                step("truncate", "file", 3, user=user),
                step("getxattr", "file", "user.x", user=user),
                step("setxattr", "file", "user.x", b"v", 0, user=user),
            )
            yield "rights", Case(f"truncate and xattrs of a file {mode:03o} by {user}", file("file", mode), acts)
            yield (
                "rights",
                Case(f"times now of a file {mode:03o} by {user}", file("file", mode), (step("utimens", "file", -1, -1, 1, user=user),)),
            )
            yield (
                "rights",
                Case(f"times of a file {mode:03o} by {user}", file("file", mode), (step("utimens", "file", 7, 7, 1, user=user),)),
            )


def _in_a_folder_of(mode: int, user: str) -> Iterator[tuple[str, Case]]:
    setup = (*folder("d"), *file("d/file", 0o666), *folder("d/sub", 0o777), *file("mine", 0o666, user=user), step("chmod", "d", mode))
    calls: dict[str, tuple[int | str | bytes, ...]] = {
        "list": ("d",),
        "stat": ("d/file",),
        "unlink": ("d/file",),
        "rmdir": ("d/sub",),
        "mkdir": ("d/new", 0o755),
        "symlink": ("x", "d/new"),
        "mkfifo": ("d/new", 0o644),
        "rename": ("d/file", "d/new"),
        "getcwd": ("d",),
        "truncate": ("d/file", 1),
        "link": ("d/file", "d/new"),
    }
    for call, arguments in calls.items():
        yield "rights", Case(f"{call} in a folder {mode:03o} by {user}", setup, (step(call, *arguments, user=user),), mode=0o777)
    for name, flags in {"read": _R, "create": _NEW, "create exclusively": _NEW | os.O_EXCL}.items():
        for path in ("d/file", "d/new", "d/sub/new"):
            acts = (step("open", 1, path, flags, 0o644, user=user),)
            yield "rights", Case(f"{name} {path} in a folder {mode:03o} by {user}", setup, acts, mode=0o777)


def sticky() -> Iterator[tuple[str, Case]]:
    """Who may remove and rename what in a folder with the sticky bit; needs root."""
    kinds: dict[str, Callable[[str, str], tuple[Step, ...]]] = {
        "file": lambda path, user: file(path, user=user),
        "folder": lambda path, user: folder(path, user=user),
        "fifo": lambda path, user: (step("mkfifo", path, 0o644), *belongs(path, user)),
        "link": lambda path, user: (step("symlink", "x", path), *belongs(path, user)),
    }
    for mode in (0o1777, 0o777, 0o1775):
        for folder_user in ("owner", "stranger"):
            for thing_user in ("owner", "mate", "stranger"):
                for kind, make in kinds.items():
                    setup = (*folder("d", mode, user=folder_user), *make("d/a", thing_user), *make("d/b", "mate"), *folder("e", 0o777))
                    name = f"{kind} of {thing_user} in a folder {mode:o} of {folder_user}"
                    remove = "rmdir" if kind == "folder" else "unlink"
                    for user in ("owner", "mate", "stranger"):
                        yield "sticky", Case(f"{remove} {name} by {user}", setup, (step(remove, "d/a", user=user),))
                        yield "sticky", Case(f"move {name} out by {user}", setup, (step("rename", "d/a", "e/a", user=user),))
                        yield "sticky", Case(f"rename {name} by {user}", setup, (step("rename", "d/a", "d/new", user=user),))
                        yield (
                            "sticky",
                            Case(f"rename over a thing of mate: {name} by {user}", setup, (step("rename", "d/a", "d/b", user=user),)),
                        )
                        yield "sticky", Case(f"exchange {name} by {user}", setup, (step("renameat2", "d/a", "d/b", _EXCHANGE, user=user),))


def inheritance() -> Iterator[tuple[str, Case]]:
    """Group and mode of what is made in a folder with and without setgid, under several umasks."""
    acts: tuple[Step, ...]
    calls: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "mkdir": ("mkdir", ("d/new", 0o777)),
        "file": ("open", (1, "d/new", _NEW, 0o666)),
        "file with setgid": ("open", (1, "d/new", _NEW, 0o2777)),
        "file with suid": ("open", (1, "d/new", _NEW, 0o6711)),
        "fifo": ("mkfifo", ("d/new", 0o666)),
        "symlink": ("symlink", ("x", "d/new")),
        "node": ("mknod", ("d/new", stat.S_IFREG | 0o2775, 0)),
    }
    users = ("owner", "mate", "stranger", ROOT) if os.geteuid() == 0 else (ROOT,)
    for mode in (0o777, 0o2777, 0o3777):
        for mask in (0, 0o022, 0o027, 0o777):
            for user in users:
                for name, (call, arguments) in calls.items():
                    acts = (step("umask", mask), step(call, *arguments, user=user), step("umask", 0o022))
                    yield "setgid and umask", Case(f"{name} in a folder {mode:o}, umask {mask:03o}, by {user}", folder("d", mode), acts)


def privileges() -> Iterator[tuple[str, Case]]:
    """When setuid and setgid bits go: writing, truncating, giving away, by whom."""
    acts: tuple[Step, ...]
    opened = (_RW, os.O_WRONLY | os.O_APPEND)
    for mode in (0o6777, 0o4777, 0o2777, 0o2767, 0o6767, 0o777):
        for user in ("owner", "mate", "stranger", ROOT) if os.geteuid() == 0 else (ROOT,):
            for size in (0, 3, 10, 100):
                yield (
                    "suid drop",
                    Case(f"truncate {mode:o} to {size} by {user}", file("f", mode), (step("truncate", "f", size, user=user),)),
                )
            for flags in opened:
                for act in (("write", 1, b"x"), ("pwrite", 1, b"x", 5), ("write", 1, b""), ("ftruncate", 1, 2)):
                    acts = (step("open", 1, "f", flags, 0, user=user), step(str(act[0]), *act[1:], user=user))
                    yield "suid drop", Case(f"{act[0]} {mode:o} by {user}, flags {flags:o}, {act[2]!r}", file("f", mode), acts)
            acts = (step("open", 1, "f", _W | os.O_TRUNC, 0, user=user),)
            yield "suid drop", Case(f"O_TRUNC {mode:o} by {user}", file("f", mode), acts)
            acts = (step("open", 1, "f", _RW, 0, user=user), step("map_write", 1, b"xy", 2, user=user))
            yield "suid drop", Case(f"mmap write {mode:o} by {user}", file("f", mode), acts)
            for uid, gid in ((-1, -1), (_OWNER[0], -1), (-1, _OWNER[1]), (-1, _MATE[1]), (_STRANGER[0], -1)):
                for make, kind in ((file, "file"), (folder, "folder")):
                    setup = make("f", mode)
                    yield (
                        "suid drop",
                        Case(f"chown {uid}:{gid} of a {kind} {mode:o} by {user}", setup, (step("chown", "f", uid, gid, user=user),)),
                    )
            yield "suid drop", Case(f"chmod to {mode:o} by {user}", file("f", 0o600), (step("chmod", "f", mode, user=user),))
            setup = (*file("f", 0o600), *((step("chown", "f", *_STRANGER[:1], _MATE[1]),) if os.geteuid() == 0 else ()))
            yield "suid drop", Case(f"chmod to {mode:o} in another group by {user}", setup, (step("chmod", "f", mode, user=user),))


def descriptors() -> Iterator[tuple[str, Case]]:
    """Files that are open: offsets, appending, holes, and what becomes of them when their name goes."""
    acts: tuple[Step, ...]
    opened = (*file("f"), step("open", 1, "f", _RW, 0), step("open", 2, "f", _RW, 0))
    gone = {
        "unlinked": (step("unlink", "f"),),
        "renamed": (step("rename", "f", "g"),),
        "replaced": (*file("g", data=b"new"), step("rename", "g", "f")),
        "exchanged": (*file("g", data=b"new"), step("renameat2", "f", "g", _EXCHANGE)),
        "linked and unlinked": (step("link", "f", "g"), step("unlink", "f")),
        "unlinked and made again": (step("unlink", "f"), *file("f", data=b"again")),
        "there": (),
    }
    uses: dict[str, tuple[Step, ...]] = {
        "fstat": (step("fstat", 1),),
        "read": (step("read", 1, 4), step("read", 1, 100), step("read", 1, 1)),
        "write": (step("write", 1, b"ABC"), step("pread", 2, 100, 0), step("fstat", 2)),
        "extend": (step("pwrite", 1, b"ABC", 100_000), step("pread", 2, 200_000, 0), step("fstat", 2)),
        "ftruncate": (step("ftruncate", 1, 3), step("fstat", 1), step("ftruncate", 1, 5000), step("pread", 2, 6000, 0)),
        "fchmod": (step("fchmod", 1, 0o600), step("fstat", 1)),
        "fchown": (step("fchown", 1, -1, -1), step("fstat", 1)),
        "futimens": (step("futimens", 1, 5, 7), step("fstat", 1)),
        "fsync": (step("write", 1, b"ABC"), step("fsync", 1), step("fdatasync", 1), step("syncfs", 1), step("fstat", 1)),
        "xattr": (step("fsetxattr", 1, "user.a", b"v"), step("fgetxattr", 2, "user.a")),
        "mmap": (step("map_write", 1, b"MM", 1), step("map_read", 2), step("pread", 2, 10, 0)),
        "reopen by name": (step("open", 3, "f", _R, 0), step("pread", 3, 100, 0), step("fstat", 3)),
        "close": (step("close", 1), step("pread", 2, 10, 0), step("close", 2), step("list", ".")),
        "new name": (step("link_open", 1, "revived"), step("list", "."), step("fstat", 1)),
        "dup": (step("dup", 1, 5), step("close", 1), step("read", 5, 3), step("write", 5, b"D"), step("pread", 2, 20, 0)),
    }
    for state, change in gone.items():
        for use, acts in uses.items():
            yield "open files", Case(f"{use} when {state}", (*opened, *change), acts)
            yield "open files", Case(f"{use}, then {state}", opened, (*acts, *change, step("list", ".")))
    yield from _offsets()
    yield from _open_folders()


def _offsets() -> Iterator[tuple[str, Case]]:
    acts: tuple[Step, ...]
    sizes = (0, 1, 4095, 4096, 4097, 131_072, 131_073)
    for flags in (_RW, _RW | os.O_APPEND):
        for size in sizes:
            data = bytes(number * 7 % 251 for number in range(size))
            for place in (0, 1, 4096, 200_000):
                made = (*file("f", data=data), step("open", 1, "f", flags, 0))
                acts = (step("pwrite", 1, b"ABCDE", place), step("pread", 1, 400_000, 0), step("lseek", 1, 0, os.SEEK_CUR))
                yield "offsets", Case(f"pwrite at {place} in {size} bytes, flags {flags:o}", made, acts)
                acts = (
                    step("lseek", 1, place, os.SEEK_SET),
                    step("writev", 1, b"AB", b"CD"),
                    step("lseek", 1, 0, os.SEEK_CUR),
                    step("fstat", 1),
                )
                yield "offsets", Case(f"write after seeking to {place} in {size} bytes, flags {flags:o}", made, acts)
                acts = (
                    step("ftruncate", 1, place),
                    step("ftruncate", 1, size),
                    step("pread", 1, 400_000, 0),
                    step("lseek", 1, -1, os.SEEK_END),
                )
                yield "offsets", Case(f"truncate to {place} and back to {size}, flags {flags:o}", made, acts)
                acts = (step("pread", 1, 5000, place), step("pread", 1, 0, place), step("lseek", 1, -5, os.SEEK_SET))
                yield "offsets", Case(f"read at {place} in {size} bytes, flags {flags:o}", made, acts)
    for count in (2, 5):
        made = (*file("f", data=b""), *(step("open", number, "f", _RW | os.O_APPEND, 0) for number in range(count)))
        acts = tuple(step("write", number % count, f"line {number}\n".encode()) for number in range(count * 4))
        yield "offsets", Case(f"{count} that append", made, (*acts, step("pread", 0, 1000, 0)))
    for offset in (2**31 - 1, 2**31, 2**32 + 1, 2**40):
        acts = (
            step("pwrite", 1, b"far", offset),
            step("fstat", 1),
            step("pread", 1, 10, offset - 3),
            step("ftruncate", 1, 5),
            step("pread", 1, 10, 0),
        )
        yield "offsets", Case(f"far out at {offset}", (*file("f"), step("open", 1, "f", _RW, 0)), acts)
    acts = (step("pwrite", 1, b"far", 2**63 - 1), step("pwrite", 1, b"far", 2**63 - 3))
    yield "offsets", Case("past the end of all offsets", (*file("f"), step("open", 1, "f", _RW, 0)), acts)


def _open_folders() -> Iterator[tuple[str, Case]]:
    opened = (*folder("d"), *file("d/f"), step("open", 1, "d", _R | os.O_DIRECTORY, 0))
    changes = {
        "there": (),
        "renamed": (step("rename", "d", "e"),),
        "removed": (step("unlink", "d/f"), step("rmdir", "d")),
        "replaced": (step("unlink", "d/f"), *folder("e"), step("rename", "e", "d")),
    }
    uses: dict[str, tuple[Step, ...]] = {
        "list": (step("fchdir_list", 1),),
        "fstat": (step("fstat", 1), step("fsync", 1)),
        "openat": (step("openat", 2, 1, "new", _NEW, 0o644), step("write", 2, b"x")),
        "openat old": (step("openat", 2, 1, "f", _R, 0), step("read", 2, 100)),
        "mkdirat": (step("mkdirat", 1, "new", 0o755),),
        "unlinkat": (step("unlinkat", 1, "f"),),
        "fstatat": (step("fstatat", 1, "f"),),
        "fchmod": (step("fchmod", 1, 0o700), step("fstat", 1)),
        "dot dot": (step("fstatat", 1, ".."),),
        "xattr": (step("fsetxattr", 1, "user.a", b"v"), step("fgetxattr", 1, "user.a")),
    }
    for state, change in changes.items():
        for use, acts in uses.items():
            yield "open folders", Case(f"{use} when {state}", (*opened, *change), (*acts, step("list", ".")))


def locks() -> Iterator[tuple[str, Case]]:
    """Locks of whole files and of ranges, between descriptors and between processes."""
    acts: tuple[Step, ...]
    opened = (*file("f", 0o666), step("open", 1, "f", _RW, 0), step("open", 2, "f", _RW, 0))
    kinds = {"read": fcntl.F_RDLCK, "write": fcntl.F_WRLCK}
    whole = {"shared": fcntl.LOCK_SH, "exclusive": fcntl.LOCK_EX}
    for first, one in whole.items():
        for second, two in whole.items():
            acts = (step("flock", 1, one), step("flock", 2, two), step("flock", 1, fcntl.LOCK_UN), step("flock", 2, two))
            yield "locks", Case(f"flock {first}, then {second}", opened, acts)
            acts = (step("flock", 1, one), step("close", 1), step("flock", 2, two))
            yield "locks", Case(f"flock {first}, closed, then {second}", opened, acts)
            acts = (step("flock", 1, one), step("flock", 1, two), step("flock", 2, fcntl.LOCK_SH))
            yield "locks", Case(f"flock {first} made {second}", opened, acts)
    for first, one in kinds.items():
        for second, two in kinds.items():
            for start, size in ((0, 0), (0, 5), (5, 5), (3, 4), (100, 1)):
                acts = (
                    step("lock_open_file", 1, one, 0, 5),
                    step("lock_open_file", 2, two, start, size),
                    step("lock_open_file", 1, fcntl.F_UNLCK, 0, 0),
                )
                acts = (*acts, step("lock_open_file", 2, two, start, size))
                yield "locks", Case(f"of open files: {first} 0+5, then {second} {start}+{size}", opened, acts)
                acts = (step("lock", 1, one, 0, 5), step("lock_elsewhere", "f", two, start, size))
                yield "locks", Case(f"of processes: {first} 0+5, then {second} {start}+{size}", opened, acts)
                acts = (step("lock", 1, one, 0, 10), step("lock", 2, fcntl.F_UNLCK, 2, 3), step("lock_elsewhere", "f", two, start, size))
                yield "locks", Case(f"of processes: {first} 0+10 less 2+3, then {second} {start}+{size}", opened, acts)
                acts = (step("lock", 1, one, 0, 5), step("close", 2), step("lock_elsewhere", "f", two, start, size))
                yield "locks", Case(f"of processes: {first} 0+5, another descriptor closed, then {second} {start}+{size}", opened, acts)


def listing() -> Iterator[tuple[str, Case]]:
    """Directories of several sizes: seeking, and changing while they are read."""
    for count in (0, 1, 2, 30, 500, 3000):
        setup = (*folder("d"), step("many", "d", count))
        for call in ("seekdir", "remove_while_listing", "add_while_listing"):
            yield "readdir", Case(f"{call} of {count}", setup, (step(call, "d"),))
    kinds = (*file("file"), *folder("folder"), step("symlink", "x", "link"), step("mkfifo", "fifo", 0o644), step("socket", "socket"))
    yield "readdir", Case("types", kinds, (step("list", "."),))
    for depth in (1, 30, 200):
        path = "/".join(["deep"] * depth)
        setup = tuple(step("mkdir", "/".join(["deep"] * level), 0o755) for level in range(1, depth + 1))
        yield "readdir", Case(f"{depth} deep", setup, (step("stat", path), step("rename", "deep", "new"), step("stat", path)))


def attributes() -> Iterator[tuple[str, Case]]:
    """Extended attributes: flags, sizes, name spaces."""
    acts: tuple[Step, ...]
    made = file("f")
    have = (*made, step("setxattr", "f", "user.a", b"old", 0))
    for name, setup in (("there", have), ("not there", made)):
        for flags in (0, 1, 2, 3, 4):
            acts = (step("setxattr", "f", "user.a", b"new", flags), step("getxattr", "f", "user.a"))
            yield "xattr", Case(f"flags {flags}, {name}", setup, acts)
        acts = (step("removexattr", "f", "user.a"), step("listxattr", "f"), step("getxattr", "f", "user.a"))
        yield "xattr", Case(f"remove, {name}", setup, acts)
        for size in (0, 1, 2, 3, 4, 100):
            yield "xattr", Case(f"get into {size} bytes, {name}", setup, (step("getxattr_into", "f", "user.a", size),))
    for size in (0, 1, 255, 256, 1000, 3000):
        acts = (step("setxattr", "f", "user.a", b"v" * size, 0), step("getxattr", "f", "user.a"))
        yield "xattr", Case(f"value of {size} bytes", made, acts)
    yield "xattr", Case("value of 65,537 bytes", made, (step("setxattr", "f", "user.a", b"v" * 65537, 0),))
    for name in ("user.", "user", "nothing.a", "", ".a", "user." + "n" * 250, "user." + "n" * 251, "user.ä", "user.a.b", "USER.a"):
        acts = (step("setxattr", "f", name, b"v", 0), step("getxattr", "f", name), step("listxattr", "f"))
        yield "xattr", Case(f"name {name[:20]!r} of {len(name)}", made, acts)
    many = tuple(step("setxattr", "f", f"user.{number}", b"v" * 20, 0) for number in range(30))
    yield "xattr", Case("30 of them", made, (*many, step("listxattr", "f")))
    for user in ("owner", "stranger") if os.geteuid() == 0 else ():
        for mode in (0o644, 0o600, 0o666):
            acts = (step("setxattr", "f", "user.a", b"v", 0, user=user), step("getxattr", "f", "user.a", user=user))
            yield "xattr", Case(f"on {mode:o} by {user}", file("f", mode), acts)
        acts = (step("setxattr", "d", "user.a", b"v", 0, user=user),)
        yield "xattr", Case(f"on a sticky folder by {user}", folder("d", 0o1777), acts)
    for kind, change in {
        "rename": step("rename", "f", "g"),
        "chmod": step("chmod", "f", 0o600),
        "truncate": step("truncate", "f", 1),
    }.items():
        yield "xattr", Case(f"kept by {kind}", have, (change,))


def missing_tools() -> Iterator[tuple[str, Case]]:
    """Sockets that are used, and files made under a umask by several calls."""
    acts: tuple[Step, ...]
    yield "sockets", Case("bind, listen, connect", (), (step("connect", "socket"), step("lstat", "socket")))
    setup = (*file("f"), step("link", "f", "g"))
    for count in (1, 3, 50):
        acts = tuple(step("link", "f", f"name-{number}") for number in range(count))
        more = tuple(step("unlink", f"name-{number}") for number in range(count - 1))
        yield (
            "link",
            Case(f"{count} more names, then fewer", setup, (*acts, step("stat", "g"), *more, step("unlink", "f"), step("stat", "g"))),
        )
    for count in (1, 3, 50):
        acts = tuple(step("mkdir", f"d/{number}", 0o755) for number in range(count))
        more = tuple(step("rmdir", f"d/{number}") for number in range(count - 1))
        yield "mkdir", Case(f"links of a folder with {count}", folder("d"), (*acts, step("stat", "d"), *more, step("stat", "d")))
    moved = (*folder("a"), *folder("b"), *folder("a/c"), *folder("b/d"))
    for flags in (0, _EXCHANGE):
        yield (
            "rename",
            Case(
                f"links of both folders, flags {flags}",
                moved,
                (step("renameat2", "a/c", "b/d", flags), step("stat", "a"), step("stat", "b")),
            ),
        )


def all_cases() -> Iterator[tuple[str, Case]]:
    """Every case with its group; those that need several users only for root."""
    yield from on_a_path()
    yield from on_two_paths()
    yield from descriptors()
    yield from locks()
    yield from listing()
    yield from attributes()
    yield from inheritance()
    yield from privileges()
    yield from missing_tools()
    if os.geteuid() == 0:
        yield from rights()
        yield from sticky()
