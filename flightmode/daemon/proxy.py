"""The proxy, put together: the data path, and the store that tells it who is primary."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client import start_http_server

from flightmode import __version__, _native
from flightmode.config import Config, etcd_endpoints, policy_of
from flightmode.daemon.succession import Place, first_news, inherit, start_heir
from flightmode.errors import FlightmodeError, PortTaken, ProxySettingsWrong
from flightmode.pki import client_context, read_secret
from flightmode.pki.files import check_private, make_directory, write_private
from flightmode.proxy.metrics import registry
from flightmode.proxy.news import News
from flightmode.proxy.settings import Places, Settings, settings_of
from flightmode.proxy.takeover import Heir
from flightmode.proxy.watching import Watcher
from flightmode.store.etcd import EtcdStore

_log = structlog.get_logger("daemon.proxy")

APP_USER = "app"
"""The role that `flightmode init` makes a password for."""

_EVENTS_WITHIN_S = 0.5
_FIRST_SOCKET = 3
"""Where systemd puts the sockets it passes on (sd_listen_fds(3))."""

Reading = Callable[[], Config]
"""Reads flightmode.toml anew; raises ConfigInvalid, ConfigMissing."""


def settings_here(config: Config, places: Places) -> Settings:
    """What the data path is told.  Raises ProxySettingsWrong."""
    settings = settings_of(
        config,
        users_file=config.proxy.users_file or places.run_dir / "proxy-users",
        ca=places.tls_dir / "ca.crt",
        admin_socket=places.run_dir / "proxy-admin.sock",
    )
    try:
        _native.check(json.dumps(settings))
    except ValueError as wrong:
        raise ProxySettingsWrong(str(wrong)) from None
    return settings


def check_here(config: Config, places: Places) -> Settings:
    """The same, if the proxy could start with the files that are here; changes nothing.

    Raises FileMissing, FileUnsafe, CertificateInvalid, ProxySettingsWrong.
    """
    client_context(places.tls_dir, places.tls_stem)
    if config.proxy.users_file is None:
        read_secret(places.secrets_dir, APP_USER)
    else:
        check_private(config.proxy.users_file)
    if config.proxy.auth_query is not None:
        check_private(config.proxy.auth_query.secret_file)
    if config.proxy.tls_key is not None:
        check_private(config.proxy.tls_key)
    return settings_here(config, places)


def _write_users(places: Places) -> None:
    """The user `app` with its password, in the form that the data path reads."""
    password = read_secret(places.secrets_dir, APP_USER)
    make_directory(places.run_dir)
    doubled = password.replace('"', '""')
    write_private(places.run_dir / "proxy-users", f'"{APP_USER}" "{doubled}"\n')


def run_proxy(read: Reading, places: Places, *, take_over: bool = False) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reads the settings again, SIGUSR2 starts a new process
    that takes over.

    `take_over`: from the proxy that runs here, if one does.  Raises FlightmodeError when it can't
    start, or can't take over.
    """
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run_until_told(read, places, take_over=take_over))


async def _run_until_told(read: Reading, places: Places, *, take_over: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    config = read()
    heir = Heir.find(places.run_dir) if take_over else None
    news = None if heir is None else await first_news(config, places, _boottime_s)
    data_path = _start(config, places, _passed_sockets() if heir is None else heir.sockets)
    running = Running(data_path, read, places, config, heir)
    loop.add_signal_handler(signal.SIGHUP, running.reload)
    loop.add_signal_handler(signal.SIGUSR2, running.start_heir)
    try:
        if heir is not None and news is not None:
            data_path.topology(json.dumps(news.as_json()))
            await asyncio.to_thread(heir.begin)
        await running.serve()
    finally:
        await asyncio.to_thread(data_path.stop, running.config.proxy.stop_grace_s)


@dataclass
class Running:
    """A data path that serves, and what it is told while it does."""

    data_path: _native.Proxy
    read: Reading
    places: Places
    config: Config
    heir: Heir | None = None
    """Of the proxy that ran here before, until that has no client left."""
    _metrics: Callable[[], None] | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        began = json.dumps(settings_here(self.config, self.places))
        self._place = Place(self.data_path, self.places, lambda: began, self._conceal, self._expose)

    async def serve(self) -> None:
        """Until cancelled."""
        config, places = self.config, self.places
        tls = client_context(places.tls_dir, places.tls_stem)
        store = EtcdStore(etcd_endpoints(config), tls, clock=_boottime_s)
        watcher = Watcher(store, config.cluster.name, policy_of(config), _boottime_s, self._on_news)
        self._expose()
        mine = config.proxy
        _log.info("proxy begins", version=__version__, host=mine.host, port=mine.port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watcher.run())
                tasks.create_task(self._heed(watcher))
                tasks.create_task(self._place.offer())
                tasks.create_task(self._inherit())
        finally:
            self._conceal()
            await store.close()

    async def _inherit(self) -> None:
        if self.heir is not None:
            await inherit(self.heir, self.data_path)
            self.heir = None

    def start_heir(self) -> None:
        """A new process, from what is installed now, takes over."""
        _log.info("a new process is started to take over")
        task = asyncio.get_running_loop().create_task(start_heir())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def reload(self) -> None:
        """Read flightmode.toml again.  A mistake is logged, and nothing has changed."""
        try:
            config = self.read()
            settings = check_here(config, self.places)
            if config.proxy.users_file is None:
                _write_users(self.places)
            self.data_path.reload(json.dumps(settings))
        except (FlightmodeError, ValueError, OSError) as wrong:
            _log.error("the settings were not read again", why=str(wrong))
            return
        self.config = config
        _log.info("the settings were read again")

    def _on_news(self, news: News) -> None:
        self.data_path.topology(json.dumps(news.as_json()))

    async def _heed(self, watcher: Watcher) -> None:
        """What the data path says: a doubt about the primary is settled by asking the store."""
        while True:
            told = await asyncio.to_thread(self.data_path.events, _EVENTS_WITHIN_S)
            for each in json.loads(told):
                self._on_event(watcher, each)

    def _on_event(self, watcher: Watcher, happened: dict[str, Any]) -> None:
        kind = happened.pop("event")
        if kind == "cancel_unknown":
            # With a key in it: never for the log.
            if self.heir is not None:
                self.heir.cancel(happened["client"], happened["secret"])
            return
        match kind:
            case "found_in_recovery":
                watcher.wake()
            case "reload_asked":
                self.reload()
            case "stop_asked":
                signal.raise_signal(signal.SIGTERM)
        _log.info(kind.replace("_", " "), **happened)

    def _conceal(self) -> None:
        """No metrics any more."""
        if self._metrics is not None:
            self._metrics()
            self._metrics = None

    def _expose(self) -> None:
        """Metrics, if they are wanted.  Raises PortTaken."""
        port = self.config.proxy.metrics_port
        if port is None:
            return
        try:
            server, thread = start_http_server(
                port, addr="127.0.0.1", registry=registry(self.data_path.stats)
            )
        except OSError as wrong:
            raise PortTaken(f"the proxy's metrics can't listen on {port}: {wrong}") from None

        def end() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._metrics = end


def _start(config: Config, places: Places, sockets: list[int]) -> _native.Proxy:
    settings = check_here(config, places)
    if config.proxy.users_file is None:
        _write_users(places)
    make_directory(places.run_dir)
    try:
        return _native.Proxy(json.dumps(settings), sockets)
    except OSError as wrong:
        raise PortTaken(
            f"the proxy can't listen: {wrong}", hint=f"ss -ltnp 'sport = :{config.proxy.port}'"
        ) from None
    except ValueError as wrong:
        raise ProxySettingsWrong(str(wrong)) from None


def _passed_sockets() -> list[int]:
    """Descriptors of sockets that systemd listens on for us; none without a socket unit."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    os.environ.pop("LISTEN_PID", None)
    return list(range(_FIRST_SOCKET, _FIRST_SOCKET + count))


def _boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
