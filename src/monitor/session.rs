//! One session, from the worker's first request to its last.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, poll};

use super::helper::Helper;
use super::login_delay::LoginDelays;
use super::maildrop::MailUser;
use super::patience::time_left;
use super::permission::{Phase, allows};
use super::prepared::Prepared;
use super::privileges;
use super::progress::Progress;
use super::stop_signal::{self, StopSignal};
use super::tls::Keys;
use super::update::Update;
use super::worker_process::WorkerProcess;
use crate::channel::{Answer, Ending, MAX_REASON, Method, Request, Totals};
use crate::event::{Conclusion, Event, Session as Log, printable_up_to};
use crate::ffi::process::trim_memory;
use crate::settings::Settings;

/// What a session does is shown when it has held for so many milliseconds: that costs the service
/// manager as much as a part of a login, and most sessions are over sooner.
const SETTLED: u8 = 50;

/// Serves the requests of `worker` until its session is over; says how it ended.
///
/// # Errors
///
/// Says what the worker did that it may not do, or how it died; or what is wrong with this host.
pub(super) fn run(
    worker: WorkerProcess,
    settings: &Settings,
    progress: Progress<'_>,
    prepared: &mut Prepared,
    log: &mut Log,
) -> Result<Conclusion, Failure> {
    let stop = StopSignal::hold(progress.starter);
    let mut session = Session {
        worker,
        settings,
        progress,
        prepared,
        log,
        attempts: 0,
        delays: LoginDelays::new(settings),
        user: None,
        helper: None,
        update: Update::default(),
        stop,
        was_stopped: false,
        keys: Keys::default(),
        refused_plaintext: false,
        has_no_landlock: false,
    };
    let outcome = session.serve();
    // Dropping a helper that still holds the locks makes it give them back and remove nothing.
    session.helper = None;
    // Already now: PAM may keep this process from coming to its end.
    session.log.summary.conclusion = match &outcome {
        Ok(conclusion) => *conclusion,
        Err(Broken::Stopped) => Conclusion::Stopped,
        Err(Broken::ChannelEnded | Broken::Worker(_)) => Conclusion::WorkerFailed,
        Err(Broken::Host(_)) => Conclusion::ServerFailure,
    };
    // Before the worker, which waits for its client to go.
    if let Some(user) = session.user.take() {
        session.close(user);
    }
    let reaped = session.worker.reap();
    match outcome {
        Ok(conclusion) => reaped.map(|()| conclusion).map_err(Failure::Worker),
        // It could not know, so it found its monitor gone.
        Err(Broken::Stopped) => Ok(Conclusion::Stopped),
        // A worker that was killed is seen first by its channel, which ends.
        Err(Broken::ChannelEnded) => {
            Err(Failure::Worker(reaped.err().unwrap_or_else(|| "ended early".to_owned())))
        }
        Err(Broken::Worker(what)) => Err(Failure::Worker(what)),
        Err(Broken::Host(what)) => Err(Failure::Host(what)),
    }
}

/// Why a session ended that should have gone on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// What the worker did, or how it died.
    Worker(String),
    /// What is missing on this host.
    Host(String),
}

impl Failure {
    pub(super) fn event(&self) -> Event<'_> {
        match self {
            Self::Worker(what) => Event::WorkerFailed(what),
            Self::Host(what) => Event::ServerFailure(what),
        }
    }

    pub(super) fn conclusion(&self) -> Conclusion {
        match self {
            Self::Worker(_) => Conclusion::WorkerFailed,
            Self::Host(_) => Conclusion::ServerFailure,
        }
    }
}

/// A session under way.
pub(super) struct Session<'a> {
    pub(super) worker: WorkerProcess,
    pub(super) settings: &'a Settings,
    pub(super) progress: Progress<'a>,
    pub(super) prepared: &'a mut Prepared,
    pub(super) log: &'a mut Log,
    pub(super) attempts: u32,
    /// What is remembered of logins that failed; `None` when that is turned off or out of order.
    pub(super) delays: Option<LoginDelays>,
    /// Set from a successful login on.
    pub(super) user: Option<MailUser>,
    /// The helper that holds the mailbox's locks, in [`Phase::Scanning`] and [`Phase::Updating`].
    pub(super) helper: Option<Helper>,
    pub(super) update: Update,
    /// `None` where the kernel has no such thing, and while PAM is at work: then a signal ends the
    /// process at once.
    pub(super) stop: Option<StopSignal>,
    /// A signal came while it could not be waited for.
    pub(super) was_stopped: bool,
    /// Certificates and their keys, until the handshake is over.
    pub(super) keys: Keys,
    /// Whether the journal knows that one wanted to.
    refused_plaintext: bool,
    /// Whether it knows that the worker's sandbox is weaker than it could be.
    has_no_landlock: bool,
}

/// Why a session cannot go on.
pub(super) enum Broken {
    /// A signal told it to end.
    Stopped,
    /// The worker's end of the channel is closed.
    ChannelEnded,
    /// The worker is out of order.
    Worker(String),
    /// Something on this host is.
    Host(String),
}

impl Broken {
    /// What a system call says that needs nothing of the worker.
    pub(super) fn host(what: &str, error: impl fmt::Display) -> Self {
        Self::Host(format!("{what}: {error}"))
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        let ended = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
        );
        if ended { Self::ChannelEnded } else { Self::Worker(error.to_string()) }
    }
}

impl Session<'_> {
    fn serve(&mut self) -> Result<Conclusion, Broken> {
        let mut phase = self.first_phase();
        let mut began = Instant::now();
        loop {
            self.await_request(phase, began)?;
            let (request, attached) = self.worker.channel.receive()?;
            if attached.is_some() || !allows(phase, &request) {
                return Err(Broken::Worker(format!("a request that is not allowed in {phase:?}")));
            }
            let next = match request {
                Request::NoLandlock => {
                    self.sandbox_reduced()?;
                    phase
                }
                Request::Proxied { client, tls } => self.proxied(client, tls)?,
                Request::ProxyRefused(reason) => {
                    self.log.log(&Event::ProxyRefused(&of_worker(&reason)));
                    Phase::Finished
                }
                Request::OffersTls => {
                    let offered = self.keys.are_there(self.settings, self.log);
                    self.worker.answer(&Answer::OffersTls(offered), None)?;
                    phase
                }
                Request::BeginTls => self.begin_tls()?,
                Request::Sign { certificate, scheme, input } => {
                    self.sign(certificate, scheme, &input)?;
                    phase
                }
                Request::SealTicket(state) => {
                    self.seal_ticket(&state)?;
                    phase
                }
                Request::OpenTicket(ticket) => {
                    self.open_ticket(&ticket)?;
                    phase
                }
                Request::Encrypted(encryption) => self.encrypted(encryption),
                Request::HandshakeFailed(reason) => {
                    self.log.log(&Event::TlsFailed(&of_worker(&reason)));
                    Phase::Finished
                }
                Request::PlaintextRefused => {
                    self.refused_plaintext()?;
                    phase
                }
                Request::AttemptRefused { method, why } => {
                    self.refuse_attempt(method, &why)?;
                    phase
                }
                Request::Login { user, password, method } => {
                    let is_allowed = self.takes_passwords();
                    self.log_in(&user, Some(password), method, is_allowed)?
                }
                Request::LoginByCertificate { user } => {
                    let is_allowed = self.log.encryption.is_some()
                        && self.settings.client_certificates.is_some();
                    self.log_in(&user, None, Method::External, is_allowed)?
                }
                Request::NotRemembered(why) => {
                    self.not_remembered(why)?;
                    phase
                }
                Request::Remember(piece) => {
                    self.remember(&piece)?;
                    phase
                }
                Request::Scanned(totals) => self.begin_transaction(totals)?,
                Request::Unservable(trouble) => self.refuse_mailbox(trouble)?,
                Request::Lock => self.lock()?,
                Request::Delete(ranges) => {
                    self.delete(ranges)?;
                    phase
                }
                Request::Commit { deleted, left } => self.commit(deleted, left)?,
                Request::Expunged(messages) => self.expunged(&messages)?,
                Request::Abandon(trouble) => self.abandon(trouble)?,
                Request::End { ending, retrieved } => {
                    return Ok(self.conclude(ending, retrieved));
                }
            };
            if next != phase {
                (phase, began) = (next, Instant::now());
            }
        }
    }

    /// Waits for the worker's next request in a phase that began then, or a signal. The client has said
    /// QUIT when UPDATE is under way: that is not interrupted.
    fn await_request(&mut self, phase: Phase, began: Instant) -> Result<(), Broken> {
        let ends = !matches!(phase, Phase::Updating | Phase::Expunged);
        if self.was_stopped && ends {
            return Err(Broken::Stopped);
        }
        let mut wanted = vec![PollFd::new(self.worker.channel.as_fd(), PollFlags::POLLIN)];
        let stop = self.stop.as_ref().filter(|_| ends);
        wanted.extend(stop.map(|stop| PollFd::new(stop.as_fd(), PollFlags::POLLIN)));
        loop {
            let left = time_left(phase, began.elapsed())?;
            let limit = if self.progress.has_news() { SETTLED.into() } else { left };
            match poll(&mut wanted, limit) {
                Ok(0) if self.progress.has_news() => {
                    self.progress.show(self.log);
                    trim_memory();
                }
                Ok(0) | Err(nix::Error::EINTR) => {}
                Ok(_) => break,
                Err(error) => return Err(Broken::host("waiting for the worker", error)),
            }
        }
        let is_stopped = wanted.get(1).and_then(PollFd::any).unwrap_or(false);
        if is_stopped { Err(Broken::Stopped) } else { Ok(()) }
    }

    /// Once: the journal has no room for a worker that says it without end.
    fn sandbox_reduced(&mut self) -> Result<(), Broken> {
        if std::mem::replace(&mut self.has_no_landlock, true) {
            return Err(Broken::Worker("says twice that there is no Landlock".to_owned()));
        }
        self.log.log(&Event::SandboxReduced("this kernel has no Landlock"));
        Ok(())
    }

    fn refused_plaintext(&mut self) -> Result<(), Broken> {
        if self.refused_plaintext {
            return Err(Broken::Worker("says twice that a password was refused".to_owned()));
        }
        self.refused_plaintext = true;
        self.log.log(&Event::PlaintextRefused);
        Ok(())
    }

    /// For as long as PAM is at work: it could not be interrupted otherwise, and what modules start is
    /// not to inherit that signals wait.
    pub(super) fn let_signals_end_this(&mut self) {
        self.was_stopped |= self.stop.take().is_some_and(StopSignal::let_go);
    }

    /// From here on they wait again.
    pub(super) fn hold_signals(&mut self) {
        self.stop = StopSignal::hold(self.progress.starter);
        self.was_stopped |= stop_signal::noted().is_some();
    }

    /// The worker has read the mailbox: TRANSACTION begins.
    fn begin_transaction(&mut self, totals: Totals) -> Result<Phase, Broken> {
        self.release();
        self.store_remembered();
        self.log.log(&Event::MaildropLoaded(totals));
        self.log.summary.maildrop = Some((Totals::default(), totals));
        self.progress.begin_transaction(totals.messages);
        if let Err(error) = privileges::shrink() {
            return Err(Broken::host("giving up capabilities", error));
        }
        Ok(Phase::MaildropOpen)
    }

    /// How it ended, by what the worker says and what is known here.
    fn conclude(&mut self, ending: Ending, retrieved: Totals) -> Conclusion {
        let has_maildrop = self.log.summary.maildrop.is_some();
        self.log.summary.retrieved = has_maildrop.then_some(retrieved);
        match ending {
            Ending::WithoutTls => Conclusion::TlsFailed,
            Ending::HeaderRefused => Conclusion::ProxyRefused,
            Ending::NotAdmitted => Conclusion::NotAdmitted,
            Ending::Failed => Conclusion::BrokenOff,
            Ending::Quit | Ending::Disconnected | Ending::TimedOut | Ending::TooManyFailures
                if self.attempts == 0 =>
            {
                Conclusion::NoLoginAttempt
            }
            Ending::Quit if self.update.failed => Conclusion::UpdateFailed,
            Ending::Quit => Conclusion::Quit,
            Ending::Disconnected => Conclusion::Disconnected,
            Ending::TimedOut => Conclusion::TimedOut,
            Ending::TooManyFailures => Conclusion::LoginAttemptsUsedUp,
        }
    }
}

/// What a worker gives as a reason, as long as the channel lets it be: of a certificate that is refused the
/// interesting part comes late.
fn of_worker(reason: &str) -> String {
    printable_up_to(MAX_REASON, reason.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::fake_worker;

    #[test]
    fn worker_that_reads_no_answers_is_not_waited_for() {
        let (_, end) = fake_worker::session(Log::default(), &Settings::default(), |monitor| {
            let mut requests = std::iter::repeat_with(|| monitor.send(&Request::OffersTls, None));
            requests.find_map(Result::err).is_some()
        });
        assert_eq!(end, Err(Failure::Worker("it does not read its answers".to_owned())));
    }
}
