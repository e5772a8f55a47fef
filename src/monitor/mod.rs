//! The monitor: the first process of a session, uid 0. It decides; the worker asks.
//!
//! It never parses what a client or a message wrote: it gets typed requests, checks each against
//! the phase of the session (`permission`), runs PAM, and lets an as-user helper touch the
//! mailbox. It is the only process that writes to the journal.

mod account;
mod authorization;
mod connection;
mod handshake;
mod helper;
mod login;
mod login_delay;
mod maildrop;
mod permission;
mod privileges;
mod recovery;
mod redo_records;
mod remembered_ids;
mod session;
mod session_lock;
mod status;
mod stop_signal;
mod tls;
mod watchdog;
mod worker_process;

use std::process::ExitCode;

pub use connection::{Connection, NotPassed, take as take_connection};
pub use recovery::recover_all;
pub use tls::report as report_certificates;

use crate::event::{Event, Session as LogSession};
use crate::ffi::process::use_one_heap;
use crate::settings::{Place, Settings};
use worker_process::WorkerProcess;

/// What a client reads when this host cannot serve anybody.
const OUT_OF_ORDER: &[u8] = b"-ERR [SYS/TEMP] this server is out of order, try again later\r\n";

/// Serves one client from the first octet to the last, with the settings of `config`.
#[must_use]
pub fn serve(connection: Connection, config: &Place) -> ExitCode {
    use_one_heap();
    let client = connection.client();
    let mut log = LogSession { id: random_number(), client, ..LogSession::default() };
    log.log(&Event::SessionStarted);
    let settings = match Settings::load(config) {
        Ok(settings) => settings,
        Err(error) => {
            log.log(&Event::SettingsRefused(&error));
            return turn_away(&connection);
        }
    };
    let worker = match WorkerProcess::start(&connection, &settings) {
        Ok(worker) => worker,
        Err(error) => {
            log.log(&Event::ServerFailure(&error));
            return turn_away(&connection);
        }
    };
    // The worker has its own descriptor; the client sees the end when that one is closed.
    drop(connection);
    match session::run(worker, &settings, &mut log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            log.log(&Event::WorkerFailed(&reason));
            ExitCode::FAILURE
        }
    }
}

fn turn_away(connection: &Connection) -> ExitCode {
    // A client that speaks TLS could not read it.
    if !connection.wants_tls() {
        connection.say(OUT_OF_ORDER);
    }
    ExitCode::FAILURE
}

/// A number that nobody can guess; 0 in the unlikely case that the kernel has none.
fn random_number() -> u64 {
    getrandom::u64().unwrap_or_default()
}
