"""Mail arrives, by the programs that deliver on Debian and as Debian configures them, while POP3 sessions fetch
and delete: every message is accounted for, whole.

Both orders of locking meet here: Postfix takes the fcntl lock first, as popa3d does, procmail and Exim the dotlock.
"""

import collections
import concurrent.futures
import contextlib
import poplib
import random
import re
import time

from host import Host

from . import case
from .case import PASSWORD, HostCase
from .mail import message

WAITING, COMING = 300, 60  # messages
DATE = "Mon, 2 Nov 2026 09:00:00 +0000"

# What programs put into a message, and count again when they change it.
ADDED = re.compile(rb"^(Status|X-Status|Content-Length|Lines): .*\n", re.MULTILINE)


class Deliverers(HostCase):
    """On a host of their own, as MTAs exclude each other."""

    layer = None

    @classmethod
    def setUpClass(cls):
        cls.own_host = cls.enterClassContext(Host(case.RELEASE, layers=(cls.layer,), deb=case.DEB))
        cls.own_host.run("systemctl", "enable", "--now", "popa3d.socket")

    @property
    def host(self):
        return self.own_host

    def setUp(self):
        self.random = random.Random(7)
        # What comes is larger, so that it takes its time to write.
        self.mail = ({number: self._message(number, 2_000) for number in range(1, WAITING + 1)}
                     | {number: self._message(number, 40_000) for number in range(WAITING + 1, WAITING + COMING + 1)})
        waiting = [self.mail[number] for number in range(1, WAITING + 1)]
        self.user = self.account(waiting, method="SHA512")
        self.outgoing = f"/var/tmp/{self.user}"
        self.host.run("mkdir", self.outgoing)
        for number in range(WAITING + 1, WAITING + COMING + 1):
            # Who delivers it quotes what looks like the beginning of a message.
            self.host.write(f"{self.outgoing}/{number}", self.mail[number].text.replace(b"\n>From ", b"\nFrom "))
        self.fetched = []  # the numbers of messages that were fetched and deleted
        self.wanted = lambda number: True

    def deliver_and_fetch(self, command, flush="", beside=(), pause=0.0):
        """Gives each message to COMMAND while sessions go on; a temporary failure is tried again, by us or by FLUSH.
        What is BESIDE runs meanwhile. Sessions pause for up to PAUSE seconds, so that
        a program that tries seldom finds the mailbox free."""
        script = f"""
            deliver() {{
                tries=0
                until [ $tries = 20 ]; do
                    {command} <"$1" && return
                    [ $? = 75 ]
                    tries=$((tries + 1)); sleep 1
                done
                return 75
            }}
            for file in {self.outgoing}/*; do
                deliver "$file" & started="$started $!"; sleep 0.05
            done
            for process in $started; do wait "$process"; done
            {flush}"""
        sessions = 0
        with concurrent.futures.ThreadPoolExecutor() as pool:
            work = [pool.submit(self.host.shell, script, environment=("started=",)),
                    *(pool.submit(action) for action in beside)]
            while not all(part.done() for part in work):
                sessions += self._fetch_and_delete()
                time.sleep(self.random.uniform(0, pause))
            for part in work:
                part.result()
        self.until_idle()
        self.assertGreaterEqual(sessions, 3, "sessions that deleted mail while mail came in")

    def assert_complete(self, *, elsewhere=()):
        """Every message was either fetched and deleted, or is in the mailbox, or ELSEWHERE; and none twice."""
        left = [self._number(text) for text in split(self.host.mailbox(self.user).read_bytes())]
        counts = collections.Counter([*self.fetched, *left, *elsewhere])
        self.assertEqual({number: counts[number] for number in self.mail if counts[number] != 1}, {},
                         "how often messages are there that are not there once")

    def _fetch_and_delete(self):
        """One session; whether it deleted anything."""
        found = []
        with contextlib.closing(Pop3(self.host)) as session:
            try:
                session.user(self.user)
                session.pass_(PASSWORD)
                places = range(1, len(session.list()[1]) + 1)
                for place in self.random.sample(places, min(10, len(places))):
                    # What another program has removed meanwhile is refused, and the session goes on.
                    with contextlib.suppress(poplib.error_proto):
                        number = self._number(b"".join(line + b"\n" for line in session.retr(place)[1]))
                        if self.wanted(number):
                            session.dele(place)
                            found.append(number)
                session.quit()
            except poplib.error_proto as error:
                self.assertRegex(str(error), r"\[IN-USE\]")  # at PASS or at QUIT: nothing was deleted
                return False
        self.fetched += found
        return bool(found)

    def _message(self, number, most):
        body = b"".join(b"line %d of message %d\n" % (line, number) for line in range(self.random.randrange(most)))
        return message(number, body + b".\n\n>From here on\n", Date=DATE)

    def _number(self, text):
        """Which message this is; it must be whole."""
        head, body = ADDED.sub(b"", text.split(b"\n\n", 1)[0] + b"\n"), text.split(b"\n\n", 1)[1]
        number = int(re.search(rb"(?m)^Subject: message (\d+)$", head)[1])
        self.assertTrue((head + b"\n" + body).endswith(self.mail[number].text),
                        f"{number} is not what was sent:\n{text[:600]}\n…\n{text[-300:]}")
        return number


class Pop3(poplib.POP3):
    """Python's client, in the host's network."""

    def __init__(self, host):
        self._host = host
        super().__init__("localhost")

    def _create_socket(self, timeout):
        return self._host.connect(110, timeout=case.CONNECTION_TIMEOUT)


def split(content):
    """The messages in a mailbox whose lines of text that begin with From are quoted, without From line and
    without the empty line behind."""
    return [part.split(b"\n", 1)[1].rstrip(b"\n") + b"\n" for part in (b"\n" + content).split(b"\nFrom ")[1:]]


class WithPostfix(Deliverers):
    layer = "postfix"

    def test_local_of_postfix(self):
        self._by_postfix()
        self.assert_complete()

    def test_procmail(self):
        # How long it waits for a lock before it tries again, not how it locks: by itself 8 seconds.
        self.configure("/etc/procmailrc", "LOCKSLEEP=1\n")
        self.deliver_and_fetch(f"procmail -f sender@example.org -d {self.user}", pause=0.4)
        self.assert_complete()

    def test_maildrop(self):
        self.configure("/etc/maildroprc", "LOCKSLEEP=1\n")
        self.deliver_and_fetch(f"maildrop -f sender@example.org -d {self.user}", pause=0.4)
        self.assert_complete()


    def test_local_of_postfix_while_mutt_deletes(self):
        # POP3 has those with odd numbers, mutt these: so it can be told who removed what. While others change the
        # mailbox, mutt is not asked to save, as it copies from where a message was.
        self.wanted = lambda number: number % 2
        self.host.write(f"/home/{self.user}/.muttrc", "set confirmappend=no confirmcreate=no delete=yes quit=yes\n"
                        "set move=no sleep_time=0 wait_key=no resolve=no tmpdir=/tmp\n")
        delete = "<delete-pattern>~s[048]$<enter>"
        ended = []
        self._by_postfix(beside=(lambda: ended.extend(self._mutt(delete) for _ in range(8)),))
        self.assertTrue(any(ended), "mutt never wrote the mailbox")
        self.assertTrue(self._mutt(delete))
        self.assertTrue(self._mutt(f"<tag-pattern>~s2$<enter><tag-prefix><save-message>/home/{self.user}/saved<enter>"))
        saved = [self._number(text) for text in split(self.host.read(f"/home/{self.user}/saved"))]
        self.assertEqual(sorted(saved), [number for number in self.mail if number % 10 == 2])
        self.assert_complete(elsewhere=saved + [number for number in self.mail if number % 10 in (0, 4, 8)])

    def _mutt(self, keys):
        """The user opens the mailbox in mutt, does something by KEYS and quits; whether mutt came to an end."""
        # When the mailbox has changed meanwhile, mutt reads it anew instead of quitting, and is told again.
        command = f"stty rows 24 cols 80; mutt -F ~/.muttrc -f /var/mail/{self.user} -e 'push {keys}{'<quit>' * 5}'"
        return not self.host.run("timeout", "6", "script", "-qec", command, "/dev/null", environment=("TERM=xterm",),
                                 user=self.user, check=False).code

    def _by_postfix(self, beside=()):
        # With procmail installed, Debian lets Postfix call that.
        self.host.run("postconf", "mailbox_command=")
        self.host.run("postfix", "reload")
        self.assertEqual(self.host.run("postconf", "-h", "mailbox_delivery_lock").output, "fcntl, dotlock\n")
        self.deliver_and_fetch(
            f"sendmail -i -f sender@example.org {self.user}@localhost",
            "until postqueue -p | grep -q 'queue is empty'; do postqueue -f; sleep 1; done", beside)


class WithExim(Deliverers):
    layer = "exim"

    def test_appendfile_of_exim(self):
        self.deliver_and_fetch(
            f"exim4 -odi -i -f sender@example.org {self.user}@localhost",
            "while [ $(exim4 -bpc) != 0 ]; do exim4 -qff; sleep 1; done")
        self.assert_complete()
