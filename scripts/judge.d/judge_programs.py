# SPDX-License-Identifier: MIT
"""Judge `programs`: what people do with a folder: copy, archive, compile, install, edit; and processes that share files."""

import ensurepip
import fcntl
import mmap
import os
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from chores import Chore, Place, compare
from commands import must_run
from folders import remove
from judging import Bench, Verdict

_GIB = 1 << 30


def make_material(target: Path) -> None:
    """A folder with what files can be: much text, and one of each odd thing."""
    target.mkdir()
    library = Path(sysconfig.get_path("stdlib"))
    for name in ("email", "json", "asyncio", "concurrent", "xml", "http"):
        must_run(["cp", "-a", library / name, target], folder=target)
    odd = target / "odd"
    odd.mkdir()
    (odd / "empty").touch()
    (odd / "with space and ü").write_text("ü\n")
    Path(os.fsdecode(os.fsencode(odd) + b"/not \xff text")).write_bytes(b"\xff")
    (odd / "link").symlink_to("../email/parser.py")
    (odd / "broken link").symlink_to("nowhere")
    (odd / "one").write_text("hard links\n")
    (odd / "two").hardlink_to(odd / "one")
    os.mkfifo(odd / "fifo", 0o640)
    with (odd / "sparse").open("wb") as sparse:
        sparse.truncate(3_000_000)
        sparse.seek(1_000_000)
        sparse.write(b"in the middle")
    (odd / "random").write_bytes(os.urandom(2_000_000))
    for name, mode in (("private", 0o600), ("program", 0o755), ("fixed", 0o444), ("suid", 0o4755)):
        (odd / name).write_text(name)
        (odd / name).chmod(mode)
    (odd / "shared").mkdir()
    (odd / "shared").chmod(0o2775)
    (odd / "sticky").mkdir()
    (odd / "sticky").chmod(0o1777)
    os.setxattr(odd / "one", "user.comment", b"of both names")
    os.setxattr(odd / "shared", "user.folder", b"\0\1\2")
    for number, path in enumerate(sorted(odd.iterdir())):
        os.utime(path, ns=(10**18 + number, 10**18 + number * 123_456_789), follow_symlinks=False)


def rsync_twice(place: Place) -> Iterator[str]:
    """The second time nothing is to be done, by times and by checksums; then what changed is."""
    source = f"{place.material}/"
    yield place.tell("rsync", "-aHX", source, "copy/")
    yield from place.describe("copy")
    for more in (["-n"], ["-n", "--checksum"], ["--delete"]):
        yield place.tell("rsync", "-aHXi", *more, source, "copy/")
    (place.folder / "copy" / "odd" / "one").write_text("changed")
    (place.folder / "copy" / "extra").touch()
    remove(place.folder / "copy" / "json")
    yield place.tell("rsync", "-aHX", "--delete", "--inplace", "--no-whole-file", "--checksum", source, "copy/")
    yield place.tell("rsync", "-aHXin", "--checksum", "--delete", source, "copy/")
    yield place.tell("rsync", "-aHX", "--sparse", "--link-dest=../copy", "copy/", "linked/")
    yield from place.describe("linked/odd")


def rsync_acls(place: Place) -> Iterator[str]:
    """Access control lists come along."""
    (place.folder / "from" / "folder").mkdir(parents=True)
    (place.folder / "from" / "file").write_text("x")
    yield place.tell("setfacl", "-m", "u:65501:rwX,g:65502:r", "from/file")
    yield place.tell("setfacl", "-d", "-m", "u:65501:rwX", "from/folder")
    (place.folder / "from" / "folder" / "new").write_text("inherits")
    yield place.tell("rsync", "-aAX", "from/", "to/")
    yield place.tell("getfacl", "-R", "-n", "-p", "from")
    yield place.tell("getfacl", "-R", "-n", "-p", "to")
    yield place.tell("rsync", "-aAXin", "from/", "to/")
    yield place.tell("chmod", "g-w", "to/file")
    yield place.tell("getfacl", "-n", "to/file")


def tar_there_and_back(place: Place) -> Iterator[str]:
    """An archive made of the folder is unpacked in it, and nothing is lost."""
    yield place.tell("cp", "-a", place.material, "from")
    yield place.tell("tar", "--create", "--xattrs", "--sparse", "--sort=name", "--file=archive.tar", "--directory=from", ".")
    (place.folder / "to").mkdir()
    yield place.tell("tar", "--extract", "--xattrs", "--same-permissions", "--file=archive.tar", "--directory=to")
    yield place.tell("tar", "--compare", "--file=archive.tar", "--directory=to")
    yield from place.describe("to")
    yield place.tell("diff", "-r", "--no-dereference", "--exclude=fifo", "from", "to")


def zip_there_and_back(place: Place) -> Iterator[str]:
    """The same with zip, and over what is there."""
    yield place.tell(
        "zip", "-q", "-r", "-y", "-X", str(place.folder / "archive.zip"), "email", "json", "odd/link", within=str(place.material)
    )
    yield place.tell("unzip", "-q", "archive.zip", "-d", "to")
    yield place.tell("unzip", "-q", "-o", "archive.zip", "-d", "to")
    yield place.tell("unzip", "-tqq", "archive.zip")
    yield from place.describe("to")


def copy_and_compare(place: Place) -> Iterator[str]:
    """Copying in all ways that cp knows, moving, counting, and removing."""
    yield place.tell("cp", "-a", place.material, "a")
    yield place.tell("diff", "-r", "--no-dereference", "--exclude=fifo", place.material, "a")
    for option in ("--sparse=always", "--sparse=never", "--reflink=auto", "--remove-destination"):
        yield place.tell("cp", "-aT", option, "a", "b")
    yield place.tell("cp", "-aT", "--link", "a", "d")
    yield place.tell("cp", "-aT", "--backup=numbered", "a/odd", "d/odd")
    yield place.tell("sh", "-c", "find d/odd -type f -links -2 | sort")
    yield place.tell("diff", "-r", "--no-dereference", "--exclude=fifo", "a", "b")
    yield place.tell("mv", "b", "c")
    yield place.tell("mv", "--no-clobber", "-T", "a/odd", "c/odd")
    yield str(place.run("find", "a", "-newer", "c/odd/empty", "-name", "*.py").status)
    yield place.tell("du", "-s", "--apparent-size", "--exclude=none", "-B1", "c/odd/sparse")
    yield from place.describe("a/odd")
    yield place.tell("chmod", "-R", "u=rwX,go=", "a")
    yield place.tell("rm", "-rf", "a", "c", "d")
    yield " ".join(os.listdir(place.folder))


def many_files(place: Place) -> Iterator[str]:
    """A folder with many names: made, listed, renamed, found and removed."""
    count = 500 if place.is_quick else 10_000
    many = place.folder / "many"
    many.mkdir()
    for number in range(count):
        (many / f"file {number}").write_text(f"{number}\n")
    yield str(len(os.listdir(many)))
    for number in range(0, count, 3):
        (many / f"file {number}").rename(many / f"renamed {number}")
    names = os.listdir(many)
    yield f"{len(names)} names, {len(set(names))} different, {sum(name.startswith('renamed') for name in names)} renamed"
    yield str(sum(int((many / name).read_text()) for name in names))
    yield place.tell("sh", "-c", "ls many | sort | md5sum; find many -type f -size -2 | wc -l; cat many/* | md5sum")
    yield place.tell("rm", "-r", "many")
    yield str(many.exists())


def python_environment(place: Place) -> Iterator[str]:
    """A virtual environment, a package installed into it, run from it, and taken out."""
    yield place.tell(sys.executable, "-m", "venv", "--copies", "venv")
    own = Path(ensurepip.__file__).parent / "_bundled"
    wheel = [*own.glob("pip-*.whl"), *Path("/usr/share/python-wheels").glob("pip-*.whl")][0]  # Debian keeps it elsewhere
    python = place.folder / "venv" / "bin" / "python"
    for words in (
        ["-m", "pip", "install", "-q", "--no-index", "--disable-pip-version-check", "--force-reinstall", wheel],
        ["-m", "pip", "check", "--disable-pip-version-check"],
        ["-m", "compileall", "-q", "-f", "venv/lib"],
        ["-c", "import pip, sys; print(pip.__version__, sys.prefix)"],
        ["-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
        ["-m", "pip", "uninstall", "-q", "-y", "pip", "--disable-pip-version-check"],
    ):
        yield place.tell(python, *words)
    yield place.tell("sh", "-c", "find venv -name '*.py' -o -name '*.pyc' | LC_ALL=C sort | sed 's/[^/]*site-packages/S/'")


def compile_and_run(place: Place) -> Iterator[str]:
    """A program of several files: compiled, archived, linked, stripped, run from the folder, with debug data and without."""
    count = 5 if place.is_quick else 30
    for number in range(count):
        (place.folder / f"part{number}.c").write_text(f'#include <stdio.h>\nint part{number}(void) {{ return printf("{number} "); }}\n')
    calls = "".join(f"int part{number}(void);" for number in range(count)), "".join(f"part{number}();" for number in range(count))
    (place.folder / "main.c").write_text(f"{calls[0]} int main(void) {{ {calls[1]} return 7; }}\n")
    yield place.tell(
        "sh", "-c", "gcc -g -O2 -ffile-prefix-map=$PWD=. -c *.c && ar rcs library.a part*.o && gcc -o program main.o library.a"
    )
    yield place.tell("./program")
    yield place.tell("sh", "-c", "gcc -shared -fPIC -o library.so part*.c && gcc -o dynamic main.c -L. -l:library.so -Wl,-rpath,$PWD")
    yield place.tell("./dynamic")
    yield place.tell("strip", "program")
    yield place.tell("./program")
    yield place.tell("sh", "-c", "md5sum part*.o program; ls | wc -l; cp program busy; ./busy; cp /dev/null busy; echo $?")


def save_with_vim(place: Place) -> Iterator[str]:
    """All ways in which vim can save, over files, links and files with two names."""
    for way in ("yes", "no", "auto", "auto,breaksymlink", "auto,breakhardlink"):
        for backup in ("backup", "nobackup"):
            name = f"{way}-{backup}"
            work = place.folder / name
            work.mkdir()
            for target in ("file", "linked"):
                (work / target).write_text("one\ntwo\n")
                (work / target).chmod(0o640)
            (work / "link").symlink_to("file")
            (work / "other").hardlink_to(work / "linked")
            for target in ("file", "link", "linked"):
                settings = f"set backupcopy={way} {backup} writebackup swapfile fsync"
                yield place.tell(
                    "vim",
                    "-N",
                    "-u",
                    "NONE",
                    "-i",
                    "NONE",
                    "-es",
                    "-c",
                    settings,
                    "-c",
                    "%s/one/three/e",
                    "-c",
                    "normal Gofour",
                    "-c",
                    "wq",
                    target,
                    within=name,
                )
            yield from place.describe(name)


def save_as_others_do(place: Place) -> Iterator[str]:
    """A temporary file renamed over the old one; a backup first; in place; exchanged; with everything synced."""

    def beside(path: Path, data: bytes) -> None:
        temporary = path.with_name(".~new")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def backup_first(path: Path, data: bytes) -> None:
        backup = path.with_name(path.name + "~")
        path.replace(backup)
        path.write_bytes(data)
        path.chmod(stat.S_IMODE(backup.stat().st_mode))

    def hard_link_backup(path: Path, data: bytes) -> None:
        backup = path.with_name(path.name + ".bak")
        backup.unlink(missing_ok=True)
        backup.hardlink_to(path)
        beside(path, data)

    def in_place(path: Path, data: bytes) -> None:
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()

    def unnamed_lock_then_in_place(path: Path, data: bytes) -> None:
        lock = path.with_name(f".~lock.{path.name}#")
        with lock.open("xb") as held:
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.write_bytes(data)
        lock.unlink()

    for way in (beside, backup_first, hard_link_backup, in_place, unnamed_lock_then_in_place):
        work = place.folder / way.__name__
        work.mkdir()
        (work / "report").write_bytes(b"old " * 5000)
        (work / "report").chmod(0o640)
        with (work / "report").open("rb") as reader:
            for number in range(20):
                way(work / "report", b"new %d " % number * (3000 - 100 * number))
                yield f"{(work / 'report').stat().st_size} {(work / 'report').read_bytes()[:10]!r}"
            yield f"who had it open reads {len(reader.read())}, links {os.fstat(reader.fileno()).st_nlink}"
        yield from place.describe(way.__name__)
    (place.folder / "text").write_text("a\nb\nc\n")
    yield place.tell("sh", "-c", "sed -i.bak s/b/B/ text; sort -r -o text text; perl -i -pe 's/c/C/' text; cat text text.bak; ls")


def share_by_mapping(place: Place) -> Iterator[str]:
    """What one process writes to a mapping another reads, through a mapping and with read, and the other way round."""
    path = place.folder / "shared"
    size = 300_000
    path.write_bytes(bytes(size))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:

        def write_there() -> int:
            with path.open("r+b") as own, mmap.mmap(own.fileno(), size) as other:
                other[1000:1010] = b"from child"
                other[200_000:200_010] = b"from child"
                other.flush()
            return 0

        yield f"child {_children([write_there])}"
        yield f"{mapped[1000:1010]!r} {os.pread(file.fileno(), 10, 200_000)!r}"
        os.pwrite(file.fileno(), b"by pwrite", 5000)
        yield f"mapped after pwrite: {mapped[5000:5009]!r}"
        mapped[100:110] = b"not synced"
        yield f"read after a mapped write: {path.read_bytes()[100:110]!r}"
        file.truncate(size * 2)
        mapped.resize(size * 2)
        mapped[size : size + 5] = b"grown"
        mapped.flush()
    yield from place.describe()


def append_by_several(place: Place) -> Iterator[str]:
    """Lines that several processes append to one file stay whole, and none is lost."""
    path = place.folder / "log"
    count = 50 if place.is_quick else 500

    def append(number: int) -> Callable[[], int]:
        def work() -> int:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            for line in range(count):
                os.write(descriptor, f"{number} {line} {'x' * (line % 200)}\n".encode())
            os.close(descriptor)
            return 0

        return work

    yield f"children {_children([append(number) for number in range(4)])}"
    lines = path.read_text().splitlines()
    yield f"{len(lines)} lines, {len(set(lines))} different, {sum(line.count(' ') != 2 for line in lines)} torn"


def count_under_locks(place: Place) -> Iterator[str]:
    """Processes that count in one file, each way of locking in turn, reach the right number."""
    count = 20 if place.is_quick else 200
    path = place.folder / "count"

    def counting(lock: Callable[[Path], AbstractContextManager[None]], name: str) -> int:
        for _ in range(count):
            with lock(place.folder / name):
                path.write_text(str(int(path.read_text()) + 1))
        return 0

    for lock in (_by_flock, _by_lockf, _by_exclusive_creation, _by_folder, _by_link):
        path.write_text("0")
        work = partial(counting, lock, lock.__name__)
        yield f"{lock.__name__}: children {_children([work] * 3)}, {path.read_text()}"


@contextmanager
def _by_flock(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _by_lockf(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _by_exclusive_creation(path: Path) -> Iterator[None]:
    _retry(lambda: os.close(os.open(path, os.O_CREAT | os.O_EXCL)))
    yield
    path.unlink()


@contextmanager
def _by_folder(path: Path) -> Iterator[None]:
    _retry(path.mkdir)
    yield
    path.rmdir()


@contextmanager
def _by_link(path: Path) -> Iterator[None]:
    own = path.with_name(f"own-{os.getpid()}")
    own.touch()
    _retry(lambda: path.hardlink_to(own))
    yield
    path.unlink()
    own.unlink()


def _retry(take: Callable[[], None]) -> None:
    """Until the name is not there: what programs do that lock so."""
    while True:
        try:
            take()
        except FileExistsError:
            os.sched_yield()
        else:
            return


def replace_while_read(place: Place) -> Iterator[str]:
    """Who opens a file that is replaced by rename again and again always finds one whole version."""
    path = place.folder / "file"
    count = 50 if place.is_quick else 500
    path.write_bytes(b"0" * 50_000)

    def replace() -> int:
        for number in range(count):
            temporary = place.folder / "temporary"
            temporary.write_bytes(b"%d" % (number % 10) * 50_000)
            temporary.replace(path)
        return 0

    def read() -> int:
        wrong = 0
        for _ in range(count):
            data = path.read_bytes()
            wrong += len(data) != 50_000 or len(set(data)) != 1
        return min(wrong, 100)

    yield f"wrong {_children([replace, read, read])}"
    yield " ".join(sorted(os.listdir(place.folder)))


def beyond_4_gib(place: Place) -> Iterator[str]:
    """A large file that is mostly holes: written far out, read, cut, and taking little room."""
    path = place.folder / "large"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    places = (0, 2**31 - 3, 2**32 - 3, 5 * _GIB)
    for offset in places:
        yield str(os.pwrite(descriptor, b"across the edge", offset))
    os.fsync(descriptor)
    status = os.fstat(descriptor)
    yield f"{status.st_size} bytes, {'few' if status.st_blocks * 512 < 50_000_000 else status.st_blocks} blocks"
    for offset in places:
        yield repr(os.pread(descriptor, 30, offset - 5 if offset else 0))
    with mmap.mmap(descriptor, 8192, offset=4 * _GIB) as mapped:
        yield repr(mapped[:20])
        mapped[100:104] = b"MMAP"
    yield repr(os.pread(descriptor, 10, 4 * _GIB + 98))
    os.ftruncate(descriptor, 4 * _GIB + 102)
    os.ftruncate(descriptor, 6 * _GIB)
    yield repr(os.pread(descriptor, 10, 4 * _GIB + 98))
    yield f"{os.fstat(descriptor).st_size} {os.lseek(descriptor, 0, os.SEEK_END)}"
    os.close(descriptor)
    yield place.tell("tail", "-c", "5", "large")
    yield place.tell("mv", "large", "moved")
    yield place.tell("truncate", "--size=4097M", "moved")
    yield place.tell("stat", "--format=%s", "moved")
    yield place.tell("dd", "if=moved", "bs=1", "skip=4294967293", "count=15", "iflag=skip_bytes", "status=none")


def _children(works: list[Callable[[], int]]) -> str:
    """Run functions at the same time in processes of their own; their exit statuses."""
    pids = []
    for work in works:
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                status = work()
            finally:
                os._exit(status)
        pids.append(pid)
    return " ".join(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) for pid in pids)


_CHORES: tuple[Chore, ...] = (
    rsync_twice,
    rsync_acls,
    tar_there_and_back,
    zip_there_and_back,
    copy_and_compare,
    many_files,
    python_environment,
    compile_and_run,
    save_with_vim,
    save_as_others_do,
    share_by_mapping,
    append_by_several,
    count_under_locks,
    replace_while_read,
    beyond_4_gib,
)


class Programs:
    """Everyday work."""

    name = "programs"
    title = "rsync, tar, zip, cp, pip, gcc, vim, savers, lockers, mappers, a file over 4 GiB"
    packages = {  # noqa: RUF012 # as in the Protocol
        "rsync": "rsync",
        "setfacl": "acl",
        "setfattr": "attr",
        "tar": "tar",
        "zip": "zip",
        "unzip": "unzip",
        "gcc": "gcc",
        "vim": "vim",
        "perl": "perl",
    }
    limit_s = 1800.0

    def judge(self, bench: Bench) -> Verdict:
        """Do all; with --quick the same with less."""
        material = bench.scratch / "material"
        remove(material)
        make_material(material)
        findings = compare(_CHORES, bench, material=material)
        must_run(["cp", "-a", material, bench.judged / "kept"], folder=material)  # for what is looked at after all judges
        return Verdict("rsync, tar, zip, cp, pip, gcc, vim and patterns of others", len(_CHORES), findings)
