"""Decoding a body without patterns gives the same result as the strict decoder."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashflow.backend import ValidationError
from flashflow.backend.api.framework.body_decoder import BodyDecoder
from flashflow.backend.schemas.requests import ActivityIn, DeviceIn, Input, PreferencesIn, SendIn, TemplateIn, TypeIn
from flashflow.backend.schemas.validation import decode

KINDS = (ActivityIn, SendIn, PreferencesIn, TemplateIn, TypeIn, DeviceIn)
DECODERS = {kind: (BodyDecoder(kind), msgspec.json.Decoder(kind)) for kind in KINDS}

WORDS = st.text(st.sampled_from("ab *{}\\\x7f\n\t\x00\u00a0é😀\u202e"), max_size=6)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | WORDS
    | st.sampled_from(["in_app", "general", "https://a.b", "ios"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[type[Input], bytes]:
    kind = draw(st.sampled_from(KINDS))
    names = [field.name for field in msgspec.structs.fields(kind)]
    fields = draw(st.dictionaries(st.sampled_from([*names, "typo"]), VALUES, max_size=8))
    ascii_ = draw(st.booleans())
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : ")]))
    return kind, json.dumps(fields, ensure_ascii=ascii_, separators=separators).encode()


def outcome(decode: Any, body: bytes) -> Any:
    try:
        return msgspec.to_builtins(decode(body))
    except ValidationError as refusal:
        return refusal.errors


@given(bodies())
def test_every_body_is_taken_or_refused_as_the_strict_decoder_does(case: tuple[type[Input], bytes]) -> None:
    kind, body = case
    quick, strict = DECODERS[kind]
    assert outcome(quick.decode, body) == outcome(lambda raw: decode(strict, raw), body)


@pytest.mark.parametrize("user", [" ", "  ", "a\n", "\u007f", "a\\u0000", "\t", ""])
def test_a_name_that_is_blank_or_has_control_characters_is_refused(user: str) -> None:
    body = json.dumps({"user_id": user.replace("\\u0000", "\0"), "activity_type": "x"}, ensure_ascii=False).encode()
    with pytest.raises(ValidationError):
        DECODERS[ActivityIn][0].decode(body)


def test_the_fast_decoder_keeps_fields_and_defaults() -> None:
    quick, strict = DECODERS[SendIn]
    body = b'{"user_id":"ada","title":"Hi","message":"there","actions":[{"label":"Open","url":"https://a.b/c"}]}'
    assert msgspec.structs.asdict(quick.decode(body)).keys() == msgspec.structs.asdict(strict.decode(body)).keys()
    assert type(quick.decode(body)) is not SendIn
    assert quick.decode(body).priority == "normal"
    assert quick.decode(body).actions[0].url == "https://a.b/c"
