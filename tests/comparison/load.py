"""The load generator, running inside the host."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess

from host import machine

from .mail import PASSWORD

CRATE = pathlib.Path(__file__).resolve().parent.parent / "load"
PROGRAM = "/usr/lib/compared/popa3d-load"


class Load:
    """Runs works of the load generator (tests/load) against servers of a host."""

    def __init__(self, host):
        self._host = host
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", CRATE.parent.parent / "target")) / "load"
        if not shutil.which("cargo"):
            machine.install({"cargo": "/usr/bin/cargo"})
        subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=CRATE, check=True,
                       stdin=subprocess.DEVNULL, env=os.environ | {"CARGO_TARGET_DIR": str(target)})
        host.write(PROGRAM, (target / "release/popa3d-load").read_bytes(), 0o755)

    def run(self, work, server, **options):
        """What the load generator says, decoded."""
        return json.loads(self._host.run(*self._command(work, server, options)).output.splitlines()[-1])

    @contextlib.contextmanager
    def held(self, server, **options):
        """Sessions that are logged in, for as long as the block lasts."""
        inside = ["nsenter", "-t", str(self._host.leader), "-m", "-u", "-i", "-n", "-p"]
        with subprocess.Popen([*inside, *self._command("hold", server, options)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            if process.stdout.readline() != "holding\n":
                raise RuntimeError(f"{server.name}: not all sessions came about")
            yield
            result = json.loads(process.communicate(timeout=300)[0])
            if result["alive"] != result["sessions"]:
                raise RuntimeError(f"{server.name}: sessions were lost: {result}")

    @staticmethod
    def _command(work, server, options):
        named = {"port": server.port, "password": PASSWORD} | options
        return [PROGRAM, work, *(word for name, value in named.items() for word in (f"--{name}", str(value)))]
