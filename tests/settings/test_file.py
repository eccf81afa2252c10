"""``flashflow.toml``: a real file that owners write by hand, that the Settings view writes, and that is read again."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import keyring
import keyring.backends.fail
import keyring.backends.null
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import Proxy
from keyring.backend import KeyringBackend

from flashflow.backend.core.errors import Conflict, StorageError, ValidationError
from flashflow.backend.settings.file import RETRY_POLLS, SettingsFile
from flashflow.backend.settings.keyring import SecretStore, SecretsUnavailable, secret_store
from flashflow.backend.settings.model import AppriseSettings, EmailSettings, FcmSettings, Settings, SmsSettings
from tests.support.desktop_session import session_bus
from tests.support.examples import examples
from tests.support.server_process import ROOT

WHOLE = """\
# The office machine.
allow_hosts = ["intranet", "10.0.0.5:8080"]  # callers may reach these

# Mail goes through the provider.
[channels.email]  # since 2024
host = "smtp.example.com"  # not the old one
port = 465
security = "tls"
# Who it is from:
from = "FlashFlow <flash@example.com>"
username = "flash"
password = "${SMTP_PASSWORD}"

# Only for urgent things.
[channels.sms]
account_sid = "AC123"
auth_token = "hunter2-sms"
from = "+4912345"
base_url = "https://sms.example.com/v1"

[channels.push.fcm]
credentials = "/etc/flashflow/fcm.json"

[channels.push.apns]
key_file = "/etc/flashflow/apns.p8"
key_id = "K"
team_id = "T"
topic = "com.example.app"

[channels.push.webpush]
subject = "mailto:ops@example.com"

[channels.push.desktop]
connections = 1

[channels.team-chat]
url = "slack://hunter2-a/hunter2-b/hunter2-c"
rate_per_second = 1

[delivery]
max_attempts = 5
base_delay = 2
"""
ENVIRON = {"SMTP_PASSWORD": "hunter2-smtp"}
MAIL = {"host": "smtp.example.com", "from": "flash@example.com"}


class Memory(KeyringBackend):
    """A keyring as the library's other backends are one."""

    priority = 5.0

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


class Locked(Memory):
    """One that waits for a person."""

    def __init__(self) -> None:
        super().__init__()
        self.unlocked = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.unlocked.wait(60)
        return super().get_password(service, username)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flashflow.toml"


@pytest.fixture
def memory() -> Iterator[Memory]:
    """The keyring of this process, for the test."""
    backend = Memory()
    with installed(backend):
        yield backend


class installed:
    def __init__(self, backend: KeyringBackend) -> None:
        self._backend = backend

    def __enter__(self) -> None:
        keyring.set_keyring(self._backend)

    def __exit__(self, *_: object) -> None:
        keyring.set_keyring(keyring.backends.fail.Keyring())


def opened(path: Path, environ: Mapping[str, str] = ENVIRON, secrets: SecretStore | None = None) -> SettingsFile:
    return SettingsFile(path, environ=environ, secrets=secrets or SecretStore("There is no keyring on this device."))


def written(path: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> SettingsFile:
    path.write_text(text, "utf-8")
    return opened(path, environ)


def refused(path: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        written(path, text, environ).load()
    return caught.value


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_no_file_is_the_defaults(path: Path) -> None:
    assert opened(path).load() == Settings()
    assert not path.exists()


def test_everything_that_can_be_set_is_read(path: Path) -> None:
    settings = written(path, WHOLE).load()
    assert settings.email == EmailSettings(
        host="smtp.example.com",
        sender="FlashFlow <flash@example.com>",
        port=465,
        security="tls",
        username="flash",
        password="hunter2-smtp",
    )
    assert settings.sms is not None
    assert (settings.sms.sender, settings.sms.base_url) == ("+4912345", "https://sms.example.com/v1")
    assert settings.push.fcm == FcmSettings(credentials="/etc/flashflow/fcm.json")
    assert settings.push.apns is not None
    assert settings.push.webpush is not None
    assert settings.push.desktop.connections == 1
    assert settings.others == {
        "team-chat": AppriseSettings(url="slack://hunter2-a/hunter2-b/hunter2-c", rate_per_second=1)
    }
    assert (settings.delivery.max_attempts, settings.delivery.base_delay, settings.delivery.max_delay) == (5, 2, 900)
    assert settings.allow_hosts == ("intranet", "10.0.0.5:8080")


@pytest.mark.parametrize(
    ("given", "delays"),
    [("max_delay = 0.2", (0.2, 0.2)), ("base_delay = 1000", (1000, 1000)), ("base_delay = 3", (3, 900))],
)
def test_a_delay_that_is_not_given_gives_way_to_the_one_that_is(
    path: Path, given: str, delays: tuple[float, float]
) -> None:
    path.write_text(f"[delivery]\n{given}\n", encoding="utf-8")
    delivery = opened(path).load().delivery
    assert (delivery.base_delay, delivery.max_delay) == delays


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "with Notepad's mark"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_file_from_windows_is_read_as_well(path: Path, start: str, newline: str) -> None:
    path.write_bytes((start + WHOLE.replace("\n", newline)).encode())
    assert opened(path).load().delivery.max_attempts == 5


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("[channels.email]\nhost = 'h'", "channels.email.from", "is required"),
        ("[channels.email]\nhost='h'\nfrom='f'\nprot=25", "channels.email.prot", "did you mean port?"),
        ("[channels.email]\nhost='h'\nfrom='f'\nport='25'", "channels.email.port", "must be a whole number"),
        ("[channels.email]\nhost='h'\nfrom='f'\nport=0", "channels.email.port", "must be a whole number >= 1"),
        ("[channels.email]\nhost='h'\nfrom='f'\nport=true", "channels.email.port", "must be a whole number"),
        ("[channels.email]\nhost=''\nfrom='f'", "channels.email.host", "must be text of length >= 1"),
        ('[channels.email]\nhost="a\\nb"\nfrom="f"', "channels.email.host", "characters or a form"),
        ("[channels.email]\nhost='h'\nfrom=2020-01-01", "channels.email.from", "must be text"),
        (
            "[channels.email]\nhost='h'\nfrom='f'\nsecurity='ssl'",
            "channels.email.security",
            "none, starttls, tls",
        ),
        (
            "[channels.email]\nhost='h'\nfrom='f'\nusername='u'\npassword='p'\nsecurity='none'",
            "channels.email.security",
            "needs starttls or tls",
        ),
        ("[channels.email]\nhost='h'\nfrom='f'\nusername='u'", "channels.email.password", "required with a username"),
        ("[channels]\nemail = 'x'", "channels.email", "must be a table"),
        ("channels = 1", "channels", "must be a table"),
        ("[channels]\npush = 1", "channels.push", "must be a table"),
        ("[channels.push.fmc]\ncredentials='x'", "channels.push.fmc", "did you mean fcm?"),
        ("[channels.push.webpush]\nsubject='x'", "channels.push.webpush.subject", "characters or a form"),
        ("[channels.emial]\nhost='h'", "channels.emial", "did you mean email?"),
        ("[channels.in_app]", "channels.in_app", "always available"),
        ("[channels.fcm]\ncredentials='x'", "channels.fcm", "did you mean [channels.push.fcm]?"),
        ("[channels.Chat]\nurl='x://y'", "channels.Chat", "is not a valid channel name"),
        ("[channels.'a b\\n']\nurl='x://y'", "channels.'a b\\\\n'", "is not a valid channel name"),
        ("[channels.chat]\nurl=''", "channels.chat.url", "of length >= 1"),
        ("[channels.chat]\nurl='x://y'\nconnections=65", "channels.chat.connections", "<= 64"),
        ("[channels.chat]\nurl='x://y'\nrate_per_second=0", "channels.chat.rate_per_second", "> 0"),
        ("[delivery]\nmax_delay=nan", "delivery.max_delay", "must be a finite number"),
        ("[delivery]\nmax_delay=inf", "delivery.max_delay", "must be a finite number"),
        ("[delivery]\nbase_delay=9.5\nmax_delay=9", "delivery.base_delay", "more than max_delay"),
        (
            "[channels.chat]\nurl='x://y'\nbase_delay=9.5\nmax_delay=9",
            "channels.chat.base_delay",
            "more than max_delay",
        ),
        ("[channels.chat]\nurl='x://y'\ngive_up_after=-1", "channels.chat.give_up_after", ">= 0"),
        ("[delivery]\ngive_up_after='1 day'", "delivery.give_up_after", "must be a number"),
        ("[delivery]\nmax_attempts=99999999999999999999999", "delivery.max_attempts", "<= 100"),
        ("[deliverey]\n", "deliverey", "did you mean delivery?"),
        ("allow_hosts = 'x'", "allow_hosts", "must be a list"),
        ("allow_hosts = ['a', 'http://b']", "allow_hosts.1", "must be a host"),
        ("allow_hosts = [1]", "allow_hosts.0", "must be a host"),
        ('[channels.sms]\naccount_sid="a\\n"\nauth_token="x"\nfrom="1"', "channels.sms.account_sid", "form"),
        (
            "[channels.sms]\naccount_sid='a'\nauth_token='x'\nfrom='1'\nbase_url='https://u:hunter2@h/'",
            "channels.sms.base_url",
            "form",
        ),
    ],
)
def test_a_mistake_is_told_at_its_place(path: Path, text: str, field: str, message: str) -> None:
    error = refused(path, text)
    assert [e.field for e in error.errors] == [field]
    assert message in error.errors[0].message
    assert str(error) == f"{field}: {error.errors[0].message}"


def test_every_mistake_is_told_at_once(path: Path) -> None:
    error = refused(path, "x = 1\n[channels.email]\nport = 0\n[delivery]\nmax_attempts = 0")
    assert [e.field for e in error.errors] == [
        "x",
        "channels.email.host",
        "channels.email.from",
        "channels.email.port",
        "delivery.max_attempts",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[delivery]\nmax_attempts = = 3\n", "(at line 2, column 16)"),
        ("[delivery]\n[delivery]\n", "(at line 2, column 10)"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("a = " + "9" * 5000, "out of range"),
        ("a = 2020-13-01", "flashflow.toml"),
        ("#" * 1_000_001, "longer than"),
    ],
    ids=["syntax", "twice", "deep", "digits", "no date", "long"],
)
def test_what_is_no_toml_is_told_with_its_line(path: Path, text: str, words: str) -> None:
    assert words in str(refused(path, text))


def test_what_is_no_text_and_what_is_no_file_is_said_to_be_so(path: Path) -> None:
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ValidationError, match="not UTF-8"):
        opened(path).load()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValidationError, match="not a file"):
        opened(path).load()
    path.unlink()
    path.mkdir()
    file = opened(path)
    assert file.poll() is None
    assert file.problem == "flashflow.toml cannot be read: it is not a file."


@pytest.mark.parametrize("loose", [0o644, 0o660, 0o777])
def test_a_file_that_others_may_read_is_tightened(path: Path, loose: int) -> None:
    file = written(path, WHOLE)
    path.chmod(loose)
    file.load()
    assert mode(path) == 0o600


# --- references -------------------------------------------------------------------------------------------------------


def test_references_are_filled_in_anywhere_in_a_string(path: Path) -> None:
    text = """
        allow_hosts = ["${HOST}.example.com"]
        [channels.email]
        host = "${HOST}-${HOST}"
        from = "flash@example.com"
        port = "${PORT}"
        password = "$${HOST} $$ $5 ${A_1}"
        rate_per_second = "${RATE}"
    """
    settings = written(path, text, {"HOST": "${PORT}x", "PORT": "2525", "A_1": "b", "RATE": "0.5"})
    with pytest.raises(ValidationError, match=r"allow_hosts\.0"):
        settings.load()
    loaded = written(path, text, {"HOST": "mx", "PORT": "2525", "A_1": "b", "RATE": "0.5"}).load()
    assert loaded.email is not None
    assert (loaded.email.host, loaded.email.port, loaded.email.rate_per_second) == ("mx-mx", 2525, 0.5)
    assert loaded.email.password == "${HOST} $$ $5 b"
    assert loaded.allow_hosts == ("mx.example.com",)


def test_what_a_reference_leads_to_is_not_looked_through_for_more(path: Path) -> None:
    settings = written(path, "[channels.x]\nurl = '${A}'", {"A": "${B}", "B": "no"}).load()
    assert settings.others["x"].url == "${B}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${MISSING}", "the environment variable MISSING is not set"),
        ("a ${ b", "is not a reference"),
        ("${}", "is not a reference"),
        ("${A B}", "is not a reference"),
        ("${keyring:}", "is not a reference"),
        ("${keyring:x.url}", "There is no keyring on this device."),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(path: Path, value: str, message: str) -> None:
    error = refused(path, f"[channels.x]\nurl = '{value}'")
    assert [e.field for e in error.errors] == ["channels.x.url"]
    assert message in str(error)


def test_only_a_secret_may_come_from_the_keyring(path: Path, memory: Memory) -> None:
    memory.kept["FlashFlow", "email.password"] = "hunter2"
    path.write_text("[channels.email]\nhost = '${keyring:email.password}'\nfrom = 'f'\n")
    with pytest.raises(ValidationError, match=r"channels\.email\.host: is not a secret") as caught:
        opened(path, secrets=SecretStore()).load()
    assert "hunter2" not in str(caught.value)


@given(st.data())
@hypothesis_settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_error_ever_quotes_a_secret(path: Path, data: st.DataObject) -> None:
    """Secrets from the file and from the environment, in a file that is broken anywhere."""
    text = WHOLE.replace('security = "tls"', 'security = "${SMTP_PASSWORD}"').replace('"K"', "'${SMTP_PASSWORD}\\n'")
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 12))
    broken = text[:at] + data.draw(st.text("[]{}='\"#.\n\\ax1${}", max_size=8)) + text[at + cut :]
    path.write_text(broken)
    file = opened(path)
    words = ""
    try:
        file.load()
    except ValidationError as error:
        words = str(error) + repr(error) + str(error.errors) + str(file.problem)
    assert "hunter2-" not in words


def test_no_repr_shows_a_secret(path: Path) -> None:
    settings = written(path, WHOLE).load()
    nested = (
        EmailSettings(host="h", sender="s", password="hunter2"),
        SmsSettings(account_sid="a", auth_token="hunter2", sender="1"),
    )
    for text in (repr(settings), str(settings), f"{settings}", repr(nested), f"{nested[0]!s}", repr(settings.others)):
        assert "hunter2" not in text
        assert "fcm.json" not in text
    assert "hunter2" not in repr(nested[0].__rich_repr__())
    assert "host='smtp.example.com'" in repr(settings)
    assert "password=None" in repr(EmailSettings(host="h", sender="s"))


# --- reading again ----------------------------------------------------------------------------------------------------


def test_a_change_is_taken_up_once(path: Path) -> None:
    file = written(path, "[delivery]\nmax_attempts = 3\n")
    file.load()
    assert not file.changed()
    assert file.poll() is None
    path.write_text("[delivery]\nmax_attempts = 4\n# more\n")
    assert file.changed()
    taken = file.poll()
    assert taken is not None
    assert taken.delivery.max_attempts == 4
    assert not file.changed()
    assert file.poll() is None


def test_a_change_that_bears_the_same_time_and_size_is_not_missed(path: Path) -> None:
    file = written(path, "[delivery]\nmax_attempts = 3\n")
    file.load()
    now = path.stat().st_mtime_ns
    path.write_text("[delivery]\nmax_attempts = 4\n")
    os.utime(path, ns=(now, now))
    taken = file.poll()
    assert taken is not None
    assert taken.delivery.max_attempts == 4


def test_an_old_file_is_not_opened_while_its_times_stay(path: Path) -> None:
    path.write_text("[delivery]\nmax_attempts = 3\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    file = opened(path)
    file.load()
    path.write_text("[delivery]\nmax_attempts = 4\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert file.poll() is None
    os.utime(path, (1_000_000_001, 1_000_000_001))
    assert file.poll() is not None


def test_words_that_change_nothing_are_no_news(path: Path) -> None:
    file = written(path, "[delivery]\nmax_attempts = 3\n")
    file.load()
    path.write_text("# why\n[delivery]\nmax_attempts = 3\n")
    assert file.poll() is None


@pytest.mark.parametrize("broken", ["[delivery\n", "[delivery]\nmax_attempts = 0\n", "[channels.x]\nurl='${NO}'\n"])
def test_a_broken_file_leaves_what_was_good_in_force_and_says_so(path: Path, broken: str) -> None:
    file = written(path, "[delivery]\nmax_attempts = 3\n")
    good = file.load()
    assert file.problem is None
    path.write_text(broken)
    assert file.poll() is None
    assert file.problem
    assert file.settings == good
    assert file.shown()["delivery"]["max_attempts"] == 3
    assert file.poll() is None
    path.write_text("[delivery]\nmax_attempts = 7\n")
    taken = file.poll()
    assert taken is not None
    assert taken.delivery.max_attempts == 7
    assert file.problem is None


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "empty"])
def test_an_editor_that_empties_the_file_before_it_writes_switches_nothing_off(path: Path, gone: bool) -> None:
    file = written(path, WHOLE)
    file.load()
    path.unlink() if gone else path.write_text("")
    assert file.poll() is None
    assert file.settings.email is not None
    path.write_text(WHOLE.replace("max_attempts = 5", "max_attempts = 6"))
    taken = file.poll()
    assert taken is not None
    assert taken.delivery.max_attempts == 6
    path.unlink() if gone else path.write_text("")
    assert file.poll() is None
    assert file.poll() == Settings()


def test_a_first_file_is_taken_up(path: Path) -> None:
    file = opened(path)
    file.load()
    path.write_text("[delivery]\nmax_attempts = 3\n")
    assert file.poll() is not None


# --- writing ----------------------------------------------------------------------------------------------------------


def test_saving_keeps_what_it_does_not_change(path: Path) -> None:
    file = written(path, WHOLE)
    file.load()
    file.save(
        "channels.email",
        {
            "from": "FlashFlow <flash@example.com>",
            "host": "smtp.example.com",
            "port": 587,
            "username": "flash",
            "connections": 2,
        },
    )
    expected = (
        WHOLE.replace("port = 465", "port = 587")
        .replace('security = "tls"\n', "")
        .replace('password = "${SMTP_PASSWORD}"\n', 'password = "${SMTP_PASSWORD}"\nconnections = 2\n')
    )
    assert path.read_text() == expected
    email = opened(path).load().email
    assert email is not None
    assert (email.port, email.security, email.password) == (587, "starttls", "hunter2-smtp")


def test_removing_a_channel_keeps_the_comments_of_the_others(path: Path) -> None:
    file = written(path, WHOLE)
    file.load()
    file.save("channels.email", None)
    start = WHOLE.index("[channels.email]")
    end = WHOLE.index("\n# Only for urgent things.")
    assert path.read_text() == WHOLE[:start] + WHOLE[end:]
    assert file.settings.email is None


def test_a_new_channel_comes_last_and_a_new_file_explains_itself(path: Path) -> None:
    file = written(path, WHOLE)
    file.save("channels.ntfy", {"url": "ntfy://host/topic"})
    assert path.read_text() == WHOLE + '\n[channels.ntfy]\nurl = "ntfy://host/topic"\n'
    path.unlink()
    opened(path).save("delivery", {"max_attempts": 3})
    text = path.read_text()
    assert text.startswith("# FlashFlow's settings.")
    assert text.endswith("\n\n[delivery]\nmax_attempts = 3\n")


def test_the_list_of_hosts_is_saved_above_all_tables(path: Path) -> None:
    file = written(path, WHOLE)
    file.save("", {"allow_hosts": ("a.example",)})
    assert path.read_text() == WHOLE.replace('["intranet", "10.0.0.5:8080"]', '["a.example"]')
    file.save("", None)
    assert file.settings.allow_hosts == ()
    assert "allow_hosts" not in path.read_text()
    path.write_text("# About this file.\n\n# About mail.\n[delivery]\nmax_attempts = 3\n")
    file.save("", {"allow_hosts": ["b.example"]})
    assert path.read_text() == (
        '# About this file.\n\nallow_hosts = ["b.example"]\n\n# About mail.\n[delivery]\nmax_attempts = 3\n'
    )


LAYOUTS = {
    "in order": '[channels.email]\nhost = "h"\nfrom = "f"  # who\n\n# chat\n[channels.chat]\nurl = "x://y"\n',
    "out of order": '[channels.email]\nhost="h"\nfrom="f" # who\n[delivery]\nmax_delay=9.0\n[channels.chat]\nurl="x://y"',
    "inline tables": '[channels]\nemail = {host="h", from="f"} # who\nchat.url = "x://y"\n',
    "dotted keys": 'channels.email.host = "h"\nchannels.email.from = "f" # who\nchannels.chat.url = "x://y"\n',
    "dotted in a table": '[channels]\nemail.host = "h"\nemail.from = "f" # who\n[channels.chat]\nurl = "x://y"\n',
    "quoted header": '[channels."email"]\nhost = "h"\nfrom = "f" # who\n[ channels . chat ]\nurl = "x://y"\n',
    "one inline table": 'channels = {email = {host="h", from="f"}, chat = {url="x://y"}} # who\n',
    "windows": '[channels.email]\r\nhost = "h"\r\nfrom = "f" # who\r\n[channels.chat]\r\nurl = "x://y"\r\n',
    "headers in strings": (
        '[channels.email]\nhost = "h"\nfrom = "f" # who\n[channels.chat]\n'
        "url = '''x://y\n[channels.email]\n# no comment'''\n"
    ),
    "nested arrays": (
        'allow_hosts = [\n"a",\n"b", # who\n]\n[channels.email]\nhost = "h"\nfrom = "f"\n[channels.chat]\nurl = "x://y"'
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("place", "values"),
    [
        ("channels.email", {"host": "new", "from": "f", "port": 26}),
        ("channels.email", None),
        ("channels.chat", {"url": "z://z", "connections": 2}),
        ("channels.chat", None),
        ("channels.other", {"url": "z://z"}),
        ("channels.push.fcm", {"credentials": "x"}),
        ("channels.push.fcm", None),
        ("delivery", {"max_attempts": 3, "base_delay": 0.5}),
        ("", {"allow_hosts": ["c"]}),
    ],
)
def test_however_the_file_is_written_a_save_does_what_it_says(
    path: Path, layout: str, place: str, values: dict[str, Any] | None
) -> None:
    path.write_bytes(LAYOUTS[layout].encode())
    expected = tomllib.loads(LAYOUTS[layout].replace("\r\n", "\n"))
    inner = expected
    keys = place.split(".") if place else []
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
    if not keys:
        inner.update(values or {})
    elif values is None:
        inner.pop(keys[-1], None)
    else:
        inner[keys[-1]] = values
    file = opened(path)
    file.save(place, values)
    assert without_empty(tomllib.loads(path.read_bytes().decode())) == without_empty(expected)
    assert opened(path).load() == file.settings
    if "# who" in LAYOUTS[layout] and (layout == "one inline table" or place not in ("channels.email", "")):
        assert "# who" in path.read_text()
    assert ("\r\n" in path.read_bytes().decode()) == (layout == "windows")


def without_empty(table: dict[str, Any]) -> dict[str, Any]:
    inner = {key: without_empty(value) if isinstance(value, dict) else value for key, value in table.items()}
    return {key: value for key, value in inner.items() if value != {}}


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(lambda t: t.strip())
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda t: not t.startswith("${")
)
TABLES = st.one_of(
    st.tuples(
        st.just("channels.email"),
        st.fixed_dictionaries(
            {"host": TEXTS, "from": TEXTS, "password": SECRETS},
            optional={"port": st.integers(1, 65535), "username": TEXTS, "connections": st.integers(1, 64)},
        ),
    ),
    st.tuples(
        st.sampled_from(["channels.chat", "channels.a-b", "channels.0"]),
        st.fixed_dictionaries(
            {"url": SECRETS}, optional={"rate_per_second": st.floats(0.001, 10_000, allow_nan=False)}
        ),
    ),
    st.tuples(st.just("channels.push.fcm"), st.fixed_dictionaries({"credentials": SECRETS})),
    st.tuples(
        st.just("delivery"), st.fixed_dictionaries({}, optional={"max_delay": st.floats(1, 86400, allow_nan=False)})
    ),
    st.tuples(st.sampled_from(["channels.email", "channels.chat", "channels.push.fcm", "delivery"]), st.none()),
)


def test_a_table_that_tomlkit_stumbles_over_is_written_anew(path: Path) -> None:
    file = written(path, LAYOUTS["dotted keys"])
    for values in ({"host": "0", "from": "1", "password": "0", "port": 1}, {"host": "0", "from": "0", "password": "0"}):
        file.save("channels.email", values)
    email = opened(path).load().email
    assert email is not None
    assert (email.sender, email.port) == ("0", None)


def test_what_looks_like_a_header_in_a_text_never_becomes_one(path: Path) -> None:
    file = written(path, LAYOUTS["headers in strings"])
    file.save("channels.email", None)
    file.save("channels.chat", None)
    assert opened(path).load() == Settings()


@given(st.sampled_from(["", *LAYOUTS.values()]), st.lists(TABLES, max_size=6))
@hypothesis_settings(
    max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_saved_is_what_is_loaded(
    path: Path, layout: str, saves: list[tuple[str, dict[str, Any] | None]]
) -> None:
    path.write_bytes(layout.encode())
    file = opened(path, {})
    file.load()
    for place, values in saves:
        literal = None if values is None else {k: escaped(v) if k in ("host", "from") else v for k, v in values.items()}
        with suppress(ValidationError):
            file.save(place, literal)
        again = opened(path, {}).load()
        assert again == file.settings
        if values and "url" in values:
            assert again.others[place.removeprefix("channels.")].url == values["url"]


def escaped(text: Any) -> Any:
    return text.replace("${", "$${") if isinstance(text, str) else text


def test_no_byte_is_ever_open_to_others_or_half_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(path, WHOLE)
    file.load()
    seen: list[tuple[int, int, bytes]] = []
    fsync = os.fsync

    def watching(handle: int) -> None:
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode):
            seen.append((stat.S_IMODE(found.st_mode), found.st_size, path.read_bytes()))
        else:
            seen.append((0, 0, path.read_bytes()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watching)
    before = os.umask(0)
    try:
        file.save("delivery", {"max_attempts": 9})
    finally:
        os.umask(before)
    after = path.read_bytes()
    assert seen == [(0o600, len(after), WHOLE.encode()), (0, 0, after)]
    assert mode(path) == 0o600
    assert sorted(os.listdir(path.parent)) == ["flashflow.toml"]


def test_a_number_is_written_as_it_is_given(path: Path) -> None:
    written(path, "[delivery]\nbase_delay = 2  # s\n").save("delivery", {"base_delay": 2.0})
    assert path.read_text() == "[delivery]\nbase_delay = 2.0  # s\n"


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    real = tmp_path / "dotfiles" / "ff.toml"
    real.write_text(WHOLE)
    path.symlink_to(real)
    opened(path).save("delivery", {"max_attempts": 9})
    assert path.is_symlink()
    assert opened(real).load().delivery.max_attempts == 9


@pytest.mark.parametrize(
    ("place", "values", "message"),
    [
        ("channels.email", {**MAIL, "port": "x"}, "channels.email.port"),
        ("channels.email", {"host": "h"}, "channels.email.from: is required"),
        ("channels.email", {**MAIL, "sender": "x"}, "channels.email.sender"),
        ("channels.email", {**MAIL, "password": 5}, "channels.email.password: must be text"),
        ("channels.email", {**MAIL, "host": "\ud800"}, "an unpaired surrogate"),
        ("channels.email", {**MAIL, "host": object()}, "channels.email.host"),
        ("channels.email", {**MAIL, "host": "${NO}"}, "NO is not set"),
        ("channels.push", {}, "channels.push: is not a table"),
        ("channels.in_app", {}, "channels.in_app: is not a table"),
        ("channels.Chat", {"url": "x"}, "channels.Chat: is not a table"),
        ("channels.a.b", {"url": "x"}, "is not a table"),
        ("else", {}, "is not a table"),
        ("", {"delivery": {}}, "Only allow_hosts"),
    ],
)
def test_what_is_not_valid_is_not_written(path: Path, place: str, values: dict[str, Any], message: str) -> None:
    file = written(path, WHOLE)
    file.load()
    with pytest.raises(ValidationError, match=message.replace("[", r"\[")):
        file.save(place, values)
    assert path.read_text() == WHOLE
    assert file.settings.delivery.max_attempts == 5


def test_a_broken_file_is_not_written_over_but_can_lose_what_is_wrong(path: Path) -> None:
    file = written(path, "[delivery\n")
    with pytest.raises(ValidationError, match="line 1"):
        file.save("delivery", {})
    assert path.read_text() == "[delivery\n"
    path.write_text("[channels.x]\nurl = '${GONE}'\n")
    with pytest.raises(ValidationError, match="GONE"):
        file.save("delivery", {"max_attempts": 3})
    file.save("channels.x", None)
    assert file.problem is None


def test_saving_what_someone_else_has_just_changed_is_a_conflict(path: Path, memory: Memory) -> None:
    class Meddling(SecretStore):
        def set(self, name: str, value: str) -> None:
            super().set(name, value)
            path.write_text("[delivery]\nmax_attempts = 7\n")

    file = opened(path, secrets=Meddling())
    with pytest.raises(Conflict):
        file.save("channels.email", {**MAIL, "password": "hunter2"})
    assert path.read_text() == "[delivery]\nmax_attempts = 7\n"
    assert memory.kept == {}


def test_a_save_is_news_for_the_poll(path: Path) -> None:
    file = opened(path)
    file.load()
    saved = file.save("delivery", {"max_attempts": 2})
    assert file.poll() == saved
    assert file.poll() is None


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_goes_to_the_keyring_and_the_file_refers_to_it(path: Path, memory: Memory) -> None:
    file = opened(path, secrets=SecretStore())
    saved = file.save("channels.email", {**MAIL, "password": "hunter2 ${x}"})
    assert memory.kept == {("FlashFlow", "email.password"): "hunter2 ${x}"}
    assert 'password = "${keyring:email.password}"' in path.read_text()
    assert "hunter2" not in path.read_text()
    assert saved.email is not None
    assert saved.email.password == "hunter2 ${x}"
    assert opened(path, secrets=SecretStore()).load() == saved
    file.save("channels.push.fcm", {"credentials": '{"a":\n1}'})
    file.save("channels.chat", {"url": "slack://hunter2"})
    assert set(memory.kept) == {("FlashFlow", name) for name in ("email.password", "push.fcm.credentials", "chat.url")}


def test_without_a_keyring_a_secret_stands_in_the_file_that_only_its_owner_reads(path: Path) -> None:
    saved = opened(path).save("channels.email", {**MAIL, "password": "hunter2 ${x}"})
    assert 'password = "hunter2 $${x}"' in path.read_text()
    assert mode(path) == 0o600
    assert saved.email is not None
    assert saved.email.password == "hunter2 ${x}"
    assert opened(path).load() == saved


@pytest.mark.parametrize("has_keyring", [True, False])
def test_a_secret_that_is_not_given_is_kept_and_an_empty_one_removed(
    path: Path, memory: Memory, has_keyring: bool
) -> None:
    file = opened(path, secrets=SecretStore() if has_keyring else SecretStore("There is no keyring on this device."))
    file.save("channels.email", {**MAIL, "password": "hunter2"})
    for values in ({**MAIL, "password": None, "port": 25}, {**MAIL, "port": None}):
        email = file.save("channels.email", values).email
        assert email is not None
        assert email.password == "hunter2"
        assert email.port == values.get("port")
    email = file.save("channels.email", {**MAIL, "password": ""}).email
    assert email is not None
    assert email.password is None
    assert "password" not in path.read_text()
    assert memory.kept == {}


def test_a_reference_is_saved_as_one_and_the_keyring_forgets(path: Path, memory: Memory) -> None:
    file = opened(path, secrets=SecretStore())
    file.save("channels.email", {**MAIL, "password": "hunter2"})
    saved = file.save("channels.email", {**MAIL, "password": "${SMTP_PASSWORD}"})
    assert saved.email is not None
    assert saved.email.password == "hunter2-smtp"
    assert 'password = "${SMTP_PASSWORD}"' in path.read_text()
    assert memory.kept == {}


def test_a_removed_channel_leaves_nothing_in_the_keyring(path: Path, memory: Memory) -> None:
    file = opened(path, secrets=SecretStore())
    file.save("channels.chat", {"url": "slack://hunter2"})
    file.save("channels.chat", None)
    assert memory.kept == {}
    assert file.settings == Settings()


def test_a_save_that_fails_puts_the_keyring_back(path: Path, memory: Memory) -> None:
    file = opened(path, secrets=SecretStore())
    file.save("channels.email", {**MAIL, "password": "old"})
    text = path.read_text()
    (path.parent / ".flashflow.toml.part").mkdir()  # in the way of the new file
    with pytest.raises(StorageError):
        file.save("channels.email", {**MAIL, "password": "new"})
    with pytest.raises(StorageError):
        file.save("channels.chat", {"url": "slack://x"})
    assert memory.kept == {("FlashFlow", "email.password"): "old"}
    assert path.read_text() == text
    assert file.settings.email is not None
    assert file.settings.email.password == "old"


def test_what_is_shown_has_every_value_but_no_secret(path: Path, memory: Memory) -> None:
    memory.kept["FlashFlow", "key"] = "hunter2-kept"
    text = (
        WHOLE.replace('"hunter2-sms"', '"${keyring:key}"')
        .replace('"AC123"', '"A${SID}"')
        .replace('url = "slack://hunter2-a/', 'url = "slack://${SID}/hunter2-a/')
    )
    path.write_text(text)
    file = opened(path, {**ENVIRON, "SID": "1"}, SecretStore())
    assert file.load().sms is not None
    shown = file.shown()
    assert shown["channels"]["email"]["password"] == "${SMTP_PASSWORD}"
    assert shown["channels"]["email"]["from"] == "FlashFlow <flash@example.com>"
    assert shown["channels"]["email"]["connections"] == 4
    assert shown["channels"]["sms"]["auth_token"] == "${keyring:key}"
    assert shown["channels"]["sms"]["account_sid"] == "A${SID}"
    assert shown["channels"]["push"]["fcm"]["credentials"] == "set"
    assert shown["channels"]["team-chat"]["url"] == "set"
    assert shown["allow_hosts"] == ["intranet", "10.0.0.5:8080"]
    delays = {"give_up_after": 86_400.0, "base_delay": 2.0, "max_delay": 900.0}
    assert shown["delivery"] == delays | {"max_attempts": 5}
    assert "hunter2" not in str(shown)
    empty = opened(path.with_name("none.toml")).shown()
    unset = dict.fromkeys(("rate_per_second", "give_up_after", "base_delay", "max_delay"))
    push = {"fcm": None, "apns": None, "webpush": None, "desktop": {"connections": 4, **unset}}
    assert empty["channels"] == {"email": None, "sms": None, "push": push}
    file.save("channels.email", {**MAIL})
    path.write_text(path.read_text().replace('password = "${SMTP_PASSWORD}"\n', ""))
    file.load()
    assert file.shown()["channels"]["email"]["password"] is None


# --- the keyring ------------------------------------------------------------------------------------------------------


class PlaintextKeyring(Memory):
    """As the package keyrings.alt has it."""

    priority = 0.5


class Alternative(Memory):
    """Whatever priority they claim."""


Alternative.__module__ = "keyrings.alt.file"


@pytest.mark.parametrize(
    "make",
    [keyring.backends.fail.Keyring, keyring.backends.null.Keyring, PlaintextKeyring, Alternative],
    ids=["fail", "null", "not recommended", "plaintext"],
)
def test_a_keyring_that_keeps_nothing_safely_counts_as_none(path: Path, make: Any) -> None:
    with installed(make()):
        secrets = SecretStore()
        for call in (lambda: secrets.get("x"), lambda: secrets.set("x", "y"), lambda: secrets.delete("x")):
            with pytest.raises(SecretsUnavailable, match="no keyring that works"):
                call()
        opened(path, secrets=secrets).save("channels.chat", {"url": "slack://hunter2"})
    assert 'url = "slack://hunter2"' in path.read_text()


def test_a_keyring_that_does_not_keep_what_it_was_given_is_not_trusted(path: Path) -> None:
    class Forgetful(Memory):
        def set_password(self, service: str, username: str, password: str) -> None:
            super().set_password(service, username, password[:3])

    with installed(Forgetful()):
        opened(path, secrets=SecretStore()).save("channels.chat", {"url": "slack://hunter2"})
    assert 'url = "slack://hunter2"' in path.read_text()


def test_a_keyring_that_raises_is_told_without_its_words(path: Path) -> None:
    class Broken(Memory):
        def get_password(self, service: str, username: str) -> str | None:
            raise RuntimeError("hunter2")

    path.write_text("[channels.chat]\nurl = '${keyring:chat.url}'\n")
    with installed(Broken()), pytest.raises(ValidationError) as caught:
        opened(path, secrets=SecretStore()).load()
    assert str(caught.value) == "channels.chat.url: The keyring refused (RuntimeError)."
    assert caught.value.__context__ is None or "hunter2" not in repr(caught.value.__context__)


def test_a_locked_keyring_costs_one_wait_and_is_used_once_it_is_unlocked(path: Path) -> None:
    backend = Locked()
    backend.kept["FlashFlow", "chat.url"] = "slack://x"
    path.write_text("[channels.chat]\nurl = '${keyring:chat.url}'\n")
    with installed(backend):
        file = opened(path, secrets=SecretStore(timeout_s=0.3))
        began = time.monotonic()
        with pytest.raises(ValidationError, match="may be locked"):
            file.load()
        assert 0.3 <= time.monotonic() - began < 1.5
        began = time.monotonic()
        for _ in range(5):
            with pytest.raises(ValidationError, match="waiting to be unlocked"):
                file.load()
        assert time.monotonic() - began < 1
        assert len([thread for thread in threading.enumerate() if thread.name == "keyring"]) == 1
        backend.unlocked.set()
        for thread in threading.enumerate():
            if thread.name == "keyring":
                thread.join(5)
        taken = [file.poll() for _ in range(RETRY_POLLS)]
        assert taken[:-1] == [None] * (RETRY_POLLS - 1)
        assert taken[-1] is not None
        assert taken[-1].others["chat"].url == "slack://x"
        assert file.problem is None


def test_a_secret_service_that_never_answers_holds_nothing_up(tmp_path: Path) -> None:
    """The real library over a real bus, in a process that then ends although a thread of it hangs."""
    (tmp_path / "flashflow.toml").write_text("[channels.chat]\nurl = '${keyring:chat.url}'\n")
    program = (
        "import sys, time; from pathlib import Path\n"
        "from flashflow.backend.settings.file import SettingsFile\n"
        "from flashflow.backend.settings.keyring import secret_store\n"
        "began = time.monotonic()\n"
        "file = SettingsFile(Path(sys.argv[1]), environ={}, secrets=secret_store({}))\n"
        "print(file.poll(), file.problem, time.monotonic() - began < 6)\n"
    )
    with session_bus() as bus, bus.connect() as silent:
        Proxy(message_bus, silent, timeout=10).RequestName("org.freedesktop.secrets")
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "flashflow.toml")],
            env={**bus.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.stdout == (
        "None channels.chat.url: The keyring did not answer within 2 seconds: it may be locked. True\n"
    ), done.stderr


@pytest.mark.parametrize(
    ("environ", "platform", "reason"),
    [
        ({"FLASHFLOW_KEYRING": "off"}, "linux", "switched off"),
        ({"FLASHFLOW_KEYRING": " OFF "}, None, "switched off"),
        ({}, "android", "no keyring on this device"),
        ({}, "ios", "no keyring on this device"),
    ],
)
def test_phones_and_those_who_switch_it_off_have_no_keyring(
    environ: dict[str, str], platform: str | None, reason: str, memory: Memory
) -> None:
    secrets = secret_store(environ, platform=platform)
    for call in (lambda: secrets.get("x"), lambda: secrets.set("x", "y"), lambda: secrets.delete("x")):
        with pytest.raises(SecretsUnavailable, match=reason):
            call()
    secret_store({}, platform="linux").set("x", "y")
    assert list(memory.kept.values()) == ["y"]


def test_without_the_package_there_is_no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(SecretsUnavailable, match="not installed"):
        SecretStore().get("x")
