"""Files and folders: limits, encodings, duplicates across files, several errors at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flashflow.backend.flow.language.errors import render_all
from flashflow.backend.flow.language.loader import MOST_ERRORS, load
from flashflow.backend.flow.routes import built_in_routes
from tests.support.server_process import ROOT


def messages(*paths: Path) -> list[str]:
    """Errors of the files as ``name:line:column message``."""
    _, errors = load(paths)
    return [
        f"{Path(error.place.file).name}:{error.place.line}:{error.place.column} {error.message}" for error in errors
    ]


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_folder_is_one_project_in_the_order_of_its_files(tmp_path: Path) -> None:
    written(tmp_path, "b.flow", "page Orders { table orders { data: all_orders } }")
    written(tmp_path, "a.flow", "model Order { number: integer }")
    written(tmp_path, "notes.txt", "no declaration")
    written(tmp_path, ".hidden.flow", "no declaration")
    project, errors = load([tmp_path])
    assert errors == ()
    assert [Path(file).name for file in project.files] == ["a.flow", "b.flow"]
    assert [model.name for model in project.models] == ["Order"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    path = written(tmp_path, "a.flow", "model Order { number: integer }")
    project, errors = load([path, tmp_path, str(path)])
    assert errors == ()
    assert len(project.models) == 1


def test_the_same_name_in_two_files_is_refused_with_both_places(tmp_path: Path) -> None:
    first = written(tmp_path, "a.flow", 'notification_type orders { label: "Orders" }')
    second = written(tmp_path, "b.flow", '\n notification_type orders { label: "News" }')
    _, errors = load([tmp_path])
    assert [error.message for error in errors] == [f"notification type “orders” is declared in {first}:1:19 already"]
    assert str(errors[0].place) == f"{second}:2:20"


def test_several_errors_are_found_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.flow",
        'model User { name: sting  mail: email requird }\n'
        "page Home { title: }\n"
        'page News { h7 "x"  titel: "News"  chart c { data: trends } }\n'
        'job Report { schedule: "0 0 31 6 *"  task: { send_notification: { to: "u"  title: "a" } } }\n'
        "model Order {\n",
    )  # fmt: skip
    assert messages(path) == [
        "a.flow:1:20 “sting” is not a type",
        "a.flow:1:39 “requird” is not a modifier",
        "a.flow:2:13 “title” has no value",
        "a.flow:3:13 “h7” is not an element",
        "a.flow:3:21 “titel” is not an entry of page",
        "a.flow:3:52 there is no data source “trends”",
        "a.flow:4:24 this never happens: no month of the schedule has a day 31",
        "a.flow:4:46 “message” is missing",
        "a.flow:5:13 this “{” is not closed",
    ]


def test_a_model_with_an_error_is_no_further_error_where_it_is_used(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.flow",
        "model Product { name: sting }\nmodel Sale { product: reference Product }\n"
        "page Home { table t { data: all_products }  form f { model: Product } }\n",
    )  # fmt: skip
    assert messages(path) == ["a.flow:1:23 “sting” is not a type"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path, end: str) -> None:
    text = "\ufeff# Orders\nmodel Order {\n  number: integer # of the shop\n  status: strin\n}\n"
    path = written(tmp_path, "a.flow", text.replace("\n", end))
    _, (error,) = load([path])
    assert (error.place.line, error.place.column, error.place.length) == (4, 11, 5)
    assert error.source_line == "  status: strin"


def test_declarations_need_no_line_ends(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.flow",
        "model Order{number:integer primary state:string enum:open,paid default:open}page Orders{title:\"Orders\" "
        "header{h1 \"Orders\" notification_bell{position:left}}table orders{data:all_orders sort:number desc "
        "refresh:5}}",
    )  # fmt: skip
    project, errors = load([path])
    assert render_all(errors) == ""
    assert len(project.models[0].fields) == 2
    assert len(project.pages[0].elements) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model User { name: string }\npage H\xff { }", "a.flow:2:1 the file is not UTF-8"),
        (b"model User {\n  name: str\x00ing }", "a.flow:2:12 the file has a control character, U+0000"),
        (b"# " + b"x" * 5_000_000, "a.flow:1:1 the file is larger than 1 MB"),
        (b"page Home " + b"{" * 100_000, "a.flow:1:43 this is nested too deeply"),
        (b"page Home { title: " + b"[" * 100_000, "a.flow:1:51 this is nested too deeply"),
        (b"}" * 900_000, "a.flow:1:1 this “}” closes nothing"),
    ],
    ids=["encoding", "nul", "5 MB", "100,000 braces", "100,000 brackets", "closing braces"],
)
def test_a_hostile_file_is_refused_quickly(tmp_path: Path, content: bytes, message: str) -> None:
    path = written(tmp_path, "a.flow", content)
    load([])
    started = time.process_time()
    assert messages(path)[0] == message
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "unit",
    [
        "a ",
        "a: ",
        '"x" ',
        "# x\n",
        "select ",
        "x = ",
        "model ",
        "a" * 1000,
        "\n",
        "page A { }\n",
        'page A { h1 "x" ',
        "+ ",
        "div { } ",
        "x: [] ",
    ],
)
def test_the_time_of_a_parse_is_linear_in_the_size(tmp_path: Path, unit: str) -> None:
    path = written(tmp_path, "a.flow", f"page Home {{ {unit * (300_000 // len(unit))}")
    started = time.process_time()
    load([path])
    assert time.process_time() - started < 15


def test_a_long_word_is_cut_in_messages(tmp_path: Path) -> None:
    path = written(tmp_path, "a.flow", f"page Home {{ {'a' * 900_000} }}")
    assert messages(path) == [f"a.flow:1:13 “{'a' * 64}…” is not an element"]


def test_only_so_many_errors_of_a_file_are_shown(tmp_path: Path) -> None:
    path = written(tmp_path, "a.flow", "model A { x: wrong }\n" * 500)
    found = messages(path)
    assert len(found) == MOST_ERRORS + 1
    assert found[-1] == "a.flow:101:14 400 more errors are not shown"


def test_there_is_a_limit_of_declarations(tmp_path: Path) -> None:
    path = written(tmp_path, "a.flow", "".join(f"page P{n} {{ }}\n" for n in range(2_001)))
    assert messages(path) == ["a.flow:2001:1 there are more than 2,000 declarations"]


def test_the_limit_of_declarations_holds_for_all_files(tmp_path: Path) -> None:
    written(tmp_path, "a.flow", "".join(f"page P{n} {{ }}\n" for n in range(1_500)))
    written(tmp_path, "b.flow", "".join(f"page Q{n} {{ }}\n" for n in range(501)))
    assert messages(tmp_path) == ["b.flow:501:6 there are more than 2,000 declarations"]


def test_there_is_a_limit_of_fields_in_a_model_and_of_conditions_in_a_rule(tmp_path: Path) -> None:
    fields = "".join(f"f{number}: string\n" for number in range(201))
    conditions = "where: app == 1\n" * 11
    send = 'send_notification: { to: "u"  title: "a"  message: "b" }'
    path = written(tmp_path, "a.flow", f'model M {{\n{fields}}}\non activity "a" {{\n{conditions}{send}}}')
    assert messages(path) == [
        "a.flow:202:1 model M has more than 200 fields",
        "a.flow:215:1 a rule has at most 10 conditions",
    ]


def test_there_is_a_limit_of_elements_in_a_page(tmp_path: Path) -> None:
    path = written(tmp_path, "a.flow", "page P {" + 'h1 "x" ' * 501 + "}")
    assert messages(path) == ["a.flow:1:6 this page has 501 elements"]


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("gone.flow", "the file cannot be read: No such file or directory", "Check its name and its permissions."),
        ("a.txt", "“a.txt” is not a .flow file", "Name a .flow file, or a folder with some."),
        ("a.jobflow", "“a.jobflow” is not a .flow file", "Move its jobs into a .flow file."),
        ("a.liveflow", "“a.liveflow” is not a .flow file",
         "Move its pages into a .flow file; tables and charts update by `refresh`."),
        ("a.testflow", "“a.testflow” is not a .flow file",
         "Test files are not read; `flashflow check` checks .flow files."),
        (".", "the folder has no .flow files", "Name a file, or another folder."),
        ("x\0.flow", "the file cannot be read: its name is not valid", "Check its name and its permissions."),
    ],
)  # fmt: skip
def test_a_path_without_flow_files_is_refused(tmp_path: Path, name: str, message: str, hint: str) -> None:
    _, (error,) = load([tmp_path / name])
    assert (error.message, error.hint) == (message, hint)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.flow")
    assert messages(tmp_path) == ["a.flow:1:1 this is not a file"]


def test_lark_is_loaded_by_the_first_file_only(tmp_path: Path) -> None:
    path = written(tmp_path, "a.flow", "page Home { }")
    code = (
        "import sys; from flashflow.backend.flow.language.loader import load; import flashflow.backend.cli.flow_check\n"
        "assert 'lark' not in sys.modules; load(sys.argv[1:]); assert 'lark' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, timeout=60)


def test_endpoints_of_the_first_flashflow_have_their_built_in_routes(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.flow",
        """
        endpoint Track { path: "/api/track-activity"  method: POST  request: {
          user_id: integer required  activity_type: string required } }
        endpoint Send { path: "/api/notifications/send"  method: POST  request: {
          user_id: integer required  title: string  message: string  type: string } }
        endpoint Status { path: "/api/notifications/{id}/status"  method: PUT
          path_params: { id: integer required }  request: { status: string required } }
        endpoint Inbox { path: "/api/notifications"  query_params: { user_id: integer required  status: string } }
        endpoint Own { path: "/api/shop/view"  method: POST  alias: "POST /api/activity/track" }
        endpoint Exact { path: "/api/activity"  auth: admin }
        """,
    )  # fmt: skip
    project, errors = load([path], built_in_routes)
    assert render_all(errors) == ""
    found = {one.name: one.alias_of for one in project.endpoints}
    shown = {name: alias and (alias.method, alias.path, dict(alias.renamed)) for name, alias in found.items()}
    assert shown == {
        "Track": ("POST", "/api/activity/track", {}),
        "Send": ("POST", "/api/notifications/send", {"type": "notification_type"}),
        "Status": ("POST", "/api/notifications/{status}/{notification_id}", {"id": "notification_id"}),
        "Inbox": ("GET", "/api/notifications/user/{user_id}", {}),
        "Own": ("POST", "/api/activity/track", {}),
        "Exact": None,
    }


@pytest.mark.serial
def test_an_example_of_8000_characters_is_loaded_in_under_100_ms(tmp_path: Path) -> None:
    declaration = (
        'page P%d {\n  title: "Orders"\n  table orders { columns: [at, sessions]  data: trend  refresh: 30 }\n}\n'
    )
    text = "".join(declaration % number for number in range(81))
    assert len(text) >= 8000
    path = written(tmp_path, "a.flow", text)
    code = (
        "import sys, time; from flashflow.backend.flow.language.loader import load; started = time.process_time()\n"
        "project, errors = load(sys.argv[1:]); print(time.process_time() - started); assert len(project.pages) == 81"
    )
    done = [
        float(subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    assert min(done) < 0.15  # 96 ms measured; half as much again for a slow machine
