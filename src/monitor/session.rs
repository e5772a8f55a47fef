//! One session, from the worker's first request to its last.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::helper::{Helper, Opened, task};
use super::login::{self, Denied, LoggedIn};
use super::permission::{Phase, allows};
use super::session_lock::{Acquired, SessionLock};
use super::stop_signal::StopSignal;
use super::worker_process::WorkerProcess;
use super::{privileges, random_number, recovery, redo_records, remembered_ids, status};
use crate::as_user::Task;
use crate::channel::{
    Answer, Ending, Order, Outcome, Range, Recovery, Refusal, Request, Secret, Totals, Trouble,
};
use crate::event::{Event, Session as Log, printable};
use crate::ffi::process::trim_memory;
use crate::settings::Settings;

/// A status is shown when it has held for so many milliseconds: each one costs the service manager
/// as much as a part of a login, and most sessions are over sooner.
const SETTLED: u8 = 50;

/// Octets of remembered unique-ids that a worker may send for each message that is allowed.
const REMEMBERED_PER_MESSAGE: u64 = 80;

/// Octets of the smallest message in a mailbox: `From `, and a line end.
const SMALLEST_MESSAGE: u64 = 6;

/// Serves the requests of `worker` until its session is over.
///
/// # Errors
///
/// Says what the worker did that it may not do, or how it died.
pub(super) fn run(worker: WorkerProcess, settings: &Settings, log: &mut Log) -> Result<(), String> {
    let status = Some(format!("{}: AUTHORIZATION", log.client_text()));
    let mut session = Session {
        worker,
        settings,
        log,
        attempts: 0,
        user: None,
        helper: None,
        result: None,
        ranges: 0,
        status,
    };
    let outcome = session.serve();
    // Dropping a helper that still holds the locks makes it give them back and remove nothing.
    session.helper = None;
    if let Some((deleted, left)) = session.result.filter(|(deleted, _)| deleted.messages > 0) {
        session.log.log(&Event::Updated { deleted, left, retrieved: Totals::default() });
    }
    // Before the worker, which waits for its client to go.
    if let Some(user) = session.user.take() {
        user.close(settings, session.log, &session.worker);
    }
    let reaped = session.worker.reap();
    match outcome {
        // A worker that was killed is seen first by its channel, which ends.
        Err(Broken::ChannelEnded) => Err(reaped.err().unwrap_or_else(|| "ended early".to_owned())),
        Err(Broken::Worker(what)) => Err(what),
        Ok(End::ByWorker) => reaped,
        // It could not know, so it found its monitor gone.
        Ok(End::BySignal) => Ok(()),
    }
}

struct Session<'a> {
    worker: WorkerProcess,
    settings: &'a Settings,
    log: &'a mut Log,
    attempts: u32,
    /// Set from a successful login on.
    user: Option<MailUser>,
    /// The helper that holds the mailbox's locks, in [`Phase::Scanning`] and [`Phase::Updating`].
    helper: Option<Helper>,
    /// What was removed so far, and what is left; from the opening of the maildrop until it is
    /// logged.
    result: Option<(Totals, Totals)>,
    /// How many ranges the worker named for UPDATE; a helper keeps them in memory.
    ranges: u64,
    /// For `systemctl status`, when the session stays so for a moment.
    status: Option<String>,
}

/// Somebody who is logged in, and what goes with that.
struct MailUser {
    logged_in: LoggedIn,
    task: Task,
    /// `None` where the kernel has no such thing: then a signal ends the process at once.
    stop: Option<StopSignal>,
    lock: SessionLock,
    /// Unique-ids to be kept, as the worker sends them piece by piece.
    to_remember: Option<String>,
    /// Octets that these may have: a worker is not to fill a disk.
    most_to_remember: u64,
}

impl MailUser {
    fn close(self, settings: &Settings, log: &Log, worker: &WorkerProcess) {
        // First, so that the user's next session need not wait for PAM.
        drop(self.lock);
        if let Some(stop) = self.stop {
            stop.let_go();
        }
        self.logged_in.log_out(settings, log, worker.channel.as_fd());
    }

    fn mailbox(&self) -> String {
        self.task.mailbox.display().to_string()
    }
}

/// How a session came to its end.
enum End {
    ByWorker,
    BySignal,
}

/// Why a session cannot go on.
enum Broken {
    /// The worker's end of the channel is closed.
    ChannelEnded,
    /// The worker, or what it needs, is out of order.
    Worker(String),
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
    fn serve(&mut self) -> Result<End, Broken> {
        let mut phase = Phase::AwaitingLogin;
        loop {
            if self.stopped()? {
                self.log.log(&Event::SessionStopped);
                return Ok(End::BySignal);
            }
            let (request, attached) = self.worker.channel.receive()?;
            if attached.is_some() || !allows(phase, &request) {
                return Err(Broken::Worker(format!("a request that is not allowed in {phase:?}")));
            }
            phase = match request {
                Request::NoLandlock => {
                    self.log.log(&Event::SandboxReduced("this kernel has no Landlock"));
                    phase
                }
                Request::Login { user, password } => self.log_in(&user, password)?,
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
                Request::Abandon(trouble) => self.abandon(trouble)?,
                Request::End { ending, retrieved } => {
                    self.note_end(ending, retrieved);
                    return Ok(End::ByWorker);
                }
            };
        }
    }

    /// Waits for the worker's next request; true when a signal came first.
    fn stopped(&mut self) -> Result<bool, Broken> {
        let mut wanted = vec![PollFd::new(self.worker.channel.as_fd(), PollFlags::POLLIN)];
        let stop = self.user.as_ref().and_then(|user| user.stop.as_ref());
        wanted.extend(stop.map(|stop| PollFd::new(stop.as_fd(), PollFlags::POLLIN)));
        loop {
            let limit = self.status.as_ref().map_or(PollTimeout::NONE, |_| SETTLED.into());
            match poll(&mut wanted, limit) {
                Ok(0) => {
                    self.status.take().iter().for_each(|status| status::show(status));
                    trim_memory();
                }
                Ok(_) => break,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(wanted.get(1).and_then(PollFd::any).unwrap_or(false))
    }

    fn log_in(&mut self, user: &[u8], password: Secret) -> Result<Phase, Broken> {
        if self.attempts >= self.settings.login_attempts.0 {
            return Err(Broken::Worker("more logins than login-attempts".to_owned()));
        }
        self.attempts += 1;
        let refusal = match self.judge(user, password) {
            Ok(logged_in) => match self.open_maildrop(logged_in)? {
                None => return Ok(Phase::Scanning),
                Some(refusal) => refusal,
            },
            Err(Denied::Credentials) => Refusal::Credentials,
            Err(Denied::Impossible) => Refusal::Temporary,
        };
        self.worker.channel.send(&Answer::Refused(refusal), None)?;
        Ok(Phase::AwaitingLogin)
    }

    /// Takes the password, so that it is wiped before a helper is forked.
    #[expect(clippy::needless_pass_by_value, reason = "dropping it here wipes it")]
    fn judge(&mut self, user: &[u8], password: Secret) -> Result<LoggedIn, Denied> {
        let worker = self.worker.channel.as_fd();
        login::log_in(user, &password, self.settings, self.log, worker)
    }

    /// Hands the locked mailbox to the worker, or says why not, with the PAM session closed again.
    fn open_maildrop(&mut self, logged_in: LoggedIn) -> Result<Option<Refusal>, Broken> {
        // From here on a signal must not end the process without closing the PAM session.
        let stop = StopSignal::hold();
        let refusal = match self.prepare(&logged_in) {
            Ok((task, lock)) => {
                let mut user = MailUser {
                    logged_in,
                    task,
                    stop,
                    lock,
                    to_remember: None,
                    most_to_remember: 0,
                };
                let opened = self.open_mailbox(&user);
                match opened {
                    Ok(mailbox) => {
                        user.task.record = None;
                        user.most_to_remember = self.most_to_remember(mailbox.as_ref());
                        // Kept first: whatever fails now, the PAM session is closed.
                        let name = self.user.insert(user).logged_in.account.name.clone();
                        self.hand_over(&name, mailbox)?;
                        return Ok(None);
                    }
                    Err(refusal) => {
                        user.close(self.settings, self.log, &self.worker);
                        refusal
                    }
                }
            }
            Err(refusal) => {
                if let Some(stop) = stop {
                    stop.let_go();
                }
                logged_in.log_out(self.settings, self.log, self.worker.channel.as_fd());
                refusal
            }
        };
        self.log.user = None;
        Ok(Some(refusal))
    }

    fn prepare(&self, logged_in: &LoggedIn) -> Result<(Task, SessionLock), Refusal> {
        let account = &logged_in.account;
        let lock =
            match SessionLock::acquire(&account.name, self.log.id, self.settings.session_wait.0) {
                Ok(Acquired::Lock(lock)) => lock,
                Ok(Acquired::HeldBy(other)) => {
                    let holder = format!("another session of {}: {other}", account.name);
                    self.log.log(&Event::MaildropInUse(&holder));
                    return Err(Refusal::InUse);
                }
                Err(error) => {
                    self.log.log(&Event::ServerFailure(&format!("session lock: {error}")));
                    return Err(Refusal::Temporary);
                }
            };
        let record = match redo_records::open(&account.name) {
            Ok(record) => record,
            Err(error) => {
                self.log.log(&Event::ServerFailure(&format!("redo record: {error}")));
                return Err(Refusal::Temporary);
            }
        };
        let task = task(account, self.settings, record);
        Ok((task, lock))
    }

    /// Opens and locks the mailbox; keeps the helper that holds the locks.
    fn open_mailbox(&mut self, user: &MailUser) -> Result<Option<OwnedFd>, Refusal> {
        let opened = match Helper::open(&user.task) {
            Ok(opened) => opened,
            Err(error) => {
                Opened::Refused { reason: format!("as-user helper: {error}"), permanent: false }
            }
        };
        match opened {
            Opened::Mailbox { helper, mailbox, without_dotlock, recovery } => {
                if let Some(recovery) = recovery {
                    self.settle(user, &recovery);
                }
                if without_dotlock {
                    self.log.log(&Event::NoDotlock(&user.mailbox()));
                }
                self.helper = Some(helper);
                Ok(Some(mailbox))
            }
            Opened::Missing => {
                if user.task.record.is_some() {
                    let why = "the mailbox does not exist any more".to_owned();
                    self.settle(user, &Recovery::Conflict(why));
                }
                Ok(None)
            }
            Opened::InUse(holder) => {
                let text = format!("{}: {}", user.mailbox(), printable(holder.as_bytes()));
                self.log.log(&Event::MaildropInUse(&text));
                Err(Refusal::InUse)
            }
            Opened::Refused { reason, permanent } => {
                self.log.log(&Event::MaildropRefused(&user.mailbox(), &reason));
                Err(if permanent { Refusal::Permanent } else { Refusal::Temporary })
            }
        }
    }

    fn settle(&self, user: &MailUser, recovery: &Recovery) {
        recovery::settle(&user.logged_in.account.name, &user.mailbox(), recovery, self.log);
    }

    fn most_to_remember(&self, mailbox: Option<&OwnedFd>) -> u64 {
        let size = mailbox.and_then(|mailbox| nix::sys::stat::fstat(mailbox).ok());
        let size = size.and_then(|status| u64::try_from(status.st_size).ok()).unwrap_or_default();
        let messages = u64::from(self.settings.max_messages.0).min(size / SMALLEST_MESSAGE);
        messages * REMEMBERED_PER_MESSAGE
    }

    fn hand_over(&mut self, user: &str, mailbox: Option<OwnedFd>) -> Result<(), Broken> {
        let remembered = match remembered_ids::open(user) {
            Ok(remembered) => remembered,
            Err(error) => {
                self.log.log(&Event::UniqueIdsNotKept(&error.to_string()));
                None
            }
        };
        let channel = &mut self.worker.channel;
        let answer =
            Answer::Maildrop { fingerprint_key: random_number(), remembered: remembered.is_some() };
        channel.send(&answer, mailbox.as_ref().map(AsFd::as_fd))?;
        if let Some(file) = remembered {
            channel.send(&Answer::Remembered, Some(file.as_fd()))?;
        }
        Ok(())
    }

    fn remember(&mut self, piece: &str) -> Result<(), Broken> {
        let Some(user) = &mut self.user else { return Ok(()) };
        let text = user.to_remember.get_or_insert_default();
        if (text.len() + piece.len()) as u64 > user.most_to_remember {
            return Err(Broken::Worker("more unique-ids than messages".to_owned()));
        }
        text.push_str(piece);
        Ok(())
    }

    fn store_remembered(&mut self) {
        let Some(user) = &mut self.user else { return };
        let Some(text) = user.to_remember.take() else { return };
        if let Err(error) = remembered_ids::store(&user.logged_in.account.name, &text) {
            self.log.log(&Event::UniqueIdsNotKept(&error.to_string()));
        }
    }

    /// The worker has read the mailbox: TRANSACTION begins.
    fn begin_transaction(&mut self, totals: Totals) -> Result<Phase, Broken> {
        self.release();
        self.store_remembered();
        self.log.log(&Event::MaildropLoaded(totals));
        self.result = Some((Totals::default(), totals));
        let user = self.log.user.as_deref().unwrap_or_default();
        let client = self.log.client_text();
        self.status =
            Some(format!("{user} from {client}: {} messages, TRANSACTION", totals.messages));
        if let Err(error) = privileges::shrink() {
            return Err(Broken::Worker(format!("giving up capabilities: {error}")));
        }
        Ok(Phase::MaildropOpen)
    }

    /// The mailbox is there and the worker cannot serve it.
    fn refuse_mailbox(&mut self, trouble: Trouble) -> Result<Phase, Broken> {
        self.release();
        if let Some(user) = self.user.take() {
            let why = describe(trouble);
            self.log.log(&Event::MaildropRefused(&user.mailbox(), &why));
            user.close(self.settings, self.log, &self.worker);
        }
        self.log.user = None;
        Ok(Phase::AwaitingLogin)
    }

    /// UPDATE begins.
    fn lock(&mut self) -> Result<Phase, Broken> {
        let Some(user) = self.user.take() else { return Ok(Phase::MaildropOpen) };
        let opened = self.open_mailbox(&user);
        self.user = Some(user);
        let (answer, mailbox) = match opened {
            Ok(Some(mailbox)) => (Answer::Locked, Some(mailbox)),
            Ok(None) => {
                let mailbox = self.user.as_ref().map(MailUser::mailbox).unwrap_or_default();
                let why = "it is gone, another program removed it";
                self.log.log(&Event::UpdateFailed(&mailbox, why));
                (Answer::MailboxGone, None)
            }
            Err(refusal) => (Answer::NotUpdated(refusal), None),
        };
        self.worker.channel.send(&answer, mailbox.as_ref().map(AsFd::as_fd))?;
        Ok(if mailbox.is_some() { Phase::Updating } else { Phase::MaildropOpen })
    }

    fn delete(&mut self, ranges: Vec<Range>) -> Result<(), Broken> {
        self.ranges += ranges.len() as u64;
        if self.ranges > u64::from(self.settings.max_messages.0) {
            return Err(Broken::Worker("more ranges to delete than messages".to_owned()));
        }
        match &mut self.helper {
            Some(helper) => helper.order(&Order::Delete(ranges)).map_err(helper_died),
            None => Ok(()),
        }
    }

    fn commit(&mut self, deleted: Totals, left: Totals) -> Result<Phase, Broken> {
        let (Some(helper), Some(user)) = (self.helper.take(), &self.user) else {
            return Ok(Phase::MaildropOpen);
        };
        let answer = match commit_with_record(helper, &user.logged_in.account.name) {
            Ok(()) => {
                self.store_remembered();
                self.result = Some((deleted, left));
                Answer::Committed
            }
            Err(reason) => {
                self.log.log(&Event::UpdateFailed(&user.mailbox(), &reason));
                Answer::NotUpdated(Refusal::Temporary)
            }
        };
        self.worker.channel.send(&answer, None)?;
        Ok(Phase::MaildropOpen)
    }

    fn abandon(&mut self, trouble: Trouble) -> Result<Phase, Broken> {
        self.release();
        let mailbox = self.user.as_ref().map(MailUser::mailbox).unwrap_or_default();
        self.log.log(&Event::UpdateFailed(&mailbox, &describe(trouble)));
        Ok(Phase::MaildropOpen)
    }

    /// Has the mailbox unlocked.
    fn release(&mut self) {
        if let Some(helper) = self.helper.take() {
            // If it died, its locks died with it, but for the dotlock, which names a dead process.
            let _ = helper.finish(&Order::Release);
        }
    }

    fn note_end(&mut self, ending: Ending, retrieved: Totals) {
        match self.result.take() {
            Some((deleted, left)) if ending == Ending::Quit || deleted.messages > 0 => {
                self.log.log(&Event::Updated { deleted, left, retrieved });
            }
            None if self.attempts == 0 => self.log.log(&Event::NoLoginAttempt),
            Some(_) | None => self.log.log(&Event::SessionEnded(ending, retrieved)),
        }
    }
}

/// Lets `helper` remove what it was told, by a redo record that stays when it is needed.
fn commit_with_record(helper: Helper, user: &str) -> Result<(), String> {
    let record = redo_records::create(user).map_err(|error| format!("redo record: {error}"))?;
    let result = helper.commit(&record);
    match &result {
        Ok(()) | Err((_, Outcome::Untouched)) => {
            redo_records::remove(user).map_err(|error| format!("redo record: {error}"))?;
        }
        Err((_, Outcome::Unfinished)) => {}
    }
    result.map_err(|(reason, _)| reason)
}

fn helper_died(error: io::Error) -> Broken {
    Broken::Worker(format!("as-user helper: {error}"))
}

fn describe(trouble: Trouble) -> String {
    match trouble {
        Trouble::NotMbox => "it is not in mbox format: no From_ line at its beginning".to_owned(),
        Trouble::TooManyMessages => "it has more messages than max-messages allows".to_owned(),
        Trouble::TooLarge => "it is larger than max-mailbox-size allows".to_owned(),
        Trouble::Changed => "another program changed it".to_owned(),
        Trouble::Unreadable(errno) => {
            format!("reading it: {}", io::Error::from_raw_os_error(errno))
        }
    }
}
