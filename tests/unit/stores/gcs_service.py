"""A server of Google's JSON API as far as sessions need it, which keeps to the documented rules and fails on demand.

Source of the rules: https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

import base64
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

QUANTUM = 256 * 1024
BUCKET = "/storage/v1/b/bucket"
CHUNK = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass
class Upload:
    name: str
    metadata: dict[str, str]
    content: bytearray = field(default_factory=bytearray)
    state: str = "open"  # or complete, or cancelled


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "GcsService"

    def answer(self, status: int, body: object = None, **headers: str) -> None:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def handle_one(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with self.server.lock:
            self.server.requests.append((self.command, self.path, dict(self.headers.items()), body))
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "refuse":
            self.answer(503)
        elif url.path == BUCKET:
            self.answer(self.server.bucket_status, self.server.bucket)
        elif url.path.startswith(f"/upload{BUCKET}/o"):
            self.upload(query, body, fault)
        else:
            name = unquote(url.path.rpartition("/o")[2].removeprefix("/"))
            self.about_object(name, query, download=url.path.startswith("/download"))

    do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815 - names of http.server

    def about_object(self, name: str, query: dict[str, str], *, download: bool) -> None:
        server = self.server
        if not name:
            prefix = query.get("prefix", "")
            self.answer(
                200, {"items": [server.describe(one) for one in sorted(server.objects) if one.startswith(prefix)]}
            )
        elif name not in server.objects:
            self.answer(404)
        elif self.command == "DELETE":
            if server.held:
                self.answer(403, {"error": {"message": "m", "errors": [{"reason": "retentionPolicyNotMet"}]}})
            else:
                del server.objects[name]
                self.answer(204)
        elif download:
            self.answer(206, server.objects[name][0])
        elif "retentionExpirationTime" in query.get("fields", ""):
            self.answer(200, {"retentionExpirationTime": "2099-01-01T00:00:00Z"} if server.held else {})
        else:
            self.answer(200, server.describe(name))

    def upload(self, query: dict[str, str], body: bytes, fault: str | None) -> None:
        server = self.server
        if query.get("uploadType") == "multipart":
            boundary = b"--" + self.headers["content-type"].partition('boundary="')[2].rstrip('"').encode()
            _, described, sent, _ = body.split(boundary)
            document = json.loads(described.partition(b"\r\n\r\n")[2])
            server.store(document["name"], sent.partition(b"\r\n\r\n")[2][:-2], document["metadata"])
            self.answer(200, server.describe(document["name"]))
        elif "upload_id" not in query:
            document = json.loads(body)
            upload_id = f"secret{len(server.uploads)}"
            server.uploads[upload_id] = Upload(document["name"], document["metadata"])
            location = f"http://elsewhere.example/upload{BUCKET}/o?uploadType=resumable&upload_id={upload_id}"
            self.answer(200, b"", Location=location)
        else:
            self.session(server.uploads[query["upload_id"]], body, fault)

    def session(self, upload: Upload, body: bytes, fault: str | None) -> None:
        if self.command == "DELETE" or upload.state == "cancelled":
            upload.state = "cancelled"
            self.answer(499)
            return
        if upload.state == "open":
            self.take(upload, body, fault)
        if fault == "lose the answer":
            self.close_connection = True
        elif fault == "say nonsense":
            self.answer(308, Range="all of it")
        elif upload.state == "complete":
            self.answer(200, self.server.describe(upload.name))
        else:
            known = {"Range": f"bytes=0-{len(upload.content) - 1}"} if upload.content else {}
            self.answer(308, **known)

    def take(self, upload: Upload, body: bytes, fault: str | None) -> None:
        first, last, total = CHUNK.fullmatch(self.headers["content-range"]).groups()
        if first is not None:
            assert int(last) - int(first) + 1 == len(body)
            assert int(first) == len(upload.content), "a chunk begins where the last one ended"
            assert total != "*" or len(body) % QUANTUM == 0, "chunks that are not the last have whole quanta"
            self.server.received += len(body)
        if fault == "take less":
            body = body[: len(body) // 2 // QUANTUM * QUANTUM]
        elif fault == "take nothing":
            body = b""
        elif fault == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        upload.content += body
        if total != "*" and int(total) == len(upload.content):
            self.complete(upload)

    def complete(self, upload: Upload) -> None:
        server = self.server
        server.sums.append(self.headers.get("x-goog-hash"))
        server.store(upload.name, bytes(upload.content), upload.metadata)
        upload.state = "complete"

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class GcsService(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.bucket: dict[str, object] = {"softDeletePolicy": {"retentionDurationSeconds": "604800"}}
        self.bucket_status = 200
        self.held = False
        self.objects: dict[str, tuple[bytes, dict[str, str], int]] = {}
        self.uploads: dict[str, Upload] = {}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.faults: list[str | None] = []
        self.received = 0
        self.sums: list[str | None] = []
        self.errors: list[BaseException] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def store(self, name: str, content: bytes, metadata: dict[str, str]) -> None:
        self.objects[name] = content, metadata, len(self.objects) + 1

    def describe(self, name: str) -> dict[str, object]:
        content, metadata, generation = self.objects[name]
        return {
            "name": name,
            "size": str(len(content)),
            "generation": str(generation),
            "crc32c": base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode(),
            "timeCreated": "2026-11-23T17:42:40.123Z",
            "metadata": metadata,
        }

    def handle_error(self, *_: object) -> None:
        """Keep what went wrong, for the test."""
        import sys

        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            self.errors.append(error)
