"""POP3 (RFC 1939, 2449, 3206, LAST of RFC 1460), seen by a client."""

import hashlib
import socket
import time

from .case import PASSWORD, HostCase
from .mail import Message, mbox, message, messages


class Authorization(HostCase):
    def test_the_state_before_login_takes_user_pass_capa_and_quit_only(self):
        session = self.connect()
        for command in ("STAT", "LIST", "UIDL", "RETR 1", "TOP 1 0", "DELE 1", "RSET", "NOOP", "LAST", "nonsense", ""):
            session.err(command)
        session.quit()

    def test_pass_needs_user_before_it(self):
        session = self.connect()
        session.err(f"PASS {PASSWORD}")
        session.quit()

    def test_commands_are_case_insensitive(self):
        user = self.account([])
        session = self.connect()
        session.ok(f"uSeR {user}")
        session.ok(f"pass {PASSWORD}")
        session.ok("stat")
        session.quit()

    def test_a_password_is_the_rest_of_the_line_blanks_included(self):
        user = self.account([], password="two  blanks and one behind ")
        session = self.connect()
        session.ok(f"USER {user}")
        session.ok("PASS two  blanks and one behind ")
        session.quit()

    def test_a_password_of_200_characters_is_taken_whole(self):
        password = "x" * 200
        user = self.account([], password=password)
        session = self.connect()
        session.ok(f"USER {user}")
        session.err(f"PASS {password[:-1]}", b"AUTH")
        session.ok(f"USER {user}")
        session.ok(f"PASS {password}")
        session.quit()

    def test_a_password_longer_than_any_buffer_gets_one_refusal(self):
        user = self.account([], password="x" * 200)
        session = self.connect()
        session.ok(f"USER {user}")
        session.err("PASS " + "x" * 100_000)
        session.quit()

    def test_three_attempts_then_the_connection_closes(self):
        user = self.account([])
        session = self.connect()
        for _ in range(3):
            session.ok(f"USER {user}")
            session.err("PASS wrong", b"AUTH")
        session.ended()

    def test_the_second_attempt_may_succeed(self):
        user = self.account(messages(1))
        session = self.connect()
        session.ok(f"USER {user}")
        session.err("PASS wrong", b"AUTH")
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        self.assertRegex(session.ok("STAT"), rb"^\+OK 1 ")
        session.quit()

    def test_names_that_no_user_has_are_refused_like_any_other(self):
        session = self.connect()
        for name in ("", "x" * 300, "../../etc/passwd", "a b", "-", "\u00fc"):
            with self.subTest(name=name):
                session.send(f"USER {name}\r\n".encode())
                if session.line().startswith(b"+OK"):
                    session.err("PASS x", b"AUTH")
                    session = self.connect()
        session.quit()


class Capabilities(HostCase):
    def test_capa_lists_only_what_is_true_in_both_states(self):
        user = self.account(messages(2))
        session = self.connect()
        always = {b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"EXPIRE NEVER", b"UTF8"}
        passwords = {b"USER", b"SASL PLAIN LOGIN"}
        self.assertEqual(set(session.multi("CAPA")), always | passwords | {b"STLS"})
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        version = self.host.run("popa3d", "--version").output.split()[1].encode()
        self.assertEqual(set(session.multi("CAPA")), always | passwords | {b"IMPLEMENTATION popa3d-" + version})
        session.quit()

    def test_utf8_is_a_command_before_login(self):
        user = self.account(messages(1))
        session = self.connect()
        session.ok("UTF8")
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        session.err("UTF8")
        session.quit()


class Transaction(HostCase):
    def setUp(self):
        self.mail = [message(1), message(2, b".\n..\n.dot\n" + b"z" * 3000 + b"\n"), message(3, b"\xff\x00\x80 8-bit\n")]
        self.user = self.account(self.mail)

    def test_stat_list_and_sizes(self):
        session = self.login(self.user)
        octets = [item.octets for item in self.mail]
        self.assertEqual(session.ok("STAT").split()[:3], [b"+OK", b"3", b"%d" % sum(octets)])
        self.assertEqual(session.multi("LIST"), [b"%d %d" % (n, size) for n, size in enumerate(octets, 1)])
        self.assertEqual(session.ok("LIST 2").split()[:3], [b"+OK", b"2", b"%d" % octets[1]])
        session.quit()

    def test_uidl_gives_the_ids_of_popa3d_1(self):
        session = self.login(self.user)
        listed = session.multi("UIDL")
        for number, item in enumerate(self.mail, 1):
            # Received comes first in these messages, so it alone is hashed; see README.
            digest = hashlib.md5(item.text.split(b"\n")[0] + b"\n").digest()
            expected = (digest[3::-1] + digest[7:3:-1]).hex().encode()
            self.assertEqual(listed[number - 1], b"%d %s" % (number, expected))
            self.assertEqual(session.ok(f"UIDL {number}").split()[:3], [b"+OK", b"%d" % number, expected])
        session.quit()

    def test_retr_gives_every_octet_that_list_promised(self):
        session = self.login(self.user)
        for number, item in enumerate(self.mail, 1):
            lines = session.multi(f"RETR {number}")
            self.assertEqual(lines, item.lines)
            self.assertEqual(sum(len(line) + 2 for line in lines), item.octets)
        session.quit()

    def test_top_gives_the_header_and_so_many_lines(self):
        session = self.login(self.user)
        header = self.mail[1].lines[:6]
        self.assertEqual(header[-1], b"")
        self.assertEqual(session.multi("TOP 2 0"), header)
        self.assertEqual(session.multi("TOP 2 2"), header + [b".", b".."])
        self.assertEqual(session.multi("TOP 2 999999"), self.mail[1].lines)
        for command in ("TOP 2", "TOP", "TOP 2 -1", "TOP 4 1", "TOP 2 x", "TOP 2 1 1"):
            session.err(command)
        session.quit()

    def test_numbers_never_wrap_and_no_sloppy_number_is_taken(self):
        session = self.login(self.user)
        for number in ("0", "4", "-1", "+1", "4294967297", "18446744073709551617", "1x", "0x1", "1 2", "1.0",
                       "9" * 39, "\u0661"):
            for command in ("RETR", "DELE", "LIST", "UIDL"):
                session.err(f"{command} {number}")
        session.err("RETR")
        session.err("DELE")
        self.assertRegex(session.ok("STAT"), rb"^\+OK 3 ")
        session.quit()

    def test_a_deleted_message_is_gone_until_rset(self):
        session = self.login(self.user)
        session.ok("DELE 2")
        for command in ("DELE 2", "RETR 2", "TOP 2 0", "LIST 2", "UIDL 2"):
            session.err(command)
        self.assertEqual([line.split()[0] for line in session.multi("LIST")], [b"1", b"3"])
        self.assertEqual([line.split()[0] for line in session.multi("UIDL")], [b"1", b"3"])
        octets = self.mail[0].octets + self.mail[2].octets
        self.assertEqual(session.ok("STAT").split()[:3], [b"+OK", b"2", b"%d" % octets])
        session.ok("RSET")
        self.assertRegex(session.ok("STAT"), rb"^\+OK 3 ")
        session.multi("RETR 2")
        session.quit()
        self.assertEqual(self.host.mailbox(self.user).read_bytes(), mbox(self.mail))

    def test_last_is_the_highest_message_touched_until_rset(self):
        session = self.login(self.user)
        self.assertEqual(session.ok("LAST").split()[1], b"0")
        session.multi("RETR 2")
        self.assertEqual(session.ok("LAST").split()[1], b"2")
        session.multi("RETR 1")
        self.assertEqual(session.ok("LAST").split()[1], b"2")
        session.ok("DELE 3")
        self.assertEqual(session.ok("LAST").split()[1], b"3")
        session.ok("RSET")
        self.assertEqual(session.ok("LAST").split()[1], b"0")
        session.quit()

    def test_user_and_pass_are_no_commands_after_login(self):
        session = self.login(self.user)
        session.err(f"USER {self.user}")
        session.err(f"PASS {PASSWORD}")
        session.ok("NOOP")
        session.quit()


class Lines(HostCase):
    def test_lf_alone_ends_a_command(self):
        user = self.account(messages(1))
        session = self.connect()
        session.send(f"USER {user}\nPASS {PASSWORD}\nSTAT\nQUIT\n".encode())
        for _ in range(4):
            self.assertRegex(session.line(), rb"^\+OK")
        session.ended()

    def test_everything_may_be_sent_at_once_also_across_pass(self):
        mail = messages(20, b"x" * 70 + b"\n")
        user = self.account(mail)
        session = self.connect()
        session.send(f"USER {user}\r\nPASS {PASSWORD}\r\nSTAT\r\n".encode()
                     + b"".join(b"RETR %d\r\nDELE %d\r\n" % (n, n) for n in range(1, 21)) + b"QUIT\r\n")
        for _ in range(3):
            self.assertRegex(session.line(), rb"^\+OK")
        for item in mail:
            self.assertRegex(session.line(), rb"^\+OK")
            self.assertEqual(session.lines(), item.lines)
            self.assertRegex(session.line(), rb"^\+OK")
        self.assertRegex(session.line(), rb"^\+OK")
        session.ended()
        self.assertEqual(self.host.mailbox(user).read_bytes(), b"")

    def test_a_command_may_come_byte_by_byte(self):
        session = self.connect()
        for byte in b"CAPA\r\n":
            session.send(bytes([byte]))
        self.assertRegex(session.line(), rb"^\+OK")
        session.lines()
        session.quit()

    def test_one_reply_for_one_line_however_long(self):
        session = self.connect()
        for length in (126, 127, 128, 255, 256, 511, 512, 513, 1000, 4096, 65_536, 1_000_000):
            session.err("N" * length)
        session.quit()

    def test_nul_and_8_bit_make_no_command_of_what_is_none(self):
        user = self.account(messages(1))
        session = self.login(user)
        for command in (b"DELE 1\0", b"DELE\0 1", b"\0DELE 1", b"DELE 1\0garbage", b"NO\xffOP", b"\x80" * 50):
            session.err(command)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 1 ")
        session.quit()

    def test_an_empty_line_is_answered(self):
        session = self.connect()
        session.err("")
        session.quit()

    def test_a_last_line_without_its_end_is_no_command(self):
        mail = messages(12)
        user = self.account(mail)
        session = self.login(user)
        session.send(b"DELE 1\r\nQUIT")
        session.connection.shutdown(socket.SHUT_WR)
        self.assertRegex(session.line(), rb"^\+OK")
        self.until_idle()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(mail))

    def test_a_client_that_closes_its_side_after_quit_gets_every_reply(self):
        mail = messages(3, b"y" * 60_000 + b"\n")
        user = self.account(mail)
        session = self.connect()
        session.send(f"USER {user}\r\nPASS {PASSWORD}\r\nRETR 1\r\nRETR 2\r\nDELE 3\r\nQUIT\r\n".encode())
        session.connection.shutdown(socket.SHUT_WR)
        self.assertRegex(session.line(), rb"^\+OK")
        self.assertRegex(session.line(), rb"^\+OK")
        for item in mail[:2]:
            self.assertRegex(session.line(), rb"^\+OK")
            self.assertEqual(session.lines(), item.lines)
        self.assertRegex(session.line(), rb"^\+OK")
        self.assertRegex(session.line(), rb"^\+OK")
        session.ended()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(mail[:2]))


class TimeOuts(HostCase):
    """With an idle limit of a second: that the session ends is judged, not when."""

    def setUp(self):
        self.settings('idle-timeout = "1s"\n')

    def test_a_silent_client_is_let_go_before_and_after_login(self):
        session = self.connect()
        self._assert_let_go(session)
        mail = messages(2)
        user = self.account(mail)
        session = self.login(user)
        session.ok("DELE 1")
        self._assert_let_go(session)
        self.until_idle()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(mail))

    def test_a_client_that_never_ends_its_line_is_let_go(self):
        session = self.connect()
        self.assertTrue(self.processes())

        def trickled():
            try:
                session.send(b"N")
            except OSError:
                return True
            return not self.processes()

        self.until(trickled, "the end of a session whose client trickles")

    def test_a_client_that_never_reads_is_let_go(self):
        user = self.account([message(1, (b"w" * 999 + b"\n") * 50_000)])
        session = self.login(user)
        session.send(b"RETR 1\r\n")
        self.assertTrue(self.processes())
        self.until_idle()

    def test_a_client_that_reads_slowly_and_steadily_gets_all_of_it(self):
        self.settings('idle-timeout = "4s"\n')
        item = message(1, (b"w" * 999 + b"\n") * 8_000)
        user = self.account([item])
        session = self.login(user)
        session.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        session.send(b"RETR 1\r\n")
        received = b""
        # So slowly that no reply of 128 KiB would get through within the time.
        for _ in range(120):
            received += session.connection.recv(2_000)
            time.sleep(0.1)
        while not received.endswith(b"\r\n.\r\n"):
            data = session.connection.recv(1 << 16)
            self.assertTrue(data, f"the connection was closed after {len(received)} octets")
            received += data
        self.assertEqual(len(received.partition(b"\r\n")[2]), item.octets + len(b".\r\n"))
        session.quit()

    def _assert_let_go(self, session):
        rest = b""
        while data := session.connection.recv(4096):
            rest += data
        self.assertRegex(rest, rb"^(-ERR .*\r\n)?$")


class Addresses(HostCase):
    def test_ipv6_is_served_as_well(self):
        user = self.account(messages(1))
        session = self.login(user, target="::1")
        self.assertRegex(session.ok("STAT"), rb"^\+OK 1 ")
        session.quit()


class Sizes(HostCase):
    def test_a_message_of_one_line_of_20_mib(self):
        item = Message(b"Subject: long\n\n" + b"x" * (20 << 20) + b"\n")
        user = self.account([item])
        session = self.login(user)
        self.assertEqual(session.multi("RETR 1"), item.lines)
        session.quit()
