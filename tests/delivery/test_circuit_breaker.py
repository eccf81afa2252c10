"""One server of many that hangs takes one connection at most, once that is known."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest

from flashflow.backend.delivery.net import circuit_breaker
from flashflow.backend.delivery.net.circuit_breaker import CircuitBreaker
from flashflow.backend.domain.channel import Permanent, Transient

SLOW, OTHER = "https://slow.example", "https://other.example"


def late(found: CircuitBreaker, server: str = SLOW) -> None:
    """One try that the server did not answer in time."""
    with pytest.raises(Transient, match="late"), found.exchange(server):
        raise Transient("timeout", "It was late.")


def asked(found: CircuitBreaker, server: str = SLOW) -> bool:
    """Whether a try gets through now, and is answered."""
    try:
        with found.exchange(server):
            return True
    except Transient as refusal:
        return (refusal.code, refusal.retry_after_s) != ("not_asked", circuit_breaker.WAIT_S)


def test_who_answers_is_asked_by_as_many_as_like() -> None:
    found = CircuitBreaker()
    with ExitStack() as tries:
        for _ in range(4):
            tries.enter_context(found.exchange(SLOW))


def test_who_was_late_is_asked_by_one_alone_and_holds_up_nobody_else() -> None:
    found = CircuitBreaker()
    late(found)
    with found.exchange(SLOW):
        assert not asked(found)
        assert asked(found, OTHER)


def test_once_it_answers_all_may_ask_again() -> None:
    found = CircuitBreaker()
    late(found)
    assert asked(found)
    with found.exchange(SLOW):
        assert asked(found)


def test_an_answer_that_is_no_is_an_answer() -> None:
    found = CircuitBreaker()
    late(found)
    with pytest.raises(Permanent), found.exchange(SLOW):
        raise Permanent("http_400", "No.")
    with found.exchange(SLOW):
        assert asked(found)


def test_late_again_it_is_still_asked_by_one() -> None:
    found = CircuitBreaker()
    late(found)
    late(found)
    with found.exchange(SLOW):
        assert not asked(found)


def test_those_who_were_under_way_when_it_was_first_late_let_no_second_through() -> None:
    found = CircuitBreaker()
    with ExitStack() as probe:
        with suppress(Transient), found.exchange(SLOW):
            late(found)
            probe.enter_context(found.exchange(SLOW))
            raise Transient("timeout", "It was late, too.")
        assert not asked(found)


def test_there_is_an_end_to_how_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "MOST", 2)
    found = CircuitBreaker()
    for server in (SLOW, OTHER, "https://third.example"):
        late(found, server)
    with found.exchange(SLOW):
        assert asked(found, SLOW)
    with found.exchange(OTHER):
        assert not asked(found, OTHER)
