"""What tests/flood is made of: an attack, users who want their mail meanwhile, and what the host has to bear.

Attack and users are in networks of the booted host, but their processes are this machine's, so that they are not
counted as the host's. The system tests attack by the same program.
"""

import json
import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent


def start(module, host, namespace, plan):
    """Starts a module of this package in a network namespace of the host; what it prints is for `result`."""
    return subprocess.Popen(
        # Each connection is a descriptor. Should this process die, the attack ends.
        ["nsenter", f"--net={host.path(f'/run/netns/{namespace}')}", "prlimit", "--nofile=16384",
         "setpriv", "--pdeathsig", "KILL", sys.executable, "-m", f"flooding.{module}", json.dumps(plan)],
        cwd=TESTS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def result(process, timeout=300):
    """What it printed, decoded."""
    output, _ = process.communicate(timeout=timeout)
    if process.returncode:
        raise RuntimeError(f"{process.args[-2]}: exit {process.returncode}")
    return json.loads(output)
