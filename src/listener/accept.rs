//! The loop: connections, sessions, signals.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setpgid};

use super::changes::Changes;
use super::handover::{Handover, Origin};
use super::refusals::Refusals;
use super::service::{self, Status};
use super::slots::{Admission, Full, Limits, Slot, Slots};
use super::sockets::Listening;
use super::{now, orphans};
use crate::channel::{News, ToListener, ToSession, Verdict, pair};
use crate::event::{Event, Session as Log};
use crate::ffi::process::{close_all_except_numbers, fork};
use crate::monitor::{self, Connection, Prepared};
use crate::settings::Settings;
use crate::source::Source;

/// So many connections of one socket are taken before signals and sessions get their turn.
const AT_ONCE: usize = 32;

/// When descriptors or processes run out, the next look comes after so long.
const RECOVERY: Duration = Duration::from_millis(100);

/// What it listens to besides connections.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];

/// Numbers of what epoll tells: the signals, a socket by its place, a session by its process.
const SIGNAL: u64 = 0;
const PAM_CHANGED: u64 = 1;
const FIRST_SOCKET: u64 = 2;
const FIRST_SESSION: u64 = 1 << 32;

/// The listener at work.
pub(super) struct Listener {
    pub(super) origin: Origin,
    settings: Settings,
    pub(super) sockets: Vec<Listening>,
    pub(super) slots: Slots,
    pub(super) channels: HashMap<Pid, ToSession>,
    pub(super) refusals: Refusals,
    /// Sessions since the start.
    pub(super) served: u64,
    /// What each session finds in its memory.
    prepared: Prepared,
    /// `None` where the kernel cannot tell: then a change holds from the next reload on.
    pam_changes: Option<Changes>,
    epoll: Epoll,
    signals: SignalFd,
    /// The way to the journal, which sessions share.
    journal: Option<RawFd>,
    is_stopping: bool,
    /// When accepting goes on; it pauses when something has run out.
    pub(super) paused_until: Option<Duration>,
    failures: Refusals,
    pub(super) status: Status,
    pub(super) watchdog: Option<(Duration, Duration)>,
}

impl Listener {
    pub(super) fn new(
        origin: Origin,
        settings: Settings,
        sockets: Vec<Listening>,
        handover: Handover,
        journal: Option<RawFd>,
    ) -> io::Result<Self> {
        orphans::adopt()?;
        let mut mask = SigSet::empty();
        SIGNALS.iter().for_each(|signal| mask.add(*signal));
        mask.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let slots = Slots::new(Limits::from(&settings));
        let mut listener = Self {
            origin,
            settings,
            sockets,
            slots,
            channels: HashMap::new(),
            refusals: Refusals::default(),
            served: 0,
            // First the watch: what is changed meanwhile is read twice rather than never.
            pam_changes: Changes::watch(monitor::PAM_DIRECTORIES).ok(),
            prepared: Prepared::new(),
            epoll,
            signals,
            journal,
            is_stopping: false,
            paused_until: None,
            failures: Refusals::default(),
            status: Status::default(),
            watchdog: service::watchdog().map(|every| (every, now())),
        };
        listener.refusals.continue_from(handover.refused);
        listener.served = handover.served;
        handover.regulars.into_iter().for_each(|source| listener.slots.regulars.note(source));
        for (pid, slot, channel) in handover.sessions {
            listener.slots.insert(pid, slot);
            listener.channels.extend(channel.map(|channel| (pid, channel)));
        }
        for (until, source) in handover.ended {
            listener.slots.insert_ended(until, source);
        }
        listener.watch(&listener.signals, SIGNAL)?;
        if let Some(changes) = &listener.pam_changes {
            listener.watch(changes, PAM_CHANGED)?;
        }
        listener.watch_sockets()?;
        for (pid, channel) in &listener.channels {
            listener.watch(channel, session_number(*pid))?;
        }
        Ok(listener)
    }

    /// Works until it was told to stop and the last session is over.
    ///
    /// # Errors
    ///
    /// epoll(7)'s, which it cannot work without.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        for socket in &self.sockets {
            Log::default().log(&Event::Listening(&socket.to_string()));
        }
        self.reap();
        self.status.is_old = true;
        service::ready(&self.counts());
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            let ready: Vec<u64> = events.iter().take(count).map(EpollEvent::data).collect();
            // First what makes room.
            for number in ready.iter().filter(|number| **number >= FIRST_SESSION) {
                self.hear(session_process(*number));
            }
            if ready.contains(&PAM_CHANGED) {
                self.prepare_anew();
            }
            if ready.contains(&SIGNAL) {
                self.heed_signals()?;
            }
            for number in
                ready.iter().filter(|number| (FIRST_SOCKET..FIRST_SESSION).contains(number))
            {
                self.accept(*number);
            }
            if self.is_stopping && self.slots.count() == 0 {
                Log::default().log(&Event::ListenerStopped);
                return Ok(());
            }
            self.do_what_is_due()?;
        }
    }

    /// Takes connections of a socket until there is none, or others have to have their turn.
    fn accept(&mut self, number: u64) {
        for _ in 0..AT_ONCE {
            let index = usize::try_from(number - FIRST_SOCKET).unwrap_or(usize::MAX);
            let Some(socket) = self.sockets.get(index) else { return };
            match socket.accept() {
                Ok(Some(connection)) => self.begin(connection),
                Ok(None) => return,
                Err(error) => return self.pause(&format!("accepting a connection: {error}")),
            }
        }
    }

    /// Begins a session, or says why there is none.
    fn begin(&mut self, connection: Connection) {
        let now = now();
        let client = connection.client().map(|(address, _)| address);
        // Whose connection it is through a proxy is not known yet.
        let is_proxy = self.settings.is_proxy(connection.client());
        let source = client.filter(|_| !is_proxy).map(Source::of);
        match self.slots.admit(source, now) {
            Admission::Free => {}
            Admission::InPlaceOf(pid) => {
                let _ = kill(pid, Signal::SIGTERM);
                self.slots.told_to_end(pid);
            }
            Admission::Refused(full) => {
                connection.turn_away(full.reply());
                return self.note_refusal(full, client, now);
            }
        }
        let mut connection = Some(connection);
        if let Err(error) = self.start(&mut connection, source, now) {
            connection.iter().for_each(|connection| connection.turn_away(Full::Sessions.reply()));
            self.pause(&format!("starting a session: {error}"));
        }
    }

    /// Forks the process of a session. What it takes of `connection` is its own: here it stays.
    fn start(
        &mut self,
        connection: &mut Option<Connection>,
        source: Option<Source>,
        now: Duration,
    ) -> io::Result<()> {
        let (ours, theirs): (ToSession, ToListener) = pair()?;
        // Whatever a session does, nobody waits for it.
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut kept = vec![0, 1, 2, theirs.as_fd().as_raw_fd()];
        kept.extend(connection.as_ref().map(|connection| connection.as_fd().as_raw_fd()));
        kept.extend(self.journal);
        let (settings, prepared) = (&self.settings, &mut self.prepared);
        let pid = fork(|| {
            if close_all_except_numbers(kept).is_err() || stand_apart().is_err() {
                return 1;
            }
            let accepted = connection.take();
            accepted.map_or(1, |it| monitor::serve_accepted(it, settings, &theirs, prepared))
        })?;
        self.served += 1;
        self.slots.insert(pid, Slot { source, since: now, authenticated: false, ending: false });
        self.status.is_old = true;
        // The session goes on without, and the client is not to hear of it.
        if let Err(error) = self.watch(&ours, session_number(pid)) {
            self.pause(&format!("watching a session: {error}"));
        }
        self.channels.insert(pid, ours);
        Ok(())
    }

    /// Takes what a session has to say.
    fn hear(&mut self, pid: Pid) {
        let Some(channel) = self.channels.get(&pid) else { return };
        match channel.receive() {
            Ok((News::LoggedIn, None)) => self.slots.logged_in(pid),
            Ok((News::Client(address), None)) => {
                let placed = self.slots.place(pid, Source::of(address), now());
                let verdict = if placed.is_ok() { Verdict::Welcome } else { Verdict::TooMany };
                // A session that is gone does not want to know.
                let _ = channel.send(&verdict, None);
                if let Err(full) = placed {
                    self.note_refusal(full, Some(address), now());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // It is over; its process is seen to end on its own.
            Ok((News::LoggedIn | News::Client(_), Some(_))) | Err(_) => {
                self.channels.remove(&pid);
            }
        }
        self.status.is_old = true;
    }

    /// The stack of PAM was edited: sessions to come have the new one.
    fn prepare_anew(&mut self) {
        if self.pam_changes.as_ref().is_some_and(Changes::are_there) {
            self.prepared = self.prepared.anew();
        }
    }

    fn heed_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.read_signal()? {
            match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGCHLD)) => self.reap(),
                Ok(Ok(Signal::SIGHUP)) if !self.is_stopping => self.reload(),
                Ok(Ok(Signal::SIGTERM | Signal::SIGINT)) if !self.is_stopping => self.stop(),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Sees which sessions have ended.
    fn reap(&mut self) {
        let mut has_left_some = false;
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = status.pid() else { break };
            self.channels.remove(&pid);
            let was_session = self.slots.remove(pid, now());
            self.status.is_old |= was_session;
            let killed_by =
                if let WaitStatus::Signaled(_, signal, _) = status { Some(signal) } else { None };
            has_left_some |= killed_by.is_some() || !was_session;
            // SIGTERM ends one while PAM is at work, which cannot be interrupted otherwise.
            if let Some(signal) =
                killed_by.filter(|signal| was_session && *signal != Signal::SIGTERM)
            {
                let text = format!("session process {pid}: killed by {signal}");
                Log::default().log(&Event::ServerFailure(&text));
            }
        }
        if has_left_some {
            orphans::end(|pid| self.slots.contains(pid));
        }
    }

    /// Accepts nothing any more and has all sessions end: those in UPDATE when they are done.
    fn stop(&mut self) {
        self.is_stopping = true;
        // The service manager has them open, too: closing alone would leave them in epoll's list.
        for socket in self.sockets.drain(..) {
            socket.make_way();
            let _ = self.epoll.delete(socket);
        }
        for (pid, _) in self.slots.processes() {
            let _ = kill(pid, Signal::SIGTERM);
        }
        service::stopping(&self.counts());
    }

    fn note_refusal(&mut self, full: Full, client: Option<IpAddr>, now: Duration) {
        self.status.is_old = true;
        if let Some(unlogged) = self.refusals.note(now) {
            let client = client.map(|address| (address, 0));
            Log { client, ..Log::default() }
                .log(&Event::ConnectionRefused(full.reason(), unlogged));
        }
    }

    /// Something has run out: waits a little, and says so now and then.
    fn pause(&mut self, what: &str) {
        let now = now();
        if self.failures.note(now).is_some() {
            Log::default().log(&Event::ServerFailure(what));
        }
        if self.paused_until.replace(now + RECOVERY).is_none() {
            for socket in &self.sockets {
                let _ = self.epoll.delete(socket);
            }
        }
    }

    fn watch(&self, what: impl AsFd, number: u64) -> io::Result<()> {
        Ok(self.epoll.add(what, EpollEvent::new(EpollFlags::EPOLLIN, number))?)
    }

    pub(super) fn watch_sockets(&self) -> io::Result<()> {
        for (number, socket) in (FIRST_SOCKET..).zip(&self.sockets) {
            self.watch(socket, number)?;
        }
        Ok(())
    }
}

fn session_number(pid: Pid) -> u64 {
    FIRST_SESSION + u64::from(pid.as_raw().unsigned_abs())
}

fn session_process(number: u64) -> Pid {
    Pid::from_raw(i32::try_from(number - FIRST_SESSION).unwrap_or_default())
}

/// What a session does not share with the listener. SIGTERM and the like go on waiting, until the session
/// begins to look for them.
fn stand_apart() -> nix::Result<()> {
    // What is meant for the listener's terminal or group is none of its business, and the other way round.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    orphans::adopt()?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_unblock()
}
