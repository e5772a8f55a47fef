"""Throwaway Debian hosts: a real systemd, booted on a copy of a cached Debian root.

    from host import Host

    with Host("bookworm", deb="target/deb/popa3d_2.0.0_amd64.deb") as host:
        host.user("alice", password="secret")
        host.deliver("alice", b"From ...")
        host.run("systemctl", "enable", "--now", "popa3d.socket")
        client = host.connect(110)

Each host has network, processes and files of its own (systemd-nspawn, private network: loopback
only), registers with nothing on this machine, and is gone when the block ends, however it ends.
"""

from . import machine, sample_mail
from .booted import Command, Host
from .roots import RELEASES, cached_root, throwaway_copy

__all__ = ["RELEASES", "Command", "Host", "cached_root", "machine", "sample_mail", "throwaway_copy"]
