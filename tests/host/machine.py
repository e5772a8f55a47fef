"""What this machine must have before a host can be built: a few Debian packages, a mirror."""

import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys

CACHE = pathlib.Path(os.environ.get("POPA3D_TEST_CACHE", "/var/cache/popa3d-tests"))

# What the hosts need of this machine: package, and a file that shows that it is there (None: dpkg tells).
PACKAGES = {
    "debootstrap": "/usr/sbin/debootstrap",
    "systemd-container": "/usr/bin/systemd-nspawn",
    "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
}


def say(text):
    """Progress goes to standard error: standard output belongs to results."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(path):
    """Holds an exclusive lock on PATH: two runs at once build a thing once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(packages):
    """Installs those of PACKAGES (name -> file that shows it, or None) that this machine lacks."""
    missing = [name for name, proof in packages.items()
               if not (pathlib.Path(proof).exists() if proof else _installed(name))]
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    with locked(CACHE / "apt.lock"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            finished = subprocess.run(
                ["apt-get", "-o", "DPkg::Lock::Timeout=300", *command], check=False, env=environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            if finished.returncode:
                say(finished.stdout.decode(errors="replace"))
                # An archive of somebody else's that cannot be reached need not matter.
                if command[0] != "update":
                    raise SystemExit(f"apt-get {command[0]} failed")


def _installed(package):
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package],
                           check=False, capture_output=True, stdin=subprocess.DEVNULL, text=True)
    return asked.stdout == "installed"


def mirrors():
    """The Debian and the security mirror (or None) that this machine's own apt uses."""
    found = _sites()
    if "Debian" not in found:  # labels are known only after an update
        subprocess.run(["apt-get", "update"], check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        found = _sites()
    if "Debian" not in found:
        raise SystemExit("apt knows no Debian mirror: see /etc/apt/sources.list")
    return found["Debian"], found.get("Debian-Security")


def _sites():
    """Mirrors by the label of their archive."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL)\t$(SITE)"],
        check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    ).stdout
    return dict(line.split("\t", 1) for line in listed.splitlines() if "\t" in line)


def own_cgroup(name):
    """A command prefix that runs what follows in a control group of its own.

    systemd-nspawn --keep-unit puts its payload below the caller's group: two hosts started from
    one group would share one payload group, and each systemd would end the other's services.
    """
    groups = []
    for line in pathlib.Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            unified = pathlib.Path("/sys/fs/cgroup/unified")
            mount = unified if unified.is_dir() else pathlib.Path("/sys/fs/cgroup")
        elif controllers == "name=systemd":
            mount = pathlib.Path("/sys/fs/cgroup/systemd")
        else:
            continue
        groups.append(mount / path.lstrip("/") / name)
    script = 'while [ "$1" != -- ]; do mkdir -p "$1" && echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
    return ["sh", "-c", script, "sh", *map(str, groups), "--"], groups


def remove_cgroups(groups):
    """Removes control groups, leaves first; one that is busy or gone already is left alone."""
    for group in groups:
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
