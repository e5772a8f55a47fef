//! The listener (`popa3d -D`): accepts connections, and starts a session in a process of its own for
//! each. Nothing of a session itself is here.
//!
//! Runs as root and reads no octet of what clients send: the first one to do that is the session's
//! worker. It is told by typed messages how sessions go, which are its own processes.

mod accept;
mod changes;
mod due;
mod handover;
mod orphans;
mod refusals;
mod regulars;
mod reload;
mod service;
mod slots;
mod sockets;
mod trial;

use std::io;
use std::mem::take;
use std::os::fd::RawFd;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};

use crate::event::{Event, Session as Log};
use crate::ffi::process::use_one_heap;
use crate::monitor;
use crate::settings::{Place, Settings};
use accept::Listener;
use handover::{Handover, Origin};
use sockets::{Change, Listening};

/// Descriptors that the listener needs besides one for each session.
const DESCRIPTORS: u64 = 64;

/// Where the listener runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Behind whoever started it, who gets the prompt back when it accepts connections.
    Back,
    /// As the process that was started.
    Front,
}

/// Why the listener does not run.
#[derive(Debug)]
pub enum Failure {
    /// The settings are wrong.
    Mistake(String),
    /// Something that it needs cannot be had on this host, now.
    Host(String),
}

/// With settings that leave nothing to listen on.
const NOWHERE: &str = "there is nowhere to listen: listen names no address, and listen-tls names none \
                       or there is no certificate";

/// Serves until it is told to stop. `journal` is the descriptor that events go through, which sessions
/// keep.
///
/// # Errors
///
/// Says why it cannot.
pub fn run(place: Place, ground: Ground, journal: Option<RawFd>) -> Result<(), Failure> {
    let origin = Origin::find(from_root(place).map_err(host)?);
    use_one_heap();
    let handover = Handover::take();
    let is_new = handover.is_none();
    let mut handover = handover.unwrap_or_default();
    let present = if is_new { sockets::from_systemd() } else { Ok(take(&mut handover.sockets)) };
    let settings = Settings::load(&origin.place).map_err(|error| {
        Log::default().log(&Event::SettingsRefused(&error));
        // A socket unit would start it again at once for those that still wait, and so on.
        present.iter().flatten().for_each(Listening::turn_away_all);
        Failure::Mistake(error.to_string())
    })?;
    let sockets = listen(&settings, present.map_err(host)?, is_new)?;
    if ground == Ground::Back && is_new && !service::is_there() {
        nix::unistd::daemon(false, false)
            .map_err(|error| host(format!("going to the background: {error}")))?;
    }
    allow_descriptors(&settings);
    // A name service may take its time now, and the watchdog of the program before goes on.
    service::alive();
    Listener::new(origin, settings, sockets, handover, journal)
        .and_then(|mut listener| listener.serve())
        .map_err(|error| host(format!("listening: {error}")))
}

/// Makes the sockets that `settings` want and `present` lacks. A program that took over goes on with
/// what it has rather than end all sessions.
fn listen(
    settings: &Settings,
    present: Vec<Listening>,
    is_new: bool,
) -> Result<Vec<Listening>, Failure> {
    let change = match Change::prepare(settings, is_for_tls(settings), &present) {
        Ok(change) => change,
        Err(error) if is_new => return Err(host(error)),
        Err(error) => {
            let _ = host(error);
            return Ok(present);
        }
    };
    for address in change.taken() {
        Log::default().log(&Event::NotListening(address));
    }
    let sockets = change.carry_through(present);
    if sockets.is_empty() { Err(Failure::Mistake(NOWHERE.to_owned())) } else { Ok(sockets) }
}

/// Tells the journal, too: in the background nobody reads standard error.
fn host(why: impl ToString) -> Failure {
    let why = why.to_string();
    Log::default().log(&Event::ServerFailure(&why));
    Failure::Host(why)
}

/// The place as it is called from everywhere.
fn from_root(place: Place) -> io::Result<Place> {
    Ok(match place {
        Place::Usual => Place::Usual,
        Place::File(path) => Place::File(std::path::absolute(path)?),
    })
}

/// Whether there is a certificate, so that TLS can begin at once.
fn is_for_tls(settings: &Settings) -> bool {
    !settings.listen_tls.is_empty() && monitor::has_certificate(settings)
}

/// Raises the soft limit to what all sessions need, as far as the hard one allows.
fn allow_descriptors(settings: &Settings) {
    let wanted = u64::from(settings.max_sessions.0) + DESCRIPTORS;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if soft < wanted {
            // Too few are noticed, and told, when they are used up.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard);
        }
    }
}

/// The time since the kernel started, which nobody can set.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}
