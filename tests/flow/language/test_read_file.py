"""Each construct of the language, read into its declaration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.flow.language.declarations import (
    Action,
    Bell,
    Chart,
    Container,
    ForEach,
    Form,
    Project,
    SendNotification,
    SendScheduled,
    SettingsPanel,
    Table,
    TextElement,
    TrackActivity,
)
from flashflow.backend.flow.language.errors import render_all
from flashflow.backend.flow.language.expressions import evaluate, evaluate_all
from flashflow.backend.flow.language.loader import load
from flashflow.backend.schemas.requests import StageIn, ThrottleIn
from flashflow.backend.schemas.rules import WhereIn

PRODUCT = """
model Product {
  id: integer primary
  name: string required unique
  price: decimal default:9.5
  category: string enum:books,games default:books
  stock: boolean default:true
  note: text default:"a # b"
  extra: json
  maker: reference Company
  seller: integer references Company.number
  created_at: timestamp auto
}
model Company { number: integer primary_key auto_increment  title: string }
"""


def project(folder: Path, text: str) -> Project:
    path = folder / "a.flow"
    path.write_text(text, "utf-8")
    found, errors = load([path])
    assert render_all(errors) == ""
    return found


def values(action: Action, scope: dict[str, Any]) -> dict[str, Any]:
    """The evaluated fields of an action."""
    assert isinstance(action, TrackActivity | SendNotification)
    return evaluate_all(action.fields, scope)


def test_a_model_has_its_fields_with_types_and_modifiers(tmp_path: Path) -> None:
    product, company = project(tmp_path, PRODUCT).models
    assert (product.singular, product.plural, company.plural) == ("product", "products", "companies")
    fields = {field.name: field for field in product.fields}
    assert [field.type for field in product.fields] == [
        "integer", "string", "decimal", "string", "boolean", "text", "json", "reference", "integer", "timestamp",
    ]  # fmt: skip
    assert fields["id"].primary
    assert (fields["name"].required, fields["name"].unique) == (True, True)
    assert [fields[name].default for name in ("price", "category", "stock", "note")] == [9.5, "books", True, "a # b"]
    assert fields["category"].choices == ("books", "games")
    assert fields["created_at"].auto
    maker, seller = fields["maker"].references, fields["seller"].references
    assert maker is not None
    assert seller is not None
    assert (maker.model, maker.field, seller.model, seller.field) == ("Company", "id", "Company", "number")
    assert (company.fields[0].primary, company.fields[0].auto) == (True, True)


PAGE = (
    PRODUCT
    + """
page ShopFront {
  title: "Shop"
  route: "/shop"
  auth: admin
  header { row { h1 "Shop" style="color: red"  notification_bell { position: left } } }
  section "Products" {
    text "Hello " + current_user.name
    table products {
      title: "All"
      columns: [name, price]
      data: all_products {limit: 20}
      refresh: 30
      sort: price desc
      on_row_click: {
        track_activity: {
          user_id: current_user.id
          activity_type: "product_view"
          page_url: "/products/" + product.id
          metadata: {product_id: row.id, "tags of it": [product.category, 1]}
        }
        send_notification: { user_id: admin_users  title: "Seen"  message: product.name + "!"  type: info
          channel: in_app }
      }
    }
    table every_column { data: all_products }
    form add { model: Product  on_submit: { send_notification: {
      to: all_users  title: "New"  message: new_product.name  type: "orders"  priority: high } } }
  }
  column { div class="box" { chart visits { type: area  data: trend {days: 30, interval: day}  y: [sessions] } } }
  chart rates { data: notification_delivery_rates }
  notification_settings { user_id: "u-1" }
}
page OnlyDefaults { }
"""
)


def test_a_page_has_its_elements(tmp_path: Path) -> None:
    page, other = project(tmp_path, PAGE).pages
    assert (page.title, page.route, page.auth) == ("Shop", "/shop", "admin")
    assert (other.title, other.route, other.auth, other.elements) == ("OnlyDefaults", "/only-defaults", None, ())
    header, section, column, rates, panel = page.elements
    assert isinstance(header, Container)
    (row,) = header.children
    assert isinstance(row, Container)
    heading, bell = row.children
    assert isinstance(heading, TextElement)
    assert (heading.kind, heading.style) == ("h1", "color: red")
    assert isinstance(bell, Bell)
    assert (str(bell.user_id), bell.position) == ("current_user.id", "left")
    assert isinstance(section, Container)
    assert section.title == "Products"
    text, table, whole, form = section.children
    assert isinstance(text, TextElement)
    assert evaluate(text.text, {"current_user": {"name": "Ada"}}) == "Hello Ada"
    assert isinstance(table, Table)
    assert (table.name, table.title, table.columns, table.refresh_s) == ("products", "All", ("name", "price"), 30)
    assert (table.data.name, table.data.model, evaluate_all(table.data.arguments, {})) == (
        "all_products", "Product", {"limit": 20},
    )  # fmt: skip
    assert table.sort is not None
    assert (table.sort.column, table.sort.descending) == ("price", True)
    assert isinstance(whole, Table)
    assert whole.columns == tuple(field.name for field in project(tmp_path, PAGE).models[0].fields)
    assert isinstance(form, Form)
    assert form.fields == ("name", "price", "category", "stock", "note", "extra", "maker", "seller")
    assert isinstance(column, Container)
    (box,) = column.children
    assert isinstance(box, Container)
    (chart,) = box.children
    assert isinstance(chart, Chart)
    assert (chart.type, chart.x, chart.y) == ("area", "at", ("sessions",))
    assert evaluate_all(chart.data.arguments, {}) == {"days": 30, "interval": "day"}
    assert isinstance(rates, Chart)
    assert (rates.type, rates.x, rates.y) == ("line", "day", ("delivery_rate", "read_rate"))
    assert isinstance(panel, SettingsPanel)
    assert evaluate(panel.user_id, {}) == "u-1"


def test_actions_of_a_page_have_the_fields_of_the_api(tmp_path: Path) -> None:
    _, section, *_ = project(tmp_path, PAGE).pages[0].elements
    assert isinstance(section, Container)
    _, table, _, form = section.children
    assert isinstance(table, Table)
    row = {"id": 7, "name": "Chess", "category": "games"}
    scope = {"current_user": {"id": "u-1", "name": "Ada"}, "product": row, "row": row}
    track, send = table.on_row_click
    assert values(track, scope) == {
        "user_id": "u-1", "activity_type": "product_view", "page_url": "/products/7",
        "metadata": {"product_id": 7, "tags of it": ["games", 1]},
    }  # fmt: skip
    assert isinstance(send, SendNotification)
    assert (send.to, send.kind) == ("admin_users", "info")
    assert values(send, scope) == {"title": "Seen", "message": "Chess!", "channel": "in_app"}
    assert isinstance(form, Form)
    (submit,) = form.on_submit
    assert isinstance(submit, SendNotification)
    assert (submit.to, submit.kind) == ("all_users", None)
    assert values(submit, {"new_product": row}) == {
        "notification_type": "orders", "title": "New", "message": "Chess", "priority": "high",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("head", "name", "minutes"),
    [("5 minutes", "every 5 minutes", 5), ("hour", "every hour", 60), ("2 days", "every 2 days", 2880)],
)
def test_every_is_a_job_in_short(tmp_path: Path, head: str, name: str, minutes: int) -> None:
    (job,) = project(tmp_path, f'every {head} {{ send_notification: {{ to: 42  title: "a"  message: "b" }} }}').jobs
    assert (job.name, job.schedule.every_minutes) == (name, minutes)
    (send,) = job.actions
    assert isinstance(send, SendNotification)
    assert not isinstance(send.to, str)
    assert evaluate(send.to, {}) == "42"


def test_a_job_has_a_schedule_loops_and_variables(tmp_path: Path) -> None:
    text = """
    every monday at "9:05" { name: weekly  description: "Report"  track_activity: { user_id: "u"  activity_type: "a" } }
    job Summary {
      schedule: "30 9 * * 1-5"
      description: "Summary of the week"
      task: {
        rows = data: users {days: 7}
        for user in rows {
          send_notification: { to: user.user_id  title: "Week"  message: user.activities + " visits" }
        }
        for page in pages { track_activity: { user_id: "u"  activity_type: "seen"  page_url: page.name } }
      }
    }
    """
    weekly, summary = project(tmp_path, text).jobs
    assert (weekly.name, weekly.description, weekly.schedule.text) == ("weekly", "Report", "every monday at 09:05")
    assert weekly.schedule.cron is not None
    assert weekly.schedule.cron.weekdays == {1}
    assert summary.schedule.text == "30 9 * * 1-5"
    first, second = summary.actions
    assert isinstance(first, ForEach)
    assert isinstance(second, ForEach)
    assert (first.variable, first.data.name, evaluate_all(first.data.arguments, {})) == ("user", "users", {"days": 7})
    assert values(first.actions[0], {"user": {"activities": 3}})["message"] == "3 visits"
    assert second.data.name == "pages"


def test_the_documented_statements_over_scheduled_notifications_have_nothing_to_do(tmp_path: Path) -> None:
    text = """
    job SendDue {
      schedule: every_5_minutes
      task: {
        due = query: SELECT id, title FROM Notification WHERE status = 'pending' AND scheduled_at <= now()
        for one in due {
          send_notification: { to: one.user_id  title: one.title  message: one.message }
          update Notification set status = 'sent', sent_at = NOW() where id = one.id
        }
      }
    }
    """
    (job,) = project(tmp_path, text).jobs
    (action,) = job.actions
    assert isinstance(action, SendScheduled)


def test_an_endpoint_has_its_fields(tmp_path: Path) -> None:
    text = """
    endpoint Orders {
      path: "/api/orders/{id}"  method: PUT  description: "Change"  auth: admin
      path_params: { id: integer required }
      query_params: { limit: integer default:50 }
      request: { status: string enum:open,paid  user_id: reference required }
      response: { success: boolean }
      alias: "POST /api/activity/track"
    }
    """.replace("reference", "string")
    (endpoint,) = project(tmp_path, text).endpoints
    assert (endpoint.method, endpoint.path, endpoint.auth, endpoint.description) == (
        "PUT", "/api/orders/{id}", "admin", "Change",
    )  # fmt: skip
    assert [field.name for field in endpoint.request] == ["status", "user_id"]
    assert endpoint.query_params[0].default == 50
    assert endpoint.alias_of is not None
    assert (endpoint.alias_of.method, endpoint.alias_of.path) == ("POST", "/api/activity/track")


def test_a_notification_type_and_a_template_are_requests_of_the_api(tmp_path: Path) -> None:
    text = """
    notification_type "order news" {
      label: "Orders"  description: "News of orders"  channels: [in_app, email]  critical: true  category: "Shop"
      digest: daily  digest_at: "08:00"  throttle: {limit: 3, minutes: 60}
      failover: [{channel: email, after_minutes: 10}]
    }
    template welcome {
      title: "Hello {name}"  message: "Line 1\\nLine 2"  channels: [email]  locale: "de"
      data_schema: {type: object, required: [name]}
    }
    """
    found = project(tmp_path, text)
    (kind,) = found.notification_types
    assert (kind.name, kind.request.channels, kind.request.critical) == ("order news", ["in_app", "email"], True)
    assert (kind.request.digest, kind.request.digest_at) == ("daily", "08:00")
    assert kind.request.throttle == ThrottleIn(limit=3, minutes=60)
    assert kind.request.failover == [StageIn(channel="email", after_minutes=10)]
    (template,) = found.templates
    assert (template.name, template.request.title_template, template.request.locale) == (
        "welcome",
        "Hello {name}",
        "de",
    )
    assert template.request.message_template == "Line 1\nLine 2"
    assert template.request.data_schema == {"type": "object", "required": ["name"]}


def test_a_rule_is_a_request_of_the_rules_engine(tmp_path: Path) -> None:
    text = """
    on activity "checkout failed" {
      where: metadata.plan == "pro"
      where: activity.page_url contains "/checkout"
      where: metadata."http.status" >= 500
      where: app in ["shop", "blog"]
      where: referrer missing
      where: metadata.cart exists
      count: 3
      within: 10 minutes
      cooldown: 2 hours
      send_notification: {
        to: activity.user_id
        title: "Trouble paying?"
        message: "Dear " + activity.user_id + ", plan " + activity.metadata.plan + " failed {times} times"
        type: warning
        channel: email
        data: {team: "billing"}
      }
    }
    on activity "signup" { name: welcome  cooldown: 0  send_notification: { to: admin_users  template: hello } }
    on activity "upgrade" {
      send_notification: { to: ["a", 7]  title: "Upgrade"  message: activity.metadata."new.plan" }
    }
    """
    first, second, third = project(tmp_path, text).rules
    assert (first.name, first.to, first.cooldown_minutes, first.kind) == ("checkout-failed", "user", 120, "warning")
    assert (first.on.activity_type, first.on.times, first.on.within_minutes) == ("checkout failed", 3, 10)
    assert first.on.where == [
        WhereIn(field="metadata.plan", op="eq", value="pro"),
        WhereIn(field="page_url", op="contains", value="/checkout"),
        WhereIn(field='metadata."http.status"', op="gte", value=500),
        WhereIn(field="app", op="in", value=["shop", "blog"]),
        WhereIn(field="referrer", op="exists", value=False),
        WhereIn(field="metadata.cart", op="exists", value=True),
    ]
    assert first.send.message == "Dear {user_id}, plan {metadata_plan} failed {times} times"
    assert (first.send.channels, first.send.data) == (["email"], {"team": "billing"})
    assert (second.name, second.to, second.cooldown_minutes, second.send.template) == (
        "welcome",
        "admin_users",
        0,
        "hello",
    )
    assert (third.to, third.send.message) == (("a", "7"), "{metadata_new_plan}")
