"""The proxy, put together: the data path, and the store that tells it who is primary."""

import asyncio
import contextlib
import json
import signal
import time

import structlog

from flightmode import __version__, _native
from flightmode.config import Config, etcd_endpoints, policy_of
from flightmode.errors import PortTaken, ProxySettingsWrong
from flightmode.pki import client_context, read_secret
from flightmode.pki.files import check_private, make_directory, write_private
from flightmode.proxy.news import News
from flightmode.proxy.settings import Places, Settings, settings_of
from flightmode.proxy.watching import Watcher
from flightmode.store.etcd import EtcdStore

_log = structlog.get_logger("daemon.proxy")

APP_USER = "app"
"""The role that `flightmode init` makes a password for."""


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
    if config.proxy.tls_key is not None:
        check_private(config.proxy.tls_key)
    return settings_here(config, places)


def _write_users(places: Places) -> None:
    """The user `app` with its password, in the form that the data path reads."""
    password = read_secret(places.secrets_dir, APP_USER)
    make_directory(places.run_dir)
    doubled = password.replace('"', '""')
    write_private(places.run_dir / "proxy-users", f'"{APP_USER}" "{doubled}"\n')


def run_proxy(config: Config, places: Places) -> None:
    """Run until SIGTERM or SIGINT.  Raises FlightmodeError when it can't start."""
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run_until_told(config, places))


async def _run_until_told(config: Config, places: Places) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await serve(config, places)


async def serve(config: Config, places: Places) -> None:
    """The data path, told what the store says, until cancelled."""
    settings = check_here(config, places)
    if config.proxy.users_file is None:
        _write_users(places)
    tls = client_context(places.tls_dir, places.tls_stem)
    data_path = _start(settings, config)
    store = EtcdStore(etcd_endpoints(config), tls, clock=_boottime_s)
    try:
        _log.info(
            "proxy begins", version=__version__, host=config.proxy.host, port=config.proxy.port
        )
        await Watcher(
            store,
            config.cluster.name,
            policy_of(config),
            _boottime_s,
            lambda news: data_path.topology(_as_text(news)),
        ).run()
    finally:
        data_path.stop()
        await store.close()


def _start(settings: Settings, config: Config) -> _native.Proxy:
    try:
        return _native.Proxy(json.dumps(settings))
    except OSError as wrong:
        raise PortTaken(
            f"the proxy can't listen: {wrong}", hint=f"ss -ltnp 'sport = :{config.proxy.port}'"
        ) from None
    except ValueError as wrong:
        raise ProxySettingsWrong(str(wrong)) from None


def _as_text(news: News) -> str:
    return json.dumps(news.as_json())


def _boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
