"""Stands where PgBouncer's tests expect `pgbouncer`: our proxy behind its command line.

    bouncer.py [--quiet] test.ini
    bouncer.py --version | --help

It reads the ini, runs our data path with what that says in our words, and keeps the console
of PgBouncer's Unix socket: SET and RELOAD change the translated configuration, SHUTDOWN and the
signals end us, everything else goes to our own console.  FLIGHTMODE_SERVE names our program.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.parity.pgbouncer_ini import Ini, read, read_users, translate

SSL, GSS, CANCEL = 80877103, 80877104, 80877102
SET = re.compile(rb"\s*set\s+(\w+)\s*(?:=|\s+to\s+)\s*(.*?)\s*;?\s*$", re.IGNORECASE | re.DOTALL)


class Bouncer:
    """One run: our process, and the gateway in front of its sockets."""

    def __init__(self, ini_path: Path) -> None:
        self.ini_path = ini_path
        self.overlay: dict[str, str] = {}
        ini = self.read()
        self.sockets = Path(ini.settings.get("unix_socket_dir") or ini_path.parent)
        self.port = int(ini.settings["listen_port"])
        self.admin = self.sockets / "flightmode-admin"
        self.clients = self.sockets / f".flightmode.{self.port}"
        self.ended = asyncio.Event()
        self.reloaded = asyncio.Event()
        self.refused = False
        self.process: asyncio.subprocess.Process | None = None

    def read(self) -> Ini:
        ini = read(self.ini_path.read_text())
        ini.settings |= self.overlay
        return ini

    def config(self) -> str:
        ini = self.read()
        listed = Path(ini.settings.get("auth_file") or "/dev/null")
        known = read_users(listed.read_text()) if listed.exists() else {}
        translation = translate(ini, self.sockets, self.admin, self.clients, known)
        for path, text in translation.files.items():
            path.touch(mode=0o600)
            path.write_text(text)
        if translation.unknown:
            print("no word for:", "; ".join(translation.unknown), file=sys.stderr)
        users = translation.config["auth"].get("users_file")
        if users is not None and Path(users).exists():
            Path(users).chmod(0o600)  # Ours is refused otherwise.
        return json.dumps(translation.config)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self.ended.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(self.push()))
        settings = self.sockets / "flightmode.json"
        settings.write_text(self.config())
        log = self.read().settings.get("logfile") or "/dev/null"
        out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            self.process = await asyncio.create_subprocess_exec(
                os.environ["FLIGHTMODE_SERVE"],
                str(settings),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=out,
            )
            self.telling = asyncio.ensure_future(self.tell_on(os.dup(out)))
        finally:
            os.close(out)
        await self.tell({"term": 1, "revision": 1, "primary": "pg"})
        path = self.sockets / f".s.PGSQL.{self.port}"
        path.unlink(missing_ok=True)
        gateway = await asyncio.start_unix_server(self.serve, str(path))
        exited = asyncio.ensure_future(self.process.wait())
        ended = asyncio.ensure_future(self.ended.wait())
        await asyncio.wait((exited, ended), return_when=asyncio.FIRST_COMPLETED)
        gateway.close()
        path.unlink(missing_ok=True)
        if not exited.done():
            self.process.terminate()
            await exited
        return 0

    async def tell(self, line: dict[str, object]) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        await self.process.stdin.drain()

    async def tell_on(self, log: int) -> None:
        """What our process says goes to the log; that it has taken settings is waited for."""
        assert self.process is not None
        assert self.process.stdout is not None
        with os.fdopen(log, "ab", buffering=0) as out:
            async for line in self.process.stdout:
                out.write(line)
                out.write(as_they_say(line))
                if b"reloaded" in line:
                    self.refused = line.startswith(b"not reloaded")
                    self.reloaded.set()

    async def push(self) -> bool:
        """The configuration as it is now: whether it is in use, or was refused."""
        self.reloaded.clear()
        await self.tell({"config": json.loads(self.config())})
        async with asyncio.timeout(5):
            await self.reloaded.wait()
        return not self.refused

    # ------------------------------------------------------------------ the gateway

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, FileNotFoundError):
            start = await self.startup(reader, writer)
            split = start[8:].split(b"\0")
            words = dict(zip(split[::2], split[1::2], strict=False))
            if words.get(b"database", words.get(b"user")) == b"pgbouncer":
                await self.console(reader, writer, words.get(b"user", b"pgbouncer"))
            else:
                there = await asyncio.open_unix_connection(str(self.clients))
                there[1].write(start)
                await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
        writer.close()

    async def startup(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        while True:
            head = await reader.readexactly(8)
            length, code = struct.unpack("!ii", head)
            if code not in (SSL, GSS):
                return head + await reader.readexactly(length - 8)
            writer.write(b"N")

    async def console(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: bytes
    ) -> None:
        there, to = await asyncio.open_unix_connection(str(self.admin))
        body = struct.pack("!i", 196608) + b"user\0" + user + b"\0database\0flightmode\0\0"
        to.write(struct.pack("!i", len(body) + 4) + body)
        back = asyncio.ensure_future(copy(there, writer))
        try:
            while True:
                head = await reader.readexactly(5)
                rest = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
                answer = await self.own(rest[:-1]) if head[:1] == b"Q" else None
                if answer is None:
                    to.write(head + rest)
                else:
                    writer.write(answer)
        except asyncio.IncompleteReadError:
            to.close()
            await back

    async def own(self, text: bytes) -> bytes | None:
        """Carry it out if it is ours; what is answered."""
        if found := SET.match(text):
            name, value = found[1].decode().lower(), found[2].decode()
            self.overlay[name] = value.strip("'")
            # A key that does not fit its certificate does so with the next SET: until then, as
            # there, the old ones are in use.
            done = await self.push() or "_tls_" in name
            return complete(b"SET") if done else refuse(b"SET failed")
        verb = text.strip().rstrip(b";").upper()
        if verb == b"RELOAD":
            self.overlay.clear()
            done = await self.push()
            words = b"RELOAD failed, see logs for additional details"
            return complete(b"RELOAD") if done else refuse(words)
        if verb.startswith(b"SHUTDOWN"):
            self.ended.set()
            return complete(b"SHUTDOWN")
        return None


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def complete(tag: bytes) -> bytes:
    return b"C" + struct.pack("!i", len(tag) + 5) + tag + b"\0Z\0\0\0\x05I"


def refuse(words: bytes) -> bytes:
    """With their code for settings that are none."""
    fields = b"SERROR\0CF0000\0M" + words + b"\0\0"
    return b"E" + struct.pack("!i", len(fields) + 4) + fields + b"Z\0\0\0\x05I"


def as_they_say(line: bytes) -> bytes:
    """An event of ours as a line of their log, if they have one for it."""
    if not line.startswith(b"{"):
        return b""
    event = json.loads(line)
    match event["event"]:
        case "login_refused":
            said = f"closing because: {event['reason']} (age=0s)"
        case "limit_of_time":
            said = f"closing because: {event['reason']} (age=0s)"
        case "server_refused":
            said = f"server login failed: FATAL {event['reason'].removeprefix('it refused: ')}"
        case _:
            return b""
    return f"LOG {said}\n".encode()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--help"]:
        print(__doc__)
        sys.exit()
    if sys.argv[1:2] == ["--version"]:
        program = os.environ["FLIGHTMODE_SERVE"]
        os.execv(program, [program, "--version"])
    paths = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    sys.exit(asyncio.run(Bouncer(Path(paths[0])).run()))
