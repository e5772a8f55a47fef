"""Users who log in and fetch, over and over, and how long each time took.

`python3 -m flooding.users PLAN`, with PLAN the fields of Plan as JSON. Prints one line of JSON.
"""

import dataclasses
import json
import socket
import sys
import threading
import time

PATIENCE = 20  # seconds: then a mail client would have given up


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done."""

    target: str
    users: dict  # the addresses that each one comes from, in turn
    password: str
    port: int = 110
    seconds: float = 30
    every: float = 0.5  # seconds from one beginning to the next


def fetch(plan, user, source):
    """One session: a login, a message. Returns the seconds until it was greeted."""
    begun = time.monotonic()
    with socket.create_connection((plan.target, plan.port), PATIENCE, (source, 0)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = connection.makefile("rb")

        def ask(command, *, lines=False):
            if command:
                connection.sendall(f"{command}\r\n".encode())
            reply = replies.readline()
            if not reply.startswith(b"+OK"):
                raise OSError(reply.decode(errors="replace").strip() or "closed without a word")
            while lines and (line := replies.readline()) != b".\r\n":
                if not line:
                    raise OSError("closed in the middle")

        ask("")
        greeted = time.monotonic() - begun
        ask(f"USER {user}")
        ask(f"PASS {plan.password}")
        ask("STAT")
        ask("RETR 1", lines=True)
        ask("QUIT")
    return greeted


def serve(plan, user, sources, sessions):
    """Sessions of one user; the next one begins when it is time, or when the last one is over."""
    begun = time.monotonic()
    for number in range(int(plan.seconds / plan.every)):
        time.sleep(max(0, begun + number * plan.every - time.monotonic()))
        started = time.monotonic()
        if started > begun + plan.seconds:
            return
        greeted, failure = None, None
        try:
            greeted = fetch(plan, user, sources[number % len(sources)])
        except OSError as error:
            failure = str(error)
        sessions.append({"user": user, "at": started - begun, "took": time.monotonic() - started, "greeted": greeted,
                         "failure": failure})


def main(plan):
    sessions = []
    threads = [threading.Thread(target=serve, args=(plan, user, sources, sessions))
               for user, sources in plan.users.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(sorted(sessions, key=lambda session: session["at"])))


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
