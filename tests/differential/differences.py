"""Every difference between 1.0.3 and us, each with mailboxes that show it, and exactly what both do.

A case takes the server that is Debian's popa3d 1.0.3, looks itself whether that behaves as described,
and yields the mailbox, the numbers of messages to delete, and what ours has to make of these.
"""

import dataclasses

from . import mailboxes, rules
from .servers import LINES, REFUSED, Maildrop

EMPTY_ID = rules.unique_id(b"")


def shared_id(debian):
    """1.0.3 gives one id to several messages (RFC 1939 section 7 forbids that): the later ones get a suffix.

    That is so wherever ids are the same; see `with_ids_made_unique`. Here everything has the same.
    """
    mailbox = b"".join(b"From a\nSubject: %d\nStatus: RO\n\n%d\n\n" % (n % 3, n % 3) for n in range(8))
    theirs = debian.serve(mailbox)
    assert theirs.ids == [EMPTY_ID] * 8
    ours = with_ids_made_unique(theirs, mailbox)
    assert len(set(ours.ids)) == 8 and ours.ids[0] == EMPTY_ID
    yield mailbox, (), ours


def missing_last_line_end(debian):
    """Without a line feed at the end of the file, 1.0.3 sends the last line whole but counts it an octet short."""
    for base, _ in _bases():
        mailbox = base.rstrip(b"\n") + b"\nlast line"
        theirs = debian.serve(mailbox)
        assert theirs.sizes[-1] == b"%d" % (_octets(theirs.messages[-2]) - 1)
        yield mailbox, (), with_ids_made_unique(_resized(theirs), mailbox)


def cr_at_the_end(debian):
    """Where the file ends within a CRLF, we complete that, and 1.0.3 adds a second CR."""
    for base, _ in _bases():
        mailbox = base.rstrip(b"\n") + b"\nlast line\r"
        theirs = debian.serve(mailbox)
        assert theirs.messages[-2].endswith(b"last line\r\r\n")

        def with_one_cr(message):
            return message.replace(b"\r\r\n", b"\r\n")

        theirs.messages = [with_one_cr(message) for message in theirs.messages]
        theirs.tops = {top: with_one_cr(message) for top, message in theirs.tops.items()}
        yield mailbox, (), _resized(theirs)


def crlf_file(debian):
    """Where lines end in CRLF, 1.0.3 sees no empty line: one message, each line sent with CR CR LF."""
    for with_lf, deleted in _bases():
        mailbox = with_lf.replace(b"\n", b"\r\n")
        theirs = debian.serve(mailbox)
        assert len(theirs.sizes) == 1
        assert theirs.messages[0] == _stuffed(mailbox.split(b"\n", 1)[1]).replace(b"\n", b"\r\n")
        assert theirs.messages[0].count(b"\r\r\n") == mailbox.count(b"\n") - 1
        yield mailbox, deleted, _with_crlf(debian.serve(with_lf, deleted))


def crlf_in_a_message(debian):
    """A message whose lines end in CRLF, in a file of others: 1.0.3 adds a CR to each, and counts it.

    The empty line behind it is the first that 1.0.3 sees, so that it is sent as the end of the header.
    """
    served = b"Date: 2\r\nSubject: b\r\n\r\ntext\r\n.dot\r\n\r\n"
    mailbox = mailboxes.ordinary(1) + b"From b\n" + served + b"\n" + mailboxes.message(7)
    theirs = debian.serve(mailbox)
    assert theirs.messages[1] == _stuffed(served + b"\n").replace(b"\n", b"\r\n")
    assert theirs.sizes[1] == b"%d" % len(_unstuffed(theirs.messages[1]))
    header, body = b"Date: 2\r\nSubject: b\r\n\r\n", b"text\r\n..dot\r\n\r\n"
    theirs.messages[1] = header + body
    theirs.tops |= {(2, 0): header, (2, 1): header + b"text\r\n", (2, 4): header + body, (2, 100_000): header + body}
    yield mailbox, (), _resized(theirs)


def empty_lines_first(debian):
    """Empty lines before the first message make 1.0.3 refuse the mailbox: we pass over them and keep them."""
    for first in (b"\n", b"\n\n\n", b"\r\n", b"\n" * 70_000):
        for base, deleted in _bases():
            assert debian.serve(first + base) == REFUSED
            expected = with_ids_made_unique(debian.serve(base, deleted), base)
            yield first + base, deleted, dataclasses.replace(expected, left=first + expected.left)


def nothing_but_empty_lines(debian):
    """A file of empty lines is refused by 1.0.3, and an empty maildrop for us."""
    empty = debian.serve(b"")
    for mailbox in (b"\n", b"\n\n\n\n", b"\r\n"):
        assert debian.serve(mailbox) == REFUSED
        yield mailbox, (), dataclasses.replace(empty, left=mailbox)


def from_line_alone(debian):
    """A From_ line with nothing behind it makes 1.0.3 refuse the mailbox: to us it is a message of no octets."""
    for base, _ in _bases():
        for last in (b"From x\n", b"From x", b"From "):
            assert debian.serve(base + last) == REFUSED
            yield base + last, (), _with_empty_message(debian.serve(base), base, last, last=True)
        first = b"From x\n"
        assert debian.serve(first + base) == REFUSED
        yield first + base, (), _with_empty_message(debian.serve(base), base, first, last=False)


def folder_internal_data(debian):
    """The pseudo message of UW-IMAP and Alpine is one of 1.0.3's messages: we hide it and keep it."""
    for base, deleted in _bases():
        mailbox = mailboxes.INTERNAL_DATA + base
        theirs, expected = debian.serve(mailbox), debian.serve(base, deleted)
        assert theirs.ids[1:] == expected.ids and theirs.messages[1:] == expected.messages
        assert b"FOLDER INTERNAL DATA" in theirs.messages[0]
        expected = with_ids_made_unique(expected, base)
        yield mailbox, deleted, dataclasses.replace(expected, left=mailboxes.INTERNAL_DATA + expected.left)


ALL = (shared_id, missing_last_line_end, cr_at_the_end, crlf_file, crlf_in_a_message, empty_lines_first,
       nothing_but_empty_lines, from_line_alone, folder_internal_data)


def with_ids_made_unique(theirs, mailbox):
    """What ours has to say where 1.0.3 says THEIRS: the same, with ids that differ."""
    if theirs == REFUSED or len(set(theirs.ids)) == len(theirs.ids):
        return theirs
    contents = [_unstuffed(message).replace(b"\r\n", b"\n") for message in theirs.messages[:-1]]
    if not mailbox.endswith(b"\n"):
        contents[-1] = contents[-1].removesuffix(b"\n")
    return dataclasses.replace(theirs, ids=rules.made_unique(theirs.ids, contents))


def _bases():
    """Mailboxes in which nothing is odd but what the case adds, and numbers of messages to delete."""
    yield mailboxes.ordinary(1), (1,)
    yield mailboxes.ordinary(4), ()
    yield mailboxes.ordinary(4), (2, 3)
    yield b"From a\nDate: 1\n\n.\n..a\n\n\ntext\n\n\nFrom b\n\nno header\n\nFrom c\nReceived: a\n\tb\nDate: c\n\nx\n\n", (1, 3)


def _octets(message):
    return len(_unstuffed(message))


def _stuffed(content):
    return b"".join(b"." * line.startswith(b".") + line for line in rules.lines_of(content))


def _unstuffed(message):
    return b"".join(line[line.startswith(b".."):] for line in rules.lines_of(message))


def _resized(theirs):
    """THEIRS with the sizes that its messages have."""
    sizes = [_octets(message) for message in theirs.messages[:-1]]
    stat = b"+OK %d %d" % (len(sizes), sum(sizes))
    return dataclasses.replace(theirs, sizes=[b"%d" % size for size in sizes], stat=stat, stat_when_deleted=stat)


def _with_crlf(expected):
    """EXPECTED of a file with LF, as it has to be of the same file with CRLF."""
    contents = [_unstuffed(message) for message in expected.messages[:-1]]
    ids = rules.made_unique([rules.unique_id(content) for content in contents], contents)
    return dataclasses.replace(expected, ids=ids, left=expected.left.replace(b"\n", b"\r\n"))


def _with_empty_message(expected, base, from_line, *, last):
    """EXPECTED of the mailbox BASE, with a FROM_LINE alone behind or before it."""
    expected = with_ids_made_unique(expected, base)
    count = len(expected.sizes)
    at = count if last else 0

    def inserted(values, value):
        return values[:at] + [value] + values[at:]

    contents = [_unstuffed(message).replace(b"\r\n", b"\n") for message in expected.messages[:-1]]
    ids = inserted([rules.unique_id(content) for content in contents], EMPTY_ID)
    tops = {(n + (n > at), k): value for (n, k), value in expected.tops.items()}
    stat = b"+OK %d %d" % (count + 1, sum(map(int, expected.sizes)))
    return Maildrop(
        stat, inserted(expected.sizes, b"0"), rules.made_unique(ids, inserted(contents, b"")),
        inserted(expected.messages, b""), tops | {(at + 1, k): b"" for k in LINES}, stat,
        expected.left + from_line if last else from_line + expected.left,
    )
