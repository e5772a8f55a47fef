"""A server on the host, and what its processes use."""

import contextlib
import dataclasses
import pathlib
import ssl
import time

ANY_CERTIFICATE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANY_CERTIFICATE.check_hostname = False
ANY_CERTIFICATE.verify_mode = ssl.CERT_NONE


@dataclasses.dataclass(frozen=True)
class Server:
    """One server on the host: where it listens, and the control group of its processes."""

    name: str
    port: int
    group: pathlib.Path
    tls: bool = False
    # How many sessions it takes, and for how many seconds it must be left alone before it takes so many again.
    most: int = 1_000_000
    rest: float = 0

    def processes(self):
        """The ids of its processes, as this machine counts them."""
        found = set()
        with contextlib.suppress(OSError):
            for file in self.group.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    found.update(map(int, file.read_text(encoding="ascii").split()))
        return found

    def processor_time(self):
        """Seconds that its processes used of the processors until now."""
        return processor_time(self.group)

    def wait_until_idle(self):
        """Waits until the processes of ended sessions are gone; those of Dovecot stay in part."""
        before = None
        for _ in range(40):
            now = self.processes()
            if now in (before, set()):
                return
            before = now
            time.sleep(0.5)

    def await_greeting(self, host):
        """A server that does not answer is a mistake of ours, and no server that fails every session."""
        for _ in range(50):
            with contextlib.suppress(OSError), host.connect(self.port) as connection:
                if self.tls:
                    connection = ANY_CERTIFICATE.wrap_socket(connection)
                if connection.recv(3) == b"+OK":
                    return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} does not greet on port {self.port}")


def processor_time(group):
    """Seconds that a control GROUP used of the processors until now, processes that ended included."""
    for line in (group / "cpu.stat").read_text(encoding="ascii").splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1]) / 1e6
    raise RuntimeError(f"no usage in cpu.stat of {group}")
