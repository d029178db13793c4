"""Server process: its data folder, certificate and socket, from start to stop."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uvicorn

from hpc_agent.access import check_private, user_name
from hpc_agent.clock import Clock
from hpc_agent.errors import ConfigError
from hpc_agent.file_lock import try_lock
from hpc_agent.file_records import ensure_directory
from hpc_agent.server import owner_credentials
from hpc_agent.server.action import Transaction
from hpc_agent.server.app import Parts, build
from hpc_agent.server.authentication import AuthenticatedCaller, Authenticator
from hpc_agent.server.dispatch import Dispatcher
from hpc_agent.server.file_access import FileAccess
from hpc_agent.server.http_server import LONGEST_HEAD, HttpServer, limits_for, raise_descriptor_limit
from hpc_agent.server.page.login_sessions import Sessions
from hpc_agent.server.page.site import PageSite
from hpc_agent.server.quota import UploadLimits
from hpc_agent.server.services import ENDPOINTS
from hpc_agent.server.services.auth import replace_own_key_pair, store_administrator
from hpc_agent.server.services.queues import ensure_default_queue
from hpc_agent.server.store.connection import DocumentStore
from hpc_agent.server.store.schema import DATABASE
from hpc_agent.server.uploads import Uploads
from hpc_agent.server.watchdog import Watchdog

_ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised, not bound to
_CLIENT_LOGGERS = ("asyncio", "uvicorn.error", "python_multipart.multipart")
"""Of libraries that read what clients send."""
_LOG_INTERVAL_S = 60.0
_MOST_LOG_KINDS = 1000


@dataclass(frozen=True)
class ServerOptions:
    host: str
    port: int
    """0 takes a free one."""
    data_dir: Path
    connections_per_address: int
    uploads: UploadLimits
    certificate: CertificateFiles | None = None
    """For HTTPS; without it the server uses HTTP."""
    keep_events: timedelta | None = None
    """How long ended tasks keep what they reported; None: forever."""
    conf: Path | None = None
    """Where the clearml.conf goes; ``clearml.conf`` in the data folder by default."""


@dataclass(frozen=True)
class Listening:
    url: str
    conf: Path
    private: bool
    """Whether the traffic is private: encrypted, or on this machine only."""


def serve(options: ServerOptions, clock: Clock, announce: Callable[[Listening], None]) -> None:
    """Serve until SIGTERM or SIGINT. ``announce`` is called once the port is open and the conf file written.

    Raises:
        ConfigError: the port or the data folder cannot be used.
    """
    limit_client_logs()
    tls = options.certificate.load() if options.certificate else None
    try:
        folder = ensure_directory(options.data_dir, mode=0o700).resolve()
    except OSError as error:
        raise ConfigError(f"the data folder {options.data_dir} cannot be made: {error.strerror}") from error
    check_private(folder, "the server's data folder (--data-dir)")
    with _sole_use(folder), _listening(options.host, options.port) as listener:
        owner = owner_credentials.load_or_create(folder)
        url = _url("https" if tls else "http", options.host, listener)
        conf = (options.conf or folder / "clearml.conf").expanduser().absolute()
        try:
            owner_credentials.write_conf(conf, url, owner)
        except OSError as error:
            raise ConfigError(f"the conf file {conf} cannot be written: {error.strerror}") from error
        store = DocumentStore(folder / DATABASE)
        try:
            identity = AuthenticatedCaller(owner.user, user_name())
            with store.write() as db:
                moment = Transaction(db, clock.now())
                store_administrator(moment, identity)
                replace_own_key_pair(moment, owner.user, owner.access_key, owner.secret_key)
                ensure_default_queue(moment, {"user": owner.user, "company": identity.company})
            authenticator = Authenticator(store, owner.signing_key, clock)
            dispatcher = Dispatcher(store, authenticator, ENDPOINTS, clock)
            uploads = Uploads(folder, options.uploads)
            site = PageSite(dispatcher, authenticator, Sessions(store, authenticator, clock), uploads, clock)
            app = build(Parts(dispatcher, authenticator, uploads, FileAccess(store, uploads), site))
            limits = limits_for(raise_descriptor_limit(), options.connections_per_address)
            server = HttpServer(_configuration(app), listener, limits, tls)
            with Watchdog(store, clock, options.keep_events), _ended_by_signals(server):
                announce(Listening(url, conf, private=tls is not None or _is_loopback(listener)))
                server.run()
        finally:
            store.close()


def _configuration(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # The SDK forks with its connections open: kept ones get mixed up and hang
        # (docs/internals/clearml-protocol.md#connections).
        headers=[("Connection", "close"), ("X-Content-Type-Options", "nosniff")],
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_graceful_shutdown=5,
    )


@contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """SIGTERM and SIGINT end the server well, also before uvicorn listens to them, and the program with 0: uvicorn
    raises them again after its own end, which the default handlers would take as the program's."""

    def end(number: int, frame: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _sole_use(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system drops it with the process, however that ends."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            is_ours = try_lock(descriptor)
        except OSError as error:
            raise ConfigError(f"the data folder {folder} cannot be locked: {error.strerror}") from error
        if not is_ours:
            raise ConfigError(
                f"another hpc-agent server is using the data folder {folder}: stop it, or name another with --data-dir"
            )
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """
    Raises:
        ConfigError: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}: {error.strerror or error}; name another --host") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(1024)
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} of {host} is taken: stop what listens there, or choose another with --port (0: any)"
                ) from error
            raise ConfigError(f"cannot listen on {host} port {port}: {error}") from error
        yield listener


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _url(scheme: str, host: str, listener: socket.socket) -> str:
    """For the conf file: the real port, and this machine's name where it listens on all addresses."""
    port = listener.getsockname()[1]
    name = socket.gethostname() if host in _ANY_ADDRESS else host
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"


class OncePerMinute(logging.Filter):
    """Log filter that drops a line if the same place has written one with the same beginning in the last minute."""

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[tuple[str, int, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = (record.pathname, record.lineno, record.getMessage()[:40])
        if record.created - self._written.get(kind, -_LOG_INTERVAL_S) < _LOG_INTERVAL_S:
            return False
        if len(self._written) >= _MOST_LOG_KINDS:
            self._written.clear()
        self._written[kind] = record.created
        return True


def limit_client_logs() -> None:
    """Write log lines that clients can cause once a minute, however often they cause them."""
    for name in _CLIENT_LOGGERS:
        logging.getLogger(name).addFilter(OncePerMinute())


@dataclass(frozen=True)
class CertificateFiles:
    """PEM files; the key may be in the certificate's own."""

    certificate: Path
    key: Path | None = None

    def load(self) -> ssl.SSLContext:
        """
        Raises:
            ConfigError: they cannot be read, or do not belong together.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        names = str(self.certificate) if self.key is None else f"{self.certificate} with the key {self.key}"
        try:
            # Without a password at hand OpenSSL would ask the terminal for one.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except ssl.SSLError as error:
            raise ConfigError(
                f"the certificate {names} cannot be used ({error.reason or error}); "
                "give PEM files that belong together, the key without a password"
            ) from error
        except OSError as error:
            raise ConfigError(f"the certificate {names} cannot be read: {error.strerror}") from error
        return context
