"""One booted host: run commands in it, add users and mail, connect to its ports, read its journal."""

import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

from . import machine
from .roots import cached_root, throwaway_copy

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(frozen=True)
class Command:
    """What a command in the host came to."""

    arguments: tuple
    code: int
    output: str
    errors: str

    def __str__(self):
        return f"{' '.join(self.arguments)}: exit {self.code}\n{self.output}{self.errors}"


class Host:
    """A booted Debian RELEASE with LAYERS (see roots.LAYERS); DEB is installed with apt if given."""

    def __init__(self, release, *, layers=(), deb=None):
        self.release = release
        self._layers = layers
        self._deb = deb
        self._exit = contextlib.ExitStack()
        self.leader = None

    def __enter__(self):
        with contextlib.ExitStack() as undo:
            base = cached_root(self.release, *self._layers)
            self.root = undo.enter_context(throwaway_copy(base, self.release))
            undo.enter_context(self._booted())
            if self._deb:
                self.install(self._deb)
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *exception):
        self._exit.close()

    # Commands and files

    def run(self, *command, check=True, stdin="", environment=(), user=None):
        """Runs COMMAND in the host; with CHECK a failure raises with all it said."""
        entered = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "env", "-i",
                   "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                   "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "SYSTEMD_COLORS=0", *environment]
        if user:
            entered += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
            entered[entered.index("HOME=/root")] = f"HOME=/home/{user}"
        finished = subprocess.run(
            [*entered, *map(str, command)], input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True, check=False, timeout=300,
        )
        result = Command(tuple(map(str, command)), finished.returncode,
                         finished.stdout.decode(errors="replace"), finished.stderr.decode(errors="replace"))
        if check and result.code:
            raise AssertionError(str(result))
        return result

    def shell(self, script, **options):
        """Runs a shell SCRIPT in the host."""
        return self.run("sh", "-euc", script, **options)

    def path(self, name):
        """Where the host's file NAME is, seen from this machine (its /run and /tmp included)."""
        return pathlib.Path(f"/proc/{self.leader}/root") / name.lstrip("/")

    def write(self, name, content, mode=0o644):
        """Writes a file in the host as an editor would."""
        file = self.path(name)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)

    def read(self, name):
        """The bytes of a file in the host."""
        return self.path(name).read_bytes()

    def install(self, deb):
        """apt install ./DEB, without any network."""
        shutil.copy(deb, self.path("/tmp"))
        return self.run("apt-get", "install", "-y", "-q", "-o", "Dpkg::Use-Pty=0", f"/tmp/{pathlib.Path(deb).name}",
                        environment=("DEBIAN_FRONTEND=noninteractive",))

    # Users and their mail

    def user(self, name, password=None, method="YESCRYPT"):
        """Adds a user with a home directory, and a password by the crypt METHOD if given."""
        self.run("useradd", "-m", "-s", "/bin/bash", name)
        if password is not None:
            self.password(name, password, method)

    def password(self, name, password, method="YESCRYPT"):
        """Sets a password, hashed with the crypt METHOD."""
        self.run("chpasswd", "-c", method, stdin=f"{name}:{password}\n")

    def mailbox(self, name):
        """Where the mail of a user is, seen from this machine."""
        return self.path(f"/var/mail/{name}")

    def deliver(self, name, mbox):
        """Appends MBOX to the mailbox of a user, making it as Debian's delivery agents do."""
        file = self.mailbox(name)
        with open(file, "ab") as mailbox:
            mailbox.write(mbox)
        self.run("chown", f"{name}:mail", f"/var/mail/{name}")
        self.run("chmod", "0660", f"/var/mail/{name}")

    # File systems

    @contextlib.contextmanager
    def file_system(self, kind, size, *directories):
        """A new file system of this KIND and SIZE (as for mkfs and truncate), at /small; directories
        of its own take the place of these DIRECTORIES. On btrfs each is a subvolume."""
        name = f"{self.root.parent.name}.{kind}"
        self.shell(f"truncate -s {size} /{name}; mkfs.{kind} -q /{name}; mkdir /small")
        image = self.root / name
        device = subprocess.run(["losetup", "--find", "--show", str(image)], check=True,
                                capture_output=True, text=True).stdout.strip()
        try:
            # The host has no devices of its own; its control group does not bind those who enter it.
            number = os.stat(device).st_rdev
            self.shell(f"mknod -m 600 {device} b {os.major(number)} {os.minor(number)}; "
                       f"mount -t {kind} {device} /small")
        finally:
            # Once mounted, it is let go by the unmounting, whoever does that.
            subprocess.run(["losetup", "--detach", device], check=True)
        make = "btrfs subvolume create" if kind == "btrfs" else "mkdir"
        try:
            for directory in directories:
                own = f"/small/{directory.replace('/', '_')}"
                self.shell(f"{make} {own} >/dev/null; chown --reference={directory} {own}; "
                           f"chmod --reference={directory} {own}; mount --bind {own} {directory}")
            yield
        finally:
            # Whatever still uses them, the next one finds the place empty.
            for directory in directories:
                self.run("umount", "--lazy", directory, check=False)
            self.shell(f"umount --lazy /small; rmdir /small; rm {device}")
            image.unlink()

    # Connections

    def connect(self, port, source="127.0.0.1", target="127.0.0.1", timeout=30, namespace=None):
        """A TCP connection to a PORT of the host, made inside its private network, or in a NAMESPACE
        that `ip netns` made there.

        Namespaces belong to threads: a short-lived one enters the host's network, and the socket
        made there stays there.
        """
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        network = self.path(f"/run/netns/{namespace}") if namespace else f"/proc/{self.leader}/ns/net"
        made = []

        def connect_inside():
            with open(network, "rb") as opened:
                if _libc.setns(opened.fileno(), CLONE_NEWNET):
                    made.append(OSError(ctypes.get_errno(), "setns"))
                    return
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(timeout)
                if source and family == socket.AF_INET:
                    connection.bind((source, 0))
                connection.connect((target, port))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                made.append(connection)
            except OSError as error:
                connection.close()
                made.append(error)

        thread = threading.Thread(target=connect_inside)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    @contextlib.contextmanager
    def network(self, name, network, addresses=(2,)):
        """A network namespace NAME behind a link, with these ADDRESSES of a NETWORK such as 10.99.1;
        the host has NETWORK.1."""
        self.shell(f"ip netns add {name}; ip link add {name} type veth peer name far netns {name}\n"
                   f"ip address add {network}.1/24 dev {name}; ip link set {name} up")
        try:
            for address in addresses:
                self.run("ip", "-n", name, "address", "add", f"{network}.{address}/24", "dev", "far")
            self.run("ip", "-n", name, "link", "set", "far", "up")
            yield
        finally:
            # Where sockets are left in the namespace, its end takes the link down only after a while.
            self.shell(f"ip link del {name}; ip netns del {name}")

    # What happened

    def journal(self, *matches):
        """The journal's entries, oldest first, as dictionaries; MATCHES as for journalctl."""
        self.run("journalctl", "--sync")
        listed = self.run("journalctl", "-o", "json", "--all", "--no-pager", *matches).output
        return [json.loads(line) for line in listed.splitlines()]

    def processes(self):
        """The ids, as this machine counts them, of all processes in the host."""
        own = os.readlink(f"/proc/{self.leader}/ns/pid")
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == own:
                    found.append(int(entry.name))
        return sorted(found)

    # Start and end

    @contextlib.contextmanager
    def _booted(self):
        prefix, groups = machine.own_cgroup(f"popa3d-{self.root.parent.name}")
        log = self.root.parent / "console"
        with open(log, "wb") as console:
            # Should this process be killed, the kernel ends systemd-nspawn, and that the host.
            nspawn = subprocess.Popen(
                [*prefix, "setpriv", "--pdeathsig", "TERM",
                 "systemd-nspawn", "-q", "-D", str(self.root),
                 f"--machine={self.root.parent.name}", "--hostname=popa3d-test", "--boot", "--register=no", "--keep-unit",
                 "--private-network", "--console=pipe", "--kill-signal=SIGRTMIN+3",
                 # Landlock, which systemd-nspawn of Debian 12 keeps from a host.
                 "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
                # The hierarchy that Debian 12 and 13 boot with, whatever this machine has.
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        try:
            self.leader = self._await_leader(nspawn, log)
            self._await_running(nspawn, log)
            yield
        finally:
            self._shut_down(nspawn)
            machine.remove_cgroups(groups)

    def _await_leader(self, nspawn, log):
        children = pathlib.Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
        for _ in range(600):
            with contextlib.suppress(OSError):
                for child in map(int, children.read_text(encoding="ascii").split()):
                    # It is the leader once it has become systemd in namespaces of its own.
                    if pathlib.Path(f"/proc/{child}/comm").read_text(encoding="ascii") == "systemd\n":
                        return child
            if nspawn.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the host did not start:\n{log.read_text(errors='replace')}")

    def _await_running(self, nspawn, log):
        for _ in range(600):
            state = self.run("systemctl", "is-system-running", check=False).output.strip()
            if state in ("running", "degraded"):
                return
            if nspawn.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"the host did not come up:\n{log.read_text(errors='replace')}")

    def _shut_down(self, nspawn):
        if self.leader and nspawn.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, signal.SIGRTMIN + 3)
        with contextlib.suppress(subprocess.TimeoutExpired):
            nspawn.wait(timeout=30 if self.leader else 0)
        if nspawn.poll() is None:
            nspawn.kill()
            if self.leader:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.leader, signal.SIGKILL)
            nspawn.wait()
