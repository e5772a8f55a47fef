"""The listener: how it starts, what systemd knows of it, and how it comes to its end."""

import os
import pathlib
import re
import signal
import socket
import threading

from . import test_install
from .case import PASSWORD, HostCase, Session
from .mail import mbox, message, messages
from .standalone import UNIT, Standalone, main_process, parent
from .tls import TlsCase, rest_of

PORT = 2110  # of listeners that tests start themselves


class Service(Standalone):
    def test_it_accepts_on_both_ports_from_both_families_and_mail_comes_and_goes(self):
        mail = messages(3)
        user = self.account(mail)
        for target in ("127.0.0.1", "::1"):
            self.connect(target=target).quit()
        self.host.run("curl", "-sSk", "-u", f"{user}:{PASSWORD}", "pop3s://[::1]/")
        session = self.login(user)
        self.assertEqual(session.multi("RETR 2"), mail[1].lines)
        session.ok("DELE 2")
        session.quit()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox([mail[0], mail[2]]))

    def test_without_a_certificate_port_995_is_closed_and_110_is_not(self):
        self.settings("certificates = []\n")
        self.connect().quit()
        self.assert_refused(995)

    def test_a_certificate_that_comes_later_opens_it_with_the_next_reload(self):
        self.settings("certificates = []\n")
        self.assert_refused(995)
        self.host.write("/etc/popa3d.toml", "")
        self.reload()
        self.host.run("curl", "-sSk", "-u", f"{self.account()}:{PASSWORD}", "pop3s://localhost/")

    def test_status_counts_sessions_logins_and_refusals(self):
        user = self.account(messages(1))
        self.settings("max-sessions-per-source = 2\nsession-slot = \"0s\"\n")
        self.status(0, 0)
        one, two = self.connect(), self.connect()
        self.status(2, 2)
        one.ok(f"USER {user}")
        one.ok(f"PASS {PASSWORD}")
        before = self.status(2, 1)
        self.turned_away(b"SYS/TEMP")
        count = lambda text, name: int(re.search(rf"(\d+) {name}|{name}: (\d+)$", text).group(1) or text.rsplit(" ", 1)[1])
        self.until(lambda: count(self.show("StatusText"), "refused") == count(before, "refused") + 1, "the refusal")
        one.quit()
        two.quit()
        after = self.status(0, 0)
        self.assertEqual(count(after, "in all"), count(before, "in all"))

    def test_systemd_starts_one_that_does_not_answer_again(self):
        self.drop_in("WatchdogSec=2s")
        before = self.show("MainPID")
        os.kill(self.listener(), signal.SIGSTOP)
        self._until_another(before)
        self.connect().quit()
        self.assertTrue([line for line in self._systemd_said() if "Watchdog timeout" in line])

    def test_one_that_is_well_is_left_alone_by_the_watchdog_after_a_reload_as_well(self):
        self.drop_in("WatchdogSec=2s")
        process = self.listener()
        for again in (lambda: None, self.reload):
            again()
            # Twice kicked, with nothing else to do.
            for _ in range(2):
                kicked = self.show("WatchdogTimestampMonotonic")
                self.until(lambda: self.show("WatchdogTimestampMonotonic") != kicked, "a sign of life")
        self.assertEqual(self.listener(), process)

    def test_killed_it_comes_back_and_no_client_is_refused_meanwhile(self):
        before = self.show("MainPID")
        user = self.account(messages(1))
        self.login(user)
        os.kill(self.listener(), signal.SIGKILL)
        # The socket is systemd's as well: whoever comes now waits for the next listener.
        session = self.arrive()
        self.assertRegex(session.line(), rb"^\+OK")
        session.quit()
        self.assertNotEqual(self.show("MainPID"), before)
        # The session from before went with it, and holds nothing any more.
        self.login(user).quit()

    def test_killed_ten_times_in_a_row_it_still_comes_back(self):
        for _ in range(10):
            before = self.show("MainPID")
            os.kill(self.listener(), signal.SIGKILL)
            self._until_another(before)
        self.connect().quit()

    def test_with_wrong_settings_it_does_not_start_and_is_not_tried_again(self):
        self.addCleanup(self.host.run, "systemctl", "restart", UNIT)
        self.configure("/etc/popa3d.toml", "\nmax-sessions = 0\n")
        started = self.host.run("systemctl", "restart", UNIT, check=False)
        self.assertNotEqual(started.code, 0)
        self.assertEqual((self.show("ActiveState"), self.show("ExecMainStatus")), ("failed", "2"))
        self.assert_said("Settings refused: /etc/popa3d.toml:2: ", POPA3D_EVENT="settings-refused")
        self.assert_refused(110)

    def test_a_restart_refuses_nobody(self):
        refused, done = [], threading.Event()

        def connect():
            while not done.is_set():
                try:
                    self.host.connect(110, source="127.0.0.77").close()
                except ConnectionRefusedError as error:
                    refused.append(error)

        self.settings("max-sessions-per-source = 100000\nmax-sessions = 2000\nmax-unauthenticated = 2000\n")
        thread = threading.Thread(target=connect)
        thread.start()
        try:
            for _ in range(3):
                self.host.run("systemctl", "restart", UNIT)
        finally:
            done.set()
            thread.join()
        self.assertEqual(refused, [])
        self.connect().quit()

    def _until_another(self, before):
        """Waits for a main process that is not the one from BEFORE."""
        def is_there():
            shown = self.host.run("systemctl", "show", "-p", "ActiveState", "-p", "MainPID", UNIT).output.split()
            return "ActiveState=active" in shown and not {"MainPID=0", f"MainPID={before}"} & set(shown)

        self.until(is_there, "another one")

    def _systemd_said(self):
        return [entry["MESSAGE"] for entry in self.host.journal(f"UNIT={UNIT}")]


class Spool(Standalone, test_install.Spool):
    """The same."""

    UNIT = UNIT


class Stop(Standalone):
    def setUp(self):
        self.addCleanup(self.host.run, "systemctl", "start", UNIT)

    def test_idle_clients_get_a_line_and_nothing_is_left(self):
        user = self.account(messages(2))
        waiting, logged_in = self.connect(), self.login(user)
        logged_in.ok("DELE 1")
        self.host.run("systemctl", "stop", UNIT)
        for session in (waiting, logged_in):
            self.assertRegex(session.line(), rb"^-ERR \[SYS/TEMP\] ")
            session.ended()
        self.assertEqual(self.processes(), [])
        self.assertEqual(self.show("Result"), "success")
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(messages(2)))
        self.assertEqual(self.messages(POPA3D_EVENT="listener-stopped")[-1:], ["Stopped listening"])
        for port in (110, 995):
            self.assert_refused(port)

    def test_update_that_is_under_way_finishes_and_nobody_else_is_let_in(self):
        mail = [message(number, b"x" * 60 + b"\n") for number in range(1, 20_001)]
        user = self.account(mail)
        session = self.login(user)
        session.send(b"".join(b"DELE %d\r\n" % number for number in range(1, 20_001, 2)))
        for _ in range(10_000):
            self.assertRegex(session.line(), rb"^\+OK")
        listener = self.listener()
        with self.held(user):
            self.say_quit(session, user)
            self.host.run("systemctl", "stop", "--no-block", UNIT)
            self.until(lambda: self.show("ActiveState") == "deactivating", "the stop")
            self.until(lambda: watched(listener) == {"signals", "changes", "session"}, "the end of accepting")
            late = self.arrive()
        self.assertRegex(session.line(), rb"^\+OK ")
        session.ended()
        self.until(lambda: self.show("ActiveState") == "inactive", "the end")
        self.assertEqual(rest_of(late.connection), b"")
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(mail[1::2]))
        self.assertEqual([entry["POPA3D_DELETED_MESSAGES"] for entry in self.journal(POPA3D_EVENT="session-ended", POPA3D_USER=user)],
                         ["10000"])

    def test_a_session_that_does_not_end_does_not_keep_it_for_good(self):
        self.drop_in("TimeoutStopSec=2s")
        self.connect()
        (monitor,) = self.monitors()
        os.kill(monitor, signal.SIGSTOP)
        self.host.run("systemctl", "stop", UNIT)
        self.assertEqual(self.processes(), [])


class Grounds(Standalone):
    """Listeners without the unit, beside it."""

    def setUp(self):
        self.settings_file = "/tmp/listener.toml"
        self.host.write(self.settings_file, f'listen = ["127.0.0.1:{PORT}"]\nlisten-tls = []\n')
        self.addCleanup(self._end_others)

    def test_it_goes_to_the_background_once_it_listens(self):
        started = self.host.run("popa3d", "-D", "--config", self.settings_file)
        process = self._started()
        self._connect().quit()
        self.assertEqual(started.output + started.errors, "")
        self.assertEqual(os.readlink(f"/proc/{process}/cwd"), os.readlink(f"/proc/{self.host.leader}/cwd"))
        self.assertEqual({os.readlink(f"/proc/{process}/fd/{number}") for number in range(3)}, {"/dev/null"})
        # A session of its own, so that no terminal is left.
        self.assertEqual(os.getsid(process), process)

    def test_in_the_background_it_reloads_a_file_that_was_named_by_its_place_in_a_directory(self):
        self.host.shell("cd /tmp; popa3d -D --config listener.toml")
        process = self._started()
        before = self._connect()
        self.host.write(self.settings_file, f'listen = ["127.0.0.1:{PORT + 1}"]\nlisten-tls = []\n')
        os.kill(process, signal.SIGHUP)
        self.until(lambda: self._listens(PORT + 1), "the new port")
        self.assert_refused(PORT)
        before.quit()
        self.assertEqual(parent(process), self.host.leader)

    def test_a_signal_to_reload_that_is_sent_to_all_processes_ends_no_session(self):
        user = self.account(messages(1))
        self.pam("auth optional pam_exec.so /bin/sleep 3\n@include common-auth\n@include common-account\n"
                 "@include common-session-noninteractive\n")
        self.host.run("popa3d", "-D", "--config", self.settings_file)
        self._started()
        waiting, session = self._connect(), self._connect()
        session.ok(f"USER {user}")
        session.send(f"PASS {PASSWORD}\r\n".encode())
        self.until(lambda: self.host.run("pgrep", "-x", "sleep", check=False).output, "PAM to be at work")
        self.host.write(self.settings_file, f'listen = ["127.0.0.1:{PORT + 1}"]\nlisten-tls = []\n')
        self.host.run("pkill", "-HUP", "-x", "popa3d")
        self.until(lambda: self._listens(PORT + 1), "the new port")
        self.assertRegex(session.line(), rb"^\+OK")
        self.host.run("pkill", "-HUP", "-x", "popa3d")
        session.multi("RETR 1")
        for other in (waiting, session):
            other.quit()

    def test_sigterm_ends_it_in_the_background(self):
        self.host.run("popa3d", "-D", "--config", self.settings_file)
        process, session = self._started(), self._connect()
        os.kill(process, signal.SIGTERM)
        self.assertRegex(session.line(), rb"^-ERR \[SYS/TEMP\] ")
        self.until(lambda: not pathlib.Path(f"/proc/{process}").exists(), "its end")
        self.assert_refused(PORT)

    def test_a_port_in_use_is_told_before_it_would_go_to_the_background(self):
        self.host.write(self.settings_file, 'listen = ["127.0.0.1:110"]\n')
        started = self.host.run("popa3d", "-D", "--config", self.settings_file, check=False)
        self.assertEqual((started.code, started.output), (1, ""))
        self.assertRegex(started.errors, r"^popa3d: listening on 127\.0\.0\.1:110: Address already in use.*another program.*\n$")
        self.assert_said("Server failure: listening on 127.0.0.1:110: ", POPA3D_EVENT="server-failure")

    def test_wrong_settings_are_told_as_well(self):
        self.host.write(self.settings_file, "listen = 110\n")
        started = self.host.run("popa3d", "-D", "--config", self.settings_file, check=False)
        self.assertEqual((started.code, started.output), (2, ""))
        self.assertIn(f"{self.settings_file}:1: ", started.errors)

    def test_nowhere_to_listen_is_a_mistake(self):
        self.host.write(self.settings_file, "listen = []\ncertificates = []\n")
        started = self.host.run("popa3d", "-D", "--config", self.settings_file, check=False)
        self.assertEqual(started.code, 2)
        self.assertIn("nowhere to listen", started.errors)

    def test_with_f_it_stays_in_the_foreground(self):
        self._run("-F")
        process = self._started()
        self.assertEqual(process, main_process(self.host, "listener.service"))
        self._connect().quit()

    def test_what_the_terminal_sends_to_the_foreground_ends_sessions_as_a_stop_does(self):
        user = self.account(messages(1))
        self._run("-F")
        process, session = self._started(), self._connect()
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        before = len(self.messages(POPA3D_EVENT="worker-failed"))
        os.killpg(os.getpgid(process), signal.SIGINT)
        self.assertRegex(session.line(), rb"^-ERR \[SYS/TEMP\] ")
        self.until(lambda: not pathlib.Path(f"/proc/{process}").exists(), "its end")
        self.assertEqual(len(self.messages(POPA3D_EVENT="worker-failed")), before)

    def test_it_is_ready_when_it_accepts_and_not_before(self):
        # A service manager, so it stays in the foreground; systemd-run returns when it is ready.
        self._run(service="notify", command=("strace", "-D", "-qq", "-o", "/tmp/ready", "-s", "200", "-e",
                                             "trace=listen,epoll_ctl,sendto,sendmsg,write", "popa3d"))
        self._connect().quit()
        trace = self.host.read("/tmp/ready").decode().splitlines()
        (ready,) = [number for number, line in enumerate(trace) if "READY=1" in line]
        (listening,) = [number for number, line in enumerate(trace) if line.startswith("listen(")]
        socket = re.match(r"listen\((\d+)", trace[listening])[1]
        (watching,) = [number for number, line in enumerate(trace)
                       if re.match(rf"epoll_ctl\(\d+, EPOLL_CTL_ADD, {socket}, .*= 0$", line)]
        self.assertLess(listening, watching)
        self.assertLess(watching, ready)

    def test_without_a_journal_it_finds_the_syslog_daemon_that_is_there_by_then(self):
        hidden = "mount -t tmpfs tmpfs /run/systemd/journal"
        self.host.run("unshare", "-m", "sh", "-c", f"{hidden}; exec popa3d -D --config {self.settings_file}")
        process = self._started()
        self._connect().quit()
        for _ in range(2):
            # /dev/log leads there.
            path = f"/proc/{process}/root/run/systemd/journal/dev-log"
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
                daemon.settimeout(60)
                daemon.bind(path)
                self._connect().quit()
                # The session before may end only now.
                while b"Session from" not in (line := daemon.recv(1000)):
                    pass
                self.assertRegex(line, rb"^<22>popa3d\[\d+\]: Session from 127\.0\.0\.1$")
            self._connect().quit()
            os.unlink(path)

    def _run(self, *options, service="simple", command=("popa3d",)):
        self.addCleanup(self.host.run, "systemctl", "stop", "listener.service", check=False)
        self.host.run("systemd-run", "--quiet", "--collect", "--unit=listener", f"--service-type={service}",
                      "-p", "NotifyAccess=all", *command, "-D", *options, "--config", self.settings_file)

    def _started(self):
        """The listener that this test has started."""
        self.until(lambda: self._listens(PORT), "the port")
        (process,) = self._others()
        return process

    def _others(self):
        main = self.listener()
        return [process for process in HostCase.processes(self)
                if parent(process) == self.host.leader and process != main]

    def _end_others(self):
        for process in self._others():
            os.kill(process, signal.SIGTERM)
        self.until(lambda: not self._others(), "their end")

    def _listens(self, port):
        return f":{port:04X} 00000000:0000 0A" in self.host.run("cat", "/proc/net/tcp").output

    def _connect(self, port=PORT):
        session = self.arrive(port)
        self.assertRegex(session.line(), rb"^\+OK")
        return session


class SocketUnits(Standalone, TlsCase):
    """systemd listens, by socket units with Accept=no."""

    def setUp(self):
        self.addCleanup(self.host.shell, f"systemctl stop {UNIT} plain.socket tls.socket; rm -f /run/systemd/system/plain.socket "
                        f"/run/systemd/system/tls.socket; systemctl daemon-reload; systemctl start {UNIT}")
        for name, port in (("plain", 2110), ("tls", 2995)):
            descriptor = {"plain": "pop3", "tls": "pop3s"}[name]
            self.host.write(f"/run/systemd/system/{name}.socket",
                            f"[Socket]\nListenStream=127.0.0.1:{port}\nFileDescriptorName={descriptor}\nService={UNIT}\n")
        self.host.shell(f"systemctl stop {UNIT}; systemctl daemon-reload; systemctl start plain.socket tls.socket")

    def test_they_are_used_by_their_names_and_no_others_are_made(self):
        self.host.run("systemctl", "start", UNIT)
        self._assert_serves()
        for port in (110, 995):
            self.assert_refused(port)

    def test_a_connection_starts_the_listener_and_a_restart_and_a_reload_keep_them(self):
        self._assert_serves()
        session = self.arrive(2110)
        self.assertRegex(session.line(), rb"^\+OK")
        self.reload()
        self._assert_serves()
        session.quit()
        self.host.run("systemctl", "restart", UNIT)
        self._assert_serves()
        for port in (110, 995):
            self.assert_refused(port)

    def _assert_serves(self):
        session = self.arrive(2110)
        self.assertRegex(session.line(), rb"^\+OK")
        session.quit()
        encrypted = self.arrive(2995)
        self.start_tls(encrypted, self.careless_context())
        self.assertRegex(encrypted.line(), rb"^\+OK")
        encrypted.quit()


def watched(listener):
    """What the listener waits for, by its epoll descriptor: its numbers are of src/listener/accept.rs."""
    (epoll,) = [entry.name for entry in pathlib.Path(f"/proc/{listener}/fd").iterdir()
                if os.readlink(entry) == "anon_inode:[eventpoll]"]
    text = pathlib.Path(f"/proc/{listener}/fdinfo/{epoll}").read_text(encoding="ascii")
    numbers = [int(number, 16) for number in re.findall(r"(?m)^tfd: .* data: +([0-9a-f]+) ", text)]
    named = {0: "signals", 1: "changes"}
    return {named.get(number, "socket" if number < 1 << 32 else "session") for number in numbers}
