//! Finishing a removal that a crash interrupted.

use std::io;

use super::commit::Costs;
use super::record::{Entry, Head, Step};
use super::rounds::{Rounds, buffer, mark, next_checksum};
use super::{Error, Storage, put_back, record};
use crate::channel::Totals;

/// Octets that are read at once.
const READ: usize = 1024 * 1024;

/// What was found, and done. Of mail that is put back it says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::as_user) enum Recovered {
    /// The removal was never decided on: the mailbox is the old one.
    NothingBegun,
    /// It was finished before the crash, but for dropping the record; what was removed, unless mail was
    /// put back.
    WasFinished(Option<Totals>),
    /// It is finished now; likewise.
    Finished(Option<Totals>),
}

/// Finishes, in the locked `mailbox`, what `record` describes.
///
/// Mail that was appended since then is kept. When it returns `Ok`, the record can go.
pub(in crate::as_user) fn recover(
    mailbox: &impl Storage,
    record: &impl Storage,
    costs: Costs,
) -> Result<Recovered, Error> {
    let mut magic = [0; 8];
    record.read_at(&mut magic, 0).map_err(Error::Unfinished)?;
    match &magic {
        record::MAGIC => {}
        put_back::MAGIC => return put_back::recover(mailbox, record).map_err(Error::Unfinished),
        // Room for a head.
        [0, 0, 0, 0, 0, 0, 0, 0] => return Ok(Recovered::NothingBegun),
        // No disk tears so little: what it was for may well have begun.
        _ => {
            return Err(Error::Conflict(
                "its redo record is damaged, or of another version of popa3d",
            ));
        }
    }
    let Some(head) = Head::read(record).map_err(Error::Unfinished)? else {
        return Ok(Recovered::NothingBegun);
    };
    if head.is_of_cut() {
        return was_cut_off(mailbox, &head).map_err(Error::Unfinished);
    }
    let Some((entry, piece)) = head.newest_entry(record).map_err(Error::Unfinished)? else {
        return Ok(Recovered::NothingBegun);
    };
    if mailbox.identity().map_err(Error::Unfinished)? != head.mailbox {
        return Err(Error::Conflict("another file has taken the mailbox's place"));
    }
    if entry.step == Step::Cut && is_cut(mailbox, &head, &entry).map_err(Error::Unfinished)? {
        // A process that was killed may have cut it and not waited for the disk.
        mailbox.sync().map_err(Error::Unfinished)?;
        return Ok(Recovered::WasFinished(Some(head.deleted)));
    }
    check(mailbox, &head, &entry, &piece).map_err(Error::Unfinished)?.map_err(Error::Conflict)?;
    go_on(mailbox, record, &head, &entry, &piece, costs).map_err(Error::Unfinished)?;
    Ok(Recovered::Finished(Some(head.deleted)))
}

/// Looks whether all was removed that was to be, when that is all from one place on.
fn was_cut_off(mailbox: &impl Storage, head: &Head) -> io::Result<Recovered> {
    let (size, first) = (mailbox.size()?, head.plan.first_place());
    let is_cut = mailbox.identity()? == head.mailbox
        && size >= first
        // It may have grown again since.
        && (size < head.size || !head.has_its_chunks(mailbox, first)?);
    if !is_cut {
        return Ok(Recovered::NothingBegun);
    }
    mailbox.sync()?;
    Ok(Recovered::WasFinished(Some(head.deleted)))
}

/// Whether the mailbox was cut already, and maybe has grown again since.
fn is_cut(mailbox: &impl Storage, head: &Head, entry: &Entry) -> io::Result<bool> {
    if mailbox.size()? < entry.size {
        return Ok(true);
    }
    let mark = mark(head);
    let mut found = vec![0; mark.len()];
    mailbox.read_at(&mut found, entry.place)?;
    // The mark was durable before the entry; whatever else is there came after the cut.
    Ok(found != mark)
}

/// Looks whether the mailbox is what the removal left, as far as that is not about to be written.
fn check(
    mailbox: &impl Storage,
    head: &Head,
    entry: &Entry,
    piece: &[u8],
) -> io::Result<Result<(), &'static str>> {
    if mailbox.size()? < entry.size {
        return Ok(Err("it is shorter than it was"));
    }
    let first = head.plan.first_place();
    if head.sum(mailbox, first, entry.place)?.digest() != entry.moved {
        return Ok(Err("what was moved already has changed"));
    }
    let mail = if let Step::Put { mail, .. } = entry.step { mail } else { 0 };
    let next = entry.place + mail;
    if next_checksum(mailbox, head, next, entry.size)? != entry.next {
        return Ok(Err("what is to be moved next has changed"));
    }
    // The gap may hold anything; what this step writes may go beyond it, and no later one has begun.
    let length = if let Step::Put { length, .. } = entry.step { length } else { 0 };
    let from = head.plan.source(entry.place).max(entry.place + length);
    if !head.has_its_chunks(mailbox, from)? {
        return Ok(Err("what is to be moved has changed"));
    }
    let mail = usize::try_from(mail).ok().and_then(|mail| piece.get(..mail)).unwrap_or_default();
    if !is_source_of(mailbox, head, entry, mail, piece)? {
        return Ok(Err("what was being moved has changed"));
    }
    Ok(Ok(()))
}

/// Whether the source of `mail` is there, or, where it is written over, that and `piece` mixed as
/// a crash may have left it.
fn is_source_of(
    mailbox: &impl Storage,
    head: &Head,
    entry: &Entry,
    mail: &[u8],
    piece: &[u8],
) -> io::Result<bool> {
    let mut place = entry.place;
    let mut rest = mail;
    while !rest.is_empty() {
        let source = head.plan.source(place);
        let run = usize::try_from(head.plan.run_from(source)).unwrap_or(usize::MAX);
        let (expected, behind) = rest.split_at_checked(run.min(READ)).unwrap_or((rest, &[]));
        let mut found = vec![0; expected.len()];
        if mailbox.read_at(&mut found, source)? < found.len() {
            return Ok(false);
        }
        let written = usize::try_from(source - entry.place).unwrap_or(usize::MAX);
        let mut written = piece.get(written..).unwrap_or_default().iter();
        let is_mixed = found.iter().zip(expected).all(|(found, old)| {
            let new = written.next();
            found == old || Some(found) == new
        });
        if !is_mixed {
            return Ok(false);
        }
        place += expected.len() as u64;
        rest = behind;
    }
    Ok(true)
}

fn go_on(
    mailbox: &impl Storage,
    record: &impl Storage,
    head: &Head,
    entry: &Entry,
    piece: &[u8],
    costs: Costs,
) -> io::Result<()> {
    let mut rounds = Rounds {
        mailbox,
        record,
        head,
        direct: costs.direct,
        place: entry.place,
        moved: head.sum(mailbox, head.plan.first_place(), entry.place)?,
        sequence: entry.sequence + 1,
        is_recorded: true,
        buffer: buffer(head, costs.direct, entry.place, mailbox.size()?)?,
    };
    // What decides may have been read from memory alone: a process was killed before its sync, or that
    // failed, which the kernel tells once and then takes it for written.
    head.write(record)?;
    head.write_entry(record, entry, piece)?;
    record.sync()?;
    match entry.step {
        Step::Put { mail, .. } => {
            mailbox.write_at(piece, entry.place)?;
            mailbox.sync()?;
            let mail_octets = usize::try_from(mail).unwrap_or(usize::MAX);
            rounds.moved.update(piece.get(..mail_octets).unwrap_or(piece));
            rounds.place += mail;
            rounds.is_recorded = false;
        }
        Step::Move => {}
        // From here on the mark may be overwritten, and its absence must not mean that it was cut.
        Step::Cut => rounds.record_step(Step::Move, entry.size)?,
    }
    rounds.finish()
}
