# SPDX-License-Identifier: MIT
"""The LMDB environment: views, writes, growth, and whose errors they are."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yester.errors import BusyError, ConflictError, CorruptionError, NotFoundError, StoreAccessError, StoreFullError, YesterError
from yester.store import lmdb as lmdb_module
from yester.store.datafile import DATA_FILE
from yester.store.lmdb import Environment, Table, WriteTransaction, _find_map, _translated

KEYS = st.binary(min_size=1, max_size=3) | st.sampled_from([b"\xff", b"\xff\xff", b"a", b"a\xff", b"a\xff\xff", b"b", b"b\0"])


def put(environment: Environment, key: bytes, value: bytes, table: Table = Table.CHUNKS) -> None:
    environment.write(lambda transaction: transaction.put(table, key, value))


def keys(environment: Environment, table: Table = Table.CHUNKS) -> list[bytes]:
    with environment.read() as view:
        return [key for key, _ in view.iterate(table)]


# --- views ------------------------------------------------------------------------------------------------------------


@given(stored=st.sets(KEYS, max_size=12), asked=KEYS | st.just(b""))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_looking_up_is_as_in_a_sorted_list(environment: Environment, stored: set[bytes], asked: bytes) -> None:
    def store_all(transaction: WriteTransaction) -> None:
        for key, _ in list(transaction.iterate(Table.CHUNKS)):
            transaction.delete(Table.CHUNKS, key)
        for key in stored:
            transaction.put(Table.CHUNKS, key, b"value of " + key)

    environment.write(store_all)
    in_order = sorted(stored)
    with environment.read() as view:
        assert [(key, bytes(value)) for key, value in view.iterate(Table.CHUNKS)] == [(key, b"value of " + key) for key in in_order]
        with_prefix = [key for key in in_order if key.startswith(asked)]
        assert [key for key, _ in view.iterate(Table.CHUNKS, asked)] == with_prefix
        assert [key for key, _ in view.iterate(Table.CHUNKS, asked, reverse=True)] == with_prefix[::-1]
        assert [key for key, _ in view.iterate_from(Table.CHUNKS, asked)] == [key for key in in_order if key >= asked]
        assert view.last_key(Table.CHUNKS) == (in_order[-1] if in_order else None)
        assert view.count(Table.CHUNKS) == len(stored)
        if asked:
            before = [key for key in in_order if key <= asked]
            assert [key for key, _ in view.iterate_back_from(Table.CHUNKS, asked)] == before[::-1]
            assert bytes(view.get(Table.CHUNKS, asked) or b"") == (b"value of " + asked if asked in stored else b"")
    if asked:
        assert environment.get(Table.CHUNKS, asked) == (b"value of " + asked if asked in stored else None)


def test_tables_are_apart(environment: Environment) -> None:
    for table in Table:
        put(environment, b"key", table.value, table)
    assert [environment.get(table, b"key") for table in Table] == [table.value for table in Table]


def test_a_view_does_not_change(environment: Environment) -> None:
    put(environment, b"a", b"1")
    with environment.read() as view:
        put(environment, b"a", b"2")
        put(environment, b"b", b"2")
        assert bytes(view.get(Table.CHUNKS, b"a") or b"") == b"1"
        assert view.get(Table.CHUNKS, b"b") is None
    assert environment.get(Table.CHUNKS, b"a") == b"2"


def test_a_key_that_is_too_long_is_simply_not_there(environment: Environment) -> None:
    """Callers look up what people type."""
    assert environment.get(Table.CHUNKS, b"x" * 512) is None
    with environment.read() as view:
        assert list(view.iterate(Table.CHUNKS, b"x" * 512)) == []


# --- writes -----------------------------------------------------------------------------------------------------------


def test_a_write_that_raises_changes_nothing(environment: Environment) -> None:
    def fail(transaction: WriteTransaction) -> None:
        transaction.put(Table.CHUNKS, b"a", b"1")
        assert bytes(transaction.get(Table.CHUNKS, b"a") or b"") == b"1"
        raise ZeroDivisionError

    before = environment.last_transaction()
    with pytest.raises(ZeroDivisionError):
        environment.write(fail)
    assert keys(environment) == []
    put(environment, b"b", b"2")
    assert keys(environment) == [b"b"]
    assert environment.last_transaction() == before + 1


def test_a_write_returns_what_it_finds_and_says_whether_it_deleted(environment: Environment) -> None:
    put(environment, b"a", b"1")
    assert environment.write(lambda transaction: bytes(transaction.get(Table.CHUNKS, b"a") or b"")) == b"1"
    assert environment.write(lambda transaction: transaction.delete(Table.CHUNKS, b"a")) is True
    assert environment.write(lambda transaction: transaction.delete(Table.CHUNKS, b"a")) is False


def test_writes_of_several_threads_follow_each_other(environment: Environment) -> None:
    def add_one(transaction: WriteTransaction) -> None:
        count = int(bytes(transaction.get(Table.META, b"count") or b"0"))
        transaction.put(Table.META, b"count", b"%d" % (count + 1))

    threads = [threading.Thread(target=lambda: [environment.write(add_one) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert environment.get(Table.META, b"count") == b"200"


@pytest.fixture
def small(tmp_path: Path) -> Environment:
    """An environment whose map is full soon."""
    path = tmp_path / "small"
    path.mkdir()
    return Environment(path, create=True, map_bytes=1 << 18)


def test_a_full_map_grows_and_the_write_is_done_once(small: Environment) -> None:
    runs = []

    def fill(transaction: WriteTransaction) -> str:
        runs.append(1)
        for number in range(40):
            transaction.put(Table.SEGMENTS, b"%03d" % number, bytes(100_000))
        return "done"

    with small:
        put(small, b"before", b"1")
        assert small.write(fill) == "done"
        assert len(runs) > 1
        assert len(keys(small, Table.SEGMENTS)) == 40
        assert small.get(Table.CHUNKS, b"before") == b"1"
    with Environment(small.path) as again:
        assert len(keys(again, Table.SEGMENTS)) == 40


def test_a_map_that_another_process_made_larger_is_followed(small: Environment) -> None:
    program = """
import sys
from pathlib import Path
from yester.store.lmdb import Environment, Table
with Environment(Path(sys.argv[1]), map_bytes=1 << 18) as environment:
    environment.write(lambda transaction: [transaction.put(Table.SEGMENTS, b"%d" % n, bytes(100_000)) for n in range(int(sys.argv[2]))])
"""
    with small:
        for count in (9, 30):
            subprocess.run(
                [sys.executable, "-c", program, small.path, str(count)],
                check=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            # Once by a view, once by `get`: each must notice for itself.
            found = keys(small, Table.SEGMENTS)[8] if count == 9 else small.get(Table.SEGMENTS, b"29")
            assert found is not None
        put(small, b"mine", b"1")
        assert small.get(Table.CHUNKS, b"mine") == b"1"


def test_pages_are_released_where_the_map_is_now(small: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice about any other address could zero somebody else's memory."""
    advised: list[tuple[int, int]] = []
    libc = type("Libc", (), {"madvise": lambda _self, address, length, _advice: advised.append((address.value, length.value))})()
    monkeypatch.setattr(lmdb_module, "_libc", libc)
    with small:
        for size in (100_000, 1_000_000, 20_000_000):
            put(small, b"key", bytes(size), Table.SEGMENTS)
            small.release_pages(1 << 30)
            assert advised[-1] == _find_map(small.path / DATA_FILE)
            assert advised[-1][1] >= size
    assert len(set(advised)) > 1


def test_released_pages_are_read_again(environment: Environment) -> None:
    put(environment, b"a", b"1" * 100_000, Table.SEGMENTS)
    with environment.read() as view:
        value = view.get(Table.SEGMENTS, b"a")
        environment.release_pages(1 << 30)
        assert bytes(value or b"") == b"1" * 100_000


def test_a_reader_that_was_killed_is_cleared(environment: Environment) -> None:
    program = """
import sys
from pathlib import Path
from yester.store.lmdb import Environment
with Environment(Path(sys.argv[1])) as environment, environment.read():
    print(flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program, os.fspath(environment.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        assert environment.clear_stale_readers() == 0
        reader.send_signal(signal.SIGKILL)
        reader.wait()
    assert environment.clear_stale_readers() == 1


# --- what is not ours, or damaged -------------------------------------------------------------------------------------


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=2) as foreign:
        foreign.open_db(b"somebody's")
        with foreign.begin(write=True) as transaction:
            transaction.put(b"key", b"value")
    before = (tmp_path / DATA_FILE).read_bytes()
    for create in (False, True):
        with pytest.raises(ConflictError, match="not a yester store"):
            Environment(tmp_path, create=create)
    assert (tmp_path / DATA_FILE).read_bytes() == before


def test_a_cut_file_is_an_error_and_no_signal(environment: Environment) -> None:
    """Touching what is mapped beyond the end of a file is SIGBUS; 40 of 40 cut files killed the process."""
    put(environment, b"a", bytes(1_000_000), Table.SEGMENTS)
    environment.close()
    size = (environment.path / DATA_FILE).stat().st_size
    for left in (size - 4096, size // 2, 8192, 4096, 100, 0):
        os.truncate(environment.path / DATA_FILE, left)
        with pytest.raises(CorruptionError, match="was not opened, and nothing was changed"):
            Environment(environment.path)


def test_a_missing_environment_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no store"):
        Environment(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_environment_is_not_opened_twice_in_a_process(environment: Environment) -> None:
    """LMDB's locks would break."""
    with pytest.raises(YesterError):
        Environment(environment.path)
    put(environment, b"a", b"1")


def test_a_closed_environment_gives_our_errors(environment: Environment) -> None:
    environment.close()
    environment.close()
    with pytest.raises(YesterError):
        environment.get(Table.CHUNKS, b"a")
    with pytest.raises(YesterError):
        put(environment, b"a", b"1")


def _subclasses(base: type[Exception]) -> list[type[Exception]]:
    return [base, *(found for child in base.__subclasses__() for found in _subclasses(child))]


@pytest.mark.parametrize("error", _subclasses(lmdb.Error), ids=lambda error: error.__name__)
def test_every_error_of_lmdb_becomes_one_of_ours(tmp_path: Path, error: type[Exception]) -> None:
    """But the two that `read` and `write` themselves answer."""
    handled = (lmdb.MapFullError, lmdb.MapResizedError)
    with pytest.raises(handled if issubclass(error, handled) else YesterError), _translated(tmp_path):
        raise error("what it said")  # noqa: EM101, TRY003 (so does lmdb)


def test_our_own_errors_and_those_of_others_pass(environment: Environment) -> None:
    for error in (BusyError("x"), KeyError("x"), OSError("x")):
        with pytest.raises(type(error)), environment.read():
            raise error


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_told_as_such_and_what_was_committed_is_whole(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=False, capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted")
    try:
        with Environment(disk, create=True) as environment, pytest.raises(StoreFullError, match="what was committed before is whole"):
            _fill(environment)
        with Environment(disk) as environment:
            found = keys(environment, Table.SEGMENTS)
            assert found == [b"%03d" % number for number in range(len(found))]
            assert len(found) > 10
    finally:
        subprocess.run(["umount", disk], check=True)


def _fill(environment: Environment) -> None:
    for number in range(100):
        put(environment, b"%03d" % number, os.urandom(100_000), Table.SEGMENTS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_store_of_somebody_else_is_an_access_error(environment: Environment) -> None:
    environment.close()
    (environment.path / DATA_FILE).chmod(0)
    with pytest.raises(StoreAccessError, match="cannot read"):
        Environment(environment.path)


# --- threads and processes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("take_away", ["close", "grow"])
def test_the_map_stays_while_another_thread_reads(tmp_path: Path, take_away: str) -> None:
    """It would read memory that is gone: a segmentation fault, or somebody else's bytes."""
    environment = Environment(tmp_path, create=True, map_bytes=1 << 20)
    put(environment, b"a", b"1" * 5000)
    reads, may_end, events = threading.Event(), threading.Event(), []

    def read() -> None:
        with environment.read() as view:
            value = view.get(Table.CHUNKS, b"a")
            reads.set()
            may_end.wait(60)
            assert bytes(value or b"") == b"1" * 5000
            events.append("read")

    def take() -> None:
        if take_away == "close":
            environment.close()
        else:
            put(environment, b"b", b"2" * (4 << 20))
        events.append("taken")

    threads = [threading.Thread(target=read), threading.Thread(target=take)]
    threads[0].start()
    assert reads.wait(60)
    threads[1].start()
    threads[1].join(0.1)
    assert threads[1].is_alive()
    may_end.set()
    for thread in threads:
        thread.join(60)
    assert events == ["read", "taken"]
    environment.close()


def test_a_thread_may_read_while_it_reads(environment: Environment) -> None:
    put(environment, b"a", b"1")
    with environment.read() as outer, environment.read() as inner:
        assert bytes(outer.get(Table.CHUNKS, b"a") or b"") == bytes(inner.get(Table.CHUNKS, b"a") or b"") == b"1"


def test_a_map_is_not_moved_by_the_thread_that_reads_it(tmp_path: Path) -> None:
    with Environment(tmp_path, create=True, map_bytes=1 << 20) as environment:
        with environment.read(), pytest.raises(BusyError):
            put(environment, b"a", b"1" * (4 << 20))
        put(environment, b"a", b"1" * (4 << 20))


def test_an_environment_can_be_closed_by_a_thread_that_has_not_read_to_the_end(environment: Environment) -> None:
    put(environment, b"a", b"1")
    reading = environment.read()
    view = reading.__enter__()
    environment.close()
    with pytest.raises(lmdb.Error):
        view.get(Table.CHUNKS, b"a")


def test_opening_a_store_once_more_does_not_end_the_locks_of_the_first(environment: Environment) -> None:
    """The system ends all of a process's locks on a file as soon as the process closes it, through whatever handle."""
    program = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        print("unused")
    except BlockingIOError:
        print("used")
"""

    def state() -> str:
        done = subprocess.run([sys.executable, "-c", program, environment.path / "lock.mdb"], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert state() == "used"
    with pytest.raises(YesterError):
        Environment(environment.path)
    assert state() == "used"
    put(environment, b"a", b"1")
