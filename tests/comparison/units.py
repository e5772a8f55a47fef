"""Units of systemd for the servers, as equal to ours as can be."""

import re

# No limit on connections is to be met: the load comes from one address. From systemd 256 on the default of
# PollLimit*= would hold all Accept=yes sockets to 75 connections a second; older ones pass the line over.
LIMITS = "[Socket]\nMaxConnections=4096\nMaxConnectionsPerSource=4096\nPollLimitIntervalSec=0\n"

# popa3d 1.0.3 and the program that only greets take the connection as inetd hands it over.
INETD_STREAMS = "StandardInput=socket\nStandardOutput=socket\n"

# By default systemd-journald drops what a service says beyond 10,000 lines in 30 s: the more sessions a server
# makes, the fewer of its lines it would pay for.
EVERY_LINE = "LogRateLimitIntervalSec=0\n"


def for_each_connection(host, name, port, program, additional=""):
    """A socket and a service as ours are, but for the program, the port and ADDITIONAL settings of the socket."""
    socket = host.read("/usr/lib/systemd/system/popa3d.socket").decode()
    socket = replaced(r"(?m)^ListenStream=.*$", f"ListenStream={port}", socket)
    socket = replaced(r"(?m)^FileDescriptorName=.*$", "", socket)
    service = host.read("/usr/lib/systemd/system/popa3d@.service").decode()
    service = replaced(r"(?m)^ExecStart=.*$", f"ExecStart={program}", service)
    service = replaced(r"(?m)^StandardInput=.*\nStandardOutput=.*\n", INETD_STREAMS, service)
    service = replaced(r"(?m)^SyslogIdentifier=.*$", f"SyslogIdentifier={name}", service)
    host.write(f"/etc/systemd/system/{name}.socket", f"{socket}\n{LIMITS}{additional}")
    host.write(f"/etc/systemd/system/{name}@.service", service)


def replaced(pattern, new, text):
    """Our unit without that setting would make an unequal one."""
    result, count = re.subn(pattern, new, text)
    if count != 1:
        raise RuntimeError(f"the unit has {count} times {pattern}")
    return result


def daemon(host, name, command, kind="simple"):
    """A service that is on for all of the time, with nothing that could be in its way."""
    host.write(f"/etc/systemd/system/{name}.service",
               f"[Service]\nType={kind}\nExecStart={command}\n{EVERY_LINE}")


def our_daemon(host, name, command):
    """Our service for it, with all that it is confined by, but for the COMMAND; it goes beside our sockets."""
    service = host.read("/usr/lib/systemd/system/popa3d.service").decode()
    service = replaced(r"(?m)^ExecStart=.*$", f"ExecStart={command}", service)
    service = replaced(r"(?m)^Conflicts=.*$", "", service)
    service = replaced(r"(?m)^\[Service\]$", f"[Service]\n{EVERY_LINE}", service)
    host.write(f"/etc/systemd/system/{name}.service", service)
