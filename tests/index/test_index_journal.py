"""The form of journal objects: what goes in comes out, and any damage is seen."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cozyfs.errors import JournalDamaged
from cozyfs.index import journal
from cozyfs.index.journal import Position, Record

checksums = st.binary(min_size=32, max_size=32)
epochs = st.integers(0, 2**32 - 1)
sequences = st.integers(0, 2**48 - 1)
numbers = st.integers(0, 2**63 - 1)
positions = st.builds(Position, epochs, sequences, checksums)
records = st.builds(
    Record,
    epoch=epochs,
    sequence=sequences,
    previous=positions,
    created_ns=numbers,
    schema_version=st.integers(1, 1000),
    origin=st.binary(min_size=16, max_size=16),
    outbox_seq=numbers,
    transactions=st.integers(1, 2**32 - 1),
    changeset=st.binary(max_size=500),
)


@given(records)
def test_what_was_encoded_is_decoded(record):
    data = journal.encode(record)
    decoded, position = journal.decode(data)
    assert decoded == record
    assert position == (record.epoch, record.sequence, data[-32:])


@given(records, st.data())
def test_damage_of_any_byte_is_seen(record, data):
    encoded = bytearray(journal.encode(record))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(JournalDamaged):
        journal.decode(bytes(encoded))


@given(records, st.data())
def test_a_cut_object_is_seen(record, data):
    encoded = journal.encode(record)
    with pytest.raises(JournalDamaged):
        journal.decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(st.binary(max_size=300))
def test_foreign_bytes_are_damage(data):
    with pytest.raises(JournalDamaged):
        journal.decode(data)


def test_every_single_byte_of_one_object_matters():
    encoded = journal.encode(
        Record(1, 2, Position(1, 1, b"c" * 32), 5, 2, b"o" * 16, 7, 3, os.urandom(300) * 3)
    )
    for place in range(len(encoded)):
        damaged = bytearray(encoded)
        damaged[place] ^= 1
        with pytest.raises(JournalDamaged):
            journal.decode(bytes(damaged))


@given(positions)
def test_positions_are_kept_as_text(position):
    assert Position.from_text(position.to_text()) == position


@given(epochs, sequences, epochs, sequences)
def test_names_sort_as_places_do(epoch, sequence, other_epoch, other_sequence):
    names = journal.object_name(epoch, sequence), journal.object_name(other_epoch, other_sequence)
    places = (epoch, sequence), (other_epoch, other_sequence)
    assert (names[0] < names[1]) == (places[0] < places[1])
    assert journal.parse_name(names[0]) == places[0]


@pytest.mark.parametrize("name", ["", "x", "00000001-00000000000g", "00000001-0000000000001"])
def test_other_names_are_none(name):
    assert journal.parse_name(name) is None
