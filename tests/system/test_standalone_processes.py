"""The processes of sessions that the listener started: what they have, what they can, what becomes of
the others when one dies; and that PAM works within the restrictions of popa3d.service."""

import contextlib
import ctypes
import os
import pathlib
import re
import signal
import stat

from . import test_pam, test_processes
from .case import PASSWORD, HostCase
from .mail import mbox, messages
from .standalone import UNIT, Standalone, owner, parent
from .test_processes import descriptors, status

PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000


class Worker(Standalone, test_processes.Worker):
    """All that holds for one that systemd started."""

    # Its drop-in is for the other unit.
    test_landlock_and_the_filter_are_in_force_before_the_greeting = None

    def test_its_filter_comes_on_top_of_that_of_the_unit(self):
        def check():
            filters = [int(status(process)["Seccomp_filters"][0]) for process in (self.listener(), self.worker())]
            self.assertGreater(filters[1], filters[0])

        self.in_both_states(check)


class Descriptors(Standalone):
    def test_nothing_of_the_listener_or_of_other_sessions_reaches_a_session(self):
        users = [self.account(messages(2)) for _ in range(2)]
        sessions = [self.login(user) for user in users]
        for session in sessions:
            session.ok("DELE 1")
        self.until(lambda: len(self.processes()) == 4, "the end of the helpers")
        with self.held(users[1]):
            # So that there is an as-user helper as well.
            helper = self.say_quit(sessions[1], users[1])
            self._check(helper)
        for session in (sessions[0], self.connect()):
            session.quit()
        self.assertRegex(sessions[1].line(), rb"^\+OK")

    def _check(self, helper):
        listener, monitors = self.listener(), self.monitors()
        self.assertEqual(len(monitors), 2)
        families = [[monitor, *(process for process in self.processes() if parent(process) == monitor)]
                    for monitor in monitors]
        self.assertEqual(sorted(map(len, families)), [2, 3])
        self.assertIn(helper, sum(families, []))
        # The way to the journal is one for all monitors, and systemd's for what they might print.
        shared = sockets(listener) & sockets(monitors[0]) & sockets(monitors[1])
        self.assertEqual(len(shared), 2)
        for family in families:
            for process in family:
                with self.subTest(process=status(process)["Uid"], monitor=process in monitors):
                    allowed = shared if process in monitors else set()
                    self.assertLessEqual(sockets(process) & sockets(listener), allowed)
                    self.assertNotIn("anon_inode:[eventpoll]", links(process))
                    # A monitor waits for signals by one of its own.
                    self.assertEqual(links(process).count("anon_inode:[signalfd]"), int(process in monitors))
                    others = set().union(*(sockets(other) for stranger in families if stranger is not family
                                           for other in stranger))
                    self.assertLessEqual(sockets(process) & others, allowed)
        # What the listener listens on, it alone does.
        listening = {f"socket:[{line.split()[9]}]" for table in ("tcp", "tcp6")
                     for line in self.host.run("cat", f"/proc/net/{table}").output.splitlines() if line.split()[3] == "0A"}
        self.assertEqual(len(sockets(listener) & listening), 2)

    def test_each_session_has_a_process_group_of_its_own(self):
        sessions = [self.connect() for _ in range(2)]
        monitors = self.until(lambda: len(self.monitors()) == 2 and self.monitors(), "both")
        self.assertEqual([os.getpgid(monitor) for monitor in monitors], monitors)
        for session in sessions:
            session.quit()


class Deaths(Standalone):
    def setUp(self):
        self.other = self.account(messages(1))
        self.bystander = self.login(self.other)
        self.status(1, 0)

    def tearDown(self):
        self.assertEqual(self.bystander.multi("RETR 1"), messages(1)[0].lines)
        self.bystander.quit()

    def test_a_worker_that_is_killed_ends_its_session_alone(self):
        user = self.account(messages(2))
        before = set(self.processes())
        session = self.login(user)
        session.ok("DELE 1")
        popa3d = int(self.host.run("id", "-u", "popa3d").output)
        self._kill(before, lambda process: owner(process) == popa3d)
        self.status(1, 0)
        session.close()
        self.assert_said("Server failure, worker process: killed by SIGKILL", POPA3D_USER=user)
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(messages(2)))
        self.login(user).quit()

    def test_a_monitor_that_is_killed_leaves_its_slot_and_its_user_free(self):
        user = self.account(messages(2))
        before = set(self.processes())
        self.login(user)
        listener = self.listener()
        killed = self._kill(before, lambda process: parent(process) == listener)
        self.status(1, 0)
        self.until(lambda: not pathlib.Path(f"/proc/{killed}").exists(), "its end")
        self.assertTrue([line for line in self.messages(POPA3D_EVENT="server-failure")
                         if re.match(r"Server failure: session process \d+: killed by SIGKILL$", line)])
        self.login(user).quit()

    def test_a_worker_that_does_not_move_dies_with_its_monitor(self):
        user = self.account(messages(1))
        for begin in (self.connect, lambda: self.login(user)):
            with self.subTest(logged_in=begin != self.connect):
                before, listener = set(self.processes()), self.listener()
                session = begin()
                found = self.until(lambda: len(new := set(self.processes()) - before) == 2 and new, "monitor and worker")
                (monitor,) = [process for process in found if parent(process) == listener]
                (worker,) = found - {monitor}
                with frozen(worker):
                    os.kill(monitor, signal.SIGKILL)
                    self.until(lambda: status(worker)["State"][0] == "Z", "the worker's end")
                session.close()
                self.status(1, 0)

    def _kill(self, before, is_meant):
        (process,) = [process for process in self.processes() if process not in before and is_meant(process)]
        os.kill(process, signal.SIGKILL)
        return process


class Passwords(Standalone, test_pam.Passwords):
    """In popa3d.service, as in a unit for each connection."""


class Accounts(Standalone, test_pam.Accounts):
    """The same."""


class Modules(Standalone, test_pam.Modules):
    """The same."""


class Broken(Standalone, test_pam.Broken):
    """The same."""


class Homes(Standalone):
    def test_with_the_drop_in_for_homes_pam_makes_them_sets_limits_and_mail_is_in_them(self):
        self.drop_in("ProtectHome=no")
        self.settings('mailbox = "{home}/Mailbox"\n')
        user = self.account()
        self.configure("/etc/security/limits.conf", f"{user} hard nofile 900\n{user} soft nofile 700\n")
        self.pam(test_pam.STANDARD + "session required pam_mkhomedir.so\nsession required pam_limits.so\n")
        self.host.run("rm", "-r", f"/home/{user}")
        session = self.login(user)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 0 ")
        (monitor,) = self.monitors()
        self.assertEqual(test_processes.limits(monitor)["Max open files"][:2], ("700", "900"))
        session.quit()
        home = os.stat(self.host.path(f"/home/{user}"))
        self.assertEqual(home.st_uid, int(self.host.run("id", "-u", user).output))
        self.host.path(f"/home/{user}/Mailbox").write_bytes(mbox(messages(2)))
        self.host.run("chown", user, f"/home/{user}/Mailbox")
        session = self.login(user)
        session.ok("DELE 1")
        session.quit()
        self.assertEqual(self.host.read(f"/home/{user}/Mailbox"), mbox(messages(2)[1:]))


class Restrictions(Standalone):
    def test_systemd_analyze_gives_the_figure_that_is_documented(self):
        self.assertEqual(self._exposure(), "3.0")

    def test_the_listener_can_write_where_it_has_to_and_nowhere_else(self):
        listener = self.listener()
        for directory, writable in (("/var/mail", True), ("/var/lib/popa3d", True), ("/run/popa3d", True),
                                    ("/etc", False), ("/usr/sbin", False), ("/var/lib", False), ("/root", False)):
            with self.subTest(directory):
                flags = os.statvfs(f"/proc/{listener}/root{directory}").f_flag
                self.assertEqual(not flags & os.ST_RDONLY, writable)
        homes = os.stat(f"/proc/{listener}/root/home")
        self.assertEqual(stat.S_IMODE(homes.st_mode), 0)

    def test_with_systemd_to_listen_it_has_no_network_and_works_all_the_same(self):
        self.addCleanup(self.host.shell, f"systemctl stop {UNIT} popa3d-listen.socket; "
                        f"rm -r /etc/systemd/system/popa3d-listen.socket /etc/systemd/system/{UNIT}.d; "
                        f"systemctl daemon-reload; systemctl start {UNIT}")
        # What the example itself says has to be done.
        example = self.host.read("/usr/share/doc/popa3d/examples/standalone-hardened.conf").decode()
        self.host.shell("\n".join(re.findall(r"(?m)^#     (.*)$", example)))
        verified = self.host.run("systemd-analyze", "verify", UNIT, "popa3d-listen.socket")
        # Of the sockets that it conflicts with: what newer ones have to know, and systemd 252 does not.
        said = [line for line in (verified.output + verified.errors).splitlines()
                if self.host.release != "bookworm" or "Unknown key 'PollLimitIntervalSec'" not in line]
        self.assertEqual(said, [])
        self.assertEqual(self._exposure(), "2.0")
        listener = self.listener()
        self.assertNotEqual(os.readlink(f"/proc/{listener}/ns/net"), os.readlink(f"/proc/{self.host.leader}/ns/net"))
        user = self.account(messages(3))
        self.host.run("curl", "-sSk", "-u", f"{user}:{PASSWORD}", "pop3s://localhost/")
        session = self.login(user, source="127.0.4.1")
        session.ok("DELE 2")
        self.reload()
        session.quit()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox([messages(3)[0], messages(3)[2]]))
        self.assert_said("Authentication passed", POPA3D_USER=user, POPA3D_CLIENT="127.0.4.1")
        self.host.run("systemctl", "restart", UNIT)
        self.login(user).quit()

        with self.subTest("with a mistake in the settings a connection starts it once, and is turned away"):
            self.host.run("systemctl", "stop", UNIT)
            self.configure("/etc/popa3d.toml", "no-such-key = 1\n")
            for number in (1, 2):
                self.turned_away(b"SYS/TEMP")
                self.until(lambda: self.show("ActiveState") == "failed", "the end of the service")
                starts = self.host.journal("-u", UNIT, f"--since=@{self.began:.6f}", "JOB_TYPE=start", "JOB_RESULT=failed")
                self.assertEqual(len(starts), number)
            self.host.write("/etc/popa3d.toml", "")
            self.login(user).quit()

    def _exposure(self):
        analyzed = self.host.run("systemd-analyze", "security", "--no-pager", UNIT).output
        return re.search(r"Overall exposure level for popa3d\.service: (\S+) ", analyzed)[1]


class Switch(HostCase):
    """By the commands that are documented."""

    def test_there_and_back_and_sessions_that_systemd_started_go_on(self):
        self.addCleanup(self.host.shell, f"systemctl disable --now {UNIT}; systemctl enable --now popa3d.socket popa3ds.socket")
        user = self.account(messages(2))
        session = self.login(user)
        self.host.run("systemctl", "disable", "--now", "popa3d.socket", "popa3ds.socket")
        self.host.run("systemctl", "enable", "--now", UNIT)
        self.assertEqual(self._states(), ["inactive", "inactive", "active"])
        for port in (110, 995):
            self.host.connect(port).close()
        other = self.login(self.account(messages(1)))
        session.ok("DELE 1")
        session.quit()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(messages(2)[1:]))
        self.host.run("systemctl", "disable", "--now", UNIT)
        self.assertRegex(other.line(), rb"^-ERR \[SYS/TEMP\] ")
        self.host.run("systemctl", "enable", "--now", "popa3d.socket", "popa3ds.socket")
        self.assertEqual(self._states(), ["active", "active", "inactive"])
        self.login(user).quit()

    def test_whichever_is_started_the_other_one_ends(self):
        self.addCleanup(self.host.run, "systemctl", "start", "popa3d.socket", "popa3ds.socket")
        self.host.run("systemctl", "start", UNIT)
        self.assertEqual(self._states(), ["inactive", "inactive", "active"])
        self.host.run("systemctl", "start", "popa3ds.socket")
        self.assertEqual(self._states(), ["inactive", "active", "inactive"])
        self.host.connect(995).close()

    def test_however_often_they_are_switched_the_last_one_listens(self):
        self.addCleanup(self.host.run, "systemctl", "start", "popa3d.socket", "popa3ds.socket")
        self.host.shell(f"for round in $(seq 30); do systemctl start {UNIT}; systemctl start popa3ds.socket; done")
        self.assertEqual(self._states(), ["inactive", "active", "inactive"])
        self.host.connect(995).close()

    def _states(self):
        return self.host.run("systemctl", "is-active", "popa3d.socket", "popa3ds.socket", UNIT, check=False).output.split()


@contextlib.contextmanager
def frozen(process):
    """PROCESS does nothing meanwhile, whatever it is told: it is being traced."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    if libc.ptrace(PTRACE_ATTACH, process, None, None):
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(process, WALL)
    try:
        yield
    finally:
        # One that is dead goes when its tracer has seen that.
        if libc.ptrace(PTRACE_DETACH, process, None, None):
            os.waitpid(process, WALL)


def links(process):
    return [os.readlink(entry) for entry in descriptors(process)]


def sockets(process):
    return {link for link in links(process) if link.startswith("socket:")}
