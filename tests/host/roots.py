"""Debian roots on disk: built once in layers, cached, copied for each use.

A layer's directory carries a hash of everything that went into it, and gets its name only when it
is complete: a recipe that changes makes a new layer, an interrupted build leaves nothing that looks
like one.
"""

import contextlib
import fcntl
import hashlib
import inspect
import json
import os
import secrets
import shutil
import subprocess
import time

from . import machine

UNUSED_FOR = 3 * 24 * 3600  # seconds; then a root with an old recipe is removed

RELEASES = {"bookworm": "12", "trixie": "13"}

# A host as a Debian installer leaves it, less what an isolated test host has no use for.
BASE = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "iproute2", "procps", "passwd", "login",
        # What the package recommends: hosts have no network to fetch it from.
        "ssl-cert")

# Named sets of packages that a layer puts on top of the base.
LAYERS = {
    # POP3 clients, and what the PAM tests configure.
    "clients": ("curl", "python3", "fetchmail", "mpop", "getmail6", "mutt", "libnss-extrausers",
                "procmail", "man-db", "netbase", "strace", "gnutls-bin", "sslscan", "testssl.sh",
                # Small file systems of a test's own.
                "btrfs-progs", "e2fsprogs", "xfsprogs",
                # A PAM module made by a test.
                "gcc", "libc6-dev", "libpam0g-dev"),
    # Programs that deliver into mailboxes and edit them; of MTAs a host can have but one.
    "postfix": ("postfix", "procmail", "maildrop", "mutt"),
    "exim": ("exim4-daemon-light",),
    # A proxy that speaks the PROXY protocol.
    "haproxy": ("haproxy",),
    # What reads the journal: to ban those who guess passwords, and for Prometheus.
    "watchers": ("fail2ban", "python3-systemd", "nftables", "iptables", "jq", "prometheus-node-exporter"),
    # Debian's own popa3d, the oracle of the differential test.
    "popa3d-1.0.3": ("popa3d=1.0.3-1.1",),
    # What ran it where it did not stand alone.
    "openbsd-inetd": ("openbsd-inetd", "netbase"),
    "inetutils-inetd": ("inetutils-inetd", "netbase"),
    "xinetd": ("xinetd",),
    # Debian's runner of debian/tests, and what those tests use.
    "autopkgtest": ("autopkgtest", "dpkg-dev", "curl"),
    # What tests/bench compares with; popa3d 1.0.3 and Courier's POP3 server, which conflict with
    # Dovecot's, come from layers of their own.
    "bench": ("dovecot-pop3d", "libpam0g", "courier-base"),
    "courier-pop": ("courier-pop",),
    # The oldest Rust that must build the program: the one of Debian 13.
    "rust": ("cargo", "rustc", "gcc", "libc6-dev", "libpam0g-dev", "libclang-dev", "pkg-config"),
}


def cached_root(release, *layers):
    """The path of a complete root with these LAYERS; never write to it, copy it."""
    if release not in RELEASES:
        raise SystemExit(f"no such release: {release} (there are {', '.join(RELEASES)})")
    machine.install(machine.PACKAGES)
    root = _layer(f"{release}-base", {"release": release, "packages": BASE, "steps": _steps(_bootstrap)},
                  lambda target: _bootstrap(release, target))
    for layer in layers:
        below, packages = root, LAYERS[layer]
        root = _layer(f"{release}-{'-'.join(layers[:layers.index(layer) + 1])}",
                      {"below": below.name, "packages": packages, "steps": _steps(_add_packages)},
                      lambda target, below=below, packages=packages: _add_packages(below, packages, target))
    return root


@contextlib.contextmanager
def throwaway_copy(root, name="host"):
    """A fresh copy of ROOT, removed at the end; copies whose process died are removed as well."""
    runs = machine.CACHE / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(runs)
    directory = runs / f"{name}-{secrets.token_hex(4)}"  # the host's machine name as well
    directory.mkdir(mode=0o700)
    with open(directory / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            _copy(root, directory / "root")
            yield directory / "root"
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def run_in(root, command, *, binds=(), environment=(), network=True, volatile=False, **options):
    """Runs COMMAND in ROOT, not booted; with VOLATILE, ROOT stays as it is."""
    prefix, groups = machine.own_cgroup(f"popa3d-root-{os.getpid()}")
    try:
        return subprocess.run(
            [*prefix, "systemd-nspawn", "-q", "-D", str(root), "--register=no", "--keep-unit",
             "--console=pipe", *(["--volatile=overlay"] if volatile else []),
             *([] if network else ["--private-network"]),
             *(f"--bind={bind}" for bind in binds), *(f"--setenv={item}" for item in environment),
             "--", *command],
            stdin=subprocess.DEVNULL, **options,
        )
    finally:
        machine.remove_cgroups(groups)


def _layer(name, recipe, build):
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    target = machine.CACHE / "roots" / f"{name}-{digest}"
    with machine.locked(machine.CACHE / "roots" / f"{name}.lock"):
        if target.is_dir():
            os.utime(target)
            return target
        machine.say(f"building the Debian root {name} (once)")
        for other in target.parent.glob(f"{name}-{'?' * 12}"):
            # Another work tree with another recipe may be using it now.
            if time.time() - other.stat().st_mtime > UNUSED_FOR:
                shutil.rmtree(other)
        partial = target.parent / f"{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        build(partial)
        os.sync()
        partial.rename(target)
    return target


def _steps(function):
    """What a step does is part of the recipe."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()


def _bootstrap(release, target):
    debian, security = machine.mirrors()
    _succeeded(subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={','.join(BASE)}", release, str(target), debian],
        check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ))
    sources = f"deb {debian} {release} main\n"
    if security:
        sources += f"deb {security} {release}-security main\n"
    (target / "etc/apt/sources.list").write_text(sources, encoding="ascii")
    (target / "etc/hostname").write_text("popa3d-test\n", encoding="ascii")
    (target / "etc/hosts").write_text("127.0.0.1 localhost popa3d-test\n::1 localhost\n", encoding="ascii")
    _apt(target, "upgrade", "-y")


def _add_packages(below, packages, target):
    _copy(below, target)
    _apt(target, "install", "-y", "--no-install-recommends", *packages)


def _apt(root, *command):
    """Runs apt in ROOT with no daemon started, and leaves no downloads behind."""
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    policy.chmod(0o755)
    for arguments in (("update", "-q"), ("-q", *command), ("clean",)):
        _succeeded(run_in(root, ["apt-get", "-o", "Dpkg::Use-Pty=0", *arguments],
                          environment=("DEBIAN_FRONTEND=noninteractive",),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    policy.unlink()


def _succeeded(finished):
    """What a step of a build printed is of interest only if it failed."""
    if finished.returncode:
        machine.say(finished.stdout.decode(errors="replace"))
        finished.check_returncode()


def _copy(source, target):
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


def _remove_abandoned(runs):
    for directory in runs.iterdir():
        with contextlib.suppress(OSError):
            with open(directory / "lock", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
