"""Mailboxes: made by hand for one oddity each, and generated from lines that mean something."""

import random

# What the scan looks for, what resembles that, and what a client has to get as it is.
LINES = (
    b"", b"", b"", b"From", b"from x", b">From x", b" From x", b"From:", b"Received: x", b"received:y",
    b"RECEIVED:", b"Received :z", b"Receive", b"Delivered-To: q", b"delivered-to:", b"Date: d", b"DATE:e",
    b"Dated: e", b"Message-ID: m", b"message-id:n", b"Message-Id :", b"X-Delivery-ID: x", b"X-DELIVERY-id: y",
    b"x-Delivery-ID: z", b" continued", b"\tcontinued", b" ", b"\t", b".", b"..", b".x", b"...", b" .",
    b"Subject: s", b"Status: RO", b"X-Status: A", b"X-Keywords: a b", b"X-UID: 7", b"X-IMAP: 1 1",
    b"Content-Length: 5", b"Content-Length: 99999999999999999999", b"Lines: 3", b"text", b"\0", b"a\0b",
    b"Date\0: x", b"\xff\xfe\x80", b"caf\xc3\xa9", b"a\rb", b"\x1a", b"\x7f\x1b[m", b":", b"x" * 200,
)
LONG = (65535, 65536, 65000, 70000, 100_000, 131_071, 131_072, 131_073)


def generated(seed):
    """A mailbox that 1.0.3 serves as it should: no CR before a LF, no From_ line without anything behind it."""
    r = random.Random(seed)
    with_long_lines = r.random() < 0.1
    lines = []
    for _ in range(r.choice((1, 1, 2, 3, 5, 8, 20))):
        if lines and lines[-1] != b"":
            lines.append(b"")
        lines.append(b"From " + bytes(r.choices(b"ab .:", k=r.randrange(30))))
        lines.append(r.choice((b"", b"Date: h%d" % r.randrange(4), b" odd", b"Received: r%d" % r.randrange(9))))
        for _ in range(r.randrange(20)):
            line = r.choice(LINES)
            if r.random() < 0.1:
                line += bytes(r.choices(b"ab \t:.FR\0", k=r.randrange(20)))
            if with_long_lines and r.random() < 0.1:
                line += b"y" * r.choice(LONG)
            lines.append(line)
            # A From_ line inside a body or a header, which is none.
            if r.random() < 0.05 and line != b"" and not line.startswith(b"From "):
                lines.append(b"From inside")
    return b"\n".join(lines) + b"\n"


def message(number, header=b"", body=b"text\n"):
    """An ordinary message with an id of its own."""
    return (b"From sender@example.org Mon Nov 23 10:00:00 2026\nReceived: by example.net id %d\n"
            b"Subject: number %d\n%s\n%s\n" % (number, number, header, body))


def ordinary(count):
    """COUNT ordinary messages."""
    return b"".join(message(number) for number in range(count))


def by_hand():
    """Name and mailbox; both servers have to agree on each."""
    yield "no-file", None
    yield "empty-file", b""
    yield "one-message", ordinary(1)
    yield "five-messages", ordinary(5)
    yield "from-in-bodies", message(1, body=b"text\nFrom here on\n>From quoted\n\n From space\n") + ordinary(2)
    yield "from-after-empty-line-in-body", message(1, body=b"text\n\nFrom here a new message begins\n")
    yield "no-empty-line-between", message(1).rstrip(b"\n") + b"\n" + message(2)
    yield "many-empty-lines-between", (message(1) + b"\n\n\n\n") * 3
    yield "header-only", b"From a\nDate: 1\nSubject: a\n\nFrom b\nDate: 2\nSubject: b\n\n"
    yield "header-only-without-empty-line", b"From a\nDate: 1\nSubject: a\n"
    yield "body-only", b"From a\n\nbody\n\nFrom b\n\nother\n\n"
    yield "empty-body-lines", b"From a\nDate: 1\n\n\n\n\nFrom b\nDate: 2\n\n\n\n\n"
    yield "nothing-but-an-empty-line", b"From a\n\n"
    yield "from-line-of-five-octets", b"From \nDate: 1\n\ntext\n"
    yield "long-from-line", b"From " + b"x" * 300_000 + b"\nDate: 1\n\ntext\n"
    yield "nul-everywhere", message(1, header=b"X-\0: \0\n", body=b"\0\n\0\0\n.\0\n") * 2
    yield "nothing-but-nul-in-body", message(1, body=b"\0" * 200_000 + b"\n")
    yield "eight-bit", message(1, header=b"Subject: caf\xe9\n", body=bytes(range(128, 256)) + b"\n")
    yield "control-octets", message(1, body=bytes(c for c in range(32) if c not in (10, 13)) + b"\n")
    yield "lone-cr", message(1, body=b"a\rb\r\rc\n\rd\n")
    yield "dots", message(1, body=b".\n..\n...\n.a\n \n. \n")
    yield "line-of-8-mb", message(1, body=b"x" * 8_000_000 + b"\nend\n") + ordinary(1)
    yield "line-of-8-mb-in-header", message(1, header=b"X-Long: " + b"x" * 8_000_000 + b"\n") + ordinary(1)
    yield "received-of-1-mb", b"From a\nReceived: " + b"x" * 1_000_000 + b"\n\ntext\n\n" + ordinary(1)
    yield "received-folded-5000-times", b"From a\nReceived: x\n" + b"\tfolded\n" * 5000 + b"\ntext\n\n" + ordinary(1)
    yield "header-of-5-mb", message(1, header=b"X-Header: some text to fill it up\n" * 150_000) + ordinary(1)
    yield "delivered-to-20000-times", message(1, header=b"Delivered-To: alice\n" * 20_000)
    yield "body-of-10-mb", message(1, body=b"seventy octets of text, as most of the lines in most of the mail have\n" * 150_000)
    yield "lying-content-length", message(1, header=b"Content-Length: 4\n", body=b"longer\n") + message(
        2, header=b"Content-Length: 100000\n") + message(3, header=b"Content-Length: -1\n")
    yield "folder-internal-data-that-is-not-first", ordinary(1) + INTERNAL_DATA
    yield "folder-internal-data-without-imap-header", INTERNAL_DATA.replace(b"X-IMAP:", b"X-OTHER:") + ordinary(1)
    yield "folder-internal-data-with-another-subject", INTERNAL_DATA.replace(b" DATA\n", b" DATUM\n") + ordinary(1)
    yield "100000-tiny-messages", b"".join(b"From a\nDate: %d\n\nx\n\n" % n for n in range(100_000))
    yield "garbage-first", b"text\n" + ordinary(1)
    yield "garbage-first-then-an-empty-line", b"text\n\n" + ordinary(1)
    yield "indented-from-line", b" " + ordinary(1)
    in_body = b"From a\nDate: %d\n\n"
    yield "boundaries-at-edges", _at_edges(in_body, b"\n\n")
    yield "empty-lines-at-edges", _at_edges(in_body, b"\n\n\n\n\n")
    yield "dots-at-edges", _at_edges(in_body, b"\n" + b".\n" * 20 + b"\n")
    yield "headers-at-edges", _at_edges(b"From a\nX-%d: ", b"\nDelivered-To: a\n\tfolded\nDate: 1\n\ntext\n\n")
    yield "ends-of-headers-at-edges", _at_edges(b"From a\nDate: %d\nX: ", b"\n\n.\n\n")
    yield "from-lines-at-edges", _at_edges(in_body, b"\nFrom\nFrom a\n\nFrom a\nDate: 1\n\ntext\n\n")


# Around the end of a buffer, and around the place before it where a scan stops to wait for more.
EDGES = (*range(-150, -115), *range(-25, 10))


def _at_edges(before, after, buffer=131_072):
    """A mailbox in which what begins with AFTER lies at and around the edges of buffers."""
    mailbox = b""
    for number, edge in enumerate(EDGES):
        mailbox += before % number
        mailbox += b"x" * ((edge - len(mailbox)) % buffer) + after
    return mailbox


INTERNAL_DATA = (
    b"From MAILER-DAEMON Mon Nov 23 10:00:00 2026\nDate: 23 Nov 2026 10:00:00 +0000\n"
    b"From: Mail System Internal Data <MAILER-DAEMON@example.org>\n"
    b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n"
    b"Message-ID: <1@example.org>\nX-IMAP: 1700000000 0000000002\nStatus: RO\n\n"
    b"This text is part of the internal format of a mail folder.\n\n"
)
