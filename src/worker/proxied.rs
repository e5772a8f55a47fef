//! Behind a proxy: its header comes first and says who the client is.

use std::os::fd::AsFd;

use super::client::{NoHeader, ending};
use super::deadline::Deadline;
use super::session::Session;
use crate::channel::{Answer, Ending, ProxyTls, Request};
use crate::pop3::reply::{self, Code};
use crate::proxy::{Header, Tls};

impl Session<'_> {
    /// Takes the header of a proxy, and has the monitor decide what its client may do.
    pub(super) fn await_proxy(&mut self) -> Result<(), Ending> {
        let deadline = Deadline::after(self.start.handshake_timeout);
        let received = self.client.receive_header(self.monitor.as_fd(), deadline);
        let Header { client, tls } = received.map_err(|error| match error {
            NoHeader::Ended(ending) => ending,
            NoHeader::Malformed(why) => self.refuse_header(&why.to_string()),
            NoHeader::Unfinished => self.refuse_header("the connection ended in the middle of it"),
            NoHeader::TimedOut => {
                self.refuse_header("it took too long (handshake-timeout, login-timeout)")
            }
        })?;
        self.encrypted_to_proxy = tls.is_some();
        let tls = tls.map(|Tls { version, suite }| ProxyTls { version, suite });
        let told = self.monitor.send(&Request::Proxied { client, tls }, None);
        told.map_err(|_| Ending::Failed)?;
        match self.monitor.receive() {
            Ok((Answer::Admitted { takes_passwords }, None)) => {
                self.takes_passwords = takes_passwords;
                Ok(())
            }
            Ok((Answer::NotAdmitted, None)) => {
                let text = "too many connections from your address";
                Err(self.turn_away(Some(Code::SysTemp), text, Ending::NotAdmitted))
            }
            Ok(_) | Err(_) => Err(Ending::Failed),
        }
    }

    /// There is a header where none may be.
    pub(super) fn refuse_unexpected_header(&mut self) -> Ending {
        self.refuse_header(if self.start.behind_proxy {
            "a second one came behind that of the proxy"
        } else {
            "none is expected from this address (proxies)"
        })
    }

    /// The same, or there is none that can be used where one must be.
    fn refuse_header(&mut self, reason: &str) -> Ending {
        match self.monitor.send(&Request::ProxyRefused(reason.to_owned()), None) {
            Ok(()) => self.turn_away(None, "PROXY header refused", Ending::HeaderRefused),
            Err(_) => Ending::Failed,
        }
    }

    /// Says why there is no session, where that can be read.
    fn turn_away(&mut self, code: Option<Code>, text: &str, turned_away: Ending) -> Ending {
        let output = &mut self.client.output;
        let said = match code {
            _ if self.start.implicit_tls => Ok(()),
            Some(code) => reply::err_with(output, code, text),
            None => reply::err(output, text),
        };
        said.map_or_else(ending, |()| turned_away)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    use nix::unistd::Pid;

    use super::*;
    use crate::channel::{ToWorker, Totals, pair};
    use crate::mbox::Limits;
    use crate::worker::{Confinement, Start, session};

    const HEADER: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 51822 110\r\n";

    fn start() -> Start {
        Start {
            confinement: Confinement {
                parent: Pid::this(),
                jail: None,
                limits: Limits { messages: 1, file_size: None },
            },
            login_attempts: 1,
            idle_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(60),
            login_timeout: Duration::from_secs(60),
            behind_proxy: true,
            implicit_tls: false,
            log_expunged: true,
            takes_plaintext: true,
        }
    }

    /// What the client reads that sends `octets` and nothing more, and what the monitor hears, when
    /// `answer` is its first answer.
    fn run(start: Start, octets: &[u8], answer: Option<Answer>) -> (String, Vec<Request>) {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (monitor, worker): (ToWorker, _) = pair().unwrap();
        client.write_all(octets).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let session = thread::spawn(move || session::run(&start, server.into(), worker));
        let mut heard = Vec::new();
        if let Some(answer) = answer {
            heard.push(monitor.receive().unwrap().0);
            monitor.send(&answer, None).unwrap();
        }
        while let Ok((request, None)) = monitor.receive() {
            if request == Request::OffersTls {
                monitor.send(&Answer::OffersTls(false), None).unwrap();
            }
            heard.push(request);
            if matches!(heard.last(), Some(Request::End { .. })) {
                break;
            }
        }
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        session.join().unwrap().unwrap();
        (said, heard)
    }

    fn end(ending: Ending) -> Request {
        Request::End { ending, retrieved: Totals::default() }
    }

    #[test]
    fn greeting_comes_when_the_client_is_admitted_and_what_it_sent_is_answered() {
        let octets = format!("{HEADER}USER alice\r\nQUIT\r\n");
        let answer = Answer::Admitted { takes_passwords: true };
        let (said, heard) = run(start(), octets.as_bytes(), Some(answer));
        assert_eq!(said.lines().map(|line| &line[..3]).collect::<Vec<_>>(), ["+OK"; 3], "{said}");
        let client = Some(("192.0.2.7".parse().unwrap(), 51822));
        assert_eq!(heard, [Request::Proxied { client, tls: None }, end(Ending::Quit)]);
    }

    #[test]
    fn monitor_says_whether_passwords_are_taken() {
        let octets = format!("{HEADER}USER alice\r\nQUIT\r\n");
        let answer = Answer::Admitted { takes_passwords: false };
        let (said, heard) = run(start(), octets.as_bytes(), Some(answer));
        assert!(said.contains("-ERR no password without encryption"), "{said}");
        // It is not told to use what there is not.
        assert!(said.contains("no certificate") && !said.contains("STLS"), "{said}");
        let expected = [Request::PlaintextRefused, Request::OffersTls, end(Ending::Quit)];
        assert_eq!(heard[1..], expected);
    }

    #[test]
    fn client_that_is_not_admitted_is_told_and_nothing_else_is_done_for_it() {
        let octets = format!("{HEADER}USER alice\r\nQUIT\r\n");
        let (said, heard) = run(start(), octets.as_bytes(), Some(Answer::NotAdmitted));
        assert_eq!(said, "-ERR [SYS/TEMP] too many connections from your address\r\n");
        assert_eq!(heard[1..], [end(Ending::NotAdmitted)]);
    }

    #[test]
    fn nothing_is_said_where_tls_is_expected() {
        let start = || Start { implicit_tls: true, ..start() };
        let (said, _) = run(start(), HEADER.as_bytes(), Some(Answer::NotAdmitted));
        assert_eq!(said, "");
        let (said, heard) = run(start(), b"USER alice\r\n", None);
        assert_eq!(said, "");
        assert!(matches!(heard[..], [Request::ProxyRefused(_), _]), "{heard:?}");
    }

    #[test]
    fn client_reads_that_the_server_ends_the_session_unless_tls_has_to_begin() {
        for behind_proxy in [true, false] {
            for implicit_tls in [true, false] {
                let (mut client, server) = UnixStream::pair().unwrap();
                let (monitor, worker): (ToWorker, _) = pair().unwrap();
                drop(monitor);
                let start = Start { behind_proxy, implicit_tls, ..start() };
                assert!(session::run(&start, server.into(), worker).is_err());
                let mut said = String::new();
                client.read_to_string(&mut said).unwrap();
                assert_eq!(said.contains("[SYS/TEMP]"), !implicit_tls, "{said}");
                assert_eq!(said.is_empty(), implicit_tls, "{said}");
            }
        }
    }

    #[test]
    fn second_header_is_called_one() {
        let octets = [HEADER, HEADER].concat();
        let answer = Answer::Admitted { takes_passwords: true };
        let (said, heard) = run(start(), octets.as_bytes(), Some(answer));
        assert!(said.ends_with("-ERR PROXY header refused\r\n"), "{said}");
        let [_, Request::ProxyRefused(reason), _] = &heard[..] else { panic!("{heard:?}") };
        assert!(reason.contains("second"), "{reason}");
    }

    #[test]
    fn header_that_is_none_is_refused_and_nothing_behind_it_is_done() {
        for octets in ["USER alice\r\nPASS x\r\nQUIT\r\n", "PROXY TCP4\r\nQUIT\r\n", "PROXY TCP"] {
            let (said, heard) = run(start(), octets.as_bytes(), None);
            assert_eq!(said, "-ERR PROXY header refused\r\n", "{octets:?}");
            let [Request::ProxyRefused(_), ended] = &heard[..] else { panic!("{heard:?}") };
            assert_eq!(*ended, end(Ending::HeaderRefused), "{octets:?}");
        }
    }

    #[test]
    fn proxy_that_goes_as_it_came_has_done_nothing() {
        assert_eq!(run(start(), b"", None), (String::new(), vec![end(Ending::Disconnected)]));
    }

    #[test]
    fn header_that_does_not_come_in_time_is_refused() {
        let (_client, server) = UnixStream::pair().unwrap();
        let (monitor, worker): (ToWorker, _) = pair().unwrap();
        let start = Start { handshake_timeout: Duration::ZERO, ..start() };
        thread::spawn(move || session::run(&start, server.into(), worker));
        let (request, _) = monitor.receive().unwrap();
        let Request::ProxyRefused(reason) = request else { panic!("{request:?}") };
        assert!(reason.contains("handshake-timeout"), "{reason}");
    }

    #[test]
    fn header_from_elsewhere_is_refused_as_the_first_thing_and_is_no_command_later() {
        let start = || Start { behind_proxy: false, ..start() };
        for header in [HEADER.as_bytes(), b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0"] {
            let (said, heard) = run(start(), &[header, b"QUIT\r\n"].concat(), None);
            assert!(said.ends_with("-ERR PROXY header refused\r\n"), "{said}");
            assert_eq!(said.lines().count(), 2, "{said}");
            assert!(matches!(heard[..], [Request::ProxyRefused(_), _]), "{heard:?}");
        }
        let (said, heard) = run(start(), format!("NOOP\r\n{HEADER}QUIT\r\n").as_bytes(), None);
        assert!(said.contains("-ERR unknown command"), "{said}");
        assert_eq!(heard, [end(Ending::Quit)]);
    }
}
