//! A session as the client sees it: AUTHORIZATION, TRANSACTION, UPDATE.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::client::{Client, Output, ending};
use super::deadline::Deadline;
use super::maildrop::{Maildrop, Unsent};
use super::update::{self, Update};
use super::{Start, tls};
use crate::channel::{
    Answer, Encryption, Ending, MAX_NOTE, Method, Refusal, Request, Secret, ToMonitor, Totals,
    Trouble,
};
use crate::ffi::process::trim_memory;
use crate::pop3::capability::{self, Offers};
use crate::pop3::reply::{self, Code};
use crate::pop3::{
    self, Authorization, Command, Line, LoginStep, Malformed, Mechanism, MessageNumber, Step,
    Transaction,
};

/// Who has not logged in by then is dropped, however much he talks: others want to be served.
const LONGEST_AUTHORIZATION: Duration = Duration::from_secs(180);

/// Serves the client behind `socket`.
///
/// # Errors
///
/// The monitor is gone, so nobody can be told how the session ended.
pub(super) fn run(start: &Start, socket: OwnedFd, monitor: ToMonitor) -> io::Result<()> {
    let client = Client::new(socket, start.idle_timeout);
    let mut session = Session {
        start,
        client,
        monitor: Arc::new(monitor),
        retrieved: Totals::default(),
        offers_tls: None,
        refused_plaintext: false,
        certified: None,
    };
    let ending = session.serve().err().unwrap_or(Ending::Quit);
    let Session { client, monitor, retrieved, .. } = session;
    // First the monitor, so that the user's next session need not wait for this client to go.
    let told = monitor.send(&Request::End { ending, retrieved }, None);
    client.say_goodbye();
    told
}

struct Session<'a> {
    start: &'a Start,
    client: Client,
    monitor: Arc<ToMonitor>,
    retrieved: Totals,
    /// Whether STLS would work; `None` until somebody wants to know.
    offers_tls: Option<bool>,
    /// Whether the monitor knows that a password was refused.
    refused_plaintext: bool,
    /// The user that the client's certificate names.
    certified: Option<String>,
}

impl Session<'_> {
    fn serve(&mut self) -> Result<(), Ending> {
        if self.start.implicit_tls {
            self.start_tls()?;
        }
        reply::ok(&mut self.client.output, "POP3 server ready").map_err(ending)?;
        match self.authorize()? {
            Some((maildrop, offers)) => self.transact(maildrop, offers),
            None => Ok(()),
        }
    }

    /// AUTHORIZATION: until somebody is logged in or says goodbye (`None`).
    fn authorize(&mut self) -> Result<Option<(Maildrop, Offers)>, Ending> {
        let mut state = self.authorization();
        let mut failures = 0;
        let latest = Deadline::after(LONGEST_AUTHORIZATION.max(self.start.idle_timeout));
        loop {
            self.client.wait_for_line(self.monitor.as_fd(), Some(latest)).inspect_err(
                |ending| {
                    if *ending == Ending::WithoutTls {
                        self.tell_failure("the client began with TLS where STLS is wanted first");
                    }
                },
            )?;
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
                LoginStep::PasswordRefused => self.note_refused_plaintext()?,
                LoginStep::Failed => failures += 1,
                LoginStep::LogIn { user, password, mechanism } => {
                    let method = match mechanism {
                        None => Method::UserPass,
                        Some(Mechanism::Plain) => Method::Plain,
                        Some(Mechanism::Login) => Method::Login,
                        Some(Mechanism::External) => Method::External,
                    };
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

    fn authorization(&self) -> Authorization {
        let takes_passwords = self.client.is_encrypted() || self.start.takes_plaintext;
        Authorization::new(takes_passwords, self.certified.clone())
    }

    fn list_capabilities(&mut self, offers: Offers) -> Result<(), Ending> {
        let stls = !self.client.is_encrypted() && self.offers_tls()?;
        capability::before_login(offers, stls, &mut self.client.output).map_err(ending)
    }

    /// Answers STLS (RFC 2595 section 4).
    fn may_start_tls(&mut self) -> Result<bool, Ending> {
        let refusal = if self.client.is_encrypted() {
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

    fn start_tls(&mut self) -> Result<(), Ending> {
        let deadline = Deadline::after(self.start.handshake_timeout);
        self.monitor.send(&Request::BeginTls, None).map_err(|_| Ending::Failed)?;
        let started = match self.monitor.receive() {
            Ok((Answer::TlsMaterial, Some(material))) => tls::set_up(material, &self.monitor)
                .and_then(|setup| {
                    let encryption = self.client.start_tls(Arc::clone(&setup.config), deadline)?;
                    Ok((encryption, setup))
                }),
            Ok((Answer::NoCertificate, None)) => Err("there is no certificate".to_owned()),
            Ok(_) | Err(_) => return Err(Ending::Failed),
        };
        match started {
            Ok((encryption, setup)) => {
                let named = self.client.certificate().zip(setup.named_in);
                self.certified = named.and_then(|(shown, place)| tls::user(shown, place));
                let server_name = setup.server_name.get().cloned();
                let encryption = Encryption { server_name, ..encryption };
                let told = self.monitor.send(&Request::Encrypted(encryption), None);
                told.map_err(|_| Ending::Failed)
            }
            Err(reason) => {
                self.tell_failure(&reason);
                Err(Ending::WithoutTls)
            }
        }
    }

    fn tell_failure(&self, reason: &str) {
        // If the monitor is gone, the session is at its end anyway.
        let _ = self.monitor.send(&Request::HandshakeFailed(reason.to_owned()), None);
    }

    fn note_refused_plaintext(&mut self) -> Result<(), Ending> {
        if !std::mem::replace(&mut self.refused_plaintext, true) {
            self.tell(&Request::PlaintextRefused)?;
        }
        Ok(())
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
        let ids = if remembered { self.receive_remembered()? } else { None };
        let loaded = match mailbox {
            Some(mailbox) => Maildrop::scan(mailbox, &self.start.limits, fingerprint_key),
            None => Ok(Maildrop::default()),
        };
        let loaded = loaded.and_then(|mut maildrop| {
            maildrop.distinguish(ids)?;
            Ok(maildrop)
        });
        match loaded {
            Ok(maildrop) => {
                // Ids of a mailbox that is away for a moment are not to be forgotten.
                if maildrop.has_mailbox() {
                    self.remember(maildrop.to_remember(|_| false))?;
                }
                let totals = maildrop.totals();
                self.tell(&Request::Scanned(totals))?;
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

    /// TRANSACTION and UPDATE.
    fn transact(&mut self, mut maildrop: Maildrop, offers: Offers) -> Result<(), Ending> {
        let mut state = Transaction::new(&maildrop, offers);
        // Half of what the scan touched is not needed again, and this session may idle for long.
        trim_memory();
        loop {
            self.client.wait_for_line(self.monitor.as_fd(), None)?;
            let output = &mut self.client.output;
            let step = self
                .client
                .input
                .take(|line| transaction_line(&mut state, &maildrop, line, output));
            match step.unwrap_or(Ok(Step::Replied)).map_err(ending)? {
                Step::Replied => {}
                Step::Send(number, lines) => {
                    let sent = self.send(&mut maildrop, number, lines)?;
                    if sent && lines.is_none() {
                        state.retrieved(number);
                        self.prepare_next(&mut maildrop, &state, number)?;
                    }
                }
                Step::Quit => return self.update(&maildrop, &state),
            }
        }
    }

    /// Sends a message, or says why not; true when it was sent.
    fn send(
        &mut self,
        maildrop: &mut Maildrop,
        number: MessageNumber,
        lines: Option<u64>,
    ) -> Result<bool, Ending> {
        let output = &mut self.client.output;
        let refused = match maildrop.send(number, lines, output) {
            Ok(()) => {
                if let (None, Some(message)) = (lines, maildrop.message(number)) {
                    self.retrieved.messages += 1;
                    self.retrieved.octets += message.octets().0;
                }
                return Ok(true);
            }
            Err(Unsent::Gone) => {
                reply::err(output, "another program removed or edited this message")
            }
            Err(Unsent::Changing) => {
                let text = "another program is changing the mailbox, try again";
                reply::err_with(output, Code::SysTemp, text)
            }
            Err(Unsent::Broken(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Ending::Failed);
            }
            Err(Unsent::Broken(error)) => return Err(ending(error)),
        };
        refused.map_err(ending)?;
        Ok(false)
    }

    /// Prepares the message behind `number` while the client, which waits, takes in that one.
    fn prepare_next(
        &mut self,
        maildrop: &mut Maildrop,
        state: &Transaction,
        number: MessageNumber,
    ) -> Result<(), Ending> {
        if self.client.input.has_line() {
            return Ok(());
        }
        self.client.output.flush().map_err(ending)?;
        match MessageNumber::from_index(number.get()) {
            Some(next) if !state.is_marked(next) => maildrop.prepare(next),
            Some(_) | None => {}
        }
        Ok(())
    }

    /// UPDATE (RFC 1939 section 6): removes what is marked, then says goodbye.
    fn update(&mut self, maildrop: &Maildrop, state: &Transaction) -> Result<(), Ending> {
        // A pipelining client may have sent QUIT long before it has read the replies.
        self.client.output.flush().map_err(ending)?;
        let outcome = update::run(&self.monitor, maildrop, state).map_err(|_| Ending::Failed);
        let output = &mut self.client.output;
        match outcome {
            Ok(Update::NothingToDo) => reply::ok(output, "goodbye"),
            Ok(Update::Removed(count)) => {
                reply::ok(output, &format!("goodbye, {count} messages deleted"))
            }
            Ok(Update::MailboxGone) => {
                reply::ok(output, "goodbye, another program removed the whole mailbox")
            }
            Ok(Update::Missing(count)) => reply::err_with(
                output,
                Code::SysTemp,
                &format!(
                    "{count} deleted messages not found, another program changed or removed them"
                ),
            ),
            Ok(Update::Refused(Refusal::InUse)) => {
                reply::err_with(output, Code::InUse, "mailbox is locked, nothing was deleted")
            }
            Ok(Update::Refused(Refusal::Temporary | Refusal::Permanent | Refusal::Credentials))
            | Err(_) => {
                let text = "mailbox could not be updated, deleted messages may still be there";
                reply::err_with(output, Code::SysTemp, text)
            }
        }
        .map_err(ending)?;
        outcome.map(|_| ())
    }

    /// Sends the monitor a new list of unique-ids, if there is one.
    fn remember(&mut self, text: Option<String>) -> Result<(), Ending> {
        send_remembered(&self.monitor, text).map_err(|_| Ending::Failed)
    }

    fn tell(&mut self, request: &Request) -> Result<(), Ending> {
        self.monitor.send(request, None).map_err(|_| self.fail())
    }

    /// The monitor is gone, or talks nonsense: tell the client what can be told.
    fn fail(&mut self) -> Ending {
        let text = "this server is out of order, try again later";
        match reply::err_with(&mut self.client.output, Code::SysTemp, text) {
            Ok(()) => Ending::Failed,
            Err(error) => ending(error),
        }
    }
}

/// Sends `text` in pieces; an empty one too, since it means that nothing is to be kept.
pub(super) fn send_remembered(monitor: &ToMonitor, text: Option<String>) -> io::Result<()> {
    let Some(text) = text else { return Ok(()) };
    let mut rest = text.as_str();
    loop {
        // Lines of ASCII: any place is between characters.
        let (piece, behind) = rest.split_at_checked(MAX_NOTE).unwrap_or((rest, ""));
        monitor.send(&Request::Remember(piece.to_owned()), None)?;
        if behind.is_empty() {
            return Ok(());
        }
        rest = behind;
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

fn transaction_line(
    state: &mut Transaction,
    maildrop: &Maildrop,
    line: Line<'_>,
    output: &mut Output,
) -> io::Result<Step> {
    match command(line, output)? {
        Some(command) => state.on(command, maildrop, output),
        None => Ok(Step::Replied),
    }
}

/// The command in a line, or `None` when the reply says what is wrong with it.
fn command<'a>(line: Line<'a>, output: &mut Output) -> io::Result<Option<Command<'a>>> {
    match line {
        Line::TooLong => reply::err(output, "line too long")?,
        Line::Whole(line) => match pop3::parse(line) {
            Ok(command) => return Ok(Some(command)),
            Err(why) => {
                let why: Malformed = why;
                reply::malformed(output, why)?;
            }
        },
    }
    Ok(None)
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
    }
}
