"""Ids and addresses as stored bytes: they come back as they were given, and no two are stored alike."""

from __future__ import annotations

from ipaddress import ip_address
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashflow.backend.core.encoding import decode_address, decode_id, encode_address, encode_id

UUIDS = st.uuids().map(str)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
SIXTEEN = st.text("0123456789abcdefä-", min_size=8, max_size=16).filter(lambda text: len(text.encode()) == 16)
ADDRESSES = st.ip_addresses().map(str)


@given(st.one_of(UUIDS, TEXTS, SIXTEEN))
def test_an_id_comes_back_as_it_was_given(text: str) -> None:
    stored = encode_id(text)
    assert isinstance(stored, bytes)
    assert decode_id(stored) == text


@given(st.one_of(ADDRESSES, TEXTS, SIXTEEN, st.text("abcd", min_size=4, max_size=4)))
def test_an_address_comes_back_as_it_was_given(text: str) -> None:
    stored = encode_address(text)
    assert isinstance(stored, bytes)
    assert decode_address(stored) == text


@given(UUIDS)
def test_the_text_of_the_bytes_of_a_uuid_is_another_id(text: str) -> None:
    raw = UUID(text).bytes
    try:
        other = raw.decode()
    except UnicodeDecodeError:
        return
    assert encode_id(other) != encode_id(text)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("0197a1b2-0000-7000-8000-000000000001", bytes.fromhex("0197a1b2000070008000000000000001")),
        ("0197A1B2-0000-7000-8000-000000000001", b"0197A1B2-0000-7000-8000-000000000001"),
        ("order-7", b"order-7"),
        ("0123456789abcdef", b"0123456789abcdef\xff"),
        ("ä0123456789abcd", "ä0123456789abcd".encode() + b"\xff"),
        ("ä0123456789abcde", "ä0123456789abcde".encode()),
    ],
)
def test_how_ids_are_stored(text: str, stored: bytes) -> None:
    assert encode_id(text) == stored


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("192.0.2.7", ip_address("192.0.2.7").packed),
        ("2001:db8::1", ip_address("2001:db8::1").packed),
        ("2001:DB8::1", b"2001:DB8::1"),
        ("::1 ", b"::1 \xff"),
        ("unknown", b"unknown"),
    ],
)
def test_how_addresses_are_stored(text: str, stored: bytes) -> None:
    assert encode_address(text) == stored
    assert encode_address(None) is decode_address(None) is None
