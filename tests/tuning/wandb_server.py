"""A server on the loopback address that answers as W&B's does, as far as wandb-core 0.31 asks.

What is asked was found from its requests:

- ``POST /graphql``: ``Viewer``, ``ServerFeaturesQuery``, ``RunResumeStatus`` (is there such a run,
  and how many lines of history has it?), ``UpsertBucket`` (makes or changes a run),
  ``CreateRunFiles`` (where to put small files).
- ``POST /files/ENTITY/PROJECT/RUN/file_stream``: lines of history, of system events and of output,
  each from a line number on; the summary; and, at the end, ``complete`` with the exit code. The
  answer says whether somebody pressed "stop".
- ``PUT`` of small files to the addresses that ``CreateRunFiles`` gave.

History is kept as W&B keeps it, by line number, and lines that were there and came again with other
content are noted: what a wrong resume does. Parts can be told to fail, to be slow, or to hang.
"""

import gzip
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENTITY = "tester"
#: A key that nobody owns; W&B's have 40 characters.
KEY = "0123456789" * 4


@dataclass
class ServedRun:
    """A run as the server has it.

    Attributes:
        name: Its id.
        fields: The variables of ``UpsertBucket`` that were not null, the last of each.
        lines: The lines of each file of the stream, by the file's name.
        overwritten: Lines that were there and came again with other content.
        exits: Exit codes, one for each time that it was said to be complete.
    """

    name: str
    fields: dict = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    overwritten: list[str] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)

    @property
    def history(self) -> list[dict]:
        return [json.loads(line) for line in self.lines.get("wandb-history.jsonl", [])]

    @property
    def steps(self) -> list[int]:
        return [row["_step"] for row in self.history]

    @property
    def summary(self) -> dict:
        lines = self.lines.get("wandb-summary.json", [])
        return json.loads(lines[-1]) if lines else {}

    @property
    def config(self) -> dict:
        config = json.loads(self.fields.get("config", "{}"))
        return {name: entry["value"] for name, entry in config.items() if name != "_wandb"}

    def stream(self, request: dict) -> None:
        """Takes a request to its file stream."""
        for name, part in (request.get("files") or {}).items():
            lines, offset = self.lines.setdefault(name, []), part["offset"]
            for number, line in enumerate(part["content"], start=offset):
                if number >= len(lines):
                    lines.append(line)
                    continue
                if lines[number] != line and name.endswith("history.jsonl"):
                    self.overwritten.append(lines[number])
                lines[number] = line
        if request.get("complete"):
            self.exits.append(request["exitcode"])


class WandbServer:
    """The server; a context manager that serves in threads until it is left.

    Attributes:
        runs: By id.
        asked: Names of the GraphQL operations and the paths asked for, in order.
        unknown: Operations that it has no answer to.
        keys: The keys that came with requests.
        statuses: HTTP status to fail with, by part: ``graphql``, ``file_stream`` or ``storage``.
        delays: Seconds to wait before answering, by part.
        hanging: Parts that never answer.
        stopped: Ids of runs that somebody asked to stop.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = {}
        self.asked: list[str] = []
        self.unknown: list[str] = []
        self.keys: set[str] = set()
        self.statuses: dict[str, int] = {}
        self.delays: dict[str, float] = {}
        self.hanging: set[str] = set()
        self.stopped: set[str] = set()
        self.lock = threading.Lock()
        self.left = threading.Event()

    def __enter__(self) -> "WandbServer":
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self.left.set()  # lets go of those that hang
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def environment(self, directory) -> dict[str, str]:
        """The environment in which wandb talks to this server and finds nothing of a person's."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_CONFIG_DIR": str(directory / "wandb-config"),
            "WANDB_CACHE_DIR": str(directory / "wandb-cache"),
            "WANDB_ERROR_REPORTING": "false",
            "NETRC": str(directory / "netrc"),
        }

    def run(self, name: str) -> ServedRun:
        return self.runs.setdefault(name, ServedRun(name))

    def answer(self, operation: str, variables: dict) -> dict | None:
        """The data that a GraphQL operation gets, None for an unknown one."""
        answers = {
            "Viewer": self._viewer,
            "ServerFeaturesQuery": lambda variables: {"serverInfo": {"features": []}},
            "RunResumeStatus": self._resume_status,
            "UpsertBucket": self._upsert,
            "CreateRunFiles": self._create_files,
        }
        return answers[operation](variables) if operation in answers else None

    def _viewer(self, variables: dict) -> dict:
        who = {"id": "VXNlcjox", "entity": ENTITY, "username": ENTITY, "email": "t@example.org"}
        return {"viewer": who | {"flags": "{}", "teams": {"edges": []}}}

    def _resume_status(self, variables: dict) -> dict:
        run = self.runs.get(variables["name"])
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": ENTITY}}
        return {"model": project | {"bucket": self._resumable(run) if run else None}}

    def _resumable(self, run: ServedRun) -> dict:
        history = run.lines.get("wandb-history.jsonl", [])
        events = run.lines.get("wandb-events.jsonl", [])
        return {
            "id": f"id-{run.name}",
            "name": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.fields.get("displayName"),
            "logLineCount": len(run.lines.get("output.log", [])),
            "historyLineCount": len(history),
            "eventsLineCount": len(events),
            "historyTail": json.dumps(history[-1:]),
            "eventsTail": json.dumps(events[-1:]),
            "config": run.fields.get("config", "{}"),
            "tags": run.fields.get("tags", []),
            "notes": run.fields.get("notes"),
            "wandbConfig": '{"t": 1}',
        }

    def _upsert(self, variables: dict) -> dict:
        inserted = variables["name"] not in self.runs
        run = self.run(variables["name"])
        run.fields |= {name: value for name, value in variables.items() if value is not None}
        entity = run.fields.get("entity", ENTITY)
        project = {"id": "p", "name": run.fields["project"], "entity": {"id": "e", "name": entity}}
        bucket = {
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": run.fields.get("displayName", run.name),
            "description": "",
            "config": run.fields.get("config", "{}"),
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.lines.get("wandb-history.jsonl", [])),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _create_files(self, variables: dict) -> dict:
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{variables['run']}/{name}"}
            for name in variables["files"]
        ]
        name = f"id-{variables['run']}"
        return {"createRunFiles": {"runID": name, "uploadHeaders": [], "files": files}}


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """Says nothing: clients that are killed reset their connections."""


class _Handler(BaseHTTPRequestHandler):
    """One connection; ``owner`` is its server."""

    owner: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        body = self._body()
        if self.path.startswith("/graphql"):
            self._graphql(json.loads(body))
        elif match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self._file_stream(match[1], json.loads(body))
        else:
            self._unknown(f"POST {self.path}")

    def do_PUT(self) -> None:
        self._body()
        if self._goes_wrong("storage"):
            return
        self._reply({})

    def do_GET(self) -> None:
        self._unknown(f"GET {self.path}")

    def _graphql(self, request: dict) -> None:
        found = re.search(r"(?:query|mutation)\s+(\w+)", request.get("query", ""))
        operation = found[1] if found else "?"
        self._note_key()
        with self.owner.lock:
            self.owner.asked.append(operation)
        if self._goes_wrong("graphql"):
            return
        with self.owner.lock:
            data = self.owner.answer(operation, request.get("variables") or {})
            if data is None:
                self.owner.unknown.append(operation)
        errors = {} if data is not None else {"errors": [{"message": f"unknown: {operation}"}]}
        self._reply({"data": data} | errors)

    def _file_stream(self, run: str, request: dict) -> None:
        with self.owner.lock:
            self.owner.asked.append(self.path)
        if self._goes_wrong("file_stream"):
            return
        with self.owner.lock:
            self.owner.run(run).stream(request)
        stopped = {"stopped": True} if run in self.owner.stopped else {}
        self._reply({"exitcode": None, "limits": {}} | stopped)

    def _goes_wrong(self, part: str) -> bool:
        """Waits or fails as the part was told to; True where it has failed."""
        time.sleep(self.owner.delays.get(part, 0.0))
        if part in self.owner.hanging:
            self.owner.left.wait()
            self.close_connection = True
            return True
        if part in self.owner.statuses:
            self._reply({"errors": [{"message": "told to fail"}]}, self.owner.statuses[part])
            return True
        return False

    def _note_key(self) -> None:
        kind, _, coded = self.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            import base64

            self.owner.keys.add(base64.b64decode(coded).decode().partition(":")[2])

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _unknown(self, what: str) -> None:
        with self.owner.lock:
            self.owner.unknown.append(what)
        self._reply({"error": what}, 404)

    def _reply(self, content: dict, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
