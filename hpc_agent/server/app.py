"""HTTP application: routes, limits of bodies, headers of answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.authentication import Authenticator
from hpc_agent.server.dispatch import Admitted, Dispatcher, Outgoing, parse_path, refusal
from hpc_agent.server.file_access import FileAccess
from hpc_agent.server.page.routes import page_routes
from hpc_agent.server.page.site import PageSite
from hpc_agent.server.requests import IncomingRequest
from hpc_agent.server.uploads import Receiver, Uploads
from hpc_agent.wire.error_kinds import BODY_TOO_LARGE, COMPRESSED_BODY

LARGEST_BODY = 32 * 1024 * 1024
"""Twice what clients send at most (docs/internals/clearml-protocol.md#method-and-body)."""
_SMALL_BODY = 64 * 1024
"""Nearly all are smaller; the connections of an address are limited too."""
_DRAINED = 4 * LARGEST_BODY
_BATCH_THREADS = 3
"""One reads a batch while another waits for its turn at the database."""

_FILE_HEADERS = {
    # A task may have uploaded a hostile page: it is shown, but runs no script and does not belong to this origin.
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}


_API_METHODS = ("GET", "POST", "PUT")


class _ActionRoute(Route):
    """Route of the API's actions, tried first: they are most of the requests, and the pages have dozens of routes."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_action = scope["type"] == "http" and parse_path(scope["path"]) is not None
        return super().matches(scope) if is_action else (Match.NONE, {})


@dataclass(frozen=True)
class Parts:
    """Parts of the server that the routes lead to."""

    dispatcher: Dispatcher
    authenticator: Authenticator
    uploads: Uploads
    file_access: FileAccess
    site: PageSite


def build(parts: Parts) -> Starlette:
    """The ASGI application."""
    api, files = _Api(parts), _Files(parts)
    return Starlette(
        routes=[
            _ActionRoute("/{path:path}", api.call, methods=_API_METHODS),
            *page_routes(parts.site),
            Route("/files", files.upload, methods=["POST"]),
            Route("/files/", files.upload, methods=["POST"]),
            Route("/files", files.ping, methods=["GET"]),
            Route("/files/", files.ping, methods=["GET"]),
            Route("/files/{path:path}", files.download, methods=["GET"]),
            Route("/files/{path:path}", files.delete, methods=["DELETE"]),
            Route("/{path:path}", api.call, methods=_API_METHODS),
        ],
        exception_handlers={HTTPException: _no_route, ClientDisconnect: _gone},
    )


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, headers=error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return PlainTextResponse("the client closed the connection before its request was complete\n", 400)


def _is_small(request: Request) -> bool:
    """Whether the body may be read before it is known who sends it: each connection could hold one."""
    headers = request.headers
    if "transfer-encoding" in headers or headers.get("content-type", "").startswith("multipart/"):
        return False
    size = headers.get("content-length", "0")
    return size.isdecimal() and len(size) < 10 and int(size) <= _SMALL_BODY


async def _body(request: Request) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > LARGEST_BODY:
            raise ApiFault(BODY_TOO_LARGE, f"it may have {LARGEST_BODY} bytes")
        pieces.append(piece)
    return b"".join(pieces)


async def _drain(request: Request) -> None:
    """Take in the rest of a refused body: a client that is cut off while it sends reports a broken connection, not our
    sentence."""
    left = _DRAINED
    # Starlette's "Stream consumed": nothing is left to take in.
    with suppress(RuntimeError):
        async for piece in request.stream():
            left -= len(piece)
            if left < 0:
                break


class _Api:
    def __init__(self, parts: Parts) -> None:
        self._dispatcher = parts.dispatcher
        self._site = parts.site
        self._batch_threads = asyncio.Semaphore(_BATCH_THREADS)

    async def call(self, request: Request) -> Response:
        named = parse_path(request.scope["path"])
        if named is None and request.method == "GET" and self._site.wants_page(request):
            return self._site.not_found(request)
        incoming = IncomingRequest(named[0] if named else request.scope["path"], named[1] if named else "")
        admit = partial(
            self._dispatcher.admit,
            incoming.action,
            request.headers.get("authorization"),
            request.headers.get("x-clearml-impersonate-as"),
        )
        try:
            if _is_small(request):
                # A thread's turn is a tenth of what a call costs: one for all of it.
                incoming = await self._read(request, incoming)
                return _answer(await self._in_thread(incoming.action, lambda: self._admitted(incoming, admit)))
            # Before the body is read: strangers get none of our memory.
            admitted = await run_in_threadpool(admit)
            incoming = await self._read(request, incoming)
        except ApiFault as fault:
            await _drain(request)
            return _answer(refusal(incoming, fault))
        return _answer(await self._in_thread(incoming.action, partial(self._dispatcher.answer, incoming, admitted)))

    async def _in_thread(self, action: str, answer: Callable[[], Outgoing]) -> Outgoing:
        if not self._dispatcher.takes_batches(action):
            return await run_in_threadpool(answer)
        # A flood of events leaves the other threads to the other calls.
        async with self._batch_threads:
            return await run_in_threadpool(answer)

    def _admitted(self, incoming: IncomingRequest, admit: Callable[[], Admitted]) -> Outgoing:
        try:
            admitted = admit()
        except ApiFault as fault:
            return refusal(incoming, fault)
        return self._dispatcher.answer(incoming, admitted)

    async def _read(self, request: Request, named: IncomingRequest) -> IncomingRequest:
        headers = request.headers
        if "content-encoding" in headers:
            raise ApiFault(COMPRESSED_BODY, "send the body as it is")
        content_type = headers.get("content-type", "")
        multipart = content_type.startswith("multipart/form-data")
        form = await _form(request) if multipart else {}
        body = b"" if multipart else await _body(request)
        return replace(
            named,
            query=request.scope["query_string"].decode("latin-1"),
            body=body,
            encoded_form=content_type.startswith("application/x-www-form-urlencoded"),
            form=form,
            worker=headers.get("x-clearml-worker") or headers.get("x-trains-worker") or "",
            ip=request.client.host if request.client else "",
            transaction=headers.get("x-clearml-trx") or headers.get("x-trains-trx") or "",
        )


async def _form(request: Request) -> dict[str, str]:
    try:
        async with request.form(max_files=0, max_fields=1000, max_part_size=LARGEST_BODY) as form:
            return {name: value for name, value in form.items() if isinstance(value, str)}
    except HTTPException as error:
        raise invalid(str(error.detail)) from None


def _answer(outgoing: Outgoing) -> Response:
    return Response(outgoing.body, outgoing.status, media_type="application/json")


class _Files:
    """The file server. Who reads needs the key pair, a token or a browser's session too: other users of this machine
    reach its ports, and the SDK sends its token with every request to the ``files_server`` of its configuration."""

    def __init__(self, parts: Parts) -> None:
        self._uploads = parts.uploads
        self._access = parts.file_access
        self._authenticator = parts.authenticator
        self._site = parts.site

    async def ping(self, request: Request) -> Response:
        return PlainTextResponse("OK")

    async def upload(self, request: Request) -> Response:
        try:
            who = await run_in_threadpool(self._authenticator.by_token, request.headers.get("authorization"))
            if "content-encoding" in request.headers:
                raise ApiFault(COMPRESSED_BODY, "send the body as it is")
            access = self._access.of(partial(self._authenticator.as_of_now, who))
            with Receiver(self._uploads, request.headers.get("content-type", ""), access) as receiver:
                async for piece in request.stream():
                    if piece:
                        await run_in_threadpool(receiver.write, piece)
                stored = await run_in_threadpool(receiver.finish)
                return JSONResponse(stored)
        except ApiFault as fault:
            await _drain(request)
            return _refused(fault)

    async def download(self, request: Request) -> Response:
        name = request.path_params["path"]
        try:
            await run_in_threadpool(self._site.check_reader, request)
            path = await run_in_threadpool(self._uploads.existing, name)
        except ApiFault as fault:
            if fault.kind.code == 401 and self._site.wants_page(request):
                return self._site.to_login(request)
            return _refused(fault)
        attachment = "attachment" if "download" in request.query_params else "inline"
        return FileResponse(path, headers=_FILE_HEADERS, filename=path.name, content_disposition_type=attachment)

    async def delete(self, request: Request) -> Response:
        name = request.path_params["path"]
        try:
            who = await run_in_threadpool(self._authenticator.by_token, request.headers.get("authorization"))
            await run_in_threadpool(self._access.delete, who, name)
        except ApiFault as fault:
            return _refused(fault)
        return PlainTextResponse(name)


def _refused(fault: ApiFault) -> Response:
    """A sentence; programs such as curl and wget are asked for the key pair."""
    headers = {"WWW-Authenticate": 'Basic realm="hpc-agent", charset="UTF-8"'} if fault.kind.code == 401 else None
    return PlainTextResponse(f"{fault}\n", fault.kind.code, headers=headers)
