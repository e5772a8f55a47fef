"""Forwards a port of this machine's loopback to a port of a host in its private network."""

import contextlib
import socket
import threading


class Forwarder:
    """Listens on 127.0.0.1:PORT until closed; each connection becomes one to TARGET in HOST."""

    def __init__(self, host, port, target):
        self._host = host
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", port))

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._host.connect(self._target, timeout=None)
            except OSError:
                client.close()
                continue
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source, sink):
    """One direction: its end is passed on as the half-close that it is."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
