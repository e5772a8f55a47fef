"""What is in the memory of a process, seen from outside through /proc."""

import pathlib


def held(process, secrets):
    """Which of the SECRETS are somewhere in the memory of PROCESS, and where; nothing in one that is gone."""
    found = []
    try:
        areas = pathlib.Path(f"/proc/{process}/maps").read_text(encoding="ascii").splitlines()
        memory = open(f"/proc/{process}/mem", "rb", buffering=0)
    except (FileNotFoundError, ProcessLookupError):
        return found
    with memory:
        for area in areas:
            addresses, mode = area.split()[:2]
            if not mode.startswith("r") or area.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = (int(part, 16) for part in addresses.split("-"))
            memory.seek(start)
            content = memory.read(end - start)
            found.extend(f"{name} in {area}" for name, secret in secrets.items() if secret in content)
    return found
