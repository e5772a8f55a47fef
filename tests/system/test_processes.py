"""The processes of a session, seen from outside through /proc."""

import contextlib
import ctypes
import os
import pathlib
import re
import signal

from .case import PASSWORD, HostCase
from .mail import mbox, messages
from .memory import held

LANDLOCK_CREATE_RULESET = 444  # the number of the system call, and flag 1 asks for the version

CAP_SETPCAP, CAP_SYS_CHROOT, CAP_SYS_RESOURCE = 8, 18, 24


class Worker(HostCase):
    def setUp(self):
        self.until_idle()
        self.user = self.account(messages(3))
        self.session = self.connect()
        self.owner = int(self.host.run("id", "-u", "popa3d").output)
        self.group = int(self.host.run("id", "-g", "popa3d").output)

    def log_in(self):
        self.session.ok(f"USER {self.user}")
        self.session.ok(f"PASS {PASSWORD}")
        # The as-user helper, which held the locks, ends about now.
        self.until(lambda: len(self.processes()) == 2, "the helper's end")

    def in_both_states(self, check):
        with self.subTest("before login"):
            check()
        self.log_in()
        with self.subTest("after login"):
            check()

    def test_there_are_two_processes_monitor_and_worker(self):
        def check():
            uids = sorted(status(process)["Uid"] for process in self.processes())
            self.assertEqual(uids, [["0"] * 4, [str(self.owner)] * 4])

        self.in_both_states(check)

    def test_the_worker_stays_the_same_process(self):
        before = self.worker()
        self.log_in()
        self.assertEqual(self.worker(), before)

    def test_ids_capabilities_privileges_and_filter(self):
        def check():
            found = status(self.worker())
            self.assertEqual(found["Gid"], [str(self.group)] * 4)
            self.assertIn(found.get("Groups", []), ([], [str(self.group)]))
            for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                self.assertEqual(int(found[kind][0], 16), 0, kind)
            self.assertEqual(found["NoNewPrivs"], ["1"])
            self.assertEqual(found["Seccomp"], ["2"])
            # The unit sets none, so that these are the worker's own.
            self.assertGreaterEqual(int(found["Seccomp_filters"][0]), 1)
            self.assertEqual(found["Threads"], ["1"])

        self.in_both_states(check)

    def test_the_root_directory_is_the_empty_one(self):
        def check():
            for link in ("root", "cwd"):
                directory = pathlib.Path(f"/proc/{self.worker()}/{link}")
                empty = os.stat(self.host.path("/usr/lib/popa3d/empty"))
                self.assertEqual(os.stat(directory).st_ino, empty.st_ino)
                self.assertEqual(os.stat(directory).st_dev, empty.st_dev)
                self.assertEqual(os.listdir(directory), [])
                self.assertEqual(empty.st_mode & 0o777, 0o555)

        self.in_both_states(check)

    def test_limits_forbid_processes_files_and_core_dumps(self):
        def check():
            found = limits(self.worker())
            for name in ("Max processes", "Max file size", "Max core file size"):
                self.assertEqual(found[name], ("0", "0"), name)

        self.in_both_states(check)

    def test_descriptors_are_connection_channel_and_after_login_the_mailbox_read_only(self):
        self.assertEqual(sorted(kinds(self.worker())), ["socket", "socket"])
        self.log_in()
        self.assertEqual(sorted(kinds(self.worker())), ["mailbox", "socket", "socket"])
        (mailbox,) = [entry for entry in descriptors(self.worker()) if not os.readlink(entry).startswith("socket:")]
        self.assertEqual(os.stat(mailbox).st_ino, os.stat(self.host.mailbox(self.user)).st_ino)
        flags = pathlib.Path(f"/proc/{self.worker()}/fdinfo/{mailbox.name}").read_text(encoding="ascii")
        mode = int(re.search(r"flags:\s+(\d+)", flags)[1], 8) & os.O_ACCMODE
        self.assertEqual(mode, os.O_RDONLY)

    def test_the_monitor_keeps_only_the_capabilities_it_has_a_use_for(self):
        before = int(status(self.monitor())["CapPrm"][0], 16)
        self.log_in()
        self.until(lambda: int(status(self.monitor())["CapPrm"][0], 16) != before, "the monitor to shrink")
        after = int(status(self.monitor())["CapPrm"][0], 16)
        effective = int(status(self.monitor())["CapEff"][0], 16)
        self.assertEqual(after & ~before, 0)
        self.assertEqual(effective & ~after, 0)
        for number in (CAP_SETPCAP, CAP_SYS_CHROOT, CAP_SYS_RESOURCE):
            self.assertEqual(after >> number & 1, 0, f"capability {number} has no use after login")
        # And what it kept is enough for UPDATE.
        self.session.ok("DELE 1")
        self.session.quit()
        self.assertEqual(self.host.mailbox(self.user).read_bytes(), mbox(messages(3)[1:]))

    def test_no_process_has_the_password_after_login(self):
        self.log_in()
        for process in self.processes():
            self.assertEqual(held(process, {"password": PASSWORD.encode()}), [], f"{process} of {self.processes()}")

    def test_landlock_and_the_filter_are_in_force_before_the_greeting(self):
        if ctypes.CDLL(None, use_errno=True).syscall(LANDLOCK_CREATE_RULESET, None, 0, 1) < 1:
            self.skipTest("this kernel has no Landlock")
        # /proc does not tell of Landlock. strace -D leaves popa3d the main process of its unit.
        directory = "/run/systemd/system/popa3d@.service.d"
        self.addCleanup(self.host.shell, f"rm -r {directory}; systemctl daemon-reload")
        self.host.shell(f"mkdir -p {directory}")
        self.host.write(f"{directory}/strace.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/strace -D -f -qq "
                        "-o /tmp/confined -e trace=landlock_restrict_self,seccomp,prctl,chroot,sendto,write "
                        "/usr/sbin/popa3d\nCapabilityBoundingSet=CAP_SYS_PTRACE\n")
        self.host.run("systemctl", "daemon-reload")
        self.connect().quit()
        trace = self.host.read("/tmp/confined").decode()
        (worker,) = set(re.findall(r"(?m)^(\d+) +landlock_restrict_self\(.*= 0$", trace))
        calls = "\n".join(line for line in trace.splitlines() if line.startswith(f"{worker} "))
        greeting = calls.index('"+OK')
        self.assertLess(calls.index("landlock_restrict_self("), greeting)
        self.assertLess(calls.index("chroot("), greeting)
        self.assertLess(min(calls.find(name) for name in ("seccomp(", "PR_SET_SECCOMP") if name in calls), greeting)

    def worker(self):
        (process,) = owned_by(self.owner, self.processes())
        return process

    def monitor(self):
        (process,) = owned_by(0, self.processes())
        return process


class Afterwards(HostCase):
    def test_nothing_remains_of_sessions_however_they_ended(self):
        self.until_idle()
        before = self._traces()
        user = self.account(messages(9))
        for end in (self._quits, self._vanishes, self._fails_to_log_in, self._is_killed, self._loses_its_worker):
            with self.subTest(end.__name__):
                end(user)
                self.until_idle()
                self.until(lambda: not self.host.run("systemctl", "list-units", "--all", "--no-legend",
                                                     "popa3d@*").output, "the end of the unit")
                after = self._traces()
                after.discard(f"/var/mail/{user}")
                self.assertEqual(after - before, set())
                locks = self.host.read("/proc/locks").decode()
                inode = os.stat(self.host.mailbox(user)).st_ino
                self.assertNotIn(f":{inode} ", locks)

    def _traces(self):
        """All that a session could leave: files beside mailboxes and in temporary places. What is kept in
        /run/popa3d and /var/lib/popa3d on purpose is a file for each user at most."""
        listed = self.host.run("find", "/var/mail", "/tmp", "/run/lock", "/dev/shm", "/usr/lib/popa3d").output
        return set(listed.splitlines())

    def _quits(self, user):
        session = self.login(user)
        session.ok("DELE 1")
        session.quit()

    def _vanishes(self, user):
        session = self.login(user)
        session.ok("DELE 1")
        session.close()

    def _fails_to_log_in(self, user):
        session = self.connect()
        session.ok(f"USER {user}")
        session.err("PASS wrong", b"AUTH")
        session.close()

    def _is_killed(self, user):
        session = self.login(user)
        self.host.shell("systemctl kill --signal=KILL 'popa3d@*.service'")
        session.close()

    def _loses_its_worker(self, user):
        session = self.login(user)
        session.ok("DELE 1")
        before = self.host.mailbox(user).read_bytes()
        owner = int(self.host.run("id", "-u", "popa3d").output)
        for process in owned_by(owner, self.processes()):
            os.kill(process, signal.SIGKILL)
        self.until_idle()
        session.close()
        self.assertEqual(self.host.mailbox(user).read_bytes(), before)


class Orphans(HostCase):
    def test_a_worker_whose_monitor_died_ends(self):
        user = self.account(messages(1))
        session = self.login(user)
        for process in owned_by(0, self.processes()):
            os.kill(process, signal.SIGKILL)
        self.until_idle()
        session.close()


def status(process):
    """The fields of /proc/PROCESS/status."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def owned_by(uid, processes):
    """Those of PROCESSES that run as UID and are still there."""
    found = []
    for process in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if status(process)["Uid"][0] == str(uid):
                found.append(process)
    return found


def limits(process):
    """Soft and hard limit by name."""
    lines = pathlib.Path(f"/proc/{process}/limits").read_text(encoding="ascii").splitlines()[1:]
    return {parts[0]: (parts[1], parts[2]) for parts in (re.split(r"\s{2,}", line.strip()) for line in lines)}


def descriptors(process):
    return sorted(pathlib.Path(f"/proc/{process}/fd").iterdir())


def kinds(process):
    """What each descriptor is."""
    return ["socket" if os.readlink(entry).startswith("socket:") else
            "mailbox" if "/var/mail/" in os.readlink(entry) else os.readlink(entry)
            for entry in descriptors(process)]
