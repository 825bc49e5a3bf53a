"""The page of a session, on loopback and behind a token.

The token is the first part of every path: a request without it gets no answer, whether
another user of the computer sends it or a page of elsewhere in the same browser. The
host is compared too, against names that were bent to loopback.
"""

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, Final, final
from urllib.parse import parse_qs, unquote, urlsplit

from typing_extensions import override

from labctl.errors import InputError, LabctlError
from labctl.live import command
from labctl.live.session import Session

HOST: Final = "127.0.0.1"
# More than the levels of any panel.
LARGEST_BYTES: Final = 64 << 20
SHORT_BYTES: Final = 64 << 10
SILENT_S: Final = 30.0  # a connection that says nothing for so long is closed
FILES: Final = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Served:
    """Where the page is.

    Parameters
    ----------
    address
        With its token: whoever has it has the bench.
    """

    address: str


@contextmanager
def serve(session: Session, port: int = 0) -> Iterator[Served]:
    """Serve the page of a session while inside.

    Parameters
    ----------
    session
        Whose thread is the caller's.
    port
        Port on loopback; 0 for any that is free.

    Yields
    ------
    served
        Where it is.

    Raises
    ------
    InputError
        The port is taken.
    """
    token = secrets.token_urlsafe(24)
    kind = type("_Handler", (_Handler,), {"session": session, "token": token})
    try:
        server = ThreadingHTTPServer((HOST, port), kind)
    except (OSError, OverflowError) as err:
        text = f"--port={port}: {err}, expected one that is free. Take another, or 0."
        raise InputError(text) from err
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Served(f"http://{HOST}:{server.server_port}/{token}/")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One request; ``session`` and ``token`` are set by :func:`serve`."""

    session: Session
    token: str
    protocol_version = "HTTP/1.1"
    timeout = SILENT_S

    @override
    def handle(self) -> None:
        """Serve a connection until one side has enough."""
        with suppress(ConnectionError):  # a browser leaves when it likes
            super().handle()

    def do_GET(self) -> None:
        """Give the page, its parts, the facts, or the newest picture."""
        path = self._path()
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        elif path in FILES:
            name, kind = FILES[path]
            folder = resources.files("labctl.live") / "templates"
            self._send((folder / name).read_bytes(), f"{kind}; charset=utf-8")
        elif path == "facts":
            self._send_json(self.session.facts())
        elif path == "frame":
            self._send_frame()
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Have something done."""
        path = self._path()
        known = path in {"do", "file"}
        length = self.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else LARGEST_BYTES + 1
        if size > (LARGEST_BYTES if known else SHORT_BYTES):
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        data = self.rfile.read(size)  # also of who is refused: else no answer arrives
        if not known:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        try:
            if path == "do":
                self.session.ask(command.read(data))
            else:
                name = unquote(self.headers.get("X-Name", "file"))
                self.session.show_file(name, data)
        except LabctlError as err:
            self._send_json({"error": str(err)}, HTTPStatus.CONFLICT)
        except TimeoutError:
            text = "live: no answer from the bench in time. Look at its terminal."
            self._send_json({"error": text}, HTTPStatus.GATEWAY_TIMEOUT)
        else:
            self._send_json({})

    def _path(self) -> str | None:
        """Path behind the token; None for who does not know it."""
        _, port = self.connection.getsockname()
        if self.headers.get("Host") not in {f"{HOST}:{port}", f"localhost:{port}"}:
            return None
        token, slash, rest = urlsplit(self.path).path[1:].partition("/")
        known = secrets.compare_digest(token.encode(), self.token.encode())
        return rest if known and slash else None

    def _send_frame(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        after = query.get("after", ["0"])[0]
        message = self.session.look(int(after) if after.isdigit() else 0)
        if self.session.is_over:
            self._send_json({"why": self.session.why}, HTTPStatus.GONE)
        elif not message:
            self._send(b"", "application/octet-stream", HTTPStatus.NO_CONTENT)
        else:
            self._send(message, "application/octet-stream")

    def _send_json(self, content: Any, status: HTTPStatus = HTTPStatus.OK) -> None:  # noqa: ANN401 - any JSON
        self._send(json.dumps(content).encode(), "application/json", status)

    def _refuse(self, status: HTTPStatus) -> None:
        # What it may still send is not read: the connection ends.
        self.close_connection = True
        self._send(b"", "text/plain", status)

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    @final
    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: paths hold the token."""
