"""Answers of the web page: who asks, whether a form is the page's own, and sentences for what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from hpc_agent.clock import Clock
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.authentication import AuthenticatedCaller, Authenticator
from hpc_agent.server.dispatch import Dispatcher
from hpc_agent.server.page.login_sessions import LIFETIME, Session, Sessions
from hpc_agent.server.page.page_request import PageRequest, redirect
from hpc_agent.server.page.rendering import PAGE_HEADERS, Templates
from hpc_agent.server.page.service_calls import ServiceCalls
from hpc_agent.server.store.connection import ReadTooLongError
from hpc_agent.server.uploads import Uploads
from hpc_agent.wire.error_kinds import INVALID_TOKEN, NO_PERMISSION

View = Callable[[PageRequest], Response]
_LARGEST_FORM = 4 * 1024 * 1024
_MOST_FIELDS = 5000
_UNAUTHORIZED = 401
_LONGEST_ADDRESS = 2000


class PageSite:
    def __init__(
        self, dispatcher: Dispatcher, authenticator: Authenticator, sessions: Sessions, uploads: Uploads, clock: Clock
    ) -> None:
        self._dispatcher = dispatcher
        self._authenticator = authenticator
        self._sessions = sessions
        self._uploads = uploads
        self._clock = clock
        self._templates = Templates()

    async def show(self, view: View, request: Request) -> Response:
        """A page or a part of one."""
        try:
            caller, session = await run_in_threadpool(self._reader, request)
            return await run_in_threadpool(view, self._page(request, caller, session, {}))
        except ApiFault as fault:
            return self._refused(request, fault)
        except ReadTooLongError as error:
            return self._refused(request, invalid(f"the page cannot be made, {error}"))

    async def act(self, view: View, request: Request) -> Response:
        """A form that changes something: with the session's cookie and its form token, never with a key pair that a
        browser would send by itself."""
        try:
            _refuse_other_origin(request)
            form = await _read_form(request)
            session = await run_in_threadpool(self._sessions.find, self._cookie(request))
            token = request.headers.get("x-form-token") or (form.get("form_token") or [""])[-1]
            if not session.accepts(token):
                raise ApiFault(NO_PERMISSION, "the form is not of this session; load the page again")
            return await run_in_threadpool(view, self._page(request, session.caller, session, form))
        except ApiFault as fault:
            return self._refused(request, fault)
        except ReadTooLongError as error:
            return self._refused(request, invalid(str(error)))

    def check_reader(self, request: Request) -> None:
        """For files: credentials in a header, or a browser's session.

        Raises:
            ApiFault: 401.
        """
        self._reader(request)

    async def login_form(self, request: Request) -> Response:
        next_address = _local(request.query_params.get("next", ""))
        return self._login_page(request, next_address, "")

    async def login(self, request: Request) -> Response:
        next_address = "/"
        try:
            _refuse_other_origin(request)
            form = await _read_form(request)
            next_address = _local((form.get("next") or [""])[-1])
            keys = [(form.get(name) or [""])[-1].strip() for name in ("access_key", "secret_key")]
            session = await run_in_threadpool(self._sessions.open, *keys)
        except ApiFault as fault:
            if fault.kind.code != _UNAUTHORIZED:
                return self._refused(request, fault)
            sentence = "This key pair does not exist or was revoked. Both keys are in your clearml.conf."
            return self._login_page(request, next_address, sentence)
        answer = redirect(next_address)
        answer.set_cookie(
            _cookie_name(request),
            session.cookie,
            max_age=int(LIFETIME.total_seconds()),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )
        return answer

    async def logout(self, request: Request) -> Response:
        answer = await self.act(lambda page: redirect("/login"), request)
        if answer.status_code == redirect("/").status_code:
            await run_in_threadpool(self._sessions.end, self._cookie(request))
            answer.delete_cookie(_cookie_name(request))
        return answer

    def wants_page(self, request: Request) -> bool:
        """Whether a browser shows the answer to a person."""
        return "text/html" in request.headers.get("accept", "")

    def not_found(self, request: Request) -> Response:
        return self._error_page(request, 404, "There is no such page.")

    def to_login(self, request: Request) -> Response:
        # A form is not sent again by itself: after the login its user sees the page that it was on.
        here = _address(request) if request.method == "GET" else _path_of(request.headers.get("referer", "/"))
        return redirect("/login?" + urlencode({"next": here}))

    def _reader(self, request: Request) -> tuple[AuthenticatedCaller, Session | None]:
        header = request.headers.get("authorization")
        if header is not None:
            return self._authenticator.by_key_pair_or_token(header), None
        session = self._sessions.find(self._cookie(request))
        return session.caller, session

    def _cookie(self, request: Request) -> str:
        """
        Raises:
            ApiFault: 401.
        """
        cookie = request.cookies.get(_cookie_name(request))
        if not cookie:
            raise ApiFault(INVALID_TOKEN, "log in first")
        return cookie

    def _page(
        self,
        request: Request,
        caller: AuthenticatedCaller,
        session: Session | None,
        form: Mapping[str, list[str]],
    ) -> PageRequest:
        return PageRequest(
            calls=ServiceCalls(self._dispatcher, caller),
            session=session,
            user_name=caller.user_name,
            templates=self._templates,
            uploads=self._uploads,
            now=self._clock.now(),
            address=_address(request),
            path={name: str(value) for name, value in request.path_params.items()},
            query=_fields(request.scope["query_string"].decode("latin-1")),
            form=form,
            cookies=request.cookies,
            fragment=_is_fragment(request),
        )

    def _refused(self, request: Request, fault: ApiFault) -> Response:
        code = fault.kind.code
        if code == _UNAUTHORIZED and request.headers.get("authorization") is None:
            if _is_fragment(request):
                # htmx follows this one; a redirect would put the login form into a part of the page.
                here = _path_of(request.headers.get("hx-current-url", "/"))
                go = {"HX-Redirect": "/login?" + urlencode({"next": here})}
                return PlainTextResponse("log in again\n", code, headers={**PAGE_HEADERS, **go})
            return self.to_login(request)
        if _is_fragment(request):
            return PlainTextResponse(f"{fault}\n", code, headers=PAGE_HEADERS)
        return self._error_page(request, code, str(fault))

    def _error_page(self, request: Request, code: int, sentence: str) -> Response:
        if not self.wants_page(request):
            return PlainTextResponse(f"{sentence}\n", code, headers=PAGE_HEADERS)
        return self._bare("error.html", request, code, sentence=sentence, error=code)

    def _login_page(self, request: Request, next_address: str, sentence: str) -> Response:
        code = _UNAUTHORIZED if sentence else 200
        return self._bare("login.html", request, code, next_address=next_address, sentence=sentence)

    def _bare(self, template: str, request: Request, code: int, **values: Any) -> Response:
        """A page without a user."""
        page = self._page(request, AuthenticatedCaller("", "", role=""), None, {})
        return page.render(template, code, **values)


def shown_by(site: PageSite, view: View) -> Callable[[Request], object]:
    """The route's endpoint of a view that reads."""
    return partial(site.show, view)


def acted_by(site: PageSite, view: View) -> Callable[[Request], object]:
    """The route's endpoint of a view that changes something."""
    return partial(site.act, view)


def _is_fragment(request: Request) -> bool:
    return "hx-request" in request.headers


def _cookie_name(request: Request) -> str:
    """With the port: cookies of all ports of a host are one jar, and one machine may run several servers."""
    return f"hpc_agent_session_{request.url.port or request.url.scheme}"


def _address(request: Request) -> str:
    query = request.scope["query_string"].decode("latin-1")
    return (request.url.path + (f"?{query}" if query else ""))[:_LONGEST_ADDRESS]


def _path_of(url: str) -> str:
    """Path and query string of a URL of this server."""
    parts = urlsplit(url)
    return _local(parts.path + (f"?{parts.query}" if parts.query else ""))


def _local(address: str) -> str:
    """The address if it is one on this server, else the front page."""
    is_local = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_local else "/"


def _refuse_other_origin(request: Request) -> None:
    """
    Raises:
        ApiFault: 403, a page of another site sent the form.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise ApiFault(NO_PERMISSION, "the form was sent by a page of another site")


def _fields(text: str) -> dict[str, list[str]]:
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise invalid(f"there are more than {_MOST_FIELDS} fields") from None


async def _read_form(request: Request) -> dict[str, list[str]]:
    """
    Raises:
        ApiFault: 400/12, it is not a form, or too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind != "application/x-www-form-urlencoded":
        raise invalid("a form of this page is application/x-www-form-urlencoded")
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > _LARGEST_FORM:
            raise invalid(f"a form may have {_LARGEST_FORM} bytes")
        pieces.append(piece)
    return _fields(b"".join(pieces).decode("utf-8", "replace"))
