"""A made-up instance metadata service of EC2, version 2: it wants a token of its own for all."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TOKEN = "/latest/api/token"
_ACTION = "/latest/meta-data/spot/instance-action"
_LIFE_CYCLE = "/latest/meta-data/instance-life-cycle"


class MetadataServer:
    """A context manager that serves on the loopback address.

    Attributes:
        pages: What is served under which path, and with which status.
        token: The token that it takes; another one makes those given so far too old.
        asked: Method and path of every request.
        endpoint: Its address.
    """

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, str]] = {_LIFE_CYCLE: (200, "spot")}
        self.token = "first"
        self.token_status = 200
        self.asked: list[str] = []
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                ours.asked.append(f"PUT {self.path}")
                seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
                right = self.path == _TOKEN and seconds.isdigit() and 1 <= int(seconds) <= 21600
                self._say(ours.token_status if right else 400, ours.token)

            def do_GET(self):
                ours.asked.append(f"GET {self.path}")
                if self.headers.get("X-aws-ec2-metadata-token") != ours.token:
                    self._say(401, "")
                else:
                    self._say(*ours.pages.get(self.path, (404, "")))

            def _say(self, status, text):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments):
                """Nothing to the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "MetadataServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def is_on_demand(self) -> None:
        """Says from now on that the instance is not a spot instance."""
        self.pages[_LIFE_CYCLE] = (200, "on-demand")

    def say(self, text: str, status: int = 200) -> None:
        """Serves something where the notice is."""
        self.pages[_ACTION] = (status, text)

    def give_notice(self, seconds: float = 120.0, action: str = "terminate") -> None:
        """Serves a notice of the instance's end."""
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        self.say(json.dumps({"action": action, "time": f"{until:%Y-%m-%dT%H:%M:%SZ}"}))
