# SPDX-License-Identifier: MIT
"""Key slots: the store key, sealed once for each passphrase and recovery key that may open the store (docs/format.md §11.1).

Slots lie in META, each under a number. A slot is bound to the store's parameters, which hold its id and the costs of Argon2, and to its own
number, kind, time and label: none can be taken to another place, and nobody can make guessing cheaper unnoticed. Every slot is
always tried, after one run of Argon2 whatever slots there are, so the time tells nothing but that the passphrase was wrong.

Only who knows its secret can see that a slot opens. So that an open store can tell as well, each slot ends with a keyed hash of itself,
whose key comes from the store key: a slot is *sound* if it is right, and none that is not counts where the last way in must be kept.

Crash at any point: each change is one transaction. Before it the old slots open the store, after it the new ones.
"""

import hmac
import os
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import msgspec
from blake3 import blake3
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from yester.errors import ConflictError, LockedError, NotFoundError, StoreAccessError, UsageError
from yester.store.keys import KEY_BYTES, SALT_BYTES, TAG_BYTES, Box, StoreKey
from yester.store.lmdb import Environment, ReadTransaction, Table, WriteTransaction
from yester.store.parameters import FORMAT_KEY, SLOT_PREFIX, Encryption, Parameters
from yester.store.recovery import RECOVERY_KEY_BYTES
from yester.store.summary import SnapshotSummary

SLOT_VERSION = 1
_SLOTS_MAX = 64
_LABEL_CHARACTERS_MAX = 200


class SlotKind(IntEnum):
    """What opens a slot."""

    PASSPHRASE = 1
    RECOVERY_KEY = 2


class Slot(msgspec.Struct, frozen=True, array_like=True):
    """One sealed copy of the store key. All but `sealed` can be read by everybody, and changed by nobody without breaking the seal.

    `proof` is a keyed hash of everything before it, and of what `beside` has: see `is_sound`.
    """

    version: int
    number: int
    kind: int
    created_ns: int
    label: str
    salt: bytes
    sealed: bytes
    proof: bytes = b""

    def beside(self, parameters: bytes) -> bytes:
        """What the slot is bound to: the store's parameters as they are stored, with what a later release may have added."""
        fixed = [self.version, self.number, self.kind, self.created_ns, self.label, self.salt]
        return msgspec.msgpack.encode(fixed) + parameters


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of a store that can be read, by number, and what they are bound to."""

    parameters: bytes
    slots: tuple[Slot, ...]
    damaged: tuple[int, ...]
    """The numbers of the others."""


class Secret:
    """What somebody knows or has that opens slots of one kind. `stretched` is 32 bytes that are as dear to guess as it is."""

    def __init__(self, kind: SlotKind, stretched: bytes) -> None:
        self.kind = kind
        self.stretched = stretched

    def box(self, slot: Slot) -> Box:
        """The box of a slot, with a key of its own."""
        return Box(blake3(slot.salt + slot.number.to_bytes(4, "little"), key=self.stretched).digest())


def passphrase_secret(passphrase: str, encryption: Encryption) -> Secret:
    """The secret that a passphrase is. Takes as long, and as much memory, as the store's parameters say.

    The same text is the same passphrase however a keyboard composes its accents (Unicode NFC).

    Raises:
        UsageError: it is empty. StoreAccessError: this machine cannot do it.
    """
    if not passphrase:
        message = "the passphrase is empty; nothing was changed"
        raise UsageError(message, hint="give one of some words")
    try:
        argon2 = Argon2id(
            salt=encryption.salt,
            length=KEY_BYTES,
            iterations=encryption.iterations,
            lanes=encryption.lanes,
            memory_cost=encryption.memory_kib,
        )
        return Secret(SlotKind.PASSPHRASE, argon2.derive(unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")))
    except (UnsupportedAlgorithm, MemoryError) as error:
        message = (
            f"the passphrase cannot be checked: Argon2 with {encryption.memory_kib >> 10} MiB is not to be had here; nothing was changed"
        )
        raise StoreAccessError(message, hint="free memory, or use a recovery key, which needs none") from error


def recovery_secret(recovery_key: bytes) -> Secret:
    """The secret that a recovery key is."""
    assert len(recovery_key) == RECOVERY_KEY_BYTES
    return Secret(SlotKind.RECOVERY_KEY, recovery_key)


class LockedStore:
    """What can be read of an encrypted store before it is unlocked."""

    def __init__(self, path: Path, parameters: Parameters, found: Slots) -> None:
        assert parameters.encryption is not None
        self.path = path
        self.parameters = parameters
        self.encryption = parameters.encryption
        self.slots = found.slots
        self.damaged_slots = found.damaged
        self._bound_to = found.parameters

    def open(self, secret: Secret) -> StoreKey:
        """The store key.

        Raises:
            LockedError: no slot opens with it.
        """
        found = [key for slot in self.slots if slot.kind == secret.kind and (key := _open(slot, secret, self._bound_to)) is not None]
        if found:
            return found[0]
        if not self.slots:
            message = f"the store {self.path} has no key slot that can be read: they are lost or damaged"
            raise LockedError(message, hint="restore the store from a copy; without a slot nobody can open it")
        what = "passphrase" if secret.kind is SlotKind.PASSPHRASE else "recovery key"
        message = f"wrong {what} for the store {self.path}; nothing was read or changed"
        raise LockedError(message, hint="`yester key list` shows which keys open it, without one")

    def opens(self, slot: Slot, secret: Secret) -> bool:
        """Whether this slot is one that the secret opens."""
        return slot.kind == secret.kind and _open(slot, secret, self._bound_to) is not None


Unlock = Callable[[LockedStore], StoreKey]
"""Finds the key of an encrypted store, by asking a person perhaps. Raises `LockedError` if that is not to be had."""


def _open(slot: Slot, secret: Secret, parameters: bytes) -> StoreKey | None:
    raw = secret.box(slot).open(slot.sealed, beside=slot.beside(parameters))
    return StoreKey(raw) if raw is not None else None


def read_slots(view: ReadTransaction) -> Slots:
    """All slots that can be read, by number. One that is damaged is left out: it must not keep the others from being used."""
    found, damaged = [], []
    for key, value in view.iterate(Table.META, SLOT_PREFIX):
        slot = _decode(key, value)
        if slot is None:
            damaged.append(int.from_bytes(key[len(SLOT_PREFIX) :], "big"))
        else:
            found.append(slot)
    return Slots(bytes(view.get(Table.META, FORMAT_KEY) or b""), tuple(found), tuple(damaged))


def _decode(key: bytes, value: bytes | memoryview) -> Slot | None:
    try:
        slot = msgspec.msgpack.decode(value, type=Slot)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    is_known = slot.version == SLOT_VERSION and slot.kind in set(SlotKind) and 0 <= slot.number < 2**32
    return slot if is_known and _slot_key(slot.number) == key and len(slot.sealed) == KEY_BYTES + TAG_BYTES else None


def is_sound(slot: Slot, key: StoreKey, parameters: bytes) -> bool:
    """Whether a slot is as it was made for the store with this key and these parameters: then what it was made for opens it."""
    return hmac.compare_digest(slot.proof, _proof(slot, key, parameters))


def unsound_slots(view: ReadTransaction, key: StoreKey) -> tuple[int, ...]:
    """The numbers of the slots on which nobody should rely, of a store with this key."""
    found = read_slots(view)
    return tuple(sorted((*found.damaged, *(slot.number for slot in found.slots if not is_sound(slot, key, found.parameters)))))


def _proof(slot: Slot, key: StoreKey, parameters: bytes) -> bytes:
    return blake3(slot.beside(parameters) + slot.sealed, key=key.slot_proof_key()).digest()


def judge_label(label: str) -> None:
    """Raises UsageError if a label is too long, or not printable."""
    if len(label) > _LABEL_CHARACTERS_MAX or not label.isprintable():
        message = f"a label has at most {_LABEL_CHARACTERS_MAX} characters, and all can be printed; nothing was changed"
        raise UsageError(message)


def put_slot(transaction: WriteTransaction, key: StoreKey, secret: Secret, label: str, *, summary: SnapshotSummary | None = None) -> Slot:
    """Seal the store key for a secret, in a slot of a new number, which is counted in the summary of the store if that has one already.

    Raises:
        ConflictError: there are too many. UsageError: the label is too long, or not printable.
    """
    judge_label(label)
    taken = {int.from_bytes(stored[len(SLOT_PREFIX) :], "big") for stored, _ in transaction.iterate(Table.META, SLOT_PREFIX)}
    if len(taken) >= _SLOTS_MAX:
        message = f"the store has {len(taken)} keys already, and no more fit; nothing was changed"
        raise ConflictError(message, hint="take one away with `yester key remove`")
    number = next(number for number in range(1, _SLOTS_MAX + 2) if number not in taken)
    slot = Slot(SLOT_VERSION, number, secret.kind, time.time_ns(), label, os.urandom(SALT_BYTES), b"")
    parameters = bytes(transaction.get(Table.META, FORMAT_KEY) or b"")
    slot = msgspec.structs.replace(slot, sealed=secret.box(slot).seal(key.raw, beside=slot.beside(parameters)))
    slot = msgspec.structs.replace(slot, proof=_proof(slot, key, parameters))
    encoded = msgspec.msgpack.encode(slot)
    if summary is not None:
        summary.count(transaction, Table.META, _slot_key(number), encoded)
    transaction.put(Table.META, _slot_key(number), encoded)
    return slot


class KeySlots:
    """The slots of a store that is open. Each change is durable on return, and whole or not at all."""

    def __init__(self, environment: Environment) -> None:
        assert environment.key is not None
        self._environment = environment
        self._key = environment.key

    def list(self) -> tuple[Slot, ...]:
        """All there are, by number."""
        with self._environment.read() as view:
            return read_slots(view).slots

    def add(self, secret: Secret, label: str = "") -> Slot:
        """Have one more secret open the store."""
        summary = self._environment.summary
        return self._environment.write(lambda transaction: put_slot(transaction, self._key, secret, label, summary=summary))

    def remove(self, number: int) -> Slot | None:
        """Have a slot open the store no more; returns it, or None if it could not be read.

        Raises:
            NotFoundError: there is none of that number. ConflictError: nothing else would open the store; nothing was changed.
        """
        return self._environment.write(lambda transaction: self._remove(transaction, number, kept=0))

    def look_at_removal(self, number: int, *, is_replaced: bool = False) -> Slot | None:
        """The slot that `remove` (or `replace`) would take away; None if it cannot be read.

        Raises:
            NotFoundError, ConflictError: as they do.
        """
        with self._environment.read() as view:
            return self._removable(view, number, kept=int(is_replaced))

    def replace(self, number: int, secret: Secret) -> Slot:
        """Have another secret open the store instead of a slot's: the old slot goes in the transaction that the new one comes in.

        Raises:
            NotFoundError: there is none of that number; nothing was changed.
        """

        def apply(transaction: WriteTransaction) -> Slot:
            old = self._remove(transaction, number, kept=1)
            label = old.label if old is not None else ""
            return put_slot(transaction, self._key, secret, label, summary=self._environment.summary)

        return self._environment.write(apply)

    def _remove(self, transaction: WriteTransaction, number: int, *, kept: int) -> Slot | None:
        slot = self._removable(transaction, number, kept=kept)
        if self._environment.summary is not None:
            self._environment.summary.count(transaction, Table.META, _slot_key(number), None)
        transaction.delete(Table.META, _slot_key(number))
        return slot

    def _removable(self, view: ReadTransaction, number: int, *, kept: int) -> Slot | None:
        """A slot that can be taken away: others that are sound, or `kept` that the caller makes, are left."""
        found = read_slots(view)
        slots = {slot.number: slot for slot in found.slots}
        if number not in slots and number not in found.damaged:
            message = f"the store {self._environment.path} has no key {number}; nothing was changed"
            raise NotFoundError(message, hint="`yester key list` shows those there are")
        sound = {slot.number for slot in found.slots if is_sound(slot, self._key, found.parameters)}
        if not sound - {number} and not kept:
            damaged = ": others are damaged" if len(slots) + len(found.damaged) > 1 else ""
            message = (
                f"key {number} is the only one that opens the store {self._environment.path} for certain{damaged}; nothing was changed"
            )
            raise ConflictError(
                message, hint="add another with `yester key add` first, or put a new one in its place with `yester key change`"
            )
        return slots.get(number)


def _slot_key(number: int) -> bytes:
    return SLOT_PREFIX + number.to_bytes(4, "big")
