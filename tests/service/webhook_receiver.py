"""A real receiver of webhooks on loopback, which answers as a test wants."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Message:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """What a receiver knows it by."""
        return self.headers["webhook-id"]


Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, **headers: str) -> Answer:
    """An answer of a status and nothing else."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@dataclass
class Receiver:
    """A server; `answer` may be changed between requests."""

    answer: Answer = field(default_factory=lambda: status(204))
    tls: ssl.SSLContext | None = None
    messages: list[Message] = field(default_factory=list[Message])

    def __post_init__(self) -> None:
        self.stopping = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["content-length"])
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.messages.append(Message(self.path, headers, self.rfile.read(size)))
                receiver.answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - its own
                del format, args

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
                del request, client_address  # the other side may hang up

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if self.tls is not None:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.server_address[1]

    @property
    def url(self) -> str:
        """Where messages are to go; the query is a secret, as some receivers have it."""
        return f"http://127.0.0.1:{self.port}/hook?token=sesame"

    def close(self) -> None:
        """Stop."""
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()

    def drip(self, start: bytes) -> Answer:
        """The start of an answer, and then a byte now and again for ever: a slow loris."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(start)
            while not self.stopping.wait(0.02):
                handler.wfile.write(b"x")

        return answer
