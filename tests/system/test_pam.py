"""PAM stacks as admins configure them, and accounts in every state."""

import datetime

from .case import PASSWORD, HostCase
from .mail import messages

STANDARD = """@include common-auth
@include common-account
@include common-session-noninteractive
"""

RENAME = """
#include <security/pam_modules.h>
int pam_sm_authenticate(pam_handle_t *h, int f, int c, const char **v)
{ return pam_set_item(h, PAM_USER, v[0]); }
int pam_sm_setcred(pam_handle_t *h, int f, int c, const char **v) { return PAM_SUCCESS; }
"""


class PamCase(HostCase):
    def attempt(self, user, password=PASSWORD, source="127.0.0.1"):
        """The reply to PASS on a connection of its own, which ends with it."""
        session = self.connect(source=source)
        reply = session.command(f"USER {user}")
        if reply.startswith(b"+OK"):
            reply = session.command(f"PASS {password}")
        if reply.startswith(b"+OK"):
            session.quit()
        else:
            session.close()
        return reply

    def assert_in(self, user, **options):
        self.assertRegex(self.attempt(user, **options), rb"^\+OK")

    def assert_out(self, user, **options):
        self.assertRegex(self.attempt(user, **options), rb"^-ERR \[AUTH\] ")


class Passwords(PamCase):
    def test_yescrypt_and_sha512(self):
        for method in ("YESCRYPT", "SHA512"):
            with self.subTest(method):
                user = self.account(messages(1), method=method)
                self.assert_in(user)
                self.assert_out(user, password="wrong")

    def test_all_refusals_read_alike(self):
        known, locked, nobody = self.account(), self.account(), "no-such-user"
        self.host.run("passwd", "-l", locked)
        self.host.password("root", "root-password")
        self.addCleanup(self.host.run, "passwd", "-d", "root")
        replies = {
            "wrong password": self.attempt(known, password="wrong"),
            "unknown user": self.attempt(nobody),
            "root": self.attempt("root", password="root-password"),
            "locked": self.attempt(locked),
            "root, wrong password": self.attempt("root", password="wrong"),
        }
        self.assertEqual(len(set(replies.values())), 1, replies)

    def test_an_empty_password_lets_nobody_in_even_where_there_is_none(self):
        user = self.account(password=None)
        self.host.run("passwd", "-d", user)
        session = self.connect()
        session.ok(f"USER {user}")
        session.err("PASS ")
        session.err("PASS")
        session.close()
        self.assertNotRegex(self.attempt(user, password=" "), rb"^\+OK")

    def test_even_where_pam_allows_null_passwords(self):
        self.pam(STANDARD.replace("@include common-auth", "auth required pam_unix.so nullok"))
        user = self.account(password=None)
        self.host.run("passwd", "-d", user)
        for password in ("", "x"):
            session = self.connect()
            session.ok(f"USER {user}")
            session.err(f"PASS {password}")
            session.close()


class Accounts(PamCase):
    def test_a_locked_account(self):
        user = self.account()
        self.assert_in(user)
        self.host.run("passwd", "-l", user)
        self.assert_out(user)
        self.host.run("passwd", "-u", user)
        self.assert_in(user)

    def test_an_expired_account(self):
        user = self.account()
        self.host.run("chage", "-E", "2020-01-01", user)
        self.assert_out(user)
        self.assertTrue([line for line in self.messages(POPA3D_USER=user) if "expired" in line.lower()],
                        self.messages(POPA3D_USER=user))

    def test_a_password_that_must_be_changed(self):
        user = self.account()
        self.host.run("chage", "-d", "0", user)
        self.assert_out(user)

    def test_a_password_that_expired_long_ago(self):
        user = self.account()
        self.host.run("chage", "-d", "2020-01-01", "-M", "30", "-I", "5", user)
        self.assert_out(user)

    def test_a_password_that_expires_soon_lets_in(self):
        user = self.account()
        today = datetime.datetime.now(datetime.UTC).date()
        self.host.run("chage", "-d", str(today - datetime.timedelta(days=27)), "-M", "30", "-W", "7", user)
        self.assert_in(user)

    def test_root_under_any_name(self):
        self.host.shell("useradd -o -u 0 -g 0 -M toor")
        self.addCleanup(self.host.shell, "sed -i /^toor:/d /etc/passwd /etc/shadow")
        self.host.password("toor", PASSWORD)
        self.assert_out("toor")
        # Even where PAM says nothing but yes.
        self.pam("auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n")
        self.assert_out("toor")
        self.assert_out("root")

    def test_names_that_nss_does_not_know_though_pam_does(self):
        self.pam("auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n")
        self.assert_out("nobody-of-that-name")
        self.assert_in(self.account(messages(1)))

    def test_the_user_that_pam_returns_is_the_one_served(self):
        # A module of our own, for Debian has none that renames.
        served, asked = self.account(messages(3)), self.account(messages(1))
        self.host.run("cc", "-shared", "-fPIC", "-o", "/usr/local/lib/pam_rename.so", "-x", "c", "-", stdin=RENAME)
        self.pam(f"auth required /usr/local/lib/pam_rename.so {served}\naccount required pam_permit.so\n"
                 "session required pam_permit.so\n")
        session = self.login(asked)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 3 ")
        session.quit()
        self.until_idle()
        self.assertIn(f"Authentication passed for {served}", " ".join(self.messages(POPA3D_USER=served)))

    def test_accounts_from_extrausers(self):
        self.configure("/etc/nsswitch.conf", self.host.read("/etc/nsswitch.conf").decode()
                       .replace("passwd:         files", "passwd:         files extrausers")
                       .replace("group:          files", "group:          files extrausers")
                       .replace("shadow:         files", "shadow:         files extrausers"))
        template = self.account()
        shadow = self.host.run("getent", "shadow", template).output.split(":")[1]
        self.host.run("mkdir", "-p", "/var/lib/extrausers")
        self.configure("/var/lib/extrausers/passwd", "virtual:x:45001:45001::/nonexistent:/usr/sbin/nologin\n")
        self.configure("/var/lib/extrausers/group", "virtual:x:45001:\n")
        self.configure("/var/lib/extrausers/shadow", f"virtual:{shadow}:20000:0:99999:7:::\n")
        self.assertNotIn("virtual", self.host.read("/etc/passwd").decode())
        self.addCleanup(self.host.mailbox("virtual").unlink)
        self.host.deliver("virtual", b"".join(item.stored for item in messages(2)))
        session = self.login("virtual")
        self.assertRegex(session.ok("STAT"), rb"^\+OK 2 ")
        session.ok("DELE 1")
        session.quit()
        self.assertEqual(self.host.mailbox("virtual").read_bytes(), messages(2)[1].stored)


class Modules(PamCase):
    def test_faillock_locks_out_and_counts_by_user(self):
        self.pam("auth required pam_faillock.so preauth deny=2 unlock_time=600\n"
                 "auth sufficient pam_unix.so\n"
                 "auth [default=die] pam_faillock.so authfail deny=2 unlock_time=600\n"
                 "account required pam_faillock.so\n@include common-account\n"
                 "@include common-session-noninteractive\n")
        victim, other = self.account(messages(1)), self.account(messages(1))
        self.assert_in(victim)
        for _ in range(2):
            self.assert_out(victim, password="wrong")
        self.assert_out(victim)
        self.assert_in(other)
        counted = self.host.run("faillock", "--user", victim).output
        self.assertEqual(counted.count("127.0.0.1"), 2, counted)
        self.host.run("faillock", "--user", victim, "--reset")
        self.assert_in(victim)

    def test_access_by_the_address_of_the_client(self):
        user = self.account(messages(1))
        self.configure("/etc/security/access.conf", f"+:{user}:127.0.0.31\n-:{user}:ALL\n+:ALL:ALL\n")
        self.pam(STANDARD.replace("@include common-account", "account required pam_access.so\n@include common-account"))
        self.assert_in(user, source="127.0.0.31")
        self.assert_out(user, source="127.0.0.32")

    def test_nologin(self):
        user = self.account(messages(1))
        self.pam("account required pam_nologin.so\n" + STANDARD)
        self.assert_in(user)
        self.configure("/etc/nologin", "Back at noon.\n")
        self.assert_out(user)

    def test_listfile(self):
        denied, allowed = self.account(), self.account()
        self.configure("/etc/popa3d.denied", f"{denied}\n")
        self.pam("auth required pam_listfile.so item=user sense=deny file=/etc/popa3d.denied onerr=fail\n" + STANDARD)
        self.assert_out(denied)
        self.assert_in(allowed)

    def test_a_session_hook_sees_user_and_address_at_open_and_close(self):
        hook = "/usr/local/sbin/mail-hook"
        self.configure(hook, "#!/bin/sh\necho \"$PAM_TYPE $PAM_USER $PAM_RHOST $PAM_TTY $PAM_SERVICE\" >>/var/log/mail-hook\n")
        self.host.path(hook).chmod(0o755)
        self.configure("/var/log/mail-hook", "")
        self.pam(STANDARD + f"session required pam_exec.so {hook}\n")
        user = self.account(messages(1))
        session = self.login(user, source="127.0.0.33")
        self.assertEqual(self.host.read("/var/log/mail-hook").decode().split(),
                         ["open_session", user, "127.0.0.33", "popa3d", "popa3d"])
        session.quit()
        self.until_idle()
        self.assertEqual(self.host.read("/var/log/mail-hook").decode().splitlines()[1].split(),
                         ["close_session", user, "127.0.0.33", "popa3d", "popa3d"])

    def test_the_session_is_closed_when_the_client_vanishes(self):
        self.configure("/var/log/mail-hook", "")
        self.pam(STANDARD + "session required pam_exec.so log=/var/log/mail-hook type=close_session /usr/bin/env\n")
        user = self.account(messages(1))
        self.login(user).close()
        self.until_idle()
        self.assertIn(f"PAM_USER={user}", self.host.read("/var/log/mail-hook").decode())

    def test_a_session_module_that_refuses_keeps_out(self):
        self.pam(STANDARD + "session required pam_exec.so /bin/false\n")
        user = self.account(messages(1))
        self.assertRegex(self.attempt(user), rb"^-ERR ")

    def test_a_program_that_checks_the_password(self):
        # pam_exec expose_authtok hands the password to a program, as admins do for their own checks.
        check = "/usr/local/sbin/check-password"
        self.configure(check, f"#!/bin/sh\n[ \"$(tr -d '\\0')\" = '{PASSWORD}' ]\n")
        self.host.path(check).chmod(0o755)
        self.pam(f"auth required pam_exec.so expose_authtok {check}\nauth required pam_permit.so\n@include common-account\n"
                 "@include common-session-noninteractive\n")
        user = self.account(messages(1), password="another one")
        self.assert_in(user)
        # To pam_exec a program that fails is a system error, not a wrong password.
        self.assertRegex(self.attempt(user, password="another one"), rb"^-ERR ")

    def test_messages_of_a_module_are_in_the_journal_not_with_the_client(self):
        self.configure("/etc/motd.pop", "Maintenance tonight.\n")
        self.pam("auth optional pam_echo.so file=/etc/motd.pop\n" + STANDARD)
        user = self.account(messages(1))
        session = self.connect()
        session.ok(f"USER {user}")
        self.assertNotIn(b"Maintenance", session.ok(f"PASS {PASSWORD}"))
        session.quit()
        self.until_idle()
        self.assertTrue([line for line in self.messages() if "Maintenance tonight." in line])


class Broken(PamCase):
    def test_a_missing_module(self):
        self.pam("auth required pam_does_not_exist.so\n" + STANDARD)
        user = self.account(messages(1))
        self._assert_temporary(user, "pam_does_not_exist|odule")

    def test_no_configuration_at_all(self):
        self.configure("/etc/pam.d/popa3d", None)
        user = self.account(messages(1))
        self._assert_temporary(user, "/etc/pam.d/popa3d")

    def test_a_stack_that_denies_everything_is_a_refusal_like_any_other(self):
        self.pam("auth required pam_deny.so\naccount required pam_deny.so\nsession required pam_deny.so\n")
        self.assert_out(self.account(messages(1)))

    def test_a_module_that_hangs_does_not_hang_the_session_forever(self):
        self.settings('pam-timeout = "2s"\n')
        self.pam("auth required pam_exec.so /bin/sleep 3600\n" + STANDARD)
        user = self.account(messages(1))
        self.refused(user, b"SYS/TEMP")
        self.until_idle()
        self.assertEqual(self.host.run("pgrep", "-x", "sleep", check=False).output, "")
        self.assertTrue([line for line in self.messages() if "PAM" in line and "2 s" in line],
                        self.messages()[-3:])

    def test_a_module_that_hangs_at_the_end_does_not_hang_either(self):
        self.settings('pam-timeout = "2s"\n')
        self.pam(STANDARD + "session optional pam_exec.so type=close_session /bin/sleep 3600\n")
        user = self.account(messages(2))
        session = self.login(user)
        session.ok("DELE 1")
        session.quit()
        self.until_idle()
        self.assertEqual(self.host.mailbox(user).read_bytes(), messages(2)[1].stored)

    def _assert_temporary(self, user, reason):
        before = len(self.messages())
        self.refused(user, b"SYS/(TEMP|PERM)")
        self.until_idle()
        self.assertRegex("\n".join(self.messages()[before:]), reason)
