//! What a session does, for those who look on: `systemctl status` and `popa3d --sessions`.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::listing::{Entry, Listed};
use super::starter::Starter;
use crate::event::Session as Log;

/// Where a session is (RFC 1939 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Authorization,
    /// With so many messages.
    Transaction(u32),
    Update(u32),
}

/// How far a session is, and what others were told of that.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    pub(super) starter: Starter<'a>,
    /// The inode of the connection's socket; without one there is nobody to be listed.
    socket: Option<u64>,
    started: Duration,
    state: State,
    /// Whether others are still to be told.
    has_news: bool,
    /// What `systemctl status` shows.
    status: String,
    entry: Option<Entry>,
}

impl<'a> Progress<'a> {
    /// A session begins.
    pub(super) fn new(starter: Starter<'a>, socket: Option<u64>) -> Self {
        let started = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
        Self {
            starter,
            socket,
            started: started.unwrap_or_default(),
            state: State::Authorization,
            has_news: true,
            status: String::new(),
            entry: None,
        }
    }

    /// Whether there is something to [`show`](Self::show) when it has held for a moment.
    pub(super) fn has_news(&self) -> bool {
        self.has_news
    }

    /// Something of what is shown is different now.
    pub(super) fn note(&mut self) {
        self.has_news = true;
    }

    /// TRANSACTION begins.
    pub(super) fn begin_transaction(&mut self, messages: u32) {
        self.state = State::Transaction(messages);
        self.has_news = true;
    }

    /// UPDATE begins, and may have to wait for locks: that is listed at once.
    pub(super) fn begin_update(&mut self, log: &Log) {
        if let State::Transaction(messages) = self.state {
            self.state = State::Update(messages);
        }
        self.list(log);
    }

    /// A login waits for so many seconds.
    pub(super) fn wait(&mut self, seconds: f32, log: &Log) {
        self.tell(format!("{}: waits {seconds} s after failed logins", log.client_text()));
        self.list(log);
        self.has_news = true;
    }

    /// Tells others how the session is.
    pub(super) fn show(&mut self, log: &Log) {
        self.has_news = false;
        let client = log.client_text();
        let status = match self.state {
            State::Authorization => format!("{client}: AUTHORIZATION"),
            State::Transaction(messages) | State::Update(messages) => {
                let user = log.user.as_deref().unwrap_or_default();
                format!("{user} from {client}: {messages} messages, {}", name(self.state))
            }
        };
        self.tell(status);
        self.list(log);
    }

    fn tell(&mut self, status: String) {
        if status != self.status {
            self.starter.show(&status);
            self.status = status;
        }
    }

    /// It is a help for those who look, and no session fails without it.
    fn list(&mut self, log: &Log) {
        if self.socket.is_none() {
            return;
        }
        if self.entry.is_none() {
            self.entry = Entry::create().ok();
        }
        if let Some(entry) = &self.entry {
            let _ = entry.write(&self.listed(log));
        }
    }

    fn listed(&self, log: &Log) -> Listed {
        let (user, messages) = match self.state {
            State::Authorization => (None, None),
            State::Transaction(messages) | State::Update(messages) => {
                (log.user.clone(), Some(messages))
            }
        };
        Listed {
            pid: std::process::id(),
            session: format!("{:016x}", log.id),
            started: self.started,
            state: name(self.state).to_owned(),
            user,
            client: log.client_text(),
            proxy: log.proxy.filter(|_| log.client.is_some()).map(|(proxy, _)| proxy.to_string()),
            tls: log.tls_text(),
            messages,
            socket: self.socket,
        }
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Authorization => "AUTHORIZATION",
        State::Transaction(_) => "TRANSACTION",
        State::Update(_) => "UPDATE",
    }
}
