//! What a session does behind a proxy: the client is the one that the proxy names.

use std::net::IpAddr;

use super::permission::Phase;
use super::session::{Broken, Session};
use crate::channel::{Answer, ProxyTls};
use crate::event::{Event, printable};

impl Session<'_> {
    /// Where the session begins.
    pub(super) fn first_phase(&self) -> Phase {
        if self.log.proxy.is_some() { Phase::AwaitingProxy } else { Phase::AwaitingLogin }
    }

    /// The proxy has named its client, or itself: everything from here on is about that one.
    pub(super) fn proxied(
        &mut self,
        client: Option<(IpAddr, u16)>,
        tls: Option<ProxyTls>,
    ) -> Result<Phase, Broken> {
        let named = client.map(|(address, port)| (address.to_canonical(), port));
        self.log.client = named.or(self.log.proxy);
        let text = |text: String| printable(text.as_bytes());
        self.log.proxy_tls =
            tls.map(|tls| ProxyTls { version: tls.version.map(text), suite: tls.suite.map(text) });
        self.log.log(&Event::SessionStarted);
        self.progress.note();
        // The proxy itself, which looks whether anybody is there, is no client.
        if named.is_some_and(|(address, _)| !self.progress.starter.has_room_for(address)) {
            self.worker.answer(&Answer::NotAdmitted, None)?;
            return Ok(Phase::Finished);
        }
        let takes_passwords = self.takes_passwords();
        self.worker.answer(&Answer::Admitted { takes_passwords }, None)?;
        Ok(Phase::AwaitingLogin)
    }

    /// Whether passwords may come over the connection as it is.
    ///
    /// A client that is local to its proxy is local to this host only if the proxy is, too.
    pub(super) fn takes_passwords(&self) -> bool {
        let allows = |peer: Option<(IpAddr, u16)>| {
            self.settings.plaintext_login.allows(peer.map(|(address, _)| address))
        };
        let proxy = self.log.proxy;
        self.log.is_encrypted() || allows(self.log.client) && (proxy.is_none() || allows(proxy))
    }
}

#[cfg(test)]
mod tests {
    use crate::channel::{
        Answer, Ending, Method, NameIn, ProxyTls, Request, Secret, ToMonitor, Totals,
    };
    use crate::event::{Conclusion, Session as Log};
    use crate::monitor::fake_worker::{self, misbehaviour, say};
    use crate::monitor::session::Failure;
    use crate::settings::{ClientCertificates, PlaintextLogin, Settings};

    fn peer(address: &str) -> Option<(std::net::IpAddr, u16)> {
        Some((address.parse().unwrap(), 4321))
    }

    fn settings(plaintext_login: PlaintextLogin) -> Settings {
        Settings { plaintext_login, certificates: Some(vec![]), ..Settings::default() }
    }

    /// A session through this proxy, or without one.
    fn session(
        proxy: Option<&str>,
        settings: &Settings,
        worker: impl FnOnce(&ToMonitor) -> bool,
    ) -> (Log, Result<Conclusion, Failure>) {
        let proxy = proxy.and_then(peer);
        let client = if proxy.is_none() { peer("203.0.113.9") } else { None };
        fake_worker::session(Log { client, proxy, ..Log::default() }, settings, worker)
    }

    fn end(monitor: &ToMonitor) {
        say(monitor, &Request::End { ending: Ending::Quit, retrieved: Totals::default() });
    }

    fn proxied(client: Option<&str>, tls: Option<ProxyTls>) -> Request {
        Request::Proxied { client: client.and_then(peer), tls }
    }

    fn is_admitted(monitor: &ToMonitor, with_passwords: bool) -> bool {
        let expected = Answer::Admitted { takes_passwords: with_passwords };
        matches!(monitor.receive(), Ok((answer, None)) if answer == expected)
    }

    fn refused(proxy: Option<&str>, worker: impl FnOnce(&ToMonitor)) -> String {
        let (_, end) = session(proxy, &settings(PlaintextLogin::Loopback), |monitor| {
            worker(monitor);
            // Whatever the answer would be, there must be none.
            monitor.receive().is_err()
        });
        misbehaviour(end)
    }

    #[test]
    fn client_is_the_one_that_the_proxy_names() {
        for (named, known) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
        ] {
            let (log, outcome) =
                session(Some("10.0.0.1"), &settings(PlaintextLogin::Always), |monitor| {
                    say(monitor, &proxied(Some(named), None));
                    let admitted = is_admitted(monitor, true);
                    end(monitor);
                    admitted
                });
            assert_eq!(outcome, Ok(Conclusion::NoLoginAttempt));
            assert_eq!((log.client, log.proxy), (peer(known), peer("10.0.0.1")));
            assert_eq!(log.client_text(), known);
        }
    }

    #[test]
    fn connection_of_the_proxy_itself_is_its_own() {
        let (log, outcome) =
            session(Some("10.0.0.1"), &settings(PlaintextLogin::Always), |monitor| {
                say(monitor, &proxied(None, None));
                let admitted = is_admitted(monitor, true);
                end(monitor);
                admitted
            });
        assert_eq!((log.client, outcome), (peer("10.0.0.1"), Ok(Conclusion::NoLoginAttempt)));
    }

    #[test]
    fn nothing_says_that_the_proxy_is_the_client() {
        let (log, outcome) =
            session(Some("10.0.0.1"), &settings(PlaintextLogin::Always), |monitor| {
                end(monitor);
                true
            });
        assert_eq!((log.client, outcome), (None, Ok(Conclusion::NoLoginAttempt)));
        assert_eq!(log.client_text(), "a client of 10.0.0.1");
    }

    #[test]
    fn plaintext_is_taken_by_the_address_of_the_client_and_where_that_is_near_of_the_proxy() {
        use PlaintextLogin::{Always, Loopback, Never};
        for (setting, proxy, client, taken) in [
            (Loopback, "127.0.0.9", Some("127.0.0.1"), true),
            (Loopback, "::1", Some("::ffff:127.0.0.1"), true),
            (Loopback, "127.0.0.9", Some("192.0.2.7"), false),
            (Loopback, "10.0.0.1", Some("127.0.0.1"), false),
            (Loopback, "10.0.0.1", Some("192.0.2.7"), false),
            (Loopback, "127.0.0.9", None, true),
            (Loopback, "10.0.0.1", None, false),
            (Always, "10.0.0.1", Some("192.0.2.7"), true),
            (Never, "127.0.0.9", Some("127.0.0.1"), false),
        ] {
            let (_, outcome) = session(Some(proxy), &settings(setting), |monitor| {
                say(monitor, &proxied(client, None));
                let as_expected = is_admitted(monitor, taken);
                end(monitor);
                as_expected
            });
            assert_eq!(outcome, Ok(Conclusion::NoLoginAttempt), "{setting:?} {proxy} {client:?}");
        }
    }

    #[test]
    fn tls_up_to_the_proxy_counts_and_what_is_said_of_it_cannot_forge_a_line() {
        let (log, outcome) =
            session(Some("10.0.0.1"), &settings(PlaintextLogin::Never), |monitor| {
                let (version, suite) = (Some("TLS\nv".to_owned()), Some("x".repeat(3000)));
                say(monitor, &proxied(Some("192.0.2.7"), Some(ProxyTls { version, suite })));
                let admitted = is_admitted(monitor, true);
                end(monitor);
                admitted
            });
        assert_eq!(outcome, Ok(Conclusion::NoLoginAttempt));
        assert!(log.is_encrypted());
        let ProxyTls { version, suite } = log.proxy_tls.unwrap();
        assert_eq!(version.as_deref(), Some("TLS\\nv"));
        assert!(suite.unwrap().len() < 200);
    }

    #[test]
    fn worker_names_the_client_once() {
        let end = refused(Some("10.0.0.1"), |monitor| {
            say(monitor, &proxied(Some("192.0.2.7"), None));
            assert!(monitor.receive().is_ok());
            say(monitor, &proxied(Some("192.0.2.8"), None));
        });
        assert!(end.contains("not allowed in AwaitingLogin"), "{end}");
    }

    #[test]
    fn worker_names_no_client_where_there_is_no_proxy() {
        let end = refused(None, |monitor| say(monitor, &proxied(Some("192.0.2.7"), None)));
        assert!(end.contains("not allowed in AwaitingLogin"), "{end}");
    }

    #[test]
    fn nobody_logs_in_before_the_client_is_named() {
        let password = Secret::new(b"x");
        let login = Request::Login { user: b"x".to_vec(), password, method: Method::UserPass };
        let end = refused(Some("127.0.0.9"), |monitor| say(monitor, &login));
        assert!(end.contains("not allowed in AwaitingProxy"), "{end}");
    }

    #[test]
    fn password_without_encryption_is_refused_whatever_the_worker_says() {
        let password = Secret::new(b"x");
        let login = Request::Login { user: b"x".to_vec(), password, method: Method::UserPass };
        let end = refused(Some("127.0.0.9"), |monitor| {
            say(monitor, &proxied(Some("192.0.2.7"), None));
            assert!(monitor.receive().is_ok());
            say(monitor, &login);
        });
        assert!(end.contains("settings do not allow"), "{end}");
    }

    #[test]
    fn tls_up_to_the_proxy_is_no_certificate() {
        let (ca, user) = ("/nonexistent".into(), NameIn::CommonName);
        let clients = Some(ClientCertificates { ca, user });
        let settings = Settings { client_certificates: clients, ..Settings::default() };
        let (_, end) = session(Some("10.0.0.1"), &settings, |monitor| {
            say(monitor, &proxied(Some("192.0.2.7"), Some(ProxyTls::default())));
            let admitted = is_admitted(monitor, true);
            say(monitor, &Request::LoginByCertificate { user: b"x".to_vec() });
            admitted && monitor.receive().is_err()
        });
        let end = misbehaviour(end);
        assert!(end.contains("settings do not allow"), "{end}");
    }

    #[test]
    fn session_whose_header_was_refused_is_over() {
        for proxy in [Some("10.0.0.1"), None] {
            for next in [proxied(None, None), Request::OffersTls, Request::ProxyRefused("x".into())]
            {
                let end = refused(proxy, |monitor| {
                    say(monitor, &Request::ProxyRefused("because".to_owned()));
                    say(monitor, &next);
                });
                assert!(end.contains("not allowed in Finished"), "{end}");
            }
        }
    }
}
