//! The monitor: the first process of a session, uid 0. It decides; the worker asks.
//!
//! It never parses what a client or a message wrote: it gets typed requests, checks each against
//! the phase of the session (`permission`), runs PAM, and lets an as-user helper touch the
//! mailbox. It is the only process of a session that writes to the journal.

mod account;
mod authorization;
mod connection;
mod expiry;
mod expunged;
#[cfg(test)]
mod fake_worker;
mod force;
mod handshake;
mod helper;
mod inspection;
mod kept;
mod kept_reader;
pub mod listing;
mod login;
mod login_delay;
mod maildrop;
mod pam_stack;
mod patience;
mod permission;
mod prepared;
mod privileges;
mod progress;
mod proxied;
mod recovery;
mod redo_records;
mod remembered_ids;
mod session;
mod session_lock;
mod starter;
mod stop_signal;
mod tls;
mod undelete;
mod update;
mod watchdog;
mod worker_process;

use std::process::ExitCode;

pub use connection::{Connection, NotPassed, Port, is_for_us, take as take_connection};
pub use expiry::expire_all;
pub use inspection::{Facts, Inspection, Overview, Remark};
pub use pam_stack::PAM_DIRECTORIES;
pub use prepared::{Prepared, SPOOL_GROUP, USER as WORKER_USER};
pub use recovery::recover_all;
pub use redo_records::{
    ASIDE as RECORDS_ASIDE, aside as records_aside, waiting as records_waiting,
};
pub use session_lock::DIRECTORY as SESSION_LOCKS;
pub use tls::{has_certificate, report as report_certificates};
pub use undelete::{Kept, Returned, list_kept, put_back};
pub use worker_process::{EMPTY_ROOT, try_sandbox};

use crate::channel::ToListener;
use crate::event::{Conclusion, Event, Session as LogSession};
use crate::ffi::process::use_one_heap;
use crate::settings::{Place, Settings};
pub use crate::worker::Strength;
use progress::Progress;
use starter::Starter;
use stop_signal::StopSignal;
use worker_process::WorkerProcess;

/// What a client reads when this host cannot serve anybody.
pub const OUT_OF_ORDER: &[u8] = b"-ERR [SYS/TEMP] this server is out of order, try again later\r\n";

/// Serves one client that a super-server accepted, from the first octet to the last, with the
/// settings of `config`.
#[must_use]
pub fn serve(connection: Connection, config: &Place) -> ExitCode {
    if connection.is_over() {
        return ExitCode::SUCCESS;
    }
    use_one_heap();
    // From the first line in the journal on, they have to wait for the last one; so they do in what the
    // listener forks.
    let _held = StopSignal::hold(Starter::SuperServer);
    let client = connection.client();
    let mut log = LogSession { id: random_number(), client, ..LogSession::default() };
    let settings = match Settings::load(config) {
        Ok(settings) => settings,
        Err(error) => {
            log.log(&Event::SessionStarted);
            log.log(&Event::SettingsRefused(&error));
            connection.turn_away(OUT_OF_ORDER);
            conclude(&mut log, Conclusion::ServerFailure);
            return ExitCode::FAILURE;
        }
    };
    let prepared = &mut Prepared::default();
    let is_well = serve_with(connection, &settings, Starter::SuperServer, prepared, &mut log);
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same for one that the listener accepted, in a process of its own; returns its exit status.
#[must_use]
pub fn serve_accepted(
    connection: Connection,
    settings: &Settings,
    listener: &ToListener,
    prepared: &mut Prepared,
) -> i32 {
    prepared.take_over();
    let client = connection.client();
    let mut log = LogSession { id: random_number(), client, ..LogSession::default() };
    i32::from(!serve_with(connection, settings, Starter::Listener(listener), prepared, &mut log))
}

fn serve_with(
    connection: Connection,
    settings: &Settings,
    starter: Starter<'_>,
    prepared: &mut Prepared,
    log: &mut LogSession,
) -> bool {
    let client = connection.client();
    if settings.is_proxy(client) {
        // Whose session it is remains to be seen.
        (log.client, log.proxy) = (None, client);
    } else {
        log.log(&Event::SessionStarted);
    }
    let worker = match WorkerProcess::start(&connection, settings, prepared) {
        Ok(worker) => worker,
        Err(error) => {
            log.log(&Event::ServerFailure(&error));
            connection.turn_away(OUT_OF_ORDER);
            conclude(log, Conclusion::ServerFailure);
            return false;
        }
    };
    let progress = Progress::new(starter, connection.inode());
    // The worker has its own descriptor; the client sees the end when that one is closed.
    drop(connection);
    match session::run(worker, settings, progress, prepared, log) {
        Ok(conclusion) => {
            conclude(log, conclusion);
            true
        }
        Err(failure) => {
            log.log(&failure.event());
            conclude(log, failure.conclusion());
            false
        }
    }
}

/// The last that the journal hears of a session.
fn conclude(log: &mut LogSession, conclusion: Conclusion) {
    log.summary.conclusion = conclusion;
    log.log(&Event::SessionEnded);
}

/// A number that nobody can guess; 0 in the unlikely case that the kernel has none.
fn random_number() -> u64 {
    getrandom::u64().unwrap_or_default()
}
