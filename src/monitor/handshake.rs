//! What a session does in a TLS handshake: it lends what the worker shall not have.

use std::os::fd::AsFd;

use super::permission::Phase;
use super::session::{Broken, Session};
use super::tls::{Forbidden, Keys};
use crate::channel::{Answer, Encryption, Secret};
use crate::event::{Event, printable};

impl Session<'_> {
    /// Hands over the certificates.
    pub(super) fn begin_tls(&mut self) -> Result<Phase, Broken> {
        if self.log.encryption.is_some() {
            return Err(Broken::Worker("a second TLS handshake".to_owned()));
        }
        let material = self.keys.material(self.settings, self.log);
        let material =
            material.map_err(|error| Broken::host("certificates for a worker", error))?;
        let (answer, phase) = match material {
            Some(_) => (Answer::TlsMaterial, Phase::Handshaking),
            None => (Answer::NoCertificate, Phase::AwaitingLogin),
        };
        self.worker.answer(&answer, material.as_ref().map(AsFd::as_fd))?;
        Ok(phase)
    }

    pub(super) fn sign(
        &mut self,
        certificate: u8,
        scheme: u16,
        input: &[u8],
    ) -> Result<(), Broken> {
        let signature = self.keys.sign(certificate, scheme, input)?;
        Ok(self.worker.answer(&Answer::Signature(signature), None)?)
    }

    pub(super) fn seal_ticket(&mut self, state: &Secret) -> Result<(), Broken> {
        let ticket = self.keys.seal(state, self.log)?;
        Ok(self.worker.answer(&Answer::SealedTicket(ticket), None)?)
    }

    pub(super) fn open_ticket(&mut self, ticket: &[u8]) -> Result<(), Broken> {
        let state = self.keys.open(ticket, self.log)?;
        Ok(self.worker.answer(&Answer::OpenedTicket(state), None)?)
    }

    /// The handshake is over: nothing is signed any more.
    pub(super) fn encrypted(&mut self, encryption: Encryption) -> Phase {
        self.keys = Keys::default();
        let server_name = encryption.server_name.map(|name| printable(name.as_bytes()));
        self.log.encryption = Some(Encryption { server_name, ..encryption });
        self.log.log(&Event::TlsStarted);
        self.progress.note();
        Phase::AwaitingLogin
    }
}

impl From<Forbidden> for Broken {
    fn from(Forbidden(what): Forbidden) -> Self {
        Self::Worker(format!("asked for {what}"))
    }
}

#[cfg(test)]
mod tests {
    use rustls::SignatureScheme;

    use crate::channel::{Answer, Encryption, Ending, Method, Request, Secret, ToMonitor, Totals};
    use crate::event::{Conclusion, Session as Log};
    use crate::monitor::fake_worker::{self, misbehaviour, say};
    use crate::monitor::session::Failure;
    use crate::monitor::tls::certificates::tests::Files;
    use crate::settings::{PlaintextLogin, Settings};

    /// How the monitor ends a session whose worker does this.
    fn outcome(worker: impl FnOnce(&ToMonitor) -> bool) -> Result<Conclusion, Failure> {
        let files = Files::new(&rcgen::PKCS_ECDSA_P256_SHA256);
        let settings = Settings {
            certificates: Some(vec![files.files.clone()]),
            plaintext_login: PlaintextLogin::Never,
            ..Settings::default()
        };
        fake_worker::session(Log::default(), &settings, worker).1
    }

    fn refused(worker: impl FnOnce(&ToMonitor)) -> String {
        misbehaviour(outcome(|monitor| {
            worker(monitor);
            // Whatever the answer would be, there must be none.
            monitor.receive().is_err()
        }))
    }

    fn begin(monitor: &ToMonitor) {
        say(monitor, &Request::BeginTls);
        let answer = monitor.receive();
        if !matches!(answer, Ok((Answer::TlsMaterial, Some(_)))) {
            say(monitor, &Request::HandshakeFailed(format!("{answer:?}")));
        }
    }

    fn to_be_signed() -> Vec<u8> {
        [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat()
    }

    fn sign(input: &[u8]) -> Request {
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256.into();
        Request::Sign { certificate: 0, scheme, input: input.to_vec() }
    }

    fn encrypted() -> Request {
        let (version, suite) = (0x0304, 0x1301);
        let (group, server_name) = (None, None);
        Request::Encrypted(Encryption { version, suite, group, server_name, resumed: false })
    }

    #[test]
    fn part_of_a_handshake_is_signed() {
        let end = outcome(|monitor| {
            begin(monitor);
            say(monitor, &sign(&to_be_signed()));
            let signed = matches!(monitor.receive(), Ok((Answer::Signature(_), None)));
            say(monitor, &encrypted());
            say(monitor, &Request::End { ending: Ending::Quit, retrieved: Totals::default() });
            signed
        });
        assert_eq!(end, Ok(Conclusion::NoLoginAttempt));
    }

    #[test]
    fn anything_else_is_not_signed() {
        let end = refused(|monitor| {
            begin(monitor);
            say(monitor, &sign(b"I owe you a million"));
        });
        assert!(end.contains("no part of a handshake"), "{end}");
    }

    #[test]
    fn no_second_signature() {
        let end = refused(|monitor| {
            begin(monitor);
            say(monitor, &sign(&to_be_signed()));
            let _ = monitor.receive();
            say(monitor, &sign(&to_be_signed()));
        });
        assert!(end.contains("a second signature"), "{end}");
    }

    #[test]
    fn no_signature_before_or_after_the_handshake() {
        let end = refused(|monitor| say(monitor, &sign(&to_be_signed())));
        assert!(end.contains("not allowed in AwaitingLogin"), "{end}");
        let end = refused(|monitor| {
            begin(monitor);
            say(monitor, &encrypted());
            say(monitor, &sign(&to_be_signed()));
        });
        assert!(end.contains("not allowed in AwaitingLogin"), "{end}");
    }

    #[test]
    fn no_signature_by_a_key_or_in_a_way_that_there_is_not() {
        for (certificate, scheme) in [
            (1, SignatureScheme::ECDSA_NISTP256_SHA256),
            (0, SignatureScheme::ED25519),
            (0, SignatureScheme::from(0xffff)),
        ] {
            let end = refused(|monitor| {
                begin(monitor);
                let scheme = scheme.into();
                say(monitor, &Request::Sign { certificate, scheme, input: to_be_signed() });
            });
            assert!(end.contains("asked for a signature"), "{end}");
        }
    }

    #[test]
    fn worker_cannot_fill_the_journal_before_login() {
        for (request, what) in
            [(Request::NoLandlock, "Landlock"), (Request::PlaintextRefused, "password")]
        {
            let end = refused(|monitor| {
                (0..2).for_each(|_| say(monitor, &request));
                // Which has an answer, should the session go on.
                say(monitor, &Request::OffersTls);
            });
            assert!(end.contains("says twice") && end.contains(what), "{end}");
        }
    }

    #[test]
    fn no_second_handshake() {
        let end = refused(|monitor| {
            begin(monitor);
            say(monitor, &encrypted());
            say(monitor, &Request::BeginTls);
        });
        assert!(end.contains("a second TLS handshake"), "{end}");
    }

    #[test]
    fn no_tickets_without_end() {
        let end = refused(|monitor| {
            begin(monitor);
            for _ in 0..8 {
                say(monitor, &Request::OpenTicket(vec![0; 100]));
                let _ = monitor.receive();
            }
            say(monitor, &Request::OpenTicket(vec![0; 100]));
        });
        assert!(end.contains("more tickets opened"), "{end}");
    }

    #[test]
    fn no_password_without_encryption_whatever_the_worker_says() {
        let user = || b"nobody-is-called-so".to_vec();
        let end = refused(|monitor| {
            let password = Secret::new(b"x");
            say(monitor, &Request::Login { user: user(), password, method: Method::UserPass });
        });
        assert!(end.contains("settings do not allow"), "{end}");
        let end = refused(|monitor| {
            begin(monitor);
            say(monitor, &encrypted());
            say(monitor, &Request::LoginByCertificate { user: user() });
        });
        assert!(end.contains("settings do not allow"), "{end}");
    }
}
