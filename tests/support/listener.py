"""listener - a server that reads HTTP by hand, so that it can answer what no library would, or nothing."""
import contextlib
import http.client
import socket
import threading


class Listener:
    """Each peer is served by a thread of its own, and closed behind it; `serve` is to be supplied."""

    def __init__(self, port=0):
        self.sock = socket.create_server(("127.0.0.1", port))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                peer, _ = self.sock.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        with contextlib.suppress(OSError, http.client.HTTPException), peer:
            self.serve(peer)


def requests(peer):
    """(method, path, headers, body) of each request."""
    file = peer.makefile("rb")
    while line := file.readline():
        method, path, _ = line.decode().split(" ")
        headers = http.client.parse_headers(file)
        yield method, path, headers, file.read(int(headers.get("Content-Length") or 0))
