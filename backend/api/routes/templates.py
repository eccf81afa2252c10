"""Templates: the endpoints over stored texts with variables."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.pagination import Page, paged_rows
from flashflow.backend.api.framework.response_schemas import page_type, response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.schemas.records import Rendered, Template
from flashflow.backend.schemas.requests import Input, PreviewIn, TemplateChangeIn, TemplateIn, build


class LocaleQuery(Input, frozen=True, kw_only=True):
    """``locale``: the language of the text; by default the one without a locale."""

    locale: Annotated[str, Meta(max_length=35)] = ""


async def list_templates(call: ApiRequest) -> ApiResponse:
    templates = call.services.notifications.templates
    return await call.read(
        lambda: success(
            **paged_rows(
                "templates", lambda before, limit: templates.newest(call.caller.sees, before, limit), call.query
            )
        )
    )


async def create_template(call: ApiRequest) -> ApiResponse:
    write = call.services.notifications.templates.create_write(call.body, call.caller.app)
    return await call.create(call.services.notification_writes, write, lambda template: success(201, template=template))


def _check_template(call: ApiRequest) -> None:
    call.services.notifications.templates.check(call.body)


async def get_template(call: ApiRequest) -> ApiResponse:
    locale = (call.query or LocaleQuery()).locale
    templates = call.services.notifications.templates
    template = await call.read(lambda: templates.get(call.params["name"], locale, call.caller.sees))
    return success(template=template)


async def change_template(call: ApiRequest) -> ApiResponse:
    body: TemplateChangeIn = call.body
    text = build(TemplateIn, name=call.params["name"], **msgspec.structs.asdict(body))
    write = call.services.notifications.templates.change_write(text, call.caller.app, call.caller.sees)
    return success(template=await call.services.notification_writes.run(write))


async def remove_template(call: ApiRequest) -> ApiResponse:
    write = call.services.notifications.templates.remove_write(call.params["name"], call.caller.sees)
    return success(deleted=await call.services.notification_writes.run(write))


async def preview_template(call: ApiRequest) -> ApiResponse:
    body, templates = call.body, call.services.notifications.templates
    rendered = await call.read(lambda: templates.preview(call.params["name"], body.data, body.locale, call.caller.sees))
    return success(preview=rendered)


TEMPLATE = response_type("TemplateAnswer", template=Template)
ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/templates", scope="manage", handler=list_templates, query=Page,
        summary="List templates, newest first", answer="templates, next_cursor",
        responses={200: page_type("TemplatesAnswer", "templates", Template)},
    ),
    Endpoint(
        method="POST", path="/api/templates", scope="manage", handler=create_template, body=TemplateIn, creates=True,
        example={"name": "greeting", "title_template": "Hello {name}", "message_template": "Welcome, {name}."},
        refusals=(409,),
        check=_check_template,
        summary="Create a template: a text with variables", answer="201 template; 409 if the name is taken",
        responses={201: TEMPLATE},
    ),
    Endpoint(
        method="POST", path="/api/templates/{name}/preview", scope="manage", handler=preview_template, body=PreviewIn,
        example={"data": {"name": "Ada"}},
        summary="Render a template without sending", answer="preview; 400 names each missing variable",
        responses={200: response_type("PreviewAnswer", preview=Rendered)},
    ),
    Endpoint(
        method="GET", path="/api/templates/{name}", scope="manage", handler=get_template, query=LocaleQuery,
        summary="One template", answer="template", responses={200: TEMPLATE},
    ),
    Endpoint(
        method="PUT", path="/api/templates/{name}", scope="manage", handler=change_template, body=TemplateChangeIn,
        example={"title_template": "Hi {name}", "message_template": "Welcome back, {name}."},
        check=_check_template,
        summary="Replace a template's text", answer="template", responses={200: TEMPLATE},
    ),
    Endpoint(
        method="DELETE", path="/api/templates/{name}", scope="manage", handler=remove_template,
        summary="Delete a template in every locale", answer="deleted",
        responses={200: response_type("TemplatesRemovedAnswer", deleted=list[Template])},
    ),
)  # fmt: skip
