//! AUTHORIZATION, and TLS, which begins there.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::client::{Output, ending};
use super::deadline::Deadline;
use super::maildrop::Maildrop;
use super::session::{Session, command};
use super::stream::NoTls;
use super::tls;
use crate::channel::{
    Answer, Encryption, Ending, Memory, Method, Refusal, Request, Secret, Trouble,
};
use crate::pop3::capability::{self, Offers};
use crate::pop3::reply::{self, Code};
use crate::pop3::{Authorization, Line, LoginStep, Mechanism};

impl Session<'_> {
    /// AUTHORIZATION: until somebody is logged in or says goodbye (`None`).
    pub(super) fn authorize(&mut self) -> Result<Option<(Maildrop, Offers)>, Ending> {
        let mut state = self.authorization();
        let mut failures = 0;
        loop {
            let waited = self.client.wait_for_line(self.monitor.as_fd());
            waited.map_err(|ending| self.explain(ending))?;
            let mut login = None;
            let output = &mut self.client.output;
            let step = self.client.input.take(|line| authorization_line(&mut state, line, output));
            match step.unwrap_or(Ok(LoginStep::Replied)).map_err(ending)? {
                LoginStep::Replied => {}
                LoginStep::Quit => return Ok(None),
                LoginStep::ListCapabilities => self.list_capabilities(state.offers())?,
                LoginStep::StartTls => {
                    if self.may_start_tls()? {
                        self.start_tls()?;
                        state = self.authorization();
                    }
                }
                LoginStep::RefusePassword => self.refuse_plaintext()?,
                LoginStep::Failed { mechanism, why } => {
                    let method = method(mechanism);
                    self.tell(&Request::AttemptRefused { method, why: why.to_owned() })?;
                    failures += 1;
                }
                LoginStep::LogIn { user, password, mechanism } => {
                    let method = mechanism.map_or(Method::UserPass, method);
                    let password = Secret::from(password);
                    login = Some(Request::Login { user, password, method });
                }
                LoginStep::LogInCertified { user } => {
                    login = Some(Request::LoginByCertificate { user: user.into_bytes() });
                }
            }
            if let Some(request) = login {
                match self.log_in(request)? {
                    Ok(maildrop) => return Ok(Some((maildrop, state.offers()))),
                    Err(refusal) => {
                        refuse_login(&mut self.client.output, refusal).map_err(ending)?;
                        failures += 1;
                    }
                }
            }
            if failures >= self.start.login_attempts {
                return Err(Ending::TooManyFailures);
            }
        }
    }

    /// Says why nobody is waited for any more, where somebody wants to know.
    fn explain(&mut self, ending: Ending) -> Ending {
        match ending {
            Ending::WithoutTls => {
                self.tell_failure("the client began with TLS where STLS is wanted first");
            }
            Ending::HeaderRefused => {
                return self.refuse_unexpected_header();
            }
            // Sent as far as that needs no waiting. Of the other time-out, of inactivity, RFC 1939
            // section 3 wants the client to be told nothing.
            Ending::TimedOut if self.client.is_late() => {
                let _ = reply::err(&mut self.client.output, "login took too long");
            }
            Ending::TimedOut
            | Ending::Quit
            | Ending::Disconnected
            | Ending::TooManyFailures
            | Ending::NotAdmitted
            | Ending::Failed => {}
        }
        ending
    }

    fn authorization(&self) -> Authorization {
        let takes_passwords = self.client.is_encrypted() || self.takes_passwords;
        Authorization::new(takes_passwords, self.certified.clone())
    }

    fn list_capabilities(&mut self, offers: Offers) -> Result<(), Ending> {
        let stls = !self.is_encrypted() && self.offers_tls()?;
        capability::before_login(offers, stls, &mut self.client.output).map_err(ending)
    }

    /// Answers STLS (RFC 2595 section 4).
    fn may_start_tls(&mut self) -> Result<bool, Ending> {
        let refusal = if self.is_encrypted() {
            Some("TLS has begun already")
        } else if !self.offers_tls()? {
            Some("this server has no certificate")
        } else {
            None
        };
        let output = &mut self.client.output;
        match refusal {
            None => reply::ok(output, "begin TLS"),
            Some(why) => reply::err(output, why),
        }
        .map_err(ending)?;
        Ok(refusal.is_none())
    }

    /// The monitor looks at the certificates only when somebody wants to know.
    fn offers_tls(&mut self) -> Result<bool, Ending> {
        if let Some(known) = self.offers_tls {
            return Ok(known);
        }
        self.tell(&Request::OffersTls)?;
        match self.monitor.receive() {
            Ok((Answer::OffersTls(offered), None)) => Ok(*self.offers_tls.insert(offered)),
            Ok(_) | Err(_) => Err(self.fail()),
        }
    }

    pub(super) fn start_tls(&mut self) -> Result<(), Ending> {
        let deadline = Deadline::after(self.start.handshake_timeout);
        self.monitor.send(&Request::BeginTls, None).map_err(|_| Ending::Failed)?;
        let started = match self.monitor.receive() {
            Ok((Answer::TlsMaterial, Some(material))) => {
                tls::set_up(material, &self.monitor).map_err(NoTls::from).and_then(|setup| {
                    let encryption = self.client.start_tls(Arc::clone(&setup.config), deadline)?;
                    Ok((encryption, setup))
                })
            }
            Ok((Answer::NoCertificate, None)) => Err("there is no certificate".to_owned().into()),
            Ok(_) | Err(_) => return Err(Ending::Failed),
        };
        match started {
            Ok((encryption, setup)) => {
                self.certified = setup.user(self.client.certificates());
                let server_name = setup.server_name.get().cloned();
                let encryption = Encryption { server_name, ..encryption };
                let told = self.monitor.send(&Request::Encrypted(encryption), None);
                told.map_err(|_| Ending::Failed)
            }
            Err(NoTls::ProxyHeader) if self.start.implicit_tls => {
                Err(self.refuse_unexpected_header())
            }
            Err(why) => {
                self.tell_failure(&why.to_string());
                Err(Ending::WithoutTls)
            }
        }
    }

    fn tell_failure(&self, reason: &str) {
        // If the monitor is gone, the session is at its end anyway.
        let _ = self.monitor.send(&Request::HandshakeFailed(reason.to_owned()), None);
    }

    fn refuse_plaintext(&mut self) -> Result<(), Ending> {
        if !std::mem::replace(&mut self.refused_plaintext, true) {
            self.tell(&Request::PlaintextRefused)?;
        }
        let text = if self.offers_tls()? {
            "no password without encryption: use STLS, or TLS on port 995"
        } else {
            "no password without encryption, for which this server has no certificate"
        };
        reply::err(&mut self.client.output, text).map_err(ending)
    }

    fn log_in(&mut self, request: Request) -> Result<Result<Maildrop, Refusal>, Ending> {
        // What was said so far is not to wait for PAM.
        self.client.output.flush().map_err(ending)?;
        let answer = self.monitor.send(&request, None).and_then(|()| self.monitor.receive());
        // The password is wiped here, not at the end of the session.
        drop(request);
        let (fingerprint_key, remembered, mailbox) = match answer {
            Ok((Answer::Maildrop { fingerprint_key, remembered }, mailbox)) => {
                (fingerprint_key, remembered, mailbox)
            }
            Ok((Answer::Refused(refusal), None)) => return Ok(Err(refusal)),
            Ok(_) => return Err(self.fail()),
            // A monitor that PAM does not let go of ends.
            Err(_) => {
                let output = &mut self.client.output;
                refuse_login(output, Refusal::Temporary).map_err(ending)?;
                return Err(Ending::Failed);
            }
        };
        let ids = match remembered {
            Memory::Follows => self.receive_remembered()?,
            Memory::Empty | Memory::OutOfReach => None,
        };
        let loaded = match mailbox {
            Some(mailbox) => {
                Maildrop::scan(mailbox, &self.start.confinement.limits, fingerprint_key)
            }
            None => Ok(Maildrop::default()),
        };
        let loaded = loaded.and_then(|mut maildrop| {
            let wrong = ids.and_then(|ids| maildrop.recall(ids));
            if remembered == Memory::OutOfReach {
                maildrop.leave_ids_alone();
            }
            maildrop.distinguish()?;
            Ok((maildrop, wrong))
        });
        match loaded {
            Ok((maildrop, wrong)) => {
                if let Some(wrong) = wrong {
                    self.tell(&Request::NotRemembered(wrong))?;
                }
                // Ids of a mailbox that is away for a moment are not to be forgotten.
                if maildrop.has_mailbox() {
                    self.remember(maildrop.to_remember(|_| false))?;
                }
                let totals = maildrop.totals();
                self.tell(&Request::Scanned(totals))?;
                self.client.wait_until(None);
                let text = format!("{} messages ({} octets)", totals.messages, totals.octets);
                reply::ok(&mut self.client.output, &text).map_err(ending)?;
                Ok(Ok(maildrop))
            }
            Err(trouble) => {
                self.tell(&Request::Unservable(trouble))?;
                Ok(Err(match trouble {
                    Trouble::NotMbox | Trouble::TooManyMessages | Trouble::TooLarge => {
                        Refusal::Permanent
                    }
                    Trouble::Changed | Trouble::Unreadable(_) => Refusal::Temporary,
                }))
            }
        }
    }

    fn receive_remembered(&mut self) -> Result<Option<OwnedFd>, Ending> {
        match self.monitor.receive() {
            Ok((Answer::Remembered, ids)) => Ok(ids),
            Ok(_) | Err(_) => Err(self.fail()),
        }
    }
}

fn method(mechanism: Mechanism) -> Method {
    match mechanism {
        Mechanism::Plain => Method::Plain,
        Mechanism::Login => Method::Login,
        Mechanism::External => Method::External,
    }
}

fn authorization_line(
    state: &mut Authorization,
    line: Line<'_>,
    output: &mut Output,
) -> io::Result<LoginStep> {
    if state.awaits_response() {
        let response = match line {
            Line::Whole(response) => Some(response),
            Line::TooLong => None,
        };
        return state.on_response(response, output);
    }
    match command(line, output)? {
        Some(command) => state.on(command, output),
        None => Ok(LoginStep::Replied),
    }
}

fn refuse_login(output: &mut Output, refusal: Refusal) -> io::Result<()> {
    match refusal {
        Refusal::Credentials => {
            reply::err_with(output, Code::Auth, "Authentication failed (bad password?)")
        }
        Refusal::InUse => {
            reply::err_with(output, Code::InUse, "another session or program uses this maildrop")
        }
        Refusal::Temporary => {
            reply::err_with(output, Code::SysTemp, "out of order for the moment, try again later")
        }
        Refusal::Permanent => reply::err_with(
            output,
            Code::SysPerm,
            "this mailbox cannot be served, ask the administrator",
        ),
        Refusal::Delayed => reply::err_with(
            output,
            Code::LoginDelay,
            "too many failed logins from your address, try again later",
        ),
    }
}
