"""The servers that accept connections by themselves: one service each, on for all of the time.

popa3d 1.0.3 has its limits within: 500 sessions, 50 from one address, and a session counts for ten seconds
however short it was. So it gets fewer at once, and a rest behind them; that it has room for no more than five
connections that wait to be accepted is its own affair. The limits of the others are out of the way.
"""

from host import cached_root

from .server import Server
from .units import EVERY_LINE, daemon, our_daemon

STANDALONE = """\
listen = ["127.0.0.1:1108"]
listen-tls = []
max-sessions = 4000
max-sessions-per-source = 4000
max-unauthenticated = 4000
session-slot = "0s"
plaintext-login = "always"
"""

# What of Debian's courier-pop is needed; the package itself conflicts with any other POP3 server. The rest of Courier
# is in the host's layer.
COURIER = ("etc/courier/pop3d", "etc/courier/pop3d-ssl", "usr/lib/courier/pop3d",
           "usr/lib/courier/courier/courierpop3d", "usr/lib/courier/courier/courierpop3login")
COURIER_SETTINGS = b"PORT=1109\nADDRESS=127.0.0.1\nMAXDAEMONS=4096\nMAXPERIP=4096\n"
# Its daemon that asks PAM belongs to it.
COURIER_SLICE = f"[Service]\nSlice=system-courier.slice\n{EVERY_LINE}"


def set_up(host):
    """Starts them; returns them by name."""
    host.write("/etc/popa3d-standalone.toml", STANDALONE)
    our_daemon(host, "standalone", "/usr/sbin/popa3d -D -F --config /etc/popa3d-standalone.toml")
    daemon(host, "oracle_standalone", "/usr/lib/compared/popa3d -D", kind="forking")
    daemon(host, "greet_standalone", "/usr/lib/compared/greet -D 1110")
    _courier(host)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "standalone", "oracle_standalone", "greet_standalone", "courier-pop")
    # It came up with the host, in another slice.
    host.run("systemctl", "restart", "courier-authdaemon")
    groups = host.path("/sys/fs/cgroup/system.slice")
    return {
        "popa3d -D": Server("popa3d", 1108, groups / "standalone.service"),
        # The port is in the program.
        "1.0.3 -D": Server("1.0.3", 110, groups / "oracle_standalone.service", most=450, rest=11),
        "Courier": Server("Courier", 1109, groups / "system-courier.slice"),
        "greet -D": Server("greet", 1110, groups / "greet_standalone.service"),
    }


def _courier(host):
    layer = cached_root(host.release, "courier-pop")
    for file in COURIER:
        host.write(file, (layer / file).read_bytes(), (layer / file).stat().st_mode & 0o777)
    host.write("/etc/courier/pop3d", host.read("/etc/courier/pop3d") + COURIER_SETTINGS)
    host.write("/etc/pam.d/pop3", host.read("/etc/pam.d/popa3d"))
    host.write("/etc/systemd/system/courier-pop.service",
               "[Service]\nType=forking\nExecStart=/usr/lib/courier/pop3d start\nPIDFile=/run/courier/pop3d.pid\n")
    for unit in ("courier-authdaemon", "courier-pop"):
        host.shell(f"mkdir -p /etc/systemd/system/{unit}.service.d")
        host.write(f"/etc/systemd/system/{unit}.service.d/slice.conf", COURIER_SLICE)
