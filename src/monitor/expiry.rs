//! Dropping what was kept long enough: for one user after an UPDATE, or for all (`popa3d --expire`).

use std::io;
use std::time::{Duration, SystemTime};

use super::kept::{self, Dropped};
use super::session_lock::{Acquired, SessionLock};
use super::{random_number, redo_records};
use crate::event::{Event, Session as Log};
use crate::settings::{Place, Settings};

/// Drops what of `user` has expired or is too much; tells the journal.
pub(super) fn prune(user: &str, settings: &Settings, log: &Log) {
    match kept::prune(user, settings, SystemTime::now()) {
        Ok(pruned) => {
            let Dropped { removals, octets } = pruned.expired;
            if removals > 0 {
                log.log(&Event::KeptExpired(removals, octets));
            }
            let Dropped { removals, octets } = pruned.crowded_out;
            if removals > 0 {
                log.log(&Event::KeptDropped(removals, octets));
            }
        }
        Err(error) => {
            let why = format!("dropping what was kept of {user}: {error}");
            log.log(&Event::ServerFailure(&why));
        }
    }
}

/// Drops what of any user has expired or is too much, those included that do not exist any more.
///
/// # Errors
///
/// Says why nothing was looked at; the journal knows.
pub fn expire_all(config: &Place) -> Result<(), String> {
    let mut log = Log { id: random_number(), ..Log::default() };
    let settings = match Settings::load(config) {
        Ok(settings) => settings,
        Err(error) => {
            // What is to be kept is not known.
            log.log(&Event::SettingsRefused(&error));
            return Err(error.to_string());
        }
    };
    let users = match kept::users() {
        Ok(users) => users,
        Err(error) => {
            let why = format!("looking for what is kept: {error}");
            log.log(&Event::ServerFailure(&why));
            return Err(why);
        }
    };
    for user in users {
        log.user = Some(user.clone());
        if let Err(error) = redate(&user, log.id) {
            log.log(&Event::ServerFailure(&format!("when {user} deleted what is kept: {error}")));
        }
        prune(&user, &settings, &log);
        kept::tidy(&user);
    }
    Ok(())
}

/// Of a user with a session, the next UPDATE does it, or the next call.
fn redate(user: &str, id: u64) -> io::Result<()> {
    if !kept::is_from_the_future(user)? {
        return Ok(());
    }
    match SessionLock::acquire(user, id, Duration::ZERO)? {
        Acquired::Lock(_lock) if !redo_records::exists(user) => kept::redate(user),
        Acquired::Lock(_) | Acquired::HeldBy(_) => Ok(()),
    }
}
