//! Finding messages again in a mailbox that other programs changed. Runs in the worker.

use std::fs::File;

use super::content::Fingerprint;
use super::scan::{Pass, ScanError};
use super::{Index, Message};

/// Whether the very message is still at its place, with nothing changed that a client would see
/// but the notes of other programs in its header.
pub fn still_there(file: &File, message: &Message, key: u64) -> Result<bool, ScanError> {
    let mut pass = Pass::new(Fingerprint::new(key));
    let mut same = None;
    let read = pass.run(file, message.range(), &mut |found| {
        let first = same.is_none();
        same = Some(
            first
                && found.message() == Message { distinction: super::NOT_DISTINGUISHED, ..*message },
        );
        Ok(())
    });
    match read {
        Ok(()) => Ok(same == Some(true)),
        Err(ScanError::Shrunk | ScanError::NotMbox { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// For each message of `old`, where it is in `new`: the same content, whatever other programs
/// noted in its header and whichever order they left. Of copies that can't be told apart, each
/// is matched once, in the order of the file. Both are scans with the same key.
pub fn relocate(old: &Index, new: &Index) -> Vec<Option<usize>> {
    let mut places = vec![None; old.messages.len()];
    let mut candidates = by_fingerprint(new).into_iter().peekable();
    for (fingerprint, number) in by_fingerprint(old) {
        while candidates.next_if(|(other, _)| *other < fingerprint).is_some() {}
        let found = candidates.next_if(|(other, _)| *other == fingerprint);
        if let (Some(place), Some((_, at))) = (places.get_mut(number), found) {
            *place = Some(at);
        }
    }
    places
}

fn by_fingerprint(index: &Index) -> Vec<(u64, usize)> {
    let all = index.messages.iter().enumerate();
    let mut all: Vec<_> = all.map(|(number, message)| (message.fingerprint, number)).collect();
    all.sort_unstable();
    all
}
