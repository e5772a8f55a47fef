"""The users and their mailboxes: small ones, and one of a gigabyte."""

import os
import pathlib
import random

PASSWORD = "wonderland"

# As 1.0.3 and ours keep it, and one for Dovecot, which writes numbers of its own into a mailbox.
BIG, BIG_FOR_DOVECOT, DOOMED = "big", "bigdovecot", "doomed"

# Messages, and the octets of each.
SMALL = 5, 2500


def add_users(host, count):
    """user000 and so on with five messages each, and the owners of the big mailboxes."""
    names = [*(f"user{number:03}" for number in range(count)), BIG, BIG_FOR_DOVECOT, DOOMED]
    accounts = [(name, 2000 + number) for number, name in enumerate(names)]
    for file, line in (("/etc/passwd", "{0}:x:{1}:{1}::/home/{0}:/bin/sh\n"),
                       ("/etc/group", "{0}:x:{1}:\n"), ("/etc/shadow", "{0}:!:20000:0:99999:7:::\n")):
        with open(host.path(file), "a", encoding="ascii") as table:
            table.writelines(line.format(name, number) for name, number in accounts)
    # Cheap to verify: a fraction of a millisecond.
    host.run("chpasswd", "-c", "SHA512", "-s", "1000", stdin="".join(f"{name}:{PASSWORD}\n" for name in names))
    small = mailbox(*SMALL)
    for name, number in accounts:
        home = host.path(f"/home/{name}")
        home.mkdir(mode=0o700)
        os.chown(home, number, number)
        write(host, name, (small,))
        _write_maildir(home, number)


def write(host, name, pieces):
    """Makes the mailbox of NAME anew."""
    file = host.mailbox(name)
    with open(file, "wb") as out:
        out.writelines(pieces)
        out.flush()
        os.fsync(out.fileno())
    owner = os.stat(host.path(f"/home/{name}")).st_uid
    mail = int(host.run("getent", "group", "mail").output.split(":")[2])
    os.chown(file, owner, mail)
    file.chmod(0o660)


def _write_maildir(home, owner):
    """The messages of a small mailbox, for Courier, named as its own delivery agents do."""
    top = pathlib.Path(home, "Maildir")
    for directory in (top, top / "cur", top / "new", top / "tmp"):
        directory.mkdir(mode=0o700)
        os.chown(directory, owner, owner)
    for number, message in enumerate(pieces(*SMALL)):
        # Neither the From_ line nor the empty line at the end is a part of it.
        message = message.partition(b"\n")[2][:-1]
        file = top / f"cur/1793610000.M{number}P1.mail,S={len(message)}:2,"
        file.write_bytes(message)
        os.chown(file, owner, owner)


def mailbox(messages, octets, seed=1):
    """So many MESSAGES of about OCTETS octets each, as they lie in a spool; yields nothing twice."""
    return b"".join(pieces(messages, octets, seed))


def pieces(messages, octets, seed=1):
    """The messages of a mailbox, one by one."""
    chance = random.Random(seed)
    letters = bytes(chance.choices(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=1 << 20))
    lines = b"".join(letters[at:at + 72] + b"\n" for at in range(0, len(letters), 72))
    for number in range(1, messages + 1):
        header = (f"From sender{number}@example.org Mon Nov  2 09:00:00 2026\n"
                  f"Return-Path: <sender{number}@example.org>\n"
                  f"Received: from mx.example.org (mx.example.org [192.0.2.{number % 250}])\n"
                  f"\tby mail.example.org with ESMTP id {seed:02X}{number:08X}; Mon, 2 Nov 2026 09:00:00 +0000\n"
                  f"Date: Mon, 2 Nov 2026 09:00:00 +0000\nFrom: Sender <sender{number}@example.org>\n"
                  f"To: user@example.org\nMessage-ID: <{seed}.{number}@example.org>\n"
                  f"Subject: message {number}\nMIME-Version: 1.0\nContent-Type: text/plain\n\n").encode()
        size = max(73, octets - len(header) - 1)
        begin = chance.randrange(0, max(1, (len(lines) - size) // 73)) * 73
        yield header + lines[begin:begin + size - size % 73] + b"\n"
