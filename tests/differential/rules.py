"""How unique-ids are made: the rules of 1.0.3, and what we add where it gives one id to several."""

import collections
import hashlib
import re

IDENTIFYING = (b"received:", b"date:", b"message-id:")
STATUS = (b"status:", b"x-status:", b"x-keywords:", b"x-uid:", b"x-uidl:", b"x-imap:", b"x-imapbase:",
          b"x-mozilla-status:", b"x-mozilla-status2:", b"x-mozilla-keys:", b"content-length:", b"lines:")


def lines_of(text):
    """The lines of TEXT with their line feeds; the last one may lack it."""
    return re.findall(rb"[^\n]*\n|[^\n]+", text)


def unique_id(content):
    """1.0.3's id of a message (CONTENT: the bytes on disk from behind its From_ line)."""
    digest, received, taken = hashlib.md5(), False, False
    for line in _header_of(content):
        if line[:1] not in (b" ", b"\t"):
            name = line.lower()
            taken = name.startswith(b"delivered-to:") or (line[:1] == b"X" and name.startswith(b"x-delivery-id:"))
            if not received:
                taken = taken or name.startswith(IDENTIFYING)
                received = name.startswith(b"received:")
        if taken:
            digest.update(line)
    words = digest.digest()
    return (words[3::-1] + words[7:3:-1]).hex().encode()


def content_digest(content):
    """The digest of a message without its status headers."""
    header, dropped = _header_of(content), False
    digest = hashlib.md5()
    for line in header:
        if line[:1] not in (b" ", b"\t"):
            dropped = line.lower().startswith(STATUS)
        if not dropped:
            digest.update(line)
    digest.update(content[sum(map(len, header)):])
    return digest.hexdigest().encode()


def made_unique(ids, contents):
    """IDS with a suffix where an earlier message has the same, in a maildrop seen for the first time."""
    counts, seen, copies = collections.Counter(ids), set(), collections.Counter()
    result = []
    for base, content in zip(ids, contents):
        if counts[base] > 1 and base in seen:
            digest = content_digest(content)
            copies[base, digest] += 1
            ordinal = copies[base, digest]
            result.append(b"-".join([base, digest] + ([b"%d" % ordinal] if ordinal > 1 else [])))
        else:
            seen.add(base)
            result.append(base)
    return result


def _header_of(content):
    header = []
    for line in lines_of(content):
        if line in (b"\n", b"\r\n"):
            break
        header.append(line)
    return header
