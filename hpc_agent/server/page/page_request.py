"""One request for a page: its user, its fields, and the answers that views give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from hpc_agent.server.page.login_sessions import Session
from hpc_agent.server.page.rendering import PAGE_HEADERS, Templates
from hpc_agent.server.page.service_calls import ServiceCalls
from hpc_agent.server.uploads import Uploads

Json = dict[str, Any]
Fields = Mapping[str, Sequence[str]]
_LONGEST_NOTICE = 300


@dataclass(frozen=True)
class PageRequest:
    calls: ServiceCalls
    session: Session | None
    """None for a request with an Authorization header, which may read only."""
    user_name: str
    templates: Templates
    uploads: Uploads
    now: datetime
    address: str
    """Path and query string."""
    path: Mapping[str, str] = field(default_factory=dict)
    """Variable parts of the path."""
    query: Fields = field(default_factory=dict)
    form: Fields = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    fragment: bool = False
    """htmx asks for a part of a page."""

    def asked(self, name: str, default: str = "") -> str:
        """The last value of a field of the query string."""
        return self.query[name][-1] if self.query.get(name) else default

    def sent(self, name: str, default: str = "") -> str:
        """The last value of a field of the form."""
        return self.form[name][-1] if self.form.get(name) else default

    def render(self, template: str, status: int = 200, **values: Any) -> Response:
        text = self.templates.render(
            template,
            **values,
            page=self,
            now=self.now,
            form_token=self.session.form_token if self.session else "",
        )
        return HTMLResponse(text, status, headers=PAGE_HEADERS)


def json_answer(data: Any) -> Response:
    return JSONResponse(data, headers=PAGE_HEADERS)


def redirect(address: str) -> Response:
    return RedirectResponse(address, 303, headers=PAGE_HEADERS)


@dataclass(frozen=True)
class Undo:
    """A form that takes an action back."""

    action: str
    fields: Fields


def done(notice: str, undo: Undo | None = None, go: str = "") -> Response:
    """An action has succeeded: the page says so, offers to take it back, and shows its parts again, or goes to ``go``.

    The notice survives the change of the page in the browser (``app.js``).
    """
    shown: dict[str, Any] = {"text": notice[:_LONGEST_NOTICE]}
    if undo is not None:
        shown["undo"] = {"action": undo.action, "body": urlencode(undo.fields, doseq=True)}
    if go:
        shown["go"] = go
    # json.dumps escapes everything outside of ASCII, as a header needs it.
    return Response(status_code=204, headers={**PAGE_HEADERS, "HX-Trigger": json.dumps({"notice": shown})})
