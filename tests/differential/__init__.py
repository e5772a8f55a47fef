"""The differential test: Debian's popa3d 1.0.3 and ours beside each other, over many odd mailboxes.

Both serve a copy of the same mailbox through PAM, each from a Debian root of its own, and a client
asks both for everything: STAT, LIST, UIDL, each message with RETR and TOP, and what is left in the
mailbox when some are deleted. The answers have to be the same to the byte, except for the differences
that `differences` names, and these are exactly as it says.

    tests/differential/run [--root ROOT] [--count N] [--seed N] [NAME...]

`servers` runs them, `mailboxes` makes the mailboxes, `rules` tells how unique-ids are made.
"""
