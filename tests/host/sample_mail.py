"""A handful of messages as they arrive in a mailbox, for trying things out."""

import email.message
import email.utils
import struct
import zlib


def mailbox(user):
    """Five messages to USER in one mbox, as a local delivery agent writes it."""
    return b"".join(_delivered(user, number, message) for number, message in enumerate(_messages(user), 1))


def _messages(user):
    lunch = _message("Bob <bob@example.org>", user, "Lunch on Thursday?")
    lunch.set_content("Hi,\n\nthe usual place, half past twelve?\n\nFrom there it is five minutes to the station.\n\nBob\n")
    yield lunch

    minutes = _message("Carol <carol@example.org>", user, "Protokoll der Sitzung vom Montag – Entwurf")
    minutes.set_content("Grüße an alle,\n\nder Entwurf steht unten. Änderungen bitte bis Freitag.\n"
                        "\n.1 Begrüßung\n.2 Kassenbericht: 1 204,50 €\n", cte="8bit")
    yield minutes

    photo = _message("Carol <carol@example.org>", user, "The new sign")
    photo.set_content("It hangs. See the picture.\n")
    photo.add_attachment(_picture(), maintype="image", subtype="png", filename="sign.png")
    yield photo

    letter = _message("Example Weekly <weekly@example.net>", user, "This week: mailboxes, and why they last")
    letter.set_content("Read this in HTML.\n")
    letter.add_alternative("<h1>Mailboxes</h1>" + "<p>One file, many messages.</p>\n" * 400, subtype="html")
    yield letter

    report = _message("root <root@example.org>", user, "Cron <root@www> test -x /usr/sbin/anacron")
    report.set_content("run-parts: /etc/cron.daily/logrotate exited with return code 1\n")
    yield report


def _message(sender, user, subject):
    message = email.message.EmailMessage()
    message["From"] = sender
    message["To"] = f"{user}@example.org"
    message["Subject"] = subject
    return message


def _delivered(user, number, message):
    date = f"Mon, 2 Nov 2026 09:{number:02}:00 +0000"
    message["Date"] = date
    message["Message-ID"] = f"<20261102.{number}@example.org>"
    text = message.as_bytes().replace(b"\nFrom ", b"\n>From ")
    trace = (f"From sender{number}@example.org Mon Nov  2 09:{number:02}:01 2026\n"
             f"Return-Path: <sender{number}@example.org>\nDelivered-To: {user}@example.org\n"
             f"Received: from mx.example.org (mx.example.org [192.0.2.{number}])\n"
             f"\tby mail.example.org with ESMTP id 4F{number:04}; {date}\n")
    return trace.encode() + text + b"\n"


def _picture():
    """A PNG of 64 x 64 pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"".join(bytes((x * 4, y * 4, 160)) for x in range(64)) for y in range(64))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
