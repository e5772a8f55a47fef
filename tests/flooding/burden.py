"""What the host has to bear: processes, memory, connections, lines in the journal."""

import contextlib
import pathlib
import threading
import time

PAGE = 4096


def processes_named(host, *names):
    """The ids of the host's processes with one of these NAMES, as this machine counts them."""
    found = []
    for process in host.processes():
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{process}/comm").read_text(encoding="ascii").strip() in names:
                found.append(process)
    return found


def memory(processes, kind="Pss"):
    """The memory of PROCESSES by /proc/PID/smaps_rollup, in MiB; what they share counts once."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith(f"{kind}:"):
                    total += int(line.split()[1])
    return total / 1024


def socket_memory():
    """MiB in the buffers of all TCP sockets of this machine."""
    for line in pathlib.Path("/proc/net/sockstat").read_text(encoding="ascii").splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            return int(words[words.index("mem") + 1]) * PAGE / 2**20
    raise RuntimeError("no TCP in sockstat")


def overflows(host):
    """How often a listening socket of the host had no room for one more connection."""
    lines = [line.split() for line in
             pathlib.Path(f"/proc/{host.leader}/net/netstat").read_text(encoding="ascii").splitlines()]
    names, values = (line for line in lines if line[0] == "TcpExt:")
    return int(values[names.index("ListenOverflows")])


def taken(host):
    """All of it, but for what the journal says."""
    sessions = processes_named(host, "popa3d")
    return {
        "processes": len(sessions),
        "memory": memory(sessions),
        # What they map besides are files, the journal's own above all.
        "systemd": memory(processes_named(host, "systemd"), "Pss_Anon"),
        "journald": memory(processes_named(host, "systemd-journal"), "Pss_Anon"),
        "sockets": socket_memory(),
    }


def settled(host, processes, seconds=60):
    """Waits until no more than so many processes of popa3d are there; returns how long that took, or None."""
    begun = time.monotonic()
    while len(processes_named(host, "popa3d")) > processes:
        if time.monotonic() > begun + seconds:
            return None
        time.sleep(0.1)
    return time.monotonic() - begun


class Watch:
    """Looks again and again while a block runs, and keeps the largest figures."""

    def __init__(self, host, pause=3):
        self._host, self._pause = host, pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.most = {}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._over.set()
        self._thread.join()

    def _look(self):
        while not self._over.wait(self._pause):
            for name, value in taken(self._host).items():
                self.most[name] = max(value, self.most.get(name, 0))


class Journal:
    """The entries that came since it was made."""

    def __init__(self, host):
        self._host = host
        entries = host.journal("-n", "1")
        self._cursor = entries[-1]["__CURSOR"]

    def lines(self):
        """How many of popa3d, of systemd, and how many were suppressed for being too many."""
        entries = self._host.journal("--after-cursor", self._cursor)
        texts = [str(entry.get("MESSAGE")) for entry in entries if entry.get("SYSLOG_IDENTIFIER") == "systemd-journald"]
        return {
            "popa3d": sum(entry.get("SYSLOG_IDENTIFIER") == "popa3d" for entry in entries),
            "systemd": sum(entry.get("_PID") == "1" for entry in entries),
            "refusals": [str(entry.get("MESSAGE")) for entry in entries
                         if entry.get("POPA3D_EVENT") == "connection-refused"],
            "suppressed": sum(int(text.split()[1]) for text in texts if text.startswith("Suppressed ")),
        }
