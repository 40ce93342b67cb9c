"""An endpoint on loopback for tests: a real HTTP server whose answers and faults a function decides."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LONGEST_WAIT = 5.0  # seconds: no request is held up for longer, whatever a test forgets


class ChatDouble:
    """What the server saw, and how it answers: `reply(question)` gives a text, or one of the faults below.

    Faults: an int is a status; "#late" answers only after the client has given up; "#nonsense" is no JSON, "#shape"
    JSON of another shape, "#empty" no choice, "#null" one without text, "#closed" a connection that ends mid-answer.
    Where it is no chat, `reply` is given the whole request, and what it gives is the JSON of the answer, or a status.
    """

    def __init__(self, reply: Callable[[Any], Any], chat: bool) -> None:
        self.reply, self.chat, self.url = reply, chat, ""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = self._now = 0
        self._lock, self.released = threading.Lock(), threading.Event()

    @property
    def questions(self) -> list[str]:
        """The last message of every request, in the order of arrival."""
        return [request["messages"][-1]["content"] for request in self.requests]

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(body | {"path": handler.path})
            self.headers.append(dict(handler.headers))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            reply = self.reply(body["messages"][-1]["content"] if self.chat else body)
        finally:
            with self._lock:  # before the answer goes out: whoever has it may ask again at once
                self._now -= 1
        self._answer(handler, reply)

    def _answer(self, handler: BaseHTTPRequestHandler, reply: Any) -> None:
        if reply == "#late":
            self.released.wait(LONGEST_WAIT)
            return
        if reply == "#closed":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        odd = {"#nonsense": "<html>", "#shape": '{"choices": 3}', "#empty": '{"choices": []}'}
        choice: dict[str, Any] = {"message": {"content": None if reply == "#null" else reply}}
        content = odd.get(str(reply), json.dumps({"choices": [choice]} if self.chat else reply)).encode()
        handler.send_response(reply if isinstance(reply, int) else 200)
        if isinstance(reply, int) and 300 <= reply < 400:
            handler.send_header("Location", self.url)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@contextmanager
def serving(reply: Callable[[Any], Any], chat: bool = True) -> Iterator[ChatDouble]:
    """A server that answers until the block ends."""
    double = ChatDouble(reply, chat)

    class Handler(BaseHTTPRequestHandler):
        timeout = LONGEST_WAIT

        def do_POST(self) -> None:
            double.handle(self)

        def log_message(self, *_: object) -> None:
            """Nothing: tests read `requests`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    double.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        double.released.set()
        server.shutdown()
        server.server_close()
        thread.join(LONGEST_WAIT)
