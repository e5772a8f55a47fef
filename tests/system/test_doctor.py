"""popa3d --check-config on a host of its own, which is broken in one way after the other, and mended by the
command that the line says."""

import contextlib
import os
import random
import re
import time

from host import Host

from . import case
from .case import PASSWORD, HostCase
from .mail import mbox, messages

SOCKETS = ("popa3d.socket", "popa3ds.socket")
LISTENER = "popa3d.service"

BODY = b"one of many lines of about the usual length of a line in a message\n" * 300


class Doctor(HostCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls._boot()

    @classmethod
    def _boot(cls):
        cls.own = cls.enterClassContext(Host(case.RELEASE, layers=("clients",), deb=case.DEB))
        cls.own.run("systemctl", "enable", "--now", *SOCKETS)

    def setUp(self):
        checked = self.host.run("popa3d", "--check-config", check=False)
        if re.search("(?m)^(warning|error): ", checked.output):
            # A test that failed has left it broken; that is not this one's fault.
            self._boot()

    @property
    def host(self):
        return self.own

    def check(self, code=0, *options, **how):
        """What --check-config prints, with this exit status; nothing else comes, and the worst comes last."""
        checked = self.host.run("popa3d", "--check-config", *options, check=False, **how)
        self.assertEqual((checked.code, checked.errors), (code, ""), checked)
        lines = checked.output.splitlines()
        ranks = [("note", "warning", "error").index(line.split(": ")[0]) + 1
                 if re.match("(note|warning|error): ", line) else 0 for line in lines]
        self.assertEqual(ranks, sorted(ranks), checked)
        return lines

    def troubles(self, code=0, *options, **how):
        """The warnings and errors of --check-config."""
        return [line for line in self.check(code, *options, **how) if re.match("(warning|error): ", line)]

    def assert_healthy(self):
        self.assertEqual(self.troubles(), [])

    def finds(self, line, code):
        """Its only complaint is this LINE."""
        self.assertEqual(self.troubles(code), [line])
        return line

    def mend(self, line):
        """Does what a line says, and all is well again."""
        self.host.shell(line.rpartition("run: ")[2].partition(" (or")[0].partition("; journalctl")[0])
        # What was told to reload does so on its own.
        self.until(lambda: not re.search("(?m)^(warning|error): ", self.host.run("popa3d", "--check-config", check=False).output),
                   f"an end to: {line}")

    # A host as it should be

    def test_healthy_host_behind_sockets(self):
        lines = self.check()
        print("", *lines, sep="\n")
        self.assertLessEqual(len(lines), 11, lines)
        self.assert_healthy()
        for line in ("/etc/popa3d.toml: usable", "/etc/pam.d/popa3d: fine", "user popa3d, /usr/lib/popa3d/empty: fine",
                     "/var/mail: fine (root:mail 2775)", "/var/lib/popa3d, /run/popa3d: fine, no update is unfinished",
                     "popa3d.socket listens on [::]:110; popa3ds.socket listens on [::]:995"):
            self.assertIn(line, lines)
        self.assertRegex("\n".join(lines), r"(?m)^/etc/ssl/certs/ssl-cert-snakeoil\.pem: certificate usable for \d+ days, for ")
        self.assertRegex("\n".join(lines), r"(?m)^kernel \d.*: workers are confined, by an empty root, a system call filter "
                                           r"and Landlock \(version \d+")

    def test_healthy_host_that_stands_alone(self):
        self.host.run("systemctl", "disable", "--now", *SOCKETS)
        self.host.run("systemctl", "enable", "--now", LISTENER)
        try:
            self.assert_healthy()
            lines = self.check()
            print("", *lines, sep="\n")
            self.assertRegex("\n".join(lines), r"(?m)^popa3d\.service runs \(sessions: 0 now, ")
        finally:
            self.host.run("systemctl", "disable", "--now", LISTENER)
            self.host.run("systemctl", "enable", "--now", *SOCKETS)
        self.assert_healthy()

    def test_session_that_goes_on_is_no_trouble(self):
        user = self.account(messages(2))
        session = self.login(user)
        self.assert_healthy()
        session.quit()

    # Who looks, and from where

    def test_who_is_not_root_is_told_what_he_could_not_look_at(self):
        lines = self.check(user=self.account(), environment=("USER=x",))
        (note,) = [line for line in lines if "only root" in line]
        self.assertRegex(note, r"^note: only root can look at .*the password of user popa3d.*ssl-cert-snakeoil\.key.*"
                               r"redo records.*the confinement of workers; run it as root$")
        self.assertEqual([line for line in lines if re.match("(warning|error): ", line)], [])

    def test_without_systemd_it_says_so_and_who_listens(self):
        lines = self.host.run("unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /run/systemd; exec popa3d --check-config")
        self.assertRegex(lines.output, r"(?m)^note: systemd does not run here: port 110 is held by systemd, for another unit; ")
        self.assertEqual(lines.errors, "")

    def test_in_a_chroot_it_works(self):
        self.host.shell("mkdir -p /srv/root/usr/sbin; cp /usr/sbin/popa3d /srv/root/usr/sbin/; mkdir -p /srv/root/usr/lib; "
                        "for d in /usr/lib/*-linux-gnu /usr/lib64; do [ ! -d $d ] || cp -a --parents $d /srv/root; done; "
                        "cp -a /lib /lib64 /srv/root/ 2>/dev/null || true")
        self.addCleanup(self.host.run, "rm", "-r", "/srv/root")
        checked = self.host.run("chroot", "/srv/root", "/usr/sbin/popa3d", "--check-config", check=False)
        self.assertEqual((checked.code, checked.errors), (2, ""), checked)
        for line in ("note: systemd does not run here: ", "error: /etc/pam.d/popa3d: it is not there, ",
                     "error: user popa3d: ", "error: /usr/lib/popa3d/empty: it is not there, ", "error: /var/mail: it is not there, "):
            self.assertIn(f"\n{line}", f"\n{checked.output}")

    def test_a_reload_looks_at_the_settings_alone(self):
        self.pam(None)
        checked = self.host.run("popa3d", "-D", "--check-config")
        self.assertEqual((checked.output, checked.errors), ("", ""))

    # Settings and certificates

    def test_mistake_in_the_settings(self):
        self.settings("# first line\nmailbocks = 1\n")
        (line,) = self.troubles(2)
        self.assertRegex(line, r"^error: /etc/popa3d\.toml:2: .*`mailbocks`.*; nobody is served until this is mended, ")

    def test_expired_certificate(self):
        self.host.shell("cd /etc/ssl; openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=mail.example.org -days 1 "
                        "-keyout private/old.key -out certs/old.pem 2>/dev/null; chmod 600 private/old.key")
        self._date_back("/etc/ssl/private/old.key", "/etc/ssl/certs/old.pem")
        self.settings('certificates = [{ chain = "/etc/ssl/certs/old.pem", key = "/etc/ssl/private/old.key" }]\n')
        (line,) = self.troubles(2)
        self.assertRegex(line, r"^error: certificate cannot be used: /etc/ssl/certs/old\.pem: expired on 2020-02-01")

    def _date_back(self, key, chain):
        """A certificate of 2020, by this KEY."""
        self.host.shell(f"cd /tmp; rm -rf ca; mkdir ca; cd ca; : >index; printf '%s\\n' '[ca]' default_ca=a '[a]' database=index "
                        "new_certs_dir=. rand_serial=yes default_md=sha256 policy=p '[p]' commonName=supplied >cnf; "
                        f"openssl req -new -key {key} -subj /CN=mail.example.org -out r 2>/dev/null; "
                        f"openssl ca -batch -config cnf -selfsign -keyfile {key} -in r -notext -out {chain} "
                        "-startdate 20200101000000Z -enddate 20200201000000Z 2>/dev/null")

    def test_key_that_every_user_can_read(self):
        self.host.run("chmod", "644", "/etc/ssl/private/ssl-cert-snakeoil.key")
        self.mend(self.finds("warning: /etc/ssl/private/ssl-cert-snakeoil.key: every user can read this key; "
                             "run: chmod o= /etc/ssl/private/ssl-cert-snakeoil.key", 0))

    def test_credential_whose_file_is_missing(self):
        directory = "/etc/systemd/system/popa3d@.service.d"
        self.host.shell(f"mkdir -p {directory}; printf '[Service]\\nLoadCredential=popa3d.crt:/etc/ssl/mail.crt\\n"
                        f"LoadCredential=popa3d.key:/etc/ssl/private/ssl-cert-snakeoil.key\\n' >{directory}/tls.conf")
        self.finds("error: /etc/ssl/mail.crt: it is not there, and without it systemd starts no session: LoadCredential= in "
                   "popa3d@.service names it; run: systemctl edit popa3d@.service", 2)
        self.host.shell(f"rm -r {directory}; systemctl daemon-reload")
        self.assert_healthy()

    def test_credential_of_a_key_that_is_misspelt(self):
        directory = "/etc/systemd/system/popa3d@.service.d"
        self.host.shell(f"mkdir -p {directory}; printf '[Service]\\nLoadCredential=popa3d.crt:/etc/ssl/certs/ssl-cert-snakeoil.pem\\n"
                        f"LoadCredential=popa3.key:/etc/ssl/private/ssl-cert-snakeoil.key\\n' >{directory}/tls.conf")
        self.finds("error: popa3d.crt: there is no credential popa3d.key for it, and without it no TLS; run: systemctl edit "
                   "popa3d@.service and have it say [Service], LoadCredential=popa3d.key: with the path of the key behind it", 2)
        self.host.shell(f"sed -i s/popa3.key/popa3d.key/ {directory}/tls.conf")
        self.assert_healthy()
        self.host.shell(f"rm -r {directory}; systemctl daemon-reload")

    # PAM

    def test_service_file_that_is_gone(self):
        self.addCleanup(self.configure, "/etc/pam.d/popa3d", self.host.read("/etc/pam.d/popa3d"))
        self.host.run("rm", "/etc/pam.d/popa3d")
        self.mend(self.finds("error: /etc/pam.d/popa3d: it is not there, and nobody can log in; "
                             "run: printf '@include common-%s\\n' auth account session-noninteractive >/etc/pam.d/popa3d", 2))
        self.login(self.account(messages(1))).quit()

    def test_misspelt_module_control_and_type(self):
        for text, mistake in (
            ("auth required pam_unix.so\naccount required pam_unixx.so\n", r"2: there is no module .*/security/pam_unixx\.so, and"),
            ("auth requierd pam_unix.so\n", r'1: "requierd" is none of required, .*, and PAM refuses'),
            ("auht required pam_unix.so\n", r'1: "auht" is none of auth, .*, and PAM refuses'),
            ("@include common-auth\n@include comon-account\n", r"2: there is no /etc/pam\.d/comon-account, and"),
        ):
            with self.subTest(text=text):
                self.pam(text)
                (line,) = self.troubles(2)
                self.assertRegex(line, rf"^error: /etc/pam\.d/popa3d:{mistake} .*edit /etc/pam\.d/popa3d$")
                session = self.connect()
                session.ok(f"USER {self.account(messages(1))}")
                session.err(f"PASS {PASSWORD}")
                session.close()

    def test_stack_that_falls_through_to_other(self):
        self.pam("@include common-auth\n@include common-account\n")
        self.mend(self.finds("warning: /etc/pam.d/popa3d: it has no session rule, so that those of /etc/pam.d/other count; "
                             "run: echo '@include common-session-noninteractive' >>/etc/pam.d/popa3d", 0))

    def test_stack_that_everybody_can_change(self):
        self.host.run("chmod", "666", "/etc/pam.d/common-auth")
        self.mend(self.finds("error: /etc/pam.d/common-auth: others than root can change it, and so who may log in; "
                             "run: chown root /etc/pam.d/common-auth && chmod go-w /etc/pam.d/common-auth", 2))

    # The user popa3d

    def test_user_that_is_gone(self):
        self.host.run("userdel", "popa3d")
        self.mend(self.finds("error: user popa3d: there is none, and nobody is served; run: systemd-sysusers popa3d.conf", 2))
        self.connect().quit()

    def test_user_who_shares_a_number_has_a_shell_and_a_password(self):
        self.host.shell("useradd -o -u $(id -u popa3d) -g $(id -g popa3d) twin")
        number = self.host.run("id", "-u", "popa3d").output.strip()
        self.finds(f"error: user popa3d: twin has the same number {number}, and could meddle with workers; "
                   "run: userdel popa3d && systemd-sysusers popa3d.conf", 2)
        self.host.run("userdel", "-f", "twin")
        self.host.run("usermod", "--shell", "/bin/bash", "popa3d")
        self.mend(self.finds("warning: user popa3d: it has a shell, /bin/bash; run: usermod --shell /usr/sbin/nologin popa3d", 0))
        self.host.run("chpasswd", stdin="popa3d:secret\n")
        self.mend(self.finds("warning: user popa3d: it has a password; run: usermod --lock popa3d", 0))

    def test_its_directory(self):
        make = "run: install -d -o root -g root -m 0555 /usr/lib/popa3d/empty"
        self.host.run("rmdir", "/usr/lib/popa3d/empty")
        self.mend(self.finds(f"error: /usr/lib/popa3d/empty: it is not there, and nobody is served; {make}", 2))
        self.host.run("chmod", "777", "/usr/lib/popa3d/empty")
        self.mend(self.finds(f"error: /usr/lib/popa3d/empty: others than root can write there (mode 0777); {make}", 2))
        self.host.run("chmod", "755", "/usr/lib/popa3d/empty")
        self.mend(self.finds("warning: /usr/lib/popa3d/empty: its mode is 0755, it should be 0555; "
                             "run: chmod 0555 /usr/lib/popa3d/empty", 0))

    def test_something_in_its_directory_is_shown_without_its_control_characters(self):
        self.host.write("/usr/lib/popa3d/empty/\x1b[2J", "")
        self.mend(self.finds("warning: /usr/lib/popa3d/empty: it is not empty, \\u{1b}[2J is in it, which workers could see; "
                             "look at it, and run: find /usr/lib/popa3d/empty -mindepth 1 -delete", 0))

    # The spool

    def test_mode_of_the_spool(self):
        make = "run: install -d -o root -g mail -m 2775 /var/mail"
        for mode, line, code in (
            ("0755", "warning: /var/mail: users can make no lock file there (root:mail 0755), so programs that use nothing "
                     f"else are not kept away; {make} (or set dotlock = false)", 0),
            ("2770", f"error: /var/mail: users do not reach their mailboxes in it (root:mail 2770); {make}", 2),
            ("0777", f"error: /var/mail: every user can take away everybody's mail (root:mail 0777); {make}", 2),
        ):
            with self.subTest(mode=mode):
                self.host.shell(f"chmod u-s,g-s,-t /var/mail; chmod {mode} /var/mail")
                self.mend(self.finds(line, code))
        self.host.run("chmod", "1777", "/var/mail")
        self.assert_healthy()
        self.host.shell(make.removeprefix("run: "))

    def test_spool_that_is_gone(self):
        self.host.run("mv", "/var/mail", "/var/mail.gone")
        self.finds("error: /var/mail: it is not there, and every maildrop is empty; "
                   "run: install -d -o root -g mail -m 2775 /var/mail", 2)
        self.host.run("mv", "/var/mail.gone", "/var/mail")
        self.assert_healthy()

    def test_mailboxes_that_are_links_or_others_or_open(self):
        link, stolen, one, two = (self.account(messages(1)) for _ in range(4))
        self.addCleanup(self.host.run, "rm", *(f"/var/mail/{user}" for user in (link, stolen, one, two)))
        self.host.shell(f"mv /var/mail/{link} /home/{link}/mbox; ln -s /home/{link}/mbox /var/mail/{link}\n"
                        f"chown nobody /var/mail/{stolen}; chmod 644 /var/mail/{one} /var/mail/{two}")
        first = min(one, two)
        self.assertEqual(self.troubles(), [
            f"warning: /var/mail: {link} cannot log in, the mailbox is a link or no file at all; "
            f"look at it (ls -l /var/mail/{link}), and put the file itself there",
            f"warning: /var/mail: {stolen} cannot log in, the mailbox is somebody else's; run: chown {stolen} /var/mail/{stolen}",
            f"warning: /var/mail: other users can read or write the mailbox of {first} and 1 more; "
            f"run: chmod o= /var/mail/{first} && chgrp mail /var/mail/{first}",
        ])
        self.refused(link, b"SYS/PERM")
        self.refused(stolen, b"SYS/PERM")

    def test_spool_that_users_reach_by_their_group(self):
        user = self.account(messages(1))
        self.host.shell("chgrp users /var/mail; chmod 3770 /var/mail")
        try:
            self.finds("error: /var/mail: users do not reach their mailboxes in it (root:users 3770); "
                       "run: install -d -o root -g mail -m 2775 /var/mail", 2)
            self.host.shell("for user in $(ls /var/mail); do usermod -aG users $user 2>/dev/null || true; done")
            self.assert_healthy()
            self.login(user).quit()
            self.until_idle()
        finally:
            self.host.run("install", "-d", "-o", "root", "-g", "mail", "-m", "2775", "/var/mail")

    def test_lock_file_that_was_left_behind(self):
        user = self.account(messages(1))
        lock = f"/var/mail/{user}.lock"
        self.host.write(lock, "1\n")
        self.assert_healthy()
        self.host.run("touch", "-d", "3 hours ago", lock)
        line = self.finds(f"warning: /var/mail: the lock file of {user} is old; as long as a process has the number in it, "
                          f"logins get [IN-USE]; look at which one that is (cat -v {lock}), and if it does nothing with "
                          f"mail, run: rm {lock}", 0)
        self.settings("lock-timeout = \"1s\"\n")
        self.refused(user, b"IN-USE")
        self.mend(line)

    def test_lock_file_that_is_none(self):
        user = self.account(messages(1))
        lock = f"/var/mail/{user}.lock"
        self.settings("lock-timeout = \"1s\"\n")
        self.host.run("mkdir", lock)
        self.addCleanup(self.host.shell, f"rmdir {lock} || true")
        self.finds(f"warning: /var/mail: the lock file of {user} is a link or no file at all, and each login gets [IN-USE]; "
                   f"look at it (ls -ld {lock}), and move it away", 0)
        self.refused(user, b"IN-USE")
        self.host.run("rmdir", lock)
        self.host.shell(f"touch -d '3 hours ago' {lock}")
        self.assert_healthy()
        self.login(user).quit()

    def test_two_names_of_one_user(self):
        user = self.account()
        number = self.host.run("id", "-u", user).output.strip()
        self.host.run("useradd", "-o", "-u", number, "-d", f"/home/{user}", "-M", f"{user}x")
        self.addCleanup(self.host.run, "userdel", "-f", f"{user}x")
        self.assert_healthy()
        self.settings('mailbox = "{home}/Mailbox"\n')
        self.finds(f"warning: mailboxes: {user} and {user}x have the same number {number} and the same mailbox "
                   f"/home/{user}/Mailbox: both can have a session at once, and the update of one that a crash interrupted "
                   "is not finished by the other; let mail be fetched by one of the names, or have {user} in mailbox = "
                   "(popa3d.toml(5))", 0)

    def test_large_spool_is_not_looked_through_to_its_end(self):
        self.host.shell("cd /var/mail; seq -f nouser%g 20500 | xargs touch")
        self.addCleanup(self.host.shell, "cd /var/mail; seq -f nouser%g 20500 | xargs rm")
        self.assert_healthy()
        self.assertRegex("\n".join(self.check()), r"(?m)^note: /var/mail: the first \d+ names in it were looked at, and no more$")

    def test_homes_that_the_unit_hides(self):
        self.settings('mailbox = "{home}/Mailbox"\n')
        self.assert_healthy()
        self.host.run("systemctl", "disable", "--now", *SOCKETS)
        self.host.run("systemctl", "enable", "--now", LISTENER)
        try:
            self.finds("error: mailboxes: homes in /home, where they are, are hidden from popa3d.service; run: systemctl edit popa3d.service "
                       "and have it say [Service], ProtectHome=no; then restart it", 2)
            user = self.account()
            self.host.shell("mkdir -p /etc/systemd/system/popa3d.service.d; printf '[Service]\\nProtectHome=no\\n' "
                            ">/etc/systemd/system/popa3d.service.d/homes.conf; systemctl daemon-reload")
            self.mend(self.finds("warning: popa3d.service runs since before /etc/systemd/system/popa3d.service.d/homes.conf was "
                                 "changed, which does not hold yet; run: systemctl restart popa3d.service", 0))
            # What ProtectSystem=strict makes read-only does not take in homes.
            self.host.shell(f"printf 'From a@b Thu Jan  1 00:00:00 1970\\nSubject: x\\n\\nx\\n' >/home/{user}/Mailbox; "
                            f"chown {user} /home/{user}/Mailbox; chmod 600 /home/{user}/Mailbox")
            session = self.login(user)
            session.ok("DELE 1")
            session.quit()
            self.assertEqual(self.host.run("stat", "-c", "%s", f"/home/{user}/Mailbox").output.strip(), "0")
        finally:
            self.host.shell("rm -rf /etc/systemd/system/popa3d.service.d; systemctl daemon-reload")
            self.host.run("systemctl", "disable", "--now", LISTENER)
            self.host.run("systemctl", "enable", "--now", *SOCKETS)

    # Units and ports

    def test_nobody_who_listens(self):
        self.host.run("systemctl", "disable", "--now", *SOCKETS)
        line = self.finds("warning: nobody listens: neither popa3d.socket and popa3ds.socket nor popa3d.service is enabled; "
                          "run: systemctl enable --now popa3d.socket popa3ds.socket (or, standing alone: popa3d.service alone)", 0)
        self.mend(line)

    def test_socket_that_was_stopped(self):
        self.host.run("systemctl", "stop", "popa3ds.socket")
        self.mend(self.finds("error: popa3ds.socket is enabled and inactive; run: systemctl restart popa3ds.socket; "
                             "journalctl -u popa3ds.socket -n 20 tells why if that fails", 2))

    def test_socket_that_is_not_enabled(self):
        self.host.run("systemctl", "disable", "popa3d.socket")
        self.mend(self.finds("warning: popa3d.socket is up, but not enabled: it is gone after a boot; "
                             "run: systemctl enable popa3d.socket", 0))

    def test_another_program_on_the_port(self):
        self.host.run("systemctl", "stop", "popa3d.socket")
        self._start_other()
        self.assertNotEqual(self.host.run("systemctl", "start", "popa3d.socket", check=False).code, 0)
        (line,) = self.troubles(2)
        self.assertRegex(line, r"^error: popa3d\.socket is enabled and failed \(resources\); port 110 is held by python3 "
                               r"\(process \d+, old-pop3\.service\); run: systemctl disable --now old-pop3\.service && "
                               r"systemctl restart popa3d\.socket$")
        self.mend(line)

    def _start_other(self):
        """Another POP3 server, as far as a port can tell."""
        self.host.write("/etc/systemd/system/old-pop3.service", "[Service]\nExecStart=/usr/bin/python3 -m http.server 110\n"
                        "[Install]\nWantedBy=multi-user.target\n")
        self.addCleanup(self.host.shell, "systemctl stop old-pop3; rm -f /etc/systemd/system/old-pop3.service; "
                                         "systemctl daemon-reload; systemctl restart popa3d.socket")
        self.host.shell("systemctl daemon-reload; systemctl start old-pop3.service")
        self.until(lambda: re.search(r":006E \S+ 0A ", self.host.run("cat", "/proc/net/tcp", "/proc/net/tcp6").output), "the port")

    def test_both_ways_enabled_at_once(self):
        self.host.run("systemctl", "enable", LISTENER)
        self.mend(self.finds("warning: popa3d.service and its sockets are both enabled: which of them listens after a boot "
                             "is chance; run: systemctl disable popa3d.service", 0))

    def test_listener_that_does_not_start(self):
        self.host.run("systemctl", "disable", "--now", *SOCKETS)
        try:
            self._start_other()
            self.host.shell("systemctl enable popa3d.service; systemctl start --no-block popa3d.service")
            pattern = (r"^error: popa3d\.service is enabled and (activating|failed)[^;]*; port 110 is held by python3 "
                       r"\(process \d+, old-pop3\.service\); run: ")
            found = self.until(lambda: [line for line in self.host.run("popa3d", "--check-config", check=False).output.splitlines()
                                        if re.match(pattern, line)], "the listener to fail")
            self.assertEqual(len(found), 1)
        finally:
            self.host.shell("systemctl disable --now popa3d.service; systemctl reset-failed popa3d.service || true; "
                            "systemctl stop old-pop3; systemctl enable --now popa3d.socket popa3ds.socket")

    def test_listener_with_less_room_than_sessions(self):
        self.host.run("systemctl", "disable", "--now", *SOCKETS)
        self.settings("max-sessions = 5000\n")
        try:
            self.host.run("systemctl", "enable", "--now", LISTENER)
            self.finds("warning: popa3d.service: TasksMax=8192 is room for fewer than the 5000 sessions of max-sessions, which "
                       "are two processes each and more; run: systemctl edit popa3d.service and have it say [Service], "
                       "TasksMax=15100; then restart it", 0)
        finally:
            self.host.run("systemctl", "disable", "--now", LISTENER)
            self.host.run("systemctl", "enable", "--now", *SOCKETS)

    def test_expiry_that_is_off(self):
        self.host.run("systemctl", "disable", "--now", "popa3d-expire.timer")
        self.addCleanup(self.host.run, "systemctl", "enable", "--now", "popa3d-expire.timer")
        self.assert_healthy()
        self.settings("keep-deleted = \"7d\"\n")
        self.mend(self.finds("warning: popa3d-expire.timer is off, and keep-deleted is not: deleted mail of users who do not "
                             "come back is kept for good; run: systemctl enable --now popa3d-expire.timer", 0))

    def test_listener_that_is_not_to_listen_where_another_program_does(self):
        self.host.run("systemctl", "disable", "--now", *SOCKETS)
        self.settings('listen = ["127.0.0.1:2110"]\nlisten-tls = []\n')
        try:
            self._start_other()
            self.host.run("systemctl", "enable", LISTENER)
            self.mend(self.finds("error: popa3d.service is enabled and inactive; run: systemctl restart popa3d.service; "
                                 "journalctl -u popa3d.service -n 20 tells why if that fails", 2))
        finally:
            self.host.shell("systemctl disable --now popa3d.service; systemctl stop old-pop3; "
                            "systemctl enable --now popa3d.socket popa3ds.socket")

    def test_super_server_that_starts_popa3d(self):
        self.host.run("systemctl", "disable", "--now", *SOCKETS)
        try:
            self.host.run("systemd-run", "--quiet", "--unit=tcpserver", "python3", "-c",
                          "import http.server; http.server.test(port=110)", "/usr/sbin/popa3d")
            self.until(lambda: re.search(r":006E \S+ 0A ", self.host.run("cat", "/proc/net/tcp", "/proc/net/tcp6").output), "the port")
            self.assert_healthy()
            self.assertRegex("\n".join(self.check()), r"(?m)^port 110 is held by python3 \(process \d+, tcpserver\.service\), "
                                                      r"which starts popa3d$")
        finally:
            self.host.run("systemctl", "stop", "tcpserver.service")
            self.host.run("systemctl", "enable", "--now", *SOCKETS)

    def test_listener_that_has_not_seen_a_certificate(self):
        self.host.run("systemctl", "disable", "--now", *SOCKETS)
        key = "/etc/ssl/private/ssl-cert-snakeoil.key"
        try:
            self.host.shell(f"mv {key} {key}.gone; systemctl enable --now popa3d.service; mv {key}.gone {key}")
            self.mend(self.finds("error: popa3d.service runs, and nobody listens on port 995, which the settings name; "
                                 "run: systemctl reload popa3d.service; journalctl -t popa3d -n 20 tells why if that fails", 2))
        finally:
            self.host.run("systemctl", "disable", "--now", LISTENER)
            self.host.run("systemctl", "enable", "--now", *SOCKETS)

    def test_address_that_the_host_does_not_have(self):
        self.host.run("systemctl", "disable", "--now", *SOCKETS)
        try:
            self.host.run("systemctl", "enable", "--now", LISTENER)
            self.settings('listen = ["192.0.2.55:110"]\n')
            self.finds("error: listening on 192.0.2.55:110: this host does not have the address, and popa3d.service does not "
                       "start again without it; have listen and listen-tls name one of those that ip address shows, or "
                       '"[::]:110" for all', 2)
        finally:
            self.settings("")
            self.host.run("systemctl", "disable", "--now", LISTENER)
            self.host.run("systemctl", "enable", "--now", *SOCKETS)

    def test_port_for_tls_without_certificates(self):
        self.settings("certificates = []\n")
        line = self.finds("warning: popa3ds.socket listens, and certificates = [] is no TLS: whoever connects there is not served; "
                          "run: systemctl disable --now popa3ds.socket (or take that line out of the settings)", 0)
        self.addCleanup(self.host.run, "systemctl", "enable", "--now", "popa3ds.socket")
        self.mend(line)

    def test_units_that_systemd_has_not_read_anew(self):
        drop_in = "/etc/systemd/system/popa3d.socket.d/limit.conf"
        self.host.shell(f"mkdir -p {os.path.dirname(drop_in)}; printf '[Socket]\\nMaxConnections=200\\n' >{drop_in}; "
                        f"touch -d yesterday {drop_in}; systemctl daemon-reload")
        self.assert_healthy()
        self.host.shell(f"echo MaxConnectionsPerSource=20 >>{drop_in}")
        self.addCleanup(self.host.shell, "rm -r /etc/systemd/system/popa3d.socket.d; systemctl daemon-reload")
        self.mend(self.finds("warning: popa3d.socket: its files were changed, and systemd has not read them since; "
                             "run: systemctl daemon-reload", 0))

    # What is kept

    def test_update_that_a_crash_interrupted(self):
        user = self._interrupted()
        line = self.finds(f"warning: a crash interrupted the update of the mailbox of {user}; the next login finishes it, "
                          "or run: popa3d --recover", 0)
        self.mend(line)

    def test_redo_record_that_is_kept_aside(self):
        user = self._interrupted()
        self.host.shell(f"mv /var/mail/{user} /var/mail/{user}.old")
        self.host.deliver(user, mbox(messages(3)))
        self.login(user).quit()
        self.until_idle()
        self.mend(self.finds(f"warning: a redo record of {user} is kept aside, since another program changed the mailbox after "
                             "a crash; see that no mail is missing there (the record holds some), then "
                             f"run: rm -r /var/lib/popa3d/redo-aside/{user}", 0))

    def _interrupted(self):
        """A user whose UPDATE was killed half-way."""
        mail = messages(3000, BODY)
        old, new = mbox(mail), mbox(mail[1:])
        user = self.account(b"")
        record = self.host.path(f"/var/lib/popa3d/redo/{user}")
        for _ in range(30):
            self.host.mailbox(user).write_bytes(old)
            session = self.login(user)
            session.ok("DELE 1")
            session.send(b"QUIT\r\n")
            deadline = time.monotonic() + 60
            while not record.exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.1))
            self.host.run("systemctl", "kill", "--signal=KILL", "popa3d@*", check=False)
            session.close()
            self.until_idle()
            if record.exists() and self.host.mailbox(user).read_bytes() not in (old, new):
                return user
            self.host.run("popa3d", "--recover")
        return self.fail("no kill came at the right time")

    def test_directory_that_others_can_change(self):
        self.host.run("chmod", "777", "/var/lib/popa3d")
        self.mend(self.finds("error: /var/lib/popa3d: others than root can write there (owner 0, mode 0777); "
                             "run: install -d -o root -g root -m 0700 /var/lib/popa3d", 2))
        self.host.run("chmod", "755", "/run/popa3d")
        self.mend(self.finds("warning: /run/popa3d: others than root can look into it (mode 0755); run: chmod 0700 /run/popa3d", 0))

    def test_file_systems_without_room(self):
        with self._mounted("/var/lib/popa3d", "size=64k,mode=700"):
            self.finds("error: /var/lib/popa3d: its file system is full, and mail cannot be deleted; make room "
                       "(df -h /var/lib/popa3d; df -i /var/lib/popa3d)", 2)
        with self._mounted("/var/lib/popa3d", "size=8m,mode=700"):
            self.finds("warning: /var/lib/popa3d: its file system has 8 MiB left, and deleting from a large mailbox may take 64; "
                       "make room (df -h /var/lib/popa3d; df -i /var/lib/popa3d)", 0)
        with self._mounted("/var/mail", "size=1m,mode=2775,gid=$(getent group mail | cut -d: -f3)"):
            self.host.shell("dd if=/dev/zero of=/var/mail/filler bs=4k 2>/dev/null || true")
            self.finds("warning: /var/mail: its file system is full, and mail cannot be delivered; deleting works; make room "
                       "(df -h /var/mail; df -i /var/mail)", 0)
        with self._mounted("/var/mail", "ro,mode=2775,gid=$(getent group mail | cut -d: -f3)"):
            self.finds("error: /var/mail: its file system is read-only, and mail cannot be deleted; "
                       "run: dmesg | tail; mount -o remount,rw /var/mail", 2)
        self.assert_healthy()

    @contextlib.contextmanager
    def _mounted(self, place, options):
        self.host.shell(f"mount -t tmpfs -o {options} tmpfs {place}")
        try:
            yield
        finally:
            self.host.run("umount", place)

    # The kernel

    def test_kernel_without_landlock(self):
        checked = self._filtered("landlock_create_ruleset", "ENOSYS")
        self.assertRegex(checked.output, r"(?m)^warning: kernel \S+: there is no Landlock; workers are confined by an empty root "
                                         r"and a system call filter alone; boot a kernel that has it, ")
        self.assertEqual(checked.code, 0, checked)

    def test_host_that_keeps_workers_from_locking_themselves_in(self):
        for call in ("chroot", "seccomp"):
            with self.subTest(call):
                checked = self._filtered(call, "EPERM")
                self.assertRegex(checked.output, r"(?m)^error: kernel \S+: a worker cannot lock itself in, and nobody is served: .*; "
                                                 r"a container must allow chroot and seccomp, ")
                self.assertEqual(checked.code, 2, checked)

    def _filtered(self, call, error):
        """What is found where the kernel does not have, or does not allow, a system CALL."""
        return self.host.run("systemd-run", "--quiet", "--pipe", "--wait", "-p", f"SystemCallFilter=~{call}",
                             "-p", f"SystemCallErrorNumber={error}", "popa3d", "--check-config", check=False)

    # The journal

    def test_journal_that_is_gone_and_one_that_is_kept_in_memory(self):
        for place, line in (
            ("/run/systemd/journal", "warning: journal: /run/systemd/journal/socket does not answer, and nobody hears what goes "
             "wrong; run: systemctl restart systemd-journald.socket systemd-journald.service"),
            ("/var/log", "note: journal: kept in memory, and gone after a boot; "
             "run: mkdir -p /var/log/journal && journalctl --flush"),
        ):
            with self.subTest(place=place):
                checked = self.host.run("unshare", "-m", "sh", "-c", f"mount -t tmpfs tmpfs {place}; exec popa3d --check-config")
                self.assertIn(f"\n{line}\n", checked.output)

    # All at once

    def test_host_that_is_broken_in_many_ways(self):
        user = self._interrupted()
        key, pam = "/etc/ssl/private/ssl-cert-snakeoil.key", self.host.read("/etc/pam.d/popa3d")
        number = self.host.run("id", "-u", "popa3d").output.strip()
        self.addCleanup(self.configure, "/etc/pam.d/popa3d", pam)
        self.pam("@include common-auth\naccount required pam_unixx.so\n")
        self.host.shell(f"chmod 644 {key}; chmod 2770 /var/mail; chown nobody /var/mail/{user}; systemctl stop popa3d.socket; "
                        "chmod 755 /run/popa3d; userdel popa3d")
        self._start_other()
        self.host.run("systemctl", "start", "popa3d.socket", check=False)
        self.settings("max-mailbox-size = \"2G\"\n")
        lines = self.check(2)
        print("", *lines, sep="\n")
        kinds = [line.split(": ")[0] for line in lines]
        self.assertEqual((kinds.count("warning"), kinds.count("error")), (4, 4), lines)
        # Each line is mended by its command, the worst first.
        for line in sorted(lines, key=lambda line: line.split(": ")[0]):
            if "run: " in line and not line.startswith("note: "):
                self.host.shell(line.rpartition("run: ")[2].partition(" (or")[0].partition("; journalctl")[0])
        self.pam(pam.decode())
        self.assert_healthy()
        self.assertTrue(number and not os.path.exists(self.host.path(f"/var/lib/popa3d/redo/{user}")))
