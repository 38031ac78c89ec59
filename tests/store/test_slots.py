# SPDX-License-Identifier: MIT
"""Key slots: what opens a store, what does not, and that somebody always can."""

import os
import time
from pathlib import Path

import msgspec
import pytest

from tests.encrypted import CHEAP, PASSPHRASE, create_encrypted, open_encrypted, unlock
from yester.core.chunking import ChunkParams
from yester.errors import ConflictError, CorruptionError, LockedError, NotFoundError, UsageError
from yester.store.keys import Box, StoreKey
from yester.store.lmdb import Environment, Table
from yester.store.parameters import SLOT_PREFIX, Encryption, Parameters, decode_parameters, encode_parameters
from yester.store.slots import KeySlots, LockedStore, Secret, Slot, passphrase_secret, recovery_secret, unsound_slots
from yester.store.store import Store

SECOND = passphrase_secret("a second one", CHEAP)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_encrypted(tmp_path / "store").close()
    return tmp_path / "store"


def slots_of(store: Store) -> KeySlots:
    return KeySlots(store.environment)


def opens(path: Path, secret: Secret) -> bool:
    try:
        Store.open(path, unlock=lambda locked: locked.open(secret)).close()
    except LockedError:
        return False
    return True


def locked(path: Path) -> LockedStore:
    found = Store.read_locked(path)
    assert found is not None
    return found


def overwrite_slot(path: Path, number: int, change: dict[str, object] | None) -> None:
    """Change fields of a slot as somebody without a key could; None makes it garbage."""
    with Environment(path) as environment:
        key = SLOT_PREFIX + number.to_bytes(4, "big")
        value = environment.get(Table.META, key)
        assert value is not None
        slot = msgspec.msgpack.decode(value, type=Slot)
        new = b"\xc1garbage" if change is None else msgspec.msgpack.encode(msgspec.structs.replace(slot, **change))
        environment.write(lambda transaction: transaction.put(Table.META, key, new))


def test_a_passphrase_opens_its_store_and_others_do_not(path: Path) -> None:
    assert opens(path, passphrase_secret(PASSPHRASE, CHEAP))
    for wrong in ("x", PASSPHRASE.upper(), PASSPHRASE + " "):
        with pytest.raises(LockedError, match=r"wrong passphrase for the store .*; nothing was read or changed"):
            locked(path).open(passphrase_secret(wrong, CHEAP))


def test_a_store_is_not_opened_without_a_key(path: Path) -> None:
    with pytest.raises(LockedError, match="is encrypted, and there is no passphrase or key"):
        Store.open(path)


def test_accents_are_the_same_however_they_are_typed() -> None:
    assert passphrase_secret("caf\u00e9", CHEAP).stretched == passphrase_secret("cafe\u0301", CHEAP).stretched


def test_an_empty_passphrase_is_refused() -> None:
    with pytest.raises(UsageError):
        passphrase_secret("", CHEAP)


def test_each_of_several_keys_opens_the_store_and_sees_the_same(path: Path) -> None:
    recovery = recovery_secret(os.urandom(32))
    with open_encrypted(path) as store:
        raw = store.environment.key
        assert raw is not None
        numbers = [slots_of(store).add(SECOND, "second").number, slots_of(store).add(recovery).number]
    assert numbers == [2, 3]
    for secret in (passphrase_secret(PASSPHRASE, CHEAP), SECOND, recovery):
        assert locked(path).open(secret).raw == raw.raw
    assert [(slot.number, slot.label) for slot in locked(path).slots] == [(1, ""), (2, "second"), (3, "")]


def test_a_secret_of_one_kind_is_none_of_the_other(path: Path) -> None:
    with open_encrypted(path) as store:
        slots_of(store).add(recovery_secret(bytes(32)))
    assert not opens(path, Secret(SECOND.kind, bytes(32)))


def test_a_removed_key_opens_nothing_and_the_last_cannot_be_removed(path: Path) -> None:
    with open_encrypted(path) as store:
        slots = slots_of(store)
        slots.add(SECOND)
        slots.remove(1)
        with pytest.raises(ConflictError, match="the only one that opens"):
            slots.remove(2)
        with pytest.raises(NotFoundError):
            slots.remove(1)
    assert not opens(path, passphrase_secret(PASSPHRASE, CHEAP))
    assert opens(path, SECOND)


def test_the_only_key_can_be_changed(path: Path) -> None:
    with open_encrypted(path) as store:
        assert slots_of(store).replace(1, SECOND).number == 1
    assert opens(path, SECOND)
    assert not opens(path, passphrase_secret(PASSPHRASE, CHEAP))


@pytest.mark.expect_log("the keys of .* are not those that were recorded")
def test_a_damaged_slot_beside_a_good_one_hurts_nobody_else(path: Path) -> None:
    with open_encrypted(path) as store:
        slots_of(store).add(SECOND)
    overwrite_slot(path, 1, None)
    assert locked(path).damaged_slots == (1,)
    assert opens(path, SECOND)
    assert not opens(path, passphrase_secret(PASSPHRASE, CHEAP))
    with Store.open(path, unlock=lambda locked: locked.open(SECOND)) as store, pytest.raises(ConflictError, match="the only one"):
        slots_of(store).remove(2)  # the damaged one is no reason to let it go
    with Store.open(path, unlock=lambda locked: locked.open(SECOND)) as store:
        assert slots_of(store).add(passphrase_secret(PASSPHRASE, CHEAP)).number == 3, "a damaged slot is not written over"


@pytest.mark.expect_log("the keys of .* are not those that were recorded")
@pytest.mark.parametrize("change", [None, {"sealed": bytes(48)}, {"label": "other"}, {"proof": b""}, {"proof": bytes(32)}])
def test_a_slot_that_opens_nothing_is_no_reason_to_let_the_last_one_go(path: Path, change: dict[str, object] | None) -> None:
    with open_encrypted(path) as store:
        slots_of(store).add(SECOND)
    overwrite_slot(path, 2, change)
    with open_encrypted(path) as store:
        with pytest.raises(
            ConflictError, match=r"key 1 is the only one that opens .* for certain: others are damaged; nothing was changed"
        ):
            slots_of(store).remove(1)
        slots_of(store).remove(2)
        assert slots_of(store).add(SECOND).number == 2
        slots_of(store).remove(1)
    assert opens(path, SECOND)


@pytest.mark.expect_log("the keys of .* are not those that were recorded")
@pytest.mark.parametrize("change", [None, {"sealed": bytes(48)}])
def test_a_damaged_key_can_be_put_anew(path: Path, change: dict[str, object] | None) -> None:
    with open_encrypted(path) as store:
        slots_of(store).add(SECOND)
    overwrite_slot(path, 2, change)
    with open_encrypted(path) as store:
        slots_of(store).replace(2, SECOND)
    assert opens(path, SECOND)


def test_a_slot_of_another_store_is_not_sound(path: Path, tmp_path: Path) -> None:
    create_encrypted(tmp_path / "other").close()
    with open_encrypted(path) as store, open_encrypted(tmp_path / "other") as other:
        slots_of(store).add(SECOND)
        slots_of(other).add(SECOND)
        key = SLOT_PREFIX + (2).to_bytes(4, "big")
        foreign = other.environment.get(Table.META, key)
        assert foreign is not None
        store.environment.write(lambda transaction: transaction.put(Table.META, key, foreign))
        assert store.environment.key is not None
        with store.environment.read() as view:
            assert unsound_slots(view, store.environment.key) == (2,)


def test_a_store_that_has_lost_all_slots_says_so(path: Path) -> None:
    overwrite_slot(path, 1, None)
    with pytest.raises(LockedError, match="no key slot that can be read"):
        open_encrypted(path)


@pytest.mark.parametrize(
    "change", [{"number": 2}, {"kind": 2}, {"created_ns": 5}, {"label": "other"}, {"salt": bytes(16)}, {"sealed": bytes(48)}]
)
def test_a_slot_that_was_changed_opens_nothing(path: Path, change: dict[str, object]) -> None:
    overwrite_slot(path, 1, change)
    with pytest.raises(LockedError):
        open_encrypted(path)


@pytest.mark.parametrize(
    "change",
    [
        {"chunking": ChunkParams(64, 256, 1024)},
        {"store_id": bytes(16)},
        {"created_ns": 1},
        {"encryption": msgspec.structs.replace(CHEAP, iterations=2)},
        {"encryption": msgspec.structs.replace(CHEAP, salt=bytes(16))},
    ],
)
def test_parameters_that_were_changed_open_nothing(path: Path, change: dict[str, object]) -> None:
    parameters = msgspec.structs.replace(locked(path).parameters, **change)
    with Environment(path) as environment:
        environment.write(lambda transaction: transaction.put(Table.META, b"format", encode_parameters(parameters)))
    with pytest.raises(LockedError):
        open_encrypted(path)


def test_encryption_cannot_be_taken_off_a_store(path: Path) -> None:
    """Whoever is made to believe that a store is plain would write into it as it is."""
    parameters = msgspec.structs.replace(locked(path).parameters, version=1, encryption=None)
    with Environment(path) as environment:
        environment.write(lambda transaction: transaction.put(Table.META, b"format", encode_parameters(parameters)))
    with pytest.raises(CorruptionError, match="says that it is plain, but has key slots"):
        open_encrypted(path)


@pytest.mark.parametrize(
    ("memory_kib", "iterations", "lanes"), [(1 << 30, 4, 4), (131072, 1 << 31, 4), (131072, 4, 1 << 20), (1, 1, 4), (64, 0, 1), (64, 1, 0)]
)
def test_costs_that_would_take_all_memory_or_all_day_are_refused(memory_kib: int, iterations: int, lanes: int) -> None:
    record = msgspec.msgpack.encode([2, bytes(16), 1, [64, 256, 1024], [bytes(16), memory_kib, iterations, lanes]])
    with pytest.raises(CorruptionError, match="is not what yester uses"):
        decode_parameters(record, Path("store"))


@pytest.mark.parametrize("record", [[1, bytes(16), 1, [64, 256, 1024], [bytes(16)]], [2, bytes(16), 1, [64, 256, 1024]]])
def test_a_format_that_does_not_go_with_encryption_is_damage(record: list[object]) -> None:
    with pytest.raises(CorruptionError, match="does not go with"):
        decode_parameters(msgspec.msgpack.encode(record), Path("store"))


def test_a_release_that_knows_only_plain_stores_refuses_an_encrypted_one(path: Path) -> None:
    record = msgspec.msgpack.decode(encode_parameters(locked(path).parameters))
    assert record[0] == 2
    plain = Parameters(1, bytes(16), 1)
    assert msgspec.msgpack.decode(encode_parameters(plain))[0] == 1


def test_a_wrong_passphrase_takes_as_long_as_a_right_one_however_many_keys_there_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of Argon2, and every slot tried: counted, since a clock would sometimes be wrong."""
    tried: list[int] = []
    with open_encrypted(path) as store:
        for number in range(5):
            slots_of(store).add(passphrase_secret(f"passphrase {number}", CHEAP))
    real_box = Secret.box

    def box(secret: Secret, slot: Slot) -> Box:
        tried.append(slot.number)
        return real_box(secret, slot)

    monkeypatch.setattr(Secret, "box", box)
    found = locked(path)
    for passphrase in (PASSPHRASE, "passphrase 0", "passphrase 4", "wrong"):
        tried.clear()
        secret = passphrase_secret(passphrase, CHEAP)
        if passphrase == "wrong":
            with pytest.raises(LockedError):
                found.open(secret)
        else:
            found.open(secret)
        assert tried == [1, 2, 3, 4, 5, 6]


def test_keys_are_not_shown() -> None:
    key, secret = StoreKey(b"k" * 32), Secret(SECOND.kind, b"s" * 32)
    assert "kk" not in f"{key!r}{key.__dict__.keys()}"
    assert "ss" not in repr(secret)


def test_what_is_too_much_is_refused(path: Path) -> None:
    with open_encrypted(path) as store:
        with pytest.raises(UsageError, match="label"):
            slots_of(store).add(SECOND, "x" * 201)
        with pytest.raises(UsageError, match="label"):
            slots_of(store).add(SECOND, "a\nb")
        for _ in range(63):
            slots_of(store).add(SECOND)
        with pytest.raises(ConflictError, match="no more fit"):
            slots_of(store).add(SECOND)


def test_the_default_costs_are_a_good_part_of_a_second() -> None:
    begin = time.process_time()
    passphrase_secret(PASSPHRASE, Encryption(bytes(16)))
    assert time.process_time() - begin > 0.05


def test_unlocking_twice_gives_the_same_key(path: Path) -> None:
    assert unlock(locked(path)).raw == unlock(locked(path)).raw
