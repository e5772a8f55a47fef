"""Messages for tests: what is in the mailbox, and what a client must get for it."""

import dataclasses

SEPARATOR = b"From sender@example.org Mon Nov  2 09:00:00 2026\n"


@dataclasses.dataclass(frozen=True)
class Message:
    """One message: its LF lines, header and body, without From line and without trailing empty line."""

    text: bytes

    @property
    def stored(self):
        """In an mbox, From line and trailing empty line included."""
        return SEPARATOR + self.text + b"\n"

    @property
    def lines(self):
        """As a client gets it: its lines, without their CRLF, before dot-stuffing."""
        return self.text.removesuffix(b"\n").split(b"\n")

    @property
    def octets(self):
        """Its size by RFC 1939."""
        return len(self.text) + self.text.count(b"\n")


def message(number, body=b"Hello.\n", **header):
    """A message whose Received and Message-ID carry NUMBER, so that its unique-id is its own."""
    more = b"".join(f"{name.replace('_', '-')}: {value}\n".encode() for name, value in header.items())
    return Message(b"Received: from example.org by example.net id %d; Mon, 2 Nov 2026 09:00:00 +0000\n"
                   b"From: sender@example.org\nTo: you@example.org\nSubject: message %d\n"
                   b"Message-ID: <%d@example.org>\n" % (number, number, number) + more + b"\n" + body)


def messages(count, body=b"Hello.\n"):
    """COUNT messages that differ."""
    return [message(number, body) for number in range(1, count + 1)]


def mbox(items):
    """The mailbox that holds these messages."""
    return b"".join(item.stored for item in items)
