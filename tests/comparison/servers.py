"""The servers, each set up on the host on a port of its own."""

import pathlib
import shutil
import subprocess

from host import cached_root, machine

from . import daemons
from .server import Server
from .units import LIMITS, daemon, for_each_connection

HERE = pathlib.Path(__file__).resolve().parent

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
TLS
mail_privileged_group = mail
service pop3-login {
  inet_listener pop3 {
    port = PORT
  }
  inet_listener pop3s {
    port = POP3S
  }
LOGIN}
"""

# 1.0.3 logs as the user who has logged in, so that journald would make a file of 8 MiB for each: at first while
# 1.0.3 is measured, and when they are too many, while anybody is.
ONE_JOURNAL = "[Journal]\nSplitMode=none\n"

# The same certificate for everybody who has one.
CHAIN, KEY = "/etc/ssl/compared.crt", "/etc/ssl/private/compared.key"
KINDS = {"ECDSA P-256": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), "RSA-2048": ("rsa:2048",)}

SETTINGS = f'certificates = [{{ chain = "{CHAIN}", key = "{KEY}" }}]\n'
DOVECOT_2_3_TLS = f"ssl = yes\nssl_cert = <{CHAIN}\nssl_key = <{KEY}"
DOVECOT_2_4_TLS = f"ssl = yes\nssl_server_cert_file = {CHAIN}\nssl_server_key_file = {KEY}"

# doc.dovecot.org, "Login processes": the high-performance mode.
DOVECOT_2_3_FAST = "  service_count = 0\n  process_min_avail = 2\n"
DOVECOT_2_4_FAST = "  restart_request_count = unlimited\n  process_min_avail = 2\n"

TLS_DOVECOTS = ("dovecot_tls.service", "dovecot_fast_tls.service")


def set_up(host, deb):
    """Installs and starts all of them; returns the servers by name."""
    machine.install({"gcc": "/usr/bin/gcc", "libc6-dev": None})
    host.shell("mkdir -p /etc/systemd/journald.conf.d")
    host.write("/etc/systemd/journald.conf.d/one-file.conf", ONE_JOURNAL)
    host.run("systemctl", "restart", "systemd-journald.service")
    host.run("systemctl", "disable", "--now", "dovecot.service")
    # Both packages say that they are the POP3 server of the host; apt would remove one of them.
    shutil.copy(deb, host.path("/tmp"))
    host.run("dpkg", "--install", "--force-conflicts", f"/tmp/{pathlib.Path(deb).name}")
    host.shell("mkdir -p /usr/lib/compared")
    for socket in ("popa3d", "popa3ds"):
        host.shell(f"mkdir -p /etc/systemd/system/{socket}.socket.d")
        host.write(f"/etc/systemd/system/{socket}.socket.d/limits.conf", LIMITS)
    host.write("/etc/systemd/system/popa3d.socket.d/port.conf", "[Socket]\nListenStream=\nListenStream=1100\n")
    host.write("/etc/popa3d.toml", SETTINGS)
    _certificate(host, "ECDSA P-256")

    oracle = cached_root(host.release, "popa3d-1.0.3") / "usr/sbin/popa3d"
    host.write("/usr/lib/compared/popa3d", oracle.read_bytes(), 0o755)
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", str(host.path("/usr/lib/compared/greet")),
                    str(HERE / "greet.c")], check=True, stdin=subprocess.DEVNULL)

    for_each_connection(host, "oracle", 1101, "/usr/lib/compared/popa3d")
    for_each_connection(host, "oracle_nodelay", 1102, "/usr/lib/compared/popa3d", "NoDelay=yes\n")
    for_each_connection(host, "greet", 1103, "/usr/lib/compared/greet")
    is_2_3 = host.run("dovecot", "--version").output.startswith("2.3")
    config, fast, tls = ((DOVECOT_2_3, DOVECOT_2_3_FAST, DOVECOT_2_3_TLS) if is_2_3
                         else (DOVECOT_2_4, DOVECOT_2_4_FAST, DOVECOT_2_4_TLS))
    _dovecot(host, "dovecot_default", 1104, config)
    _dovecot(host, "dovecot_fast", 1105, config, login=fast)
    # A Dovecot without TLS spares each of its login processes the library: those that are measured without it
    # know nothing of it.
    _dovecot(host, "dovecot_tls", 1106, config, tls=tls)
    _dovecot(host, "dovecot_fast_tls", 1107, config, login=fast, tls=tls)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "popa3d.socket", "popa3ds.socket", "oracle.socket", "oracle_nodelay.socket",
             "greet.socket", "dovecot_default.service", "dovecot_fast.service", *TLS_DOVECOTS)

    groups = host.path("/sys/fs/cgroup/system.slice")
    servers = {name: Server(name, port, groups / group) for name, port, group in (
        ("popa3d", 1100, "system-popa3d.slice"),
        ("1.0.3", 1101, "system-oracle.slice"),
        ("1.0.3 NoDelay", 1102, "system-oracle_nodelay.slice"),
        ("greet", 1103, "system-greet.slice"),
        ("Dovecot", 1104, "dovecot_default.service"),
        ("Dovecot fast", 1105, "dovecot_fast.service"),
    )}
    servers |= {f"{name} TLS": Server(name, port, groups / group, tls=True) for name, port, group in (
        ("popa3d", 995, "system-popa3ds.slice"),
        ("Dovecot", 2106, "dovecot_tls.service"),
        ("Dovecot fast", 2107, "dovecot_fast_tls.service"),
    )}
    servers |= daemons.set_up(host)
    for server in servers.values():
        server.await_greeting(host)
    return servers


def use_certificate(host, servers, kind):
    """Gives all servers with TLS a new certificate with a key of one of KINDS."""
    _certificate(host, kind)
    host.run("systemctl", "restart", *TLS_DOVECOTS)
    for server in servers.values():
        if server.tls:
            server.await_greeting(host)


def _certificate(host, kind):
    host.run("openssl", "req", "-x509", "-nodes", "-newkey", *KINDS[kind], "-subj", "/CN=mail.example.org",
             "-addext", "subjectAltName=DNS:mail.example.org", "-days", "30", "-out", CHAIN, "-keyout", KEY)


def _dovecot(host, name, port, config, *, login="", tls=None):
    pop3s, tls = (port + 1000, tls) if tls else (0, "ssl = no")
    common = DOVECOT_COMMON.replace("NAME", name).replace("POP3S", str(pop3s)).replace("PORT", str(port))
    common = common.replace("LOGIN", login).replace("TLS", tls)
    host.write(f"/etc/dovecot/{name}.conf", config + common)
    host.shell(f"mkdir -p /var/lib/{name}")
    daemon(host, name, f"/usr/sbin/dovecot -F -c /etc/dovecot/{name}.conf")
