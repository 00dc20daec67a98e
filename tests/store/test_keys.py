"""Object keys and ids: the vectors of the Cozy storage format, and where cozyfs does better."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cozyfs.errors import UsageError
from cozyfs.store.keys import (
    check_db_prefix,
    default_db_prefix,
    new_doc_id,
    new_internal_id,
    object_key,
    object_name,
    parse_object_name,
    thumb_name,
)

LONG = "abcdefghijklmnopqrstuvwxyz012345"
INTERNAL = "0123456789abcdef"
SPLIT = "abcdefghijklmnopqrstuv/wxyz0/12345/0123456789abcdef"


@pytest.mark.parametrize(
    ("prefix", "doc_id", "internal_id", "key"),
    [
        ("alice.example.com/", LONG, INTERNAL, f"alice.example.com/{SPLIT}"),
        ("alice.example.com", LONG, INTERNAL, f"alice.example.com/{SPLIT}"),
        ("alice.example.com/", "short", "id", "alice.example.com/short/id"),
    ],
)
def test_an_object_key_is_the_prefix_and_the_name(prefix, doc_id, internal_id, key):
    assert object_key(prefix, doc_id, internal_id) == key


@pytest.mark.parametrize(
    ("doc_id", "internal_id", "name"),
    [
        (LONG, INTERNAL, SPLIT),
        ("short", "id", "short/id"),
        (
            "019d35b1-9dc3-78ec-994d-f5443367f1b6",
            "AbCdEfGhIjKlMnOp",
            "019d35b1-9dc3-78ec-994d-f5443367f1b6/AbCdEfGhIjKlMnOp",
        ),
        (
            "019d35b19dc378ec994df5443367f1b6",
            "3-0123456789abcdef0123456789abcdef",
            "019d35b19dc378ec994df5443367f1b6/3-0123456789abcdef0123456789abcdef",
        ),
    ],
)
def test_a_name_is_split_only_for_an_id_of_32_with_an_internal_id_of_16(doc_id, internal_id, name):
    assert object_name(doc_id, internal_id) == name
    assert parse_object_name(name) == (doc_id, internal_id)


def test_a_name_without_a_slash_has_no_internal_id():
    assert parse_object_name("whole") == ("whole", "")


def test_an_id_of_34_characters_is_not_taken_for_a_split_one():
    name = object_name("x" * 34, INTERNAL)

    assert len(name) == len(SPLIT)
    assert parse_object_name(name) == ("x" * 34, INTERNAL)


ids = st.text(st.characters(exclude_characters="/", codec="utf-8"), min_size=1, max_size=60)


@given(ids, ids)
def test_parsing_a_name_gives_back_the_ids_of_any_length(doc_id, internal_id):
    assert parse_object_name(object_name(doc_id, internal_id)) == (doc_id, internal_id)


def test_a_thumbnail_name_is_split_for_ids_of_32_only():
    assert thumb_name(LONG) == "abcdefghijklmnopqrstuv/wxyz0/12345"
    assert thumb_name("x" * 36) == "x" * 36


@pytest.mark.parametrize("prefix", ["", "/", "a/b", "a\nb", "a\0", "\x7f", ".", ".."])
def test_a_prefix_that_would_mix_instances_is_refused(prefix):
    with pytest.raises(UsageError):
        check_db_prefix(prefix)
    with pytest.raises(UsageError):
        object_key(prefix, "id", "internal")


def test_the_default_prefix_is_the_cozy_servers():
    assert default_db_prefix("alice.example.com") == "cozy0d88385e5e731af27c0f1c0a312135b9"


def test_a_document_id_is_a_uuid_of_version_7_without_dashes():
    now_ns = 1_700_000_000_123_456_789

    made = new_doc_id(now_ns)

    assert re.fullmatch(r"[0-9a-f]{32}", made)
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_document_ids_only_grow_even_when_the_clock_goes_back():
    now_ns = 2_000_000_000_000_000_000
    steps = [0, 0, 10**6, 5, -(10**12), 10**7]

    made = [new_doc_id(now_ns + step) for step in steps]

    assert made == sorted(set(made))
    assert int(made[0][:12], 16) == now_ns // 10**6


def test_an_internal_id_is_16_letters_and_uses_them_all():
    made = [new_internal_id() for _ in range(500)]

    assert all(re.fullmatch(r"[a-zA-Z]{16}", one) for one in made)
    assert len(set(made)) == 500
    assert len(set("".join(made))) == 52
