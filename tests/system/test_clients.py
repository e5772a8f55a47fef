"""Clients that people use, each in its usual way: list, fetch, keep, delete."""

import poplib

from host import sample_mail

from .case import HostCase
from .mail import mbox, messages

SIMPLE_PASSWORD = "wonderland-7"  # fits into every client's configuration without quoting


class Clients(HostCase):
    def setUp(self):
        self.mail = messages(4, b"First.\n.\n.dot\n>From here\n\xc3\xbc\n")
        self.user = self.account(self.mail, password=SIMPLE_PASSWORD)
        self.owner = self.account()  # who runs the client; not the one whose mail it is

    def assert_kept(self, *numbers):
        """The mailbox holds just these messages, once the session has ended."""
        self.until_idle()
        kept = mbox([self.mail[number - 1] for number in numbers])
        self.assertEqual(self.host.mailbox(self.user).read_bytes(), kept)

    def assert_fetched(self, content, *numbers):
        """What a client wrote holds the bodies and subjects of just these messages."""
        content = content.replace(b"\r\n", b"\n")
        for number, item in enumerate(self.mail, 1):
            subject = b"Subject: message %d\n" % number
            self.assertEqual(content.count(subject), 1 if number in numbers else 0, content)
        self.assertEqual(content.count(b"First.\n.\n.dot\n"), len(numbers))

    def home(self, name):
        return f"/home/{self.owner}/{name}"

    def write(self, name, content):
        """A file of the client's user, for its eyes only."""
        self.host.write(self.home(name), content, 0o600)
        self.host.run("chown", f"{self.owner}:", self.home(name))


class Curl(Clients):
    def curl(self, path, *options):
        return self.host.run("curl", "-sS", "-u", f"{self.user}:{SIMPLE_PASSWORD}",
                             f"pop3://localhost/{path}", *options).output

    def test_lists(self):
        expected = "".join(f"{number} {item.octets}\r\n" for number, item in enumerate(self.mail, 1))
        self.assertEqual(self.curl(""), expected)

    def test_fetches_and_keeps(self):
        self.assertEqual(self.curl("3").encode(), self.mail[2].text.replace(b"\n", b"\r\n"))
        self.assert_kept(1, 2, 3, 4)

    def test_shows_headers_and_ids(self):
        self.assertIn("Subject: message 2\r\n", self.curl("", "-X", "TOP 2 0"))
        self.assertEqual(len(self.curl("", "-X", "UIDL").splitlines()), 4)

    def test_deletes(self):
        self.curl("2", "-X", "DELE", "--head")
        self.assert_kept(1, 3, 4)

    def test_names_a_wrong_password(self):
        refused = self.host.run("curl", "-sS", "-u", f"{self.user}:wrong", "pop3://localhost/", check=False)
        self.assertEqual(refused.code, 67, refused)  # CURLE_LOGIN_DENIED


class Poplib(Clients):
    def connect_poplib(self):
        host = self.host

        class Inside(poplib.POP3):
            """Connects within the host's network."""

            def _create_socket(self, timeout):
                return host.connect(self.port, timeout=60)

        connection = Inside("localhost", 110)
        connection.user(self.user)
        connection.pass_(SIMPLE_PASSWORD)
        return connection

    def test_lists_fetches_keeps_and_deletes(self):
        connection = self.connect_poplib()
        self.assertEqual(connection.stat(), (4, sum(item.octets for item in self.mail)))
        self.assertEqual(len(connection.list()[1]), 4)
        self.assertEqual(len({line.split()[1] for line in connection.uidl()[1]}), 4)
        self.assertIn("TOP", connection.capa())
        for number, item in enumerate(self.mail, 1):
            _, lines, octets = connection.retr(number)
            self.assertEqual((lines, octets), (item.lines, item.octets))
        self.assertEqual(connection.top(1, 1)[1][-1], b"First.")
        connection.dele(1)
        connection.rset()
        connection.dele(4)
        connection.noop()
        connection.quit()
        self.assert_kept(1, 2, 3)

    def test_keeps_what_was_deleted_without_quit(self):
        connection = self.connect_poplib()
        connection.dele(1)
        connection.close()
        self.assert_kept(1, 2, 3, 4)


class Fetchmail(Clients):
    def fetchmail(self, *options):
        self.write(".fetchmailrc", f'poll localhost protocol pop3 username "{self.user}" '
                   f'password "{SIMPLE_PASSWORD}" sslproto "" mda "cat >>{self.home("fetched")}"\n')
        fetched = self.host.run("fetchmail", "--nosyslog", *options, user=self.owner, check=False)
        self.assertEqual(fetched.code, 0, fetched)
        return fetched

    def test_checks(self):
        self.assertIn("4 messages", self.fetchmail("--check").output)
        self.assert_kept(1, 2, 3, 4)

    def test_fetches_and_keeps(self):
        self.fetchmail("--keep")
        self.assert_fetched(self.host.read(self.home("fetched")), 1, 2, 3, 4)
        self.assert_kept(1, 2, 3, 4)

    def test_fetches_only_what_is_new_by_its_ids(self):
        self.fetchmail("--keep", "--uidl")
        late = messages(5)[4]
        self.host.deliver(self.user, late.stored)
        self.fetchmail("--keep", "--uidl")
        self.assertEqual(self.host.read(self.home("fetched")).count(b"Subject: message "), 5)

    def test_fetches_and_deletes(self):
        self.fetchmail()
        self.assert_fetched(self.host.read(self.home("fetched")), 1, 2, 3, 4)
        self.assert_kept()


class Mpop(Clients):
    def mpop(self, *options):
        return self.host.run("mpop", "--host=localhost", f"--user={self.user}", "--auth=user", "--tls=off",
                             f"--passwordeval=echo {SIMPLE_PASSWORD}", "--received-header=off",
                             f"--delivery=mbox,{self.home('fetched')}", *options, user=self.owner)

    def test_shows_what_the_server_can(self):
        shown = self.mpop("--serverinfo").output
        for capability in ("CAPA", "PIPELINING", "TOP", "UIDL"):
            self.assertIn(capability, shown)

    def test_fetches_and_keeps_then_fetches_nothing_again(self):
        self.mpop("--keep=on")
        self.mpop("--keep=on")
        self.assert_fetched(self.host.read(self.home("fetched")).replace(b">>From", b">From"), 1, 2, 3, 4)
        self.assert_kept(1, 2, 3, 4)

    def test_fetches_and_deletes(self):
        self.mpop("--keep=off")
        self.assert_fetched(self.host.read(self.home("fetched")), 1, 2, 3, 4)
        self.assert_kept()


class Getmail(Clients):
    def getmail(self, delete):
        self.host.run("mkdir", "-p", self.home(".config/getmail"), user=self.owner)
        self.host.run("touch", self.home("fetched"), user=self.owner)
        self.write(".config/getmail/getmailrc", f"""[retriever]
type = SimplePOP3Retriever
server = localhost
username = {self.user}
password = {SIMPLE_PASSWORD}

[destination]
type = Mboxrd
path = {self.home('fetched')}

[options]
delete = {delete}
read_all = false
delivered_to = false
received = false
""")
        # getmail waits five seconds for a process of its own and now and then misses its end: such a
        # run says nothing about the server, and begins anew with everything as it was.
        places = f"/var/mail/{self.user} /home/{self.owner}"
        self.until_idle()
        self.host.shell(f"tar -cpf /tmp/before.tar {places} 2>/dev/null")
        for _ in range(10):
            fetched = self.host.run("getmail", user=self.owner, check=False)
            if "waiting child pid" not in fetched.output + fetched.errors:
                break
            self.until_idle()
            self.host.shell(f"rm -rf /home/{self.owner}; tar -xpf /tmp/before.tar -C /")
        self.assertEqual(fetched.code, 0, str(fetched))

    def test_fetches_and_keeps_then_fetches_nothing_again(self):
        self.getmail("false")
        self.getmail("false")
        self.assert_fetched(self.host.read(self.home("fetched")), 1, 2, 3, 4)
        self.assert_kept(1, 2, 3, 4)

    def test_fetches_and_deletes(self):
        self.getmail("true")
        self.assert_fetched(self.host.read(self.home("fetched")), 1, 2, 3, 4)
        self.assert_kept()


class Mutt(Clients):
    def mutt(self, keys):
        """Opens the maildrop as a user does, on a terminal, and types KEYS."""
        self.write(".muttrc", "set confirmappend=no confirmcreate=no delete=yes quit=yes move=no copy=no\n"
                   "set pop_reconnect=no ssl_starttls=no ssl_force_tls=no sleep_time=0 wait_key=no message_cachedir=''\n"
                   f"set tmpdir=/tmp resolve=no folder=/home/{self.owner}\n")
        command = (f"stty rows 24 cols 80; mutt -F {self.home('.muttrc')} "
                   f"-f pop://{self.user}:{SIMPLE_PASSWORD}@localhost/ -e 'push {keys}'")
        return self.host.run("script", "-qec", command, "/dev/null", environment=("TERM=xterm",), user=self.owner)

    def test_fetches_and_keeps(self):
        self.mutt(f"<tag-pattern>~A<enter><tag-prefix><copy-message>{self.home('fetched')}<enter><quit>")
        self.assert_fetched(self.host.read(self.home("fetched")), 1, 2, 3, 4)
        self.assert_kept(1, 2, 3, 4)

    def test_fetches_and_deletes(self):
        self.mutt(f"<tag-pattern>~A<enter><tag-prefix><save-message>{self.home('fetched')}<enter><quit>")
        self.assert_fetched(self.host.read(self.home("fetched")), 1, 2, 3, 4)
        self.assert_kept()

    def test_deletes_one(self):
        self.mutt("3<enter><delete-message><quit>")
        self.assert_kept(1, 2, 4)


class RealisticMail(HostCase):
    def test_a_mailbox_of_many_kinds_comes_out_as_it_went_in(self):
        name = self.account(password=SIMPLE_PASSWORD)
        content = sample_mail.mailbox(name)
        self.host.deliver(name, content)
        self.host.run("sh", "-euc", f"for n in 1 2 3 4 5; do curl -sS -u {name}:{SIMPLE_PASSWORD} "
                      f"pop3://localhost/$n >/tmp/{name}.$n; done")
        parts = content.split(b"\nFrom sender")
        for number, part in enumerate(parts, 1):
            expected = part.split(b"\n", 1)[1]
            got = self.host.read(f"/tmp/{name}.{number}").replace(b"\r\n", b"\n")
            self.assertEqual(got.rstrip(b"\n"), expected.rstrip(b"\n"))
        self.assertEqual(len(parts), 5)
