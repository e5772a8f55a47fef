"""What `journalctl` tells: texts that log readers know from 1.0.3, fields for everyone else."""

import re

from .case import PASSWORD, HostCase
from .mail import messages


class Journal(HostCase):
    def test_a_session_in_texts_and_fields(self):
        mail = messages(3)
        user = self.account(mail)
        session = self.login(user, source="127.0.0.21")
        port = session.connection.getsockname()[1]
        session.multi("RETR 1")
        session.ok("DELE 3")
        session.quit()
        self.until_idle()
        entries = self.journal(POPA3D_USER=user)
        texts = [entry["MESSAGE"] for entry in entries]
        total = sum(item.octets for item in mail)
        for line in (f"Authentication passed for {user}", f"3 messages ({total} bytes) loaded",
                     f"1 ({mail[2].octets}) deleted, 2 ({total - mail[2].octets}) left"):
            self.assertTrue([text for text in texts if text.startswith(line)], f"{line}: {texts}")
        for entry in entries:
            self.assertEqual(entry["POPA3D_CLIENT"], "127.0.0.21")
            self.assertEqual(entry["POPA3D_CLIENT_PORT"], str(port))
            self.assertEqual(entry["_UID"], "0", "only the monitor logs")
            self.assertTrue(entry["POPA3D_EVENT"])
            self.assertRegex(entry["_SYSTEMD_UNIT"], r"^popa3d@.*\.service$")
        (identity,) = {entry["POPA3D_SESSION"] for entry in entries}
        whole = [entry["MESSAGE"] for entry in self.journal(POPA3D_SESSION=identity)]
        self.assertTrue([text for text in whole if text.startswith("Session from 127.0.0.21")], whole)

    def test_counts_are_fields(self):
        mail = messages(2)
        user = self.account(mail)
        self.login(user).quit()
        self.until_idle()
        (loaded,) = [entry for entry in self.journal(POPA3D_USER=user) if "loaded" in entry["MESSAGE"]]
        self.assertEqual(loaded["POPA3D_MESSAGES"], "2")
        self.assertEqual(loaded["POPA3D_OCTETS"], str(sum(item.octets for item in mail)))

    def test_sessions_have_identities_of_their_own(self):
        user = self.account([])
        for _ in range(3):
            self.login(user).quit()
        self.until_idle()
        self.assertEqual(len({entry["POPA3D_SESSION"] for entry in self.journal(POPA3D_USER=user)}), 3)

    def test_a_failed_login_has_address_and_priority_for_fail2ban(self):
        user = self.account([])
        session = self.connect(source="127.0.0.22")
        session.ok(f"USER {user}")
        session.err("PASS wrong", b"AUTH")
        session.quit()
        self.until_idle()
        (failed,) = [entry for entry in self.journal(POPA3D_CLIENT="127.0.0.22")
                     if entry["MESSAGE"].startswith("Authentication failed for")]
        self.assertIn(user, failed["MESSAGE"])
        self.assertIn("127.0.0.22", failed["MESSAGE"])
        self.assertLessEqual(int(failed["PRIORITY"]), 5)

    def test_the_catalog_explains_a_failed_login_and_every_other_line(self):
        user = self.account(messages(2))
        session = self.connect(source="127.0.0.26")
        session.ok(f"USER {user}")
        session.err("PASS wrong", b"AUTH")
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        session.ok("DELE 1")
        session.quit()
        self.until_idle()
        self.host.run("journalctl", "--sync")
        explained = self.host.run("journalctl", "-x", "--no-pager", "-o", "short", "POPA3D_CLIENT=127.0.0.26").output
        entries = self.journal(POPA3D_CLIENT="127.0.0.26")
        self.assertEqual([entry["POPA3D_EVENT"] for entry in entries],
                         ["session-started", "login-failed", "login-passed", "maildrop-loaded", "expunged", "session-ended"])
        self.assertEqual(explained.count("Defined-By: popa3d"), len(entries), explained)
        session_of_the_failure = f'"journalctl -t popa3d _PID={entries[1]["_PID"]}" shows the whole session.'
        plain = " ".join(explained.replace("░░", "").split())
        for text in ("Subject: A login was refused", "tried to log in and was refused", "man:popa3d-events(7)",
                     session_of_the_failure, "A mail client of this user deleted it"):
            self.assertIn(text, plain)
        # What was to be filled in was.
        self.assertNotIn("@_", plain)
        self.assertEqual([entry["POPA3D_SESSION"] for entry in self.journal(_PID=entries[1]["_PID"]) if "POPA3D_SESSION" in entry],
                         [entry["POPA3D_SESSION"] for entry in entries])

    def test_every_event_is_in_the_catalog_of_the_host(self):
        listed = self.host.run("journalctl", "--dump-catalog").output
        self.assertGreaterEqual(listed.count("Defined-By: popa3d"), 30)

    def test_an_unknown_user_is_not_logged_by_name(self):
        # What was typed as a name may be a password.
        session = self.connect(source="127.0.0.23")
        session.ok("USER hunter2-typed-too-early")
        session.err("PASS x", b"AUTH")
        session.quit()
        self.until_idle()
        texts = self.messages(POPA3D_CLIENT="127.0.0.23")
        self.assertTrue([text for text in texts if "UNKNOWN USER" in text], texts)
        self.assertEqual([text for text in texts if "hunter2" in text], [])

    def test_a_client_that_never_logs_in(self):
        session = self.connect(source="127.0.0.24")
        session.quit()
        self.until_idle()
        self.assert_said("Didn't attempt authentication", POPA3D_CLIENT="127.0.0.24")

    def test_a_dropped_connection(self):
        user = self.account(messages(1))
        session = self.login(user)
        session.close()
        self.until_idle()
        self.assert_said("Premature disconnect", POPA3D_USER=user)

    def test_an_idle_client(self):
        self.settings('idle-timeout = "1s"\n')
        user = self.account(messages(1))
        session = self.login(user)
        self.until_idle()
        session.close()
        self.assert_said("Connection timed out", POPA3D_USER=user)

    def test_a_maildrop_in_use(self):
        self.settings('session-wait = "1s"\n')
        user = self.account(messages(1))
        first = self.login(user)
        self.refused(user, b"IN-USE")
        first.quit()
        self.until_idle()
        self.assert_said("Another MUA active, giving up", POPA3D_USER=user)

    def test_what_a_client_sends_forges_no_line_and_has_bounds(self):
        session = self.connect(source="127.0.0.25")
        for name in ("\x1b[2J\x07\x7f\x9b", "a\tb\x0bc", "\u202eesrever", "root\x00x", "n" * 5000):
            session.send(f"USER {name}\r\n".encode())
            if session.line().startswith(b"+OK"):
                session.err("PASS x")
                break
        session.close()
        self.until_idle()
        for entry in self.journal(POPA3D_CLIENT="127.0.0.25"):
            for name, value in entry.items():
                if name.startswith("POPA3D_") or name == "MESSAGE":
                    self.assertIsInstance(value, str, f"{name} is not plain text: {value}")
                    self.assertLess(len(value), 1000)
                    self.assertIsNone(re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e]", value), f"{name}: {value!r}")

    def test_no_user_has_a_journal_file_of_its_own(self):
        user = self.account(messages(2))
        session = self.login(user)
        session.ok("DELE 1")
        session.quit()
        self.until_idle()
        files = self.host.shell("journalctl --flush; find /var/log/journal /run/log/journal -name 'user-*'",
                                check=False).output
        self.assertEqual(files, "")

    def test_no_password_is_ever_in_the_journal(self):
        user = self.account(messages(1), password="Xyzzy-secret-1")
        session = self.connect()
        session.err("PASS Xyzzy-secret-0")
        session.ok(f"USER {user}")
        session.err("PASS Xyzzy-secret-2")
        session.ok(f"USER {user}")
        session.ok("PASS Xyzzy-secret-1")
        session.err("Xyzzy-secret-3")
        session.quit()
        self.until_idle()
        self.host.run("journalctl", "--sync")
        self.assertNotIn("Xyzzy-secret", self.host.run("journalctl", "--all", "-o", "export", "--no-pager").output)
