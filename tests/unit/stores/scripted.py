"""A server that answers exactly the bytes a test wrote down."""

import socket
import threading


class ScriptedServer:
    """Answers the n-th request with the n-th canned answer, one request for each connection.

    Whether a bucket of S3 keeps versions it says without counting that.
    """

    versioning = b"<VersioningConfiguration/>"

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.answers: list[bytes] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                stream = connection.makefile("rb")
                first = stream.readline().decode().strip()
                if not first:  # close() woke us
                    return
                headers = {}
                while line := stream.readline().strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                content = stream.read(int(headers.get("content-length", 0)))
                if first.split()[1].endswith("?versioning"):
                    connection.sendall(answer("200 OK", body=self.versioning))
                else:
                    self.requests.append((first, headers, content))
                    connection.sendall(self.answers.pop(0))
                stream.close()

    def close(self) -> None:
        socket.create_connection(self.listener.getsockname()).close()
        self.thread.join(10)
        self.listener.close()


def answer(status: str, headers: bytes = b"", body: bytes = b"", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {size}\r\n".encode()
    return head + headers + b"\r\n" + body
