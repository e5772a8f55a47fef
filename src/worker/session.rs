//! A session as the client sees it: AUTHORIZATION (`authorization`), TRANSACTION (`transaction`) and
//! UPDATE (`update`).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Start;
use super::client::{Client, Output, ending};
use super::deadline::Deadline;
use crate::channel::{Ending, MAX_NOTE, Request, ToMonitor, Totals};
use crate::pop3::reply::{self, Code};
use crate::pop3::{self, Command, Line};

/// Serves the client behind `socket`.
///
/// # Errors
///
/// The monitor is gone, so nobody can be told how the session ended.
pub(super) fn run(start: &Start, socket: OwnedFd, monitor: ToMonitor) -> io::Result<()> {
    let monitor = Arc::new(monitor);
    let mut client = Client::new(socket, start.idle_timeout);
    client.depend_on(Arc::clone(&monitor));
    client.wait_until(Some(Deadline::after(start.login_timeout)));
    let mut session = Session {
        start,
        client,
        monitor,
        takes_passwords: start.takes_plaintext && !start.behind_proxy,
        encrypted_to_proxy: false,
        retrieved: Totals::default(),
        offers_tls: None,
        refused_plaintext: false,
        certified: None,
    };
    let ending = session.serve().err().unwrap_or(Ending::Quit);
    let Session { client, monitor, retrieved, .. } = session;
    // It could not read what is said without.
    let expects_tls = ending == Ending::WithoutTls || start.implicit_tls && !client.is_encrypted();
    // First the monitor, so that the user's next session need not wait for this client to go.
    let told = monitor.send(&Request::End { ending, retrieved }, None);
    match told {
        Ok(()) => client.say_goodbye(),
        Err(_) if expects_tls => {}
        Err(_) => client.end(),
    }
    told
}

/// A session under way.
pub(super) struct Session<'a> {
    pub(super) start: &'a Start,
    pub(super) client: Client,
    pub(super) monitor: Arc<ToMonitor>,
    pub(super) retrieved: Totals,
    /// Whether passwords may be sent over the connection before TLS begins on it.
    pub(super) takes_passwords: bool,
    /// Whether there is TLS between the client and its proxy.
    pub(super) encrypted_to_proxy: bool,
    /// Whether STLS would work; `None` until somebody wants to know.
    pub(super) offers_tls: Option<bool>,
    /// Whether the monitor knows that a password was refused.
    pub(super) refused_plaintext: bool,
    /// The user that the client's certificate names.
    pub(super) certified: Option<String>,
}

impl Session<'_> {
    fn serve(&mut self) -> Result<(), Ending> {
        if self.start.behind_proxy {
            self.await_proxy()?;
        }
        if self.start.implicit_tls {
            self.start_tls()?;
        }
        reply::ok(&mut self.client.output, "POP3 server ready").map_err(ending)?;
        match self.authorize()? {
            Some((maildrop, offers)) => self.transact(maildrop, offers),
            None => Ok(()),
        }
    }

    /// Sends the monitor a new list of unique-ids, if there is one.
    pub(super) fn remember(&mut self, text: Option<String>) -> Result<(), Ending> {
        send_remembered(&self.monitor, text).map_err(|_| Ending::Failed)
    }

    pub(super) fn tell(&mut self, request: &Request) -> Result<(), Ending> {
        self.monitor.send(request, None).map_err(|_| self.fail())
    }

    /// Whether nobody can read what the client sends, on the way or up to its proxy.
    pub(super) fn is_encrypted(&self) -> bool {
        self.client.is_encrypted() || self.encrypted_to_proxy
    }

    /// The monitor is gone, or talks nonsense: tell the client what can be told.
    pub(super) fn fail(&mut self) -> Ending {
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

/// The command in a line, or `None` when the reply says what is wrong with it.
pub(super) fn command<'a>(line: Line<'a>, output: &mut Output) -> io::Result<Option<Command<'a>>> {
    match line {
        Line::TooLong => reply::err(output, "line too long")?,
        Line::Whole(line) => match pop3::parse(line) {
            Ok(command) => return Ok(Some(command)),
            Err(why) => reply::malformed(output, why)?,
        },
    }
    Ok(None)
}
