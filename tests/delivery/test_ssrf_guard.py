"""The guard against requests to private addresses: famous bypasses by name, and every address by its arithmetic."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flashflow.backend.delivery.net import ssrf_guard as module
from flashflow.backend.delivery.net.ssrf_guard import SsrfGuard, is_public
from flashflow.backend.domain.channel import ChannelError, Permanent, Transient
from flashflow.backend.domain.device_address import parse_url

DEADLINE = 15.0
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine is shared
PUBLIC = "93.184.216.34"
PUBLIC6 = "2606:2800:220:1:248:1893:25c8:1946"

V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


def nobody(name: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{name} was looked up")


def answering(*answers: Sequence[str]) -> tuple[Callable[[str, int], Sequence[str]], list[str]]:
    """A name server that gives these answers one after the other, and the names it was asked for."""
    left, asked = list(answers), []

    def lookup(name: str, port: int) -> Sequence[str]:
        asked.append(name)
        return left.pop(0)

    return lookup, asked


def refusal(host: str, *allowed: str, port: int = 443) -> ChannelError:
    """Why ``host`` is refused, without a look-up."""
    with pytest.raises(ChannelError) as caught:
        SsrfGuard(allowed, lookup=nobody).pin(host, port)
    return caught.value


# --- addresses and how they are disguised -----------------------------------------------------------------------------

PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "[::1]",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "[::ffff:7f00:1]",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "0:0:0:0:0:ffff:a9fe:a9fe",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fe80::1%25eth0",
    "fec0::1",
    "ff02::1",
    "[::]",
    "[::1%lo]",
    PUBLIC6 + "%1",
]

DISGUISED = [
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0X7F000001",
    "0x7f.0x0.0x0.0x1",
    "0x7f.1",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "00000177.0.0.1",
    "127.0.0.01",
    "127.0.0.1.",
    "127.0.0.1..",
    "127.0.0.256",
    "127.0.0",
    "0",
    "0x",
    "1.1",
    "134744072",
    "8.8.8.08",
    "3232235777",
    "127.0.0.1%00.example.com",
    "127%2e0%2e0%2e1",
    "%31%32%37.0.0.1",
    "127.0.0.1\x00.example.com",
    "①②⑦.⓪.⓪.①",
    "１２７.０.０.１",
    "127。0。0。1",
    "127․0․0․1",
    "127\u00ad.0.0.1",
    "127.0.0.1\u200b",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "ｌｏｃａｌｈｏｓｔ",
    "localhoſt",
    "lo\u00adcalhost",
    "①⑥⑨。②⑤④。⑯⑨｡②⑤④",
    "٠١٢٧.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "foo.localhost",
    "foo.localhost.",
    "printer.local",
    "metadata.google.internal",
    "METADATA.google.Internal",
    "internal",
    "example.com.",
    ".example.com",
    "example..com",
    ".",
    "",
    " ",
    "example.com ",
    "exam ple.com",
    "example.com\n",
    "example.com\\@127.0.0.1",
    "user@127.0.0.1",
    "127.0.0.1:80",
    "127.0.0.1/",
    "[127.0.0.1]",
    "[8.8.8.8]",
    "[localhost]",
    "[[::1]]",
    "[::1",
    "[]",
    ":::1",
    "1::2::3",
    "::ffff:0x7f.1",
    "-example.com",
    "a" * 64 + ".com",
    ".".join(["a" * 60] * 5),
    "ü" * 100 + ".com",
    "\ud83d.com",
]


@pytest.mark.parametrize("host", PRIVATE + DISGUISED)
def test_no_private_address_is_reached_however_it_is_written(host: str) -> None:
    refused = refusal(host)
    assert isinstance(refused, Permanent)
    assert refused.code == "private_address"
    with pytest.raises(Permanent):
        SsrfGuard(lookup=nobody).check_host(host, 443)


@pytest.mark.parametrize(
    ("host", "pinned"),
    [
        (PUBLIC, PUBLIC),
        ("8.8.8.8", "8.8.8.8"),
        ("100.63.255.255", "100.63.255.255"),
        ("100.128.0.0", "100.128.0.0"),
        ("172.15.255.255", "172.15.255.255"),
        ("172.32.0.0", "172.32.0.0"),
        ("223.255.255.255", "223.255.255.255"),
        (PUBLIC6, PUBLIC6),
        (f"[{PUBLIC6}]", PUBLIC6),
        ("2606:4700:0:0:0:0:0:1111", "2606:4700::1111"),
        ("64:ff9b::8.8.8.8", "64:ff9b::808:808"),
    ],
)
def test_a_public_address_is_pinned_to_itself_without_a_look_up(host: str, pinned: str) -> None:
    assert SsrfGuard(lookup=nobody).pin(host, 443) == pinned


OURS_ALONE = [ipaddress.ip_network(block) for block in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24")]
"""Refused although Python, in some version, calls them global."""


@PATIENT
@given(V4)
@example(ipaddress.IPv4Address("192.88.99.1"))
def test_the_public_ipv4_addresses_are_those_that_python_calls_global(address: ipaddress.IPv4Address) -> None:
    if any(address in block for block in OURS_ALONE):
        assert not is_public(address)
    else:
        assert is_public(address) == (address.is_global and not address.is_multicast and not address.is_reserved)


@PATIENT
@given(st.sampled_from([block for block in module._NOT_PUBLIC if block.version == 4]), st.data())
def test_every_ipv4_address_of_a_special_block_is_refused(block: ipaddress.IPv4Network, data: st.DataObject) -> None:
    number = data.draw(st.integers(int(block.network_address), int(block.broadcast_address)))
    assert refusal(str(ipaddress.IPv4Address(number))).code == "private_address"


@PATIENT
@given(V6)
@example(ipaddress.IPv6Address("2002:808:808::"))
@example(ipaddress.IPv6Address("64:ff9b::808:808"))
def test_no_ipv6_address_is_public_that_python_calls_anything_else(address: ipaddress.IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_site_local
        assert address.ipv4_mapped is None
        assert address.sixtofour is None
        assert address.teredo is None


@PATIENT
@given(st.integers(2**125, 2**126 - 1).map(ipaddress.IPv6Address))
def test_an_ipv6_address_of_the_global_block_is_public_unless_it_is_special(address: ipaddress.IPv6Address) -> None:
    special = ("2001::/23", "2001:db8::/32", "2002::/16", "3ffe::/16", "3fff::/20")
    assert is_public(address) == (not any(address in ipaddress.ip_network(block) for block in special))


@PATIENT
@given(V4)
@example(ipaddress.IPv4Address("127.0.0.1"))
@example(ipaddress.IPv4Address("8.8.8.8"))
def test_an_ipv4_address_inside_an_ipv6_one_opens_no_way_round(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    carriers = {
        "mapped": 0xFFFF << 32 | number,
        "compatible": number,
        "translated": 0xFFFF << 48 | number,
        "6to4": 0x2002 << 112 | number << 80 | 1,
        "teredo server": 0x20010000 << 96 | number << 64 | 0xF7F7F7F7,
        "teredo client": 0x20010000 << 96 | 0x08080808 << 64 | number ^ 0xFFFFFFFF,
        "local NAT64": 0x0064FF9B0001 << 80 | number,
    }
    for carrier in carriers.values():
        assert not is_public(ipaddress.IPv6Address(carrier))
    assert is_public(ipaddress.IPv6Address(0x0064FF9B << 96 | number)) == is_public(address)


def spellings(address: ipaddress.IPv4Address) -> list[str]:
    """Every way the C library reads ``address`` in, other than the one people write."""
    number, octets = int(address), list(address.packed)
    forms = [str(number), hex(number), f"0{number:o}", f"0x{number:08X}"]
    forms += [".".join(hex(octet) for octet in octets), ".".join(f"0{octet:o}" for octet in octets)]
    forms += [f"{octets[0]}.{number & 0xFFFFFF}", f"{octets[0]}.{octets[1]}.{number & 0xFFFF}"]
    forms += [f"0x{octets[0]:x}.{number & 0xFFFFFF}", ".".join(f"{octet:04}" for octet in octets), f"{address}."]
    return forms


@PATIENT
@given(V4)
@example(ipaddress.IPv4Address("127.0.0.1"))
def test_no_short_octal_or_hexadecimal_spelling_is_taken_even_of_a_public_address(
    address: ipaddress.IPv4Address,
) -> None:
    for form in spellings(address):
        assert refusal(form).code == "private_address", form


def test_the_c_library_does_read_those_spellings() -> None:
    for form in spellings(ipaddress.IPv4Address("127.0.0.1"))[:-2]:
        assert socket.inet_ntoa(socket.inet_aton(form)) == "127.0.0.1"


@PATIENT
@given(st.text(alphabet=st.sampled_from("0127.x%:[]fa①⑦。．ⓛ-_ \\@/\x00"), max_size=24))
def test_whatever_is_no_name_and_no_public_address_is_never_looked_up(host: str) -> None:
    lookup, asked = answering([PUBLIC])
    pinned = code = None
    try:
        pinned = SsrfGuard(lookup=lookup).pin(host, 443)
    except Permanent as error:
        code = error.code
    if pinned is None:
        assert (code, asked) == ("private_address", [])
    else:
        assert is_public(ipaddress.ip_address(pinned))
        assert all(name.isascii() and name.rpartition(".")[2].strip("0123456789") for name in asked)


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_name_is_pinned_to_the_first_of_its_addresses() -> None:
    lookup, asked = answering([PUBLIC6, PUBLIC])
    assert SsrfGuard(lookup=lookup).pin("Push.Example.COM", 443) == PUBLIC6
    assert asked == ["push.example.com"]


def test_a_name_in_other_letters_is_looked_up_as_the_name_server_spells_it() -> None:
    lookup, asked = answering([PUBLIC])
    assert SsrfGuard(lookup=lookup).pin("bücher.example", 443) == PUBLIC
    assert asked == ["xn--bcher-kva.example"]


@pytest.mark.parametrize("private", ["127.0.0.1", "::1", "169.254.169.254", "fe80::1%eth0", "::ffff:10.0.0.1"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_name_with_any_private_address_is_refused(private: str, place: int) -> None:
    addresses = [PUBLIC, PUBLIC6]
    addresses.insert(place, private)
    lookup, _ = answering(addresses)
    with pytest.raises(Permanent) as caught:
        SsrfGuard(lookup=lookup).pin("push.example.com", 443)
    assert caught.value.code == "private_address"


def test_a_name_is_asked_for_once_so_that_changing_its_address_gains_nothing() -> None:
    lookup, asked = answering([PUBLIC], ["127.0.0.1"])
    guard = SsrfGuard(lookup=lookup)
    assert guard.pin("rebind.example", 443) == PUBLIC
    assert asked == ["rebind.example"]
    with pytest.raises(Permanent):
        guard.pin("rebind.example", 443)


@pytest.mark.parametrize(
    "failure", [socket.gaierror(socket.EAI_NONAME, "x"), TimeoutError(), OSError(), UnicodeError()], ids=repr
)
def test_a_look_up_that_fails_may_work_later(failure: Exception) -> None:
    def lookup(name: str, port: int) -> Sequence[str]:
        raise failure

    with pytest.raises(Transient) as caught:
        SsrfGuard(lookup=lookup).pin("push.example.com", 443)
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("addresses", [[], ["not an address"], [PUBLIC, "0x7f.1"]], ids=repr)
def test_an_answer_that_is_no_addresses_is_unreachable(addresses: list[str]) -> None:
    lookup, _ = answering(addresses)
    with pytest.raises(Transient) as caught:
        SsrfGuard(lookup=lookup).pin("push.example.com", 443)
    assert caught.value.code == "unreachable"


def test_a_look_up_that_hangs_costs_its_deadline_one_thread_and_no_other_name() -> None:
    released, asked = threading.Event(), []

    def lookup(name: str, port: int) -> Sequence[str]:
        asked.append(name)
        if name == "slow.example":
            released.wait(DEADLINE)
        return [PUBLIC]

    guard = SsrfGuard(lookup=lookup, deadline_s=0.1)
    try:
        with ThreadPoolExecutor(6) as pool:
            hung = [pool.submit(guard.pin, "slow.example", 443) for _ in range(6)]
            assert {type(future.exception(DEADLINE)) for future in hung} == {Transient}
        assert asked == ["slow.example"]
        guard._deadline_s = DEADLINE
        assert guard.pin("quick.example", 443) == PUBLIC
    finally:
        released.set()
    assert guard.pin("slow.example", 443) == PUBLIC


def test_names_that_never_answer_are_refused_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKUPS", 3)
    released = threading.Event()

    def lookup(name: str, port: int) -> Sequence[str]:
        released.wait(DEADLINE)
        return [PUBLIC]

    guard = SsrfGuard(lookup=lookup, deadline_s=0.02)
    try:
        texts = []
        for number in range(4):
            with pytest.raises(Transient) as caught:
                guard.pin(f"slow{number}.example", 443)
            texts.append(caught.value.text)
        assert "too many other look-ups" in texts[-1]
        assert not any("too many other look-ups" in text for text in texts[:-1])
    finally:
        released.set()


def test_the_systems_own_look_up_finds_this_machine_and_is_refused_all_the_same() -> None:
    assert set(module.system_lookup("localhost", 80)) <= {"127.0.0.1", "::1"}
    guard = SsrfGuard(["localhost"])
    assert guard.pin("localhost", 80) in {"127.0.0.1", "::1"}
    with pytest.raises(Permanent):
        SsrfGuard().pin("localhost", 80)


# --- what the owner lists ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "host", "port", "pinned"),
    [
        ("127.0.0.1", "127.0.0.1", 8443, "127.0.0.1"),
        ("127.0.0.1:8443", "127.0.0.1", 8443, "127.0.0.1"),
        ("::1", "::1", 8443, "::1"),
        ("::1", "0:0:0:0:0:0:0:1", 8443, "::1"),
        ("[::1]", "[::1]", 8443, "::1"),
        ("[::1]:8443", "::1", 8443, "::1"),
        ("[0:0::1]:8443", "::1", 8443, "::1"),
        ("nas.local", "NAS.local", 80, "10.0.0.7"),
        ("NAS.local:80", "nas.local", 80, "10.0.0.7"),
        ("localhost", "localhost", 80, "10.0.0.7"),
        ("bücher.local", "xn--bcher-kva.local", 80, "10.0.0.7"),
    ],
)
def test_what_the_owner_lists_is_reached(entry: str, host: str, port: int, pinned: str) -> None:
    guard = SsrfGuard([entry], lookup=lambda name, port: ["10.0.0.7", PUBLIC])
    assert guard.allows(host, port)
    guard.check_host(host, port)
    assert guard.pin(host, port) == pinned


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.2", 80),
        ("127.0.0.1", "2130706433", 80),
        ("127.0.0.1", "127.1", 80),
        ("127.0.0.1", "::ffff:127.0.0.1", 80),
        ("127.0.0.1", "127.0.0.1.", 80),
        ("127.0.0.1", "localhost", 80),
        ("127.0.0.1:8443", "127.0.0.1", 8444),
        ("[::1]:8443", "::1", 80),
        ("nas.local", "evil.nas.local", 80),
        ("nas.local", "xnas.local", 80),
        ("nas.local:80", "nas.local", 81),
        ("local", "nas.local", 80),
    ],
)
def test_nothing_else_is_reached_than_what_the_owner_lists(entry: str, host: str, port: int) -> None:
    assert not SsrfGuard([entry]).allows(host, port)
    assert refusal(host, entry, port=port).code == "private_address"


def test_a_listed_address_does_not_open_a_name_that_leads_to_it() -> None:
    lookup, _ = answering(["127.0.0.1"])
    with pytest.raises(Permanent):
        SsrfGuard(["127.0.0.1"], lookup=lookup).pin("rebind.example", 80)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        "a b",
        "http://nas.local",
        "nas.local/",
        "nas:local",
        "nas:0",
        "nas:65536",
        "*.local",
        "a@b",
        "[nas]:80",
        "[127.0.0.1:80",
        "::1:x",
        "[]",
    ],
)
def test_an_entry_that_cannot_match_is_refused_where_it_is_read(entry: str) -> None:
    with pytest.raises(ValueError, match="allow_hosts"):
        SsrfGuard([entry])


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://push.example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "gopher://127.0.0.1:25/",
        "//push.example.com/",
        "https:push.example.com",
        "https:/push.example.com",
        "https://",
        "https:///x",
        "https://:443/",
        "https://push.example.com:0/",
        "https://push.example.com:65536/",
        "https://push.example.com:x/",
        "https://push.example.com:-1/",
        "https://push.example.com:٤٤٣/",
        "https://user@push.example.com/",
        "https://user:word@push.example.com/",
        "https://@push.example.com/",
        "https://push.example.com#@127.0.0.1/",
        "https://push.example.com/#x",
        "https://push.example.com/#",
        "https://push.example.com\\@127.0.0.1/",
        "https:\\\\push.example.com/",
        "https://push.example.com/a b",
        "https://push.example.com/\r\nHost: x",
        "https://push.example.com/\t",
        "\nhttps://push.example.com/",
        " https://push.example.com/",
        "https://push.example.com/\x00",
        "https://push.example.com/\x7f",
        "https://push.example.com/\u202e",
        "https://push.example.com/\u2028",
        "https://push.example.com/\ud83d",
        "https://[::1/",
        "https://push.example.com\uff0f@127.0.0.1/",
        "https://push.example.com/" + "x" * 1976,
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|contains|does not begin) "):
        parse_url(url)


def test_a_plain_url_comes_back_in_parts() -> None:
    parts = parse_url("https://Push.Example.com:8443/a/b?c=d@e")
    assert (parts.scheme, parts.hostname, parts.port, parts.path) == ("https", "push.example.com", 8443, "/a/b")
    assert parse_url("https://[::1]:1/" + "x" * 1984).hostname == "::1"


@PATIENT
@given(st.text(max_size=40).map(lambda text: "https://" + text))
def test_no_text_makes_the_check_of_a_url_raise_anything_else(url: str) -> None:
    with contextlib.suppress(ValueError):
        parts = parse_url(url)
        assert parts.hostname
        assert parts.username is None


def test_what_is_wrong_with_a_url_is_said_without_repeating_it() -> None:
    with pytest.raises(ValueError, match=r"^contains a user name$"):
        parse_url("https://user:secret@push.example.com/")
