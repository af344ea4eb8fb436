"""A web server for the tests of downloading, which can break off its answers."""

import http.server
import threading
from contextlib import suppress
from typing import Any, Self


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` with ranges, records the requests and breaks off `breaks` answers.

    It repeats each answer for ever if it is `endless`.

    A context manager that serves from a thread while it is open.
    """

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = dict(content)
        self.asked: list[tuple[str, str | None]] = []
        self.breaks = 0
        self.endless = False
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.shutdown()
        self._thread.join()
        super().__exit__(*error)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        data = self.server.content.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = 0
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        data = data[start:]
        if self.server.endless:
            self.end_headers()
            with suppress(ConnectionError):  # the client had enough
                while True:
                    self.wfile.write(data)
            return
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            data = data[: len(data) // 2]
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass
