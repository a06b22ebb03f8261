"""An MCP server that joins a Meshwright proxy: it picks a free port, registers, heartbeats and leaves in order.

The server is the official `mcp` package over streamable HTTP; what the mesh asks of an instance is in `Membership`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PORTS = range(5000, 5100)
READ_ONLY = ToolAnnotations(read_only_hint=True)
CHANGES_STATE = ToolAnnotations(read_only_hint=False, idempotent_hint=False)


def tools(name: str, journal: Path | None) -> MCPServer:
    server = MCPServer(name, log_level="WARNING")
    counts: Counter[str] = Counter()

    @server.tool(annotations=READ_ONLY)
    async def echo(text: str) -> str:
        """Answers what it was given."""
        return text

    @server.tool(annotations=READ_ONLY)
    async def add(a: int, b: int) -> int:
        """The sum of two integers of any size."""
        return a + b

    @server.tool(annotations=CHANGES_STATE)
    async def slow(seconds: float) -> str:
        """Answers after a while."""
        await asyncio.sleep(seconds)
        return f"slept {seconds}"

    @server.tool(annotations=CHANGES_STATE)
    async def fail() -> str:
        """Always raises."""
        raise ValueError("this tool always fails")

    @server.tool(annotations=READ_ONLY)
    async def whoami() -> str:
        """The name of the instance that answers."""
        return name

    @server.tool(annotations=CHANGES_STATE)
    async def count(key: str) -> int:
        """How often this instance was asked to count `key`; with --journal, each time is also a line of that file."""
        counts[key] += 1
        if journal is not None:
            with journal.open("a", encoding="utf-8") as file:
                file.write(key + "\n")
        return counts[key]

    return server


class Gone(Exception):
    """The proxy does not know our lease any more."""


class Membership:
    """One lease at the proxy: registered once, renewed by heartbeats, given back at the end."""

    def __init__(self, proxy: str, spec: dict):
        self.proxy = proxy.rstrip("/")
        self.spec = spec
        self.token: str | None = None
        self.heartbeat_s = 30.0
        # The proxy is a neighbour: an HTTP proxy from the environment must not come between.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def post(self, path: str, body: dict) -> dict:
        request = urllib.request.Request(
            self.proxy + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with self.opener.open(request, timeout=10) as answer:
            return json.load(answer)

    def lease(self) -> dict:
        return {"instance_name": self.spec["instance_name"], "lease_token": self.token}

    def register(self) -> None:
        body = dict(self.spec)
        if self.token:
            body["lease_token"] = self.token
        answer = self.post("/register", body)
        self.token = answer["lease_token"]
        self.heartbeat_s = float(answer["heartbeat_s"])

    def heartbeat(self) -> None:
        try:
            self.post("/heartbeat", self.lease())
        except urllib.error.HTTPError as error:
            # 410: expired or unknown, "register again".
            if error.code == 410:
                raise Gone from error
            raise

    def deregister(self) -> None:
        if self.token:
            self.post("/deregister", self.lease())
            self.token = None

    async def keep(self, stop: asyncio.Event) -> None:
        """Holds the lease until `stop`; a proxy that is away or restarts is waited for."""
        registered = False
        while not stop.is_set():
            try:
                await asyncio.to_thread(self.heartbeat if registered else self.register)
                if not registered:
                    say(f"registered at {self.proxy}")
                registered = True
                pause = self.heartbeat_s
            except Gone:
                registered, self.token, pause = False, None, 0.0
            except (OSError, ValueError, KeyError) as error:
                say(f"{self.proxy}: {explain(error)}; trying again")
                pause = min(2.0, self.heartbeat_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        with contextlib.suppress(OSError, ValueError):
            await asyncio.to_thread(self.deregister)


def explain(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        with contextlib.suppress(OSError, ValueError):
            return json.load(error).get("detail", str(error))
    return str(error)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def listen(port: int | None) -> socket.socket:
    """A listening socket on loopback. Held from here on, so that nobody can take the port before we serve."""
    for candidate in [port] if port else PORTS:
        # asyncio turns Nagle's algorithm off (40 ms a call) only where the protocol is spelt out.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        # Without this the port of an instance that was just stopped stays taken for a minute (TIME_WAIT).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", candidate))
            listener.listen(1024)
            return listener
        except OSError:
            listener.close()
    raise SystemExit(f"no free port: {port or f'{PORTS.start}-{PORTS.stop - 1}'} taken")


def before_2026(app: ASGIApp) -> ASGIApp:
    """Makes the server one of before 2026-07-28, as most still are: it answers newer requests as those do."""

    async def legacy(scope: Scope, receive: Receive, send: Send) -> None:
        modern = scope["type"] == "http" and (b"mcp-protocol-version", b"2026-07-28") in scope["headers"]
        if modern:
            error = {"code": -32600, "message": "Bad Request: Unsupported protocol version: 2026-07-28"}
            answer = JSONResponse({"jsonrpc": "2.0", "id": "server-error", "error": error}, status_code=400)
            await answer(scope, receive, send)
        else:
            await app(scope, receive, send)

    return legacy


class Server(uvicorn.Server):
    """Leaves SIGTERM and SIGINT to us: the lease is given back before the server stops answering."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


async def main(options: argparse.Namespace) -> None:
    listener = listen(options.port)
    port = listener.getsockname()[1]
    name = options.name or f"{options.service}-{port}"
    mcp = tools(name, options.journal)
    app = mcp.streamable_http_app(stateless_http=options.stateless, json_response=options.json)
    if options.legacy:
        app = before_2026(app)
    server = Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10))

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    spec = {
        "instance_name": name,
        "service": options.service,
        "host": "127.0.0.1",
        "port": port,
        "pid": os.getpid(),
        # Empty: the proxy asks for the tools itself and so learns their schemas and annotations.
        "tools": [],
    }
    if options.zone:
        spec["zone"] = options.zone
    membership = Membership(options.proxy, spec)

    serving = asyncio.create_task(server.serve(sockets=[listener]))
    say(f"{name} serves http://127.0.0.1:{port}/mcp")
    await membership.keep(stop)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proxy", default=os.environ.get("MESHWRIGHT_HTTP", "http://127.0.0.1:6001"))
    parser.add_argument("--service", default="python", help="service that this instance belongs to")
    parser.add_argument("--name", help="instance name (default: SERVICE-PORT)")
    parser.add_argument("--zone", help="where this instance runs, for zone-aware balancing")
    parser.add_argument("--port", type=int, help="default: the first free one of 5000-5099")
    parser.add_argument("--legacy", action="store_true", help="know no protocol version of 2026 or later")
    parser.add_argument("--stateless", action="store_true", help="no sessions (legacy protocol versions)")
    parser.add_argument("--json", action="store_true", help="answer application/json instead of an event stream")
    parser.add_argument("--journal", type=Path, help="file that gets one line per executed `count`")
    asyncio.run(main(parser.parse_args()))
