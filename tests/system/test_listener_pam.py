"""The listener reads the stack of PAM before anybody logs in: whoever edits it meanwhile is heeded."""

import os

from .case import PASSWORD, HostCase

STACK = "/etc/pam.d/popa3d"
LETS_ANYBODY_IN = "".join(f"{kind} required pam_permit.so\n" for kind in ("auth", "account", "session"))
LETS_NOBODY_IN = "".join(f"{kind} required pam_deny.so\n" for kind in ("auth", "account", "session"))


class ListenerPamTest(HostCase):
    def setUp(self):
        self.host.run("systemctl", "stop", "popa3d.socket", "popa3ds.socket")
        # systemd lets nobody start them as often as these tests do.
        self.addCleanup(self.host.shell, "systemctl reset-failed popa3d.socket popa3ds.socket\n"
                                         "systemctl start popa3d.socket popa3ds.socket")
        self.configure("/etc/popa3d.toml", 'login-delay-max = "0s"\n')
        self.own = self.host.read(STACK)
        self.configure(STACK, self.own)
        self.host.run("systemctl", "start", "popa3d.service")
        self.addCleanup(self.host.run, "systemctl", "stop", "popa3d.service")
        self.user = self.account(mail=[])

    def at_the_password(self):
        """A session that has yet to send it."""
        session = self.connect()
        session.ok(f"USER {self.user}")
        return session

    def edit(self, text):
        """Returns when the listener has had its look: the next session knows what it saw."""
        self.host.write(STACK, text)
        self.connect().quit()

    def remove(self):
        self.host.path(STACK).unlink()
        self.connect().quit()

    def test_session_of_a_moment_without_a_stack_does_not_get_the_one_for_others(self):
        self.configure("/etc/pam.d/other", LETS_ANYBODY_IN)
        self.remove()
        session = self.at_the_password()
        self.edit(self.own)
        session.err("PASS not the password", rb"AUTH")
        session.ok(f"USER {self.user}")
        session.ok(f"PASS {PASSWORD}")
        session.quit()

    def test_session_without_a_stack_lets_nobody_in(self):
        self.configure("/etc/pam.d/other", LETS_ANYBODY_IN)
        self.remove()
        self.at_the_password().err(f"PASS {PASSWORD}", rb"SYS/(TEMP|PERM)")
        self.assert_said("Server failure authenticating")

    def test_session_that_began_before_an_edit_obeys_it(self):
        session = self.at_the_password()
        self.edit(LETS_NOBODY_IN)
        session.err(f"PASS {PASSWORD}", rb"AUTH")

    def test_edit_behind_a_link_counts(self):
        self.configure("/etc/popa3d-stack", self.own)
        self.host.shell(f"ln -sf /etc/popa3d-stack {STACK}")
        self.addCleanup(self.host.run, "rm", STACK)
        self.connect().quit()
        self.host.write("/etc/popa3d-stack", LETS_NOBODY_IN)
        self.at_the_password().err(f"PASS {PASSWORD}", rb"AUTH")

    def test_what_libpam_left_open_is_nothing_else_in_a_session(self):
        self.until(lambda: len(self.processes()) == 1, "the end of other sessions")
        (listener,) = self.processes()
        before = set(os.listdir(f"/proc/{listener}/fd"))
        # libpam says to syslog that there is no such module, and keeps the socket for the next time.
        self.edit(b"password optional pam_is_not_there.so\n" + self.own)
        self.until(lambda: self.processes() == [listener], "the end of the session before")
        left_open = set(os.listdir(f"/proc/{listener}/fd")) - before
        self.assertTrue(left_open)
        session = self.connect()
        (monitor,) = (process for process in self.processes() if parent(process) == listener)
        for number in left_open:
            self.assertEqual(os.readlink(f"/proc/{monitor}/fd/{number}"), "/dev/null")
        session.quit()


def parent(process):
    """The parent of a process, or None when it is gone."""
    try:
        with open(f"/proc/{process}/status", encoding="ascii") as lines:
            (line,) = (line for line in lines if line.startswith("PPid:"))
    except ProcessLookupError:
        return None
    return int(line.split()[1])
