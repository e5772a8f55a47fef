//! UPDATE, from the worker's side: says which octets of the mailbox have to go.

use std::fs::File;
use std::io;

use super::Start;
use super::expunged::Records;
use super::maildrop::Maildrop;
use super::session::send_remembered;
use crate::channel::{Answer, MAX_RANGES, Range, Refusal, Request, ToMonitor, Totals, Trouble};
use crate::mbox;
use crate::pop3::{self, MessageNumber, Transaction};

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Update {
    /// Nothing was marked.
    NothingToDo,
    /// All that was marked is gone; how many messages.
    Removed(u32),
    /// So many messages could not be found again and stay; the others are gone.
    Missing(u32),
    /// Another program removed the mailbox.
    MailboxGone,
    /// Nothing was removed, for this reason.
    Refused(Refusal),
}

/// Removes what is marked in `state`.
///
/// # Errors
///
/// The monitor is gone, or gave an answer to something else.
pub(super) fn run(
    monitor: &ToMonitor,
    maildrop: &Maildrop,
    state: &Transaction,
    start: &Start,
) -> io::Result<Update> {
    let marked: Vec<usize> = (0..pop3::Maildrop::count(maildrop))
        .filter_map(MessageNumber::from_index)
        .filter(|number| state.is_marked(*number))
        .map(|number| number.index() as usize)
        .collect();
    if marked.is_empty() {
        return Ok(Update::NothingToDo);
    }
    monitor.send(&Request::Lock, None)?;
    let mailbox = match monitor.receive()? {
        (Answer::Locked, Some(mailbox)) => File::from(mailbox),
        (Answer::MailboxGone, None) => return Ok(Update::MailboxGone),
        (Answer::NotUpdated(refusal), None) => return Ok(Update::Refused(refusal)),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let doomed = match locate(maildrop, &marked, &mailbox) {
        Ok(doomed) => doomed,
        Err(trouble) => {
            monitor.send(&Request::Abandon(trouble), None)?;
            return Ok(Update::Refused(Refusal::Temporary));
        }
    };
    let missing = marked.len() - doomed.len();
    let records = start.log_expunged.then(|| Records::of(&doomed, &mailbox));
    let ranges = merge(doomed.iter().map(|(_, place)| range(place)).collect());
    for part in ranges.chunks(MAX_RANGES) {
        monitor.send(&Request::Delete(part.to_vec()), None)?;
    }
    let gone: Vec<usize> = doomed.iter().map(|(index, _)| *index).collect();
    let is_gone = |index: usize| gone.binary_search(&index).is_ok();
    send_remembered(monitor, maildrop.to_remember(is_gone))?;
    let deleted = sum(maildrop, &gone);
    let all = maildrop.totals();
    let left =
        Totals { messages: all.messages - deleted.messages, octets: all.octets - deleted.octets };
    monitor.send(&Request::Commit { deleted, left }, None)?;
    match monitor.receive()? {
        (Answer::Committed, None) => {}
        (Answer::NotUpdated(refusal), None) => return Ok(Update::Refused(refusal)),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    if let Some(records) = records {
        records.send(monitor, maildrop)?;
    }
    Ok(match u32::try_from(missing) {
        Ok(0) => Update::Removed(deleted.messages),
        Ok(missing) => Update::Missing(missing),
        Err(_) => Update::Missing(u32::MAX),
    })
}

/// Where the marked messages are in the locked file `now`, each with its index in the maildrop,
/// ascending by index; those that cannot be found are left out.
fn locate(
    maildrop: &Maildrop,
    marked: &[usize],
    now: &File,
) -> Result<Vec<(usize, mbox::Message)>, Trouble> {
    let Some(mailbox) = maildrop.mailbox() else { return Ok(Vec::new()) };
    let index = maildrop.index();
    let is_unchanged = mailbox.is_unchanged_in(now);
    // A copy at the place of a marked one may be that behind it, with the marked one gone; not so
    // where nothing ever changed.
    let is_itself = |number: usize| {
        is_unchanged
            || index.messages().get(number).is_some_and(|message| !message.may_have_copies())
    };
    let is_there = |place: &mbox::Message| is_unchanged || mailbox.is_in_place(now, place);
    let in_place = |number: &usize| {
        let place =
            mailbox.place(index, *number).filter(|place| is_itself(*number) && is_there(place))?;
        Some((*number, place))
    };
    if let Some(places) = marked.iter().map(in_place).collect() {
        return Ok(places);
    }
    let scanned = mailbox.scan_other(now)?;
    let is_marked = |number: usize| marked.binary_search(&number).is_ok();
    let places = mbox::relocate(index, &scanned, is_marked);
    Ok(marked
        .iter()
        .filter_map(|number| {
            let place = (*places.get(*number)?)?;
            Some((*number, *scanned.messages().get(place)?))
        })
        .collect())
}

fn range(message: &mbox::Message) -> Range {
    let std::ops::Range { start, end } = message.range();
    Range { start, end }
}

/// Sorts ranges and makes one of those that touch each other.
fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

fn sum(maildrop: &Maildrop, indices: &[usize]) -> Totals {
    let messages = maildrop.index().messages();
    let mut totals = Totals::default();
    for message in indices.iter().filter_map(|index| messages.get(*index)) {
        totals.messages += 1;
        totals.octets += message.octets().0;
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let range = |start, end| Range { start, end };
        let merged = merge(vec![range(6, 9), range(0, 2), range(2, 4)]);
        assert_eq!(merged, [range(0, 4), range(6, 9)]);
    }
}
