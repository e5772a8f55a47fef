"""The servers, each set up on the host on a port of its own, and what their processes use."""

import contextlib
import dataclasses
import pathlib
import re
import shutil
import subprocess
import time

from host import cached_root, machine

HERE = pathlib.Path(__file__).resolve().parent

# No limit on connections is to be met: the load comes from one address. From systemd 256 on the default of
# PollLimit*= would hold all Accept=yes sockets to 75 connections a second; older ones pass the line over.
LIMITS = "[Socket]\nMaxConnections=4096\nMaxConnectionsPerSource=4096\nPollLimitIntervalSec=0\n"

# popa3d 1.0.3 and the program that only greets take the connection as inetd hands it over.
INETD_STREAMS = "StandardInput=socket\nStandardOutput=socket\n"

DOVECOT_2_3 = """\
disable_plaintext_auth = no
mail_location = mbox:~/mail:INBOX=/var/mail/%u
passdb {
  driver = pam
  args = popa3d
}
userdb {
  driver = passwd
}
"""

DOVECOT_2_4 = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
auth_allow_cleartext = yes
mail_driver = mbox
mail_path = ~/mail
mail_inbox_path = /var/mail/%{user}
passdb pam {
  service_name = popa3d
}
userdb passwd {
}
"""

DOVECOT_COMMON = """\
base_dir = /run/NAME
state_dir = /var/lib/NAME
protocols = pop3
listen = 127.0.0.1
ssl = no
mail_privileged_group = mail
service pop3-login {
  inet_listener pop3 {
    port = PORT
  }
  inet_listener pop3s {
    port = 0
  }
LOGIN}
"""

# doc.dovecot.org, "Login processes": the high-performance mode.
DOVECOT_2_3_FAST = "  service_count = 0\n  process_min_avail = 2\n"
DOVECOT_2_4_FAST = "  restart_request_count = unlimited\n  process_min_avail = 2\n"


@dataclasses.dataclass(frozen=True)
class Server:
    """One server on the host: where it listens, and the control group of its processes."""

    name: str
    port: int
    group: pathlib.Path

    def processes(self):
        """The ids of its processes, as this machine counts them."""
        found = set()
        with contextlib.suppress(OSError):
            for file in self.group.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    found.update(map(int, file.read_text(encoding="ascii").split()))
        return found

    def wait_until_idle(self):
        """Waits until the processes of ended sessions are gone; those of Dovecot stay in part."""
        before = None
        for _ in range(40):
            now = self.processes()
            if now in (before, set()):
                return
            before = now
            time.sleep(0.5)


def set_up(host, deb):
    """Installs and starts all of them; returns the servers by name."""
    machine.install({"gcc": "/usr/bin/gcc", "libc6-dev": None})
    host.run("systemctl", "disable", "--now", "dovecot.service")
    # Both packages say that they are the POP3 server of the host; apt would remove one of them.
    shutil.copy(deb, host.path("/tmp"))
    host.run("dpkg", "--install", "--force-conflicts", f"/tmp/{pathlib.Path(deb).name}")
    host.shell("mkdir -p /usr/lib/compared /etc/systemd/system/popa3d.socket.d")
    host.write("/etc/systemd/system/popa3d.socket.d/limits.conf", LIMITS)

    oracle = cached_root(host.release, "popa3d-1.0.3") / "usr/sbin/popa3d"
    host.write("/usr/lib/compared/popa3d", oracle.read_bytes(), 0o755)
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", str(host.path("/usr/lib/compared/greet")),
                    str(HERE / "greet.c")], check=True, stdin=subprocess.DEVNULL)

    _unit(host, "oracle", 1101, "/usr/lib/compared/popa3d")
    _unit(host, "oracle_nodelay", 1102, "/usr/lib/compared/popa3d", "NoDelay=yes\n")
    _unit(host, "greet", 1103, "/usr/lib/compared/greet")
    is_2_3 = host.run("dovecot", "--version").output.startswith("2.3")
    config, fast = (DOVECOT_2_3, DOVECOT_2_3_FAST) if is_2_3 else (DOVECOT_2_4, DOVECOT_2_4_FAST)
    _dovecot(host, "dovecot_default", 1104, config)
    _dovecot(host, "dovecot_fast", 1105, config, fast)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "popa3d.socket", "oracle.socket", "oracle_nodelay.socket", "greet.socket",
             "dovecot_default.service", "dovecot_fast.service")

    groups = host.path("/sys/fs/cgroup/system.slice")
    servers = {name: Server(name, port, groups / group) for name, port, group in (
        ("popa3d", 110, "system-popa3d.slice"),
        ("1.0.3", 1101, "system-oracle.slice"),
        ("1.0.3 NoDelay", 1102, "system-oracle_nodelay.slice"),
        ("greet", 1103, "system-greet.slice"),
        ("Dovecot", 1104, "dovecot_default.service"),
        ("Dovecot fast", 1105, "dovecot_fast.service"),
    )}
    for server in servers.values():
        _await_greeting(host, server)
    return servers


def _await_greeting(host, server):
    """A server that does not answer is a mistake of ours, and no server that fails every session."""
    for _ in range(50):
        with contextlib.suppress(OSError), host.connect(server.port) as connection:
            if connection.recv(3) == b"+OK":
                return
        time.sleep(0.1)
    raise RuntimeError(f"{server.name} does not greet on port {server.port}")


def _unit(host, name, port, program, additional=""):
    """A socket and a service as ours are, but for the program, the port and ADDITIONAL settings of the socket."""
    socket = host.read("/usr/lib/systemd/system/popa3d.socket").decode()
    socket = _replaced(r"(?m)^ListenStream=.*$", f"ListenStream={port}", socket)
    socket = _replaced(r"(?m)^FileDescriptorName=.*$", "", socket)
    service = host.read("/usr/lib/systemd/system/popa3d@.service").decode()
    service = _replaced(r"(?m)^ExecStart=.*$", f"ExecStart={program}", service)
    service = _replaced(r"(?m)^StandardInput=.*\nStandardOutput=.*\n", INETD_STREAMS, service)
    service = _replaced(r"(?m)^SyslogIdentifier=.*$", f"SyslogIdentifier={name}", service)
    host.write(f"/etc/systemd/system/{name}.socket", f"{socket}\n{LIMITS}{additional}")
    host.write(f"/etc/systemd/system/{name}@.service", service)


def _replaced(pattern, new, text):
    """Our unit without that setting would make an unequal one."""
    result, count = re.subn(pattern, new, text)
    if count != 1:
        raise RuntimeError(f"the unit has {count} times {pattern}")
    return result


def _dovecot(host, name, port, config, login=""):
    common = DOVECOT_COMMON.replace("NAME", name).replace("PORT", str(port)).replace("LOGIN", login)
    host.write(f"/etc/dovecot/{name}.conf", config + common)
    host.shell(f"mkdir -p /var/lib/{name}")
    host.write(f"/etc/systemd/system/{name}.service",
               f"[Service]\nExecStart=/usr/sbin/dovecot -F -c /etc/dovecot/{name}.conf\n")
