//! What UPDATEs removed, for as long as it is kept (`keep-deleted`): files that only root may read.
//!
//! Each UPDATE makes one file, an mbox with the removed messages as they stood in the mailbox. Its
//! name is the time of removal. Every change is prepared under that name with `.new` behind it, and
//! whether it counts is what the redo record of the user says, so that what becomes of the mailbox and
//! of what is kept is decided at once ([`settle`]).
//!
//! The name may have been given by a clock that was behind. So the modification time of a file is never
//! before that of the one that was removed before it, and counts as soon as the clock is right again.
//!
//! For root they are octets with a length; a confined process looks into them (`kept_reader`).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::settings::Settings;

const DIRECTORY: &str = "/var/lib/popa3d/deleted";

/// What a file takes on the disk is a multiple of this; with nothing but its size, small ones would
/// count for nothing.
const BLOCK: u64 = 4096;

/// A clock that is set back by less is not worth a thought.
const LEAP: Duration = Duration::from_secs(3600);

/// Behind the name of what is not decided yet.
const NEW: &str = ".new";

/// What became of the change that files were prepared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The mailbox is the new one.
    Happened,
    /// The mailbox is the old one.
    DidNot,
    /// Nobody knows: as much as possible is kept.
    Unknown,
}

/// What one UPDATE removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removal {
    /// When.
    pub(super) time: SystemTime,
    pub(super) path: PathBuf,
}

/// What was dropped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) removals: u64,
    pub(super) octets: u64,
}

/// What was dropped for its age, and to make room for newer removals.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pruned {
    pub(super) expired: Dropped,
    pub(super) crowded_out: Dropped,
}

/// How long what is removed is kept; `None` for not at all.
pub(super) fn keeps(settings: &Settings) -> Option<Duration> {
    Some(settings.keep_deleted.0).filter(|time| !time.is_zero())
}

/// Whether so many octets are more than may be kept for a user.
pub(super) fn is_too_much(octets: u64, settings: &Settings) -> bool {
    settings.keep_deleted_size.0.is_some_and(|most| on_disk(octets) > most)
}

/// Makes an empty file for what an UPDATE of `user` removes now, whose name is durable. It is kept
/// when [`settle`] says so. The user's session lock and redo record have to be held.
///
/// # Errors
///
/// Those of the file system.
pub(super) fn create(user: &str) -> io::Result<File> {
    let own = Path::new(DIRECTORY).join(user);
    // Left by an UPDATE whose record is gone: that cannot have happened.
    settle_in(&own, Decision::DidNot)?;
    let now = SystemTime::now();
    redate_in(&own, now)?;
    prepare(&free_place(&own, now))
}

/// Whether [`redate`] has something to do.
///
/// # Errors
///
/// Those of the file system.
pub(super) fn is_from_the_future(user: &str) -> io::Result<bool> {
    let now = SystemTime::now();
    Ok(removals(user)?.iter().any(|removal| removal.time > now + LEAP))
}

/// What was removed in the future, by a clock that was wrong then, is removed now: it would be kept for
/// ever. Should the clock be wrong now, nothing is lost, see above. The session lock of `user` has to be
/// held, and there must be no redo record, which may be about these files.
///
/// # Errors
///
/// Those of the file system.
pub(super) fn redate(user: &str) -> io::Result<()> {
    redate_in(&Path::new(DIRECTORY).join(user), SystemTime::now())
}

fn redate_in(directory: &Path, now: SystemTime) -> io::Result<()> {
    for Removal { time, path } in removals_in(directory, now)? {
        if time > now + LEAP {
            std::fs::rename(&path, free_place(directory, now))?;
        }
    }
    Ok(())
}

fn free_place(directory: &Path, mut time: SystemTime) -> PathBuf {
    while directory.join(name_of(time)).exists() {
        time += Duration::from_nanos(1);
    }
    directory.join(name_of(time))
}

/// Makes an empty file that takes the place of `removal` when [`settle`] says so.
///
/// # Errors
///
/// Those of the file system.
pub(super) fn prepare_rest(removal: &Removal) -> io::Result<File> {
    prepare(&removal.path)
}

fn prepare(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(NEW);
    let path = path.with_file_name(name);
    let directory = path.parent().unwrap_or(Path::new(DIRECTORY));
    let mut is_new = false;
    let file = loop {
        match options.open(&path) {
            // `popa3d --expire` may remove it while it is empty.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
                is_new = true;
            }
            result => break result?,
        }
    };
    if is_new {
        // The two above it may be new as well.
        directory.ancestors().skip(1).take(2).try_for_each(sync_directory)?;
    }
    sync_directory(directory)?;
    Ok(file)
}

/// Puts the prepared files of `user` in place, or drops them, durably. May be repeated.
///
/// # Errors
///
/// Those of the file system: the redo record has to stay until it is done.
pub(super) fn settle(user: &str, decision: Decision) -> io::Result<()> {
    settle_in(&Path::new(DIRECTORY).join(user), decision)
}

fn settle_in(directory: &Path, decision: Decision) -> io::Result<()> {
    let mut is_changed = false;
    for prepared in files(directory)? {
        let Some(place) = place_of(&prepared) else { continue };
        let counts = match decision {
            Decision::Happened => true,
            Decision::DidNot => false,
            // What would take the place of another file is less than that.
            Decision::Unknown => !place.exists(),
        };
        // It expired at this very moment.
        let Some(found) = unless_gone(std::fs::metadata(&prepared))? else { continue };
        if !counts || found.len() == 0 {
            // In this order: a crash in between is repeated.
            if counts {
                unless_gone(std::fs::remove_file(&place))?;
            }
            unless_gone(std::fs::remove_file(&prepared))?;
        } else {
            unless_gone(note_order(directory, &prepared, &place))?;
            unless_gone(std::fs::rename(&prepared, &place))?;
        }
        is_changed = true;
    }
    if is_changed { sync_directory(directory) } else { Ok(()) }
}

/// Has the modification time of a prepared file tell that it is the newest of all, or what takes its `place`
/// that it is what was there.
fn note_order(directory: &Path, prepared: &Path, place: &Path) -> io::Result<()> {
    let modified = |path: &Path| std::fs::metadata(path)?.modified();
    let time = match unless_gone(modified(place))? {
        Some(time) => Some(time),
        None => {
            let named = place.file_name().and_then(|name| time_of(name.to_str()?));
            let mut newest = named;
            for path in files(directory)?.iter().filter(|path| place_of(path).is_none()) {
                let before = unless_gone(modified(path))?;
                newest = newest.max(before.map(|time| time + Duration::from_nanos(1)));
            }
            newest
        }
    };
    time.map_or(Ok(()), |time| File::open(prepared)?.set_modified(time))
}

/// What is kept for `user`, the oldest first.
///
/// # Errors
///
/// The directory is there and cannot be read.
pub(super) fn removals(user: &str) -> io::Result<Vec<Removal>> {
    removals_in(&Path::new(DIRECTORY).join(user), SystemTime::now())
}

fn removals_in(directory: &Path, now: SystemTime) -> io::Result<Vec<Removal>> {
    let mut removals = Vec::new();
    for path in files(directory)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(named) = name.and_then(time_of) else { continue };
        let Some(found) = unless_gone(std::fs::metadata(&path))? else { continue };
        let is_dated_back =
            |modified: &SystemTime| *modified > named + LEAP && *modified <= now + LEAP;
        let time = found.modified().ok().filter(is_dated_back).unwrap_or(named);
        removals.push(Removal { time, path });
    }
    removals.sort_unstable_by(|a, b| (a.time, &a.path).cmp(&(b.time, &b.path)));
    Ok(removals)
}

/// The users for whom something may be kept.
///
/// # Errors
///
/// The directory is there and cannot be read.
pub(super) fn users() -> io::Result<Vec<String>> {
    let names = files(Path::new(DIRECTORY))?;
    let names = names.iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    Ok(names)
}

/// Drops what was removed longer ago than `settings` say, and the oldest of what is more than they allow.
///
/// # Errors
///
/// Those of the file system.
pub(super) fn prune(user: &str, settings: &Settings, now: SystemTime) -> io::Result<Pruned> {
    let directory = Path::new(DIRECTORY).join(user);
    let age = keeps(settings).unwrap_or_default();
    prune_in(&directory, now, age, settings.keep_deleted_size.0.unwrap_or(u64::MAX))
}

fn prune_in(directory: &Path, now: SystemTime, age: Duration, most: u64) -> io::Result<Pruned> {
    let since = now.checked_sub(age).unwrap_or(UNIX_EPOCH);
    let mut pruned = Pruned::default();
    let mut total = 0;
    for prepared in files(directory)? {
        // Of a user who is gone, say: nobody else would ever look at it.
        let time = place_of(&prepared).and_then(|place| time_of(place.file_name()?.to_str()?));
        if time.is_some_and(|time| time <= since) {
            unless_gone(std::fs::remove_file(&prepared))?;
        }
    }
    for removal in removals_in(directory, now)?.iter().rev() {
        let Some(found) = unless_gone(std::fs::metadata(&removal.path))? else { continue };
        let size = found.len();
        total += on_disk(size);
        let dropped = if removal.time <= since {
            &mut pruned.expired
        } else if total > most {
            &mut pruned.crowded_out
        } else {
            continue;
        };
        if unless_gone(std::fs::remove_file(&removal.path))?.is_none() {
            continue;
        }
        *dropped = Dropped { removals: dropped.removals + 1, octets: dropped.octets + size };
    }
    Ok(pruned)
}

/// Nobody keeps a session and `popa3d --expire` from dropping the same file at once.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Removes the directory of `user` if nothing is in it.
pub(super) fn tidy(user: &str) {
    // An UPDATE that begins makes it again.
    let _ = std::fs::remove_dir(Path::new(DIRECTORY).join(user));
}

fn on_disk(octets: u64) -> u64 {
    octets.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// `1795624775.123456789`: seconds since the epoch.
fn name_of(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:010}.{:09}", since.as_secs(), since.subsec_nanos())
}

fn time_of(name: &str) -> Option<SystemTime> {
    let (seconds, nanos) = name.split_once('.')?;
    let is_number = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
    if seconds.len() < 10 || nanos.len() != 9 || !is_number(seconds) || !is_number(nanos) {
        return None;
    }
    let since = Duration::new(seconds.parse().ok()?, nanos.parse().ok()?);
    UNIX_EPOCH.checked_add(since)
}

/// Where a prepared file is to go; `None` for one that is no such file.
fn place_of(prepared: &Path) -> Option<PathBuf> {
    Some(prepared.with_file_name(prepared.file_name()?.to_str()?.strip_suffix(NEW)?))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
