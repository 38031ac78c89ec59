# SPDX-License-Identifier: MIT
"""Which entries of the chunk index lead astray, and where chunks are that none leads to: a part of `engine.repair`.

Every segment is decoded and every chunk in it hashed, so what an entry says is not believed but compared. A chunk that stands in the store
twice, as it may where two writers met, is found at its other place. Changes nothing.

Memory: as `engine.places` has it, some 200 bytes for each entry that is wrong or missing, and the damaged segments that can be made again.
"""

from dataclasses import dataclass

from yester.core.ids import ID_BYTES, ChunkId
from yester.engine.check import IndexChange
from yester.engine.check_data import hash_segment, read_segments, segment_number
from yester.engine.places import INDEXED, SOUND, Places, SegmentReader
from yester.engine.steps import StepProgress
from yester.errors import CorruptionError, FormatError
from yester.store.chunks import Location, unpack_location
from yester.store.lmdb import TOUCHED_BYTES, Environment, ReadTransaction, Table
from yester.store.salvage import DataFile
from yester.store.segments import Codec, guess_header, parse_header, segment_length


@dataclass(frozen=True, slots=True)
class Survey:
    """What all segments hold, held against the index."""

    change: IndexChange
    unreadable: tuple[bytes, ...]
    """Keys of segments of which nothing can be read."""
    foreign: tuple[bytes, ...]
    """Keys of segments that say a newer release wrote them: they stay."""
    mended: dict[bytes, bytes]
    """Segments whose headers, or the lengths of their rows, were damaged, and that are known all the same, by key."""
    read_bytes: int


def survey_segments(environment: Environment, progress: StepProgress) -> Survey:
    """Read all segments, and compare."""
    places, guesses = _find_places(environment)
    placed: dict[ChunkId, Location] = {}
    unreadable: list[bytes] = []
    foreign: list[bytes] = []
    mended: dict[bytes, bytes] = {}
    read_bytes = 0
    reader = SegmentReader(environment)
    for batch in read_segments(environment, progress):
        with environment.read() as view:
            for segment in batch:
                read_bytes += segment.raw_bytes
                number = segment_number(segment.key)
                if segment.chunks is not None and number is not None:
                    _compare(view, reader, places, number, segment.chunks, placed)
                elif _is_confirmed(environment, view, places, number, guesses.get(segment.key, b"")):
                    mended[segment.key] = guesses[segment.key]
                else:
                    (foreign if segment.is_foreign else unreadable).append(segment.key)
    progress.begin("chunk index")
    with environment.read() as view:
        dropped = _find_astray(view, reader, places, placed)
    return Survey(IndexChange(dropped, placed), tuple(unreadable), tuple(foreign), mended, read_bytes)


def _find_places(environment: Environment) -> tuple[Places, dict[bytes, bytes]]:
    """All places, and the segments that are damaged, as they must have been, by key."""
    places = Places()
    guesses: dict[bytes, bytes] = {}
    with environment.read() as view:
        for key, stored in view.iterate(Table.SEGMENTS):
            number = segment_number(key)
            if number is not None:
                try:
                    places.add_segment(number, parse_header(stored, environment.key).bounds, len(stored))
                except (CorruptionError, FormatError):
                    guess = _mended(environment, key, stored)
                    if guess is not None:
                        places.add_segment(number, parse_header(guess, environment.key).bounds, len(guess))
                        guesses[key] = guess
            environment.release_pages(TOUCHED_BYTES)
    return places, guesses


def _mended(environment: Environment, key: bytes, stored: bytes | memoryview) -> bytes | None:
    """A segment as it must have been, where its header or the length that its row states was hit; None if that cannot be told."""
    with DataFile(environment.path) as file:
        run = file.read_run(Table.SEGMENTS.value, key)
    length = segment_length(lambda count: run[:count], environment.key)
    return run[:length] if length not in {0, len(stored)} and length <= len(run) else guess_header(stored, environment.key)


def _is_confirmed(environment: Environment, view: ReadTransaction, places: Places, number: int | None, guess: bytes) -> bool:
    """Whether a chunk in a segment, as it must have been, is what the index says is there; marks those that are."""
    if number is None or not guess:
        return False
    chunks, _ = hash_segment(environment, Codec(environment.key), guess)
    is_right = False
    for place, chunk in enumerate(chunks):
        here = Location(number, place)
        if bytes(view.get(Table.CHUNKS, chunk) or b"") == here.pack():
            places.bits[places.find(here)] |= SOUND
            is_right = True
    return is_right


def _compare(
    view: ReadTransaction, reader: SegmentReader, places: Places, number: int, chunks: list[ChunkId], placed: dict[ChunkId, Location]
) -> None:
    """Mark the places of a segment that the index names rightly; note the chunks that it does not find."""
    for place, chunk in enumerate(chunks):
        here = Location(number, place)
        at = places.find(here)
        if at < 0:
            continue  # it came meanwhile
        entry = view.get(Table.CHUNKS, chunk)
        if entry is not None and bytes(entry) == here.pack():
            places.bits[at] |= SOUND
        elif chunk not in placed and (entry is None or not _is_there(view, reader, places, chunk, entry)):
            placed[chunk] = here


def _is_there(view: ReadTransaction, reader: SegmentReader, places: Places, chunk: ChunkId, entry: bytes | memoryview) -> bool:
    """Whether the chunk is where its entry leads."""
    return _place_of(places, entry) >= 0 and reader.holds(view, chunk, unpack_location(entry))


def _find_astray(view: ReadTransaction, reader: SegmentReader, places: Places, placed: dict[ChunkId, Location]) -> set[ChunkId]:
    """The chunks whose entry leads to something else, and that are nowhere else either."""
    astray: set[ChunkId] = set()
    contested: set[int] = set()
    for key, value in view.iterate(Table.CHUNKS):
        chunk = ChunkId(key)
        at = _place_of(places, value)
        if len(key) != ID_BYTES or (chunk not in placed and (at < 0 or not places.bits[at] & SOUND)):
            astray.add(chunk)
        elif chunk not in placed:
            if places.bits[at] & INDEXED:
                contested.add(at)
            places.bits[at] |= INDEXED
    if contested:
        for key, value in view.iterate(Table.CHUNKS):
            if _place_of(places, value) in contested and not _is_there(view, reader, places, ChunkId(key), value):
                astray.add(ChunkId(key))
    return astray


def _place_of(places: Places, entry: bytes | memoryview) -> int:
    """The number of the place that an entry names; -1 if there is none."""
    try:
        return places.find(unpack_location(entry))
    except CorruptionError:
        return -1
