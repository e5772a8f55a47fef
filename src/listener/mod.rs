//! The listener (`popa3d -D`): accepts connections, and starts a session in a process of its own for
//! each. Nothing of a session itself is here.
//!
//! Runs as root and reads no octet of what clients send: the first one to do that is the session's
//! worker. It is told by typed messages how sessions go, which are its own processes.

mod accept;
mod handover;
mod refusals;
mod regulars;
mod service;
mod slots;
mod sockets;

use std::io;
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};

use crate::event::{Event, Session as Log};
use crate::ffi::process::use_one_heap;
use crate::monitor;
use crate::settings::{Place, Settings};
use accept::Listener;
use handover::Handover;

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

/// Serves until it is told to stop. `journal` is the descriptor that events go through, which sessions
/// keep.
///
/// # Errors
///
/// Says why it cannot.
pub fn run(place: &Place, ground: Ground, journal: Option<RawFd>) -> Result<ExitCode, String> {
    let program = handover::program();
    use_one_heap();
    let handover = Handover::take();
    let is_new = handover.is_none();
    let mut handover = handover.unwrap_or_default();
    let settings = Settings::load(place).map_err(|error| {
        Log::default().log(&Event::SettingsRefused(&error));
        error.to_string()
    })?;
    let has_certificate = !settings.listen_tls.is_empty() && monitor::has_certificate(&settings);
    let inherited =
        if is_new { sockets::from_systemd() } else { Ok(std::mem::take(&mut handover.sockets)) };
    let sockets =
        inherited.and_then(|inherited| sockets::open(&settings, has_certificate, inherited));
    let sockets = sockets.map_err(|error| {
        Log::default().log(&Event::ServerFailure(&error.to_string()));
        error.to_string()
    })?;
    if sockets.is_empty() {
        return Err("listen and listen-tls name no address to listen on".to_owned());
    }
    if ground == Ground::Back && is_new && !service::is_there() {
        nix::unistd::daemon(false, false).map_err(|error| format!("background: {error}"))?;
    }
    allow_descriptors(&settings);
    monitor::preload();
    let failed = |error: io::Error| format!("starting to listen: {error}");
    let mut listener = Listener::new(settings, sockets, handover, journal).map_err(failed)?;
    listener.serve(place, &program).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
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
