//! Beginning a removal.

use std::io;

use super::keep::keep;
use super::plan::Plan;
use super::record::{Head, MARK};
use super::rounds::{Rounds, buffer};
use super::{Error, Storage};
use crate::channel::{Range, Totals};

/// How much space and how many syncs a removal may cost.
#[derive(Debug, Clone, Copy)]
pub(in crate::as_user) struct Costs {
    /// Most octets of mail that the record holds at once; it has room for two such pieces.
    pub(super) piece: u64,
    /// It tries with half as much when the disk is full, but not with less than this.
    pub(super) least_piece: u64,
    /// A gap of this size is worth two syncs, so that the piece need not be written twice.
    pub(super) direct: u64,
    /// Into how many chunks, whose checksums the record knows, what is changed is cut.
    pub(super) chunks: u64,
}

/// The whole record stays below 64 MiB.
pub(in crate::as_user) const COSTS: Costs =
    Costs { piece: 23 << 20, least_piece: 64 << 10, direct: 8 << 20, chunks: 1024 };

/// What is to be removed.
#[derive(Debug, Clone, Copy)]
pub(in crate::as_user) struct Removal<'a> {
    /// Octets of the mailbox, ascending.
    pub(in crate::as_user) doomed: &'a [Range],
    /// The messages that these are, which a recovery tells.
    pub(in crate::as_user) deleted: Totals,
}

/// Does a `removal` from the locked `mailbox`, atomically and durably, by an empty `record` whose
/// name is durable. Everything else stays as it is, in order; what lies before the first range is
/// not even written again.
///
/// With `kept`, an empty file whose name is durable, what is removed is durable there first, in order
/// and as it stands in the mailbox. Then the record alone says whether it was removed: crash before
/// its first entry, and `kept` is to be dropped; after, and it is to be kept.
///
/// When it returns `Ok`, the record has done its work and can go.
pub(in crate::as_user) fn commit(
    mailbox: &impl Storage,
    record: &impl Storage,
    kept: Option<&impl Storage>,
    removal: Removal<'_>,
    costs: Costs,
) -> Result<(), Error> {
    let Removal { doomed, deleted } = removal;
    let size = mailbox.size().map_err(Error::Untouched)?;
    if doomed.is_empty() {
        return Ok(());
    }
    let plan = Plan::new(doomed, size).ok_or(Error::Ranges)?;
    if let Some(kept) = kept {
        keep(mailbox, kept, plan.doomed()).map_err(Error::NotKept)?;
    } else if plan.last_source() == size && plan.removed() == size - plan.first_place() {
        let head = Head::of_cut(mailbox, plan, size, deleted).map_err(Error::Untouched)?;
        return match cut_off(mailbox, record, &head)? {
            Cut::Done => Ok(()),
            Cut::HasGrown => commit(mailbox, record, kept, removal, costs),
        };
    }
    let head = describe(mailbox, plan, size, deleted, costs)
        .and_then(|head| prepare(record, head, costs))
        .map_err(Error::Untouched)?;
    let place = head.plan.first_place();
    let buffer = buffer(&head, costs.direct, place, size).map_err(Error::Untouched)?;
    let rounds = Rounds {
        mailbox,
        record,
        head: &head,
        direct: costs.direct,
        place,
        moved: head.summing(),
        sequence: 0,
        is_recorded: false,
        buffer,
    };
    rounds.finish().map_err(Error::Unfinished)
}

/// What came of cutting the mailbox off.
enum Cut {
    Done,
    /// A program that ignores locks appended something: it is as it was, and what came has to stay.
    HasGrown,
}

/// Removes all that there is from one place on. Nothing has to move, and a file system cuts a file atomically
/// by itself: the head tells a recovery what was wanted, and that there are no entries.
fn cut_off(mailbox: &impl Storage, record: &impl Storage, head: &Head) -> Result<Cut, Error> {
    let place = head.plan.first_place();
    // Deleting is what helps when a disk is full, so that it has to do without one then. All that is lost
    // is what a recovery says.
    let _ = head.write(record).and_then(|()| record.sync());
    if mailbox.size().map_err(Error::Untouched)? != head.size {
        return Ok(Cut::HasGrown);
    }
    mailbox.truncate(place).and_then(|()| mailbox.sync()).map_err(Error::Unfinished)?;
    Ok(Cut::Done)
}

/// What the record says of a removal in which mail has to move.
fn describe(
    mailbox: &impl Storage,
    plan: Plan,
    size: u64,
    deleted: Totals,
    costs: Costs,
) -> io::Result<Head> {
    // What others wrote and did not sync is a part of the mailbox that is decided on here.
    mailbox.sync()?;
    let mut mark = [0xff; MARK];
    getrandom::fill(mark.get_mut(1..).unwrap_or_default()).map_err(io::Error::other)?;
    let moving = size - plan.removed() - plan.first_place() + MARK as u64;
    let chunk = (plan.last_source() - plan.first_place()).div_ceil(costs.chunks).max(1);
    let mut head = Head {
        id: getrandom::u64().map_err(io::Error::other)?,
        mark,
        mailbox: mailbox.identity()?,
        size,
        piece: costs.piece.min(moving),
        deleted,
        plan,
        chunk,
        chunks: Vec::new(),
    };
    head.sum_chunks(mailbox)?;
    Ok(head)
}

/// Makes room for the record and writes its head, which means nothing without an entry.
fn prepare(record: &impl Storage, mut head: Head, costs: Costs) -> io::Result<Head> {
    loop {
        match record.reserve(head.record_size()) {
            Ok(()) => break,
            Err(_) if head.piece / 2 >= costs.least_piece => head.piece /= 2,
            Err(error) => return Err(error),
        }
    }
    head.write(record)?;
    Ok(head)
}
