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
    if let Err(why) = drop_old(user, settings, log) {
        log.log(&Event::ServerFailure(&why));
    }
}

fn drop_old(user: &str, settings: &Settings, log: &Log) -> Result<(), String> {
    let pruned = kept::prune(user, settings, SystemTime::now())
        .map_err(|error| format!("dropping what was kept of {user}: {error}"))?;
    let Dropped { removals, octets } = pruned.expired;
    if removals > 0 {
        log.log(&Event::KeptExpired(removals, octets));
    }
    let Dropped { removals, octets } = pruned.crowded_out;
    if removals > 0 {
        log.log(&Event::KeptDropped(removals, octets));
    }
    Ok(())
}

/// Drops what of any user has expired or is too much, those included that do not exist any more. One
/// whose files cannot be looked at keeps no other from it.
///
/// # Errors
///
/// Says why nothing was looked at, or what of whom could not be; the journal knows.
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
    let mut failures = Vec::new();
    for user in users {
        log.user = Some(user.clone());
        let redated = redate(&user, log.id)
            .map_err(|error| format!("when {user} deleted what is kept: {error}"));
        // What is dated wrongly expires late, and what is not, in time.
        let dropped = drop_old(&user, &settings, &log);
        let whys: Vec<String> = [redated, dropped].into_iter().filter_map(Result::err).collect();
        whys.iter().for_each(|why| log.log(&Event::ServerFailure(why)));
        failures.extend(whys.into_iter().next());
        kept::tidy(&user);
    }
    match failures.as_slice() {
        [] => Ok(()),
        [why] => Err(why.clone()),
        [why, others @ ..] => {
            Err(format!("{why} (and {} more users, see the journal)", others.len()))
        }
    }
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
