//! The maildrop of this session: numbers, sizes and unique-ids of its messages, which stay those of
//! the login (RFC 1939 section 4), and sending them from wherever they are now.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use super::client::Output;
use super::mailbox::{Lost, Mailbox, State};
use crate::channel::{NotRemembered, Totals, Trouble};
use crate::mbox::{self, Index, Limits, Message, Remembered, ScanError, TransmitError, Workspace};
use crate::pop3::{self, MessageNumber};

/// How often a message that changes while it is read is read again.
const TRIES: usize = 3;

/// Most clients ask for one message after the other. One of at most so many octets is read while
/// the client still takes in the one before, which saves a sixth of the time that each one takes.
const LONGEST_PREPARED: u64 = 64 * 1024;

/// Everything known of the mailbox; without a file there are no messages.
#[derive(Default)]
pub(super) struct Maildrop {
    mailbox: Option<Mailbox>,
    index: Index,
    workspace: Option<Workspace>,
    prepared: Prepared,
    remembered: Remembered,
    file_of_ids: FileOfIds,
}

/// What is known of the file of remembered unique-ids.
#[derive(Default, PartialEq, Eq)]
enum FileOfIds {
    /// What is remembered is what is in it.
    #[default]
    Known,
    /// There is more in it, which makes no sense.
    Damaged,
    /// Whatever is in it has to stay.
    OutOfReach,
}

/// The reply to a RETR that may never come.
#[derive(Default)]
struct Prepared {
    /// Of which message, and what the mailbox was before it was read.
    of: Option<(MessageNumber, State)>,
    reply: Vec<u8>,
}

/// Why a message is not sent.
#[derive(Debug)]
pub(super) enum Unsent {
    /// Another program removed or edited it; nothing was sent.
    Gone,
    /// Another program is changing the mailbox; nothing was sent.
    Changing,
    /// The connection must be closed: some of it was sent, or the client is gone.
    Broken(io::Error),
}

impl Maildrop {
    /// Reads the locked mailbox.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn scan(mailbox: OwnedFd, limits: &Limits, key: u64) -> Result<Self, Trouble> {
        let (mailbox, index) = Mailbox::scan(mailbox, limits, key)?;
        Ok(Self { mailbox: Some(mailbox), index, ..Self::default() })
    }

    /// Takes what is remembered of unique-ids from `file`; says what is wrong with that, which costs some
    /// clients a second download, and no more.
    pub(super) fn recall(&mut self, file: OwnedFd) -> Option<NotRemembered> {
        let text = match read(&File::from(file)) {
            Ok(text) => text,
            Err(error) => {
                self.leave_ids_alone();
                return Some(NotRemembered::Unreadable(error.raw_os_error().unwrap_or_default()));
            }
        };
        let (remembered, damaged) = Remembered::parse(&text);
        self.remembered = remembered;
        if damaged == 0 {
            return None;
        }
        self.file_of_ids = FileOfIds::Damaged;
        Some(NotRemembered::Damaged(damaged as u64))
    }

    /// Unique-ids may be remembered and nobody knows which, perhaps only for now.
    pub(super) fn leave_ids_alone(&mut self) {
        self.file_of_ids = FileOfIds::OutOfReach;
    }

    /// Makes the unique-ids of different messages different, as they were before where that is known.
    ///
    /// # Errors
    ///
    /// The mailbox could not be read again.
    pub(super) fn distinguish(&mut self) -> Result<(), Trouble> {
        match &self.mailbox {
            Some(mailbox) => {
                self.index.distinguish(mailbox.file(), &self.remembered).map_err(trouble)
            }
            None => Ok(()),
        }
    }

    /// What has to be remembered when the messages that `is_deleted` names are gone; `None` when
    /// that is what is remembered already, or nothing may take its place.
    pub(super) fn to_remember(&self, is_deleted: impl FnMut(usize) -> bool) -> Option<String> {
        let new = self.index.remembered(is_deleted);
        let is_wanted = match self.file_of_ids {
            FileOfIds::Known => new != self.remembered,
            FileOfIds::Damaged => true,
            FileOfIds::OutOfReach => false,
        };
        is_wanted.then(|| new.to_string())
    }

    pub(super) fn has_mailbox(&self) -> bool {
        self.mailbox.is_some()
    }

    pub(super) fn mailbox(&self) -> Option<&Mailbox> {
        self.mailbox.as_ref()
    }

    pub(super) fn totals(&self) -> Totals {
        let octets = self.index.octets().0;
        Totals { messages: pop3::Maildrop::count(self), octets }
    }

    pub(super) fn message(&self, number: MessageNumber) -> Option<&Message> {
        self.index.messages().get(number.index() as usize)
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Prepares the reply to RETR for when it is asked for, unless the mailbox changes until then.
    pub(super) fn prepare(&mut self, number: MessageNumber) {
        self.prepared.of = None;
        let found = self.mailbox.as_ref().and_then(|mailbox| {
            let (place, since) = mailbox.surely_at(&self.index, number.index() as usize)?;
            (place.octets().0 <= LONGEST_PREPARED).then_some((mailbox.file(), place, since))
        });
        let Some((file, place, since)) = found else { return };
        let workspace = self.workspace.get_or_insert_default();
        let reply = &mut self.prepared.reply;
        reply.clear();
        let written = write_first_line(&place, None, reply).is_ok()
            && mbox::transmit(workspace, &mut &*file, &place, None, &mut |piece| {
                reply.write_all(piece)
            })
            .is_ok();
        reply.extend_from_slice(END);
        self.prepared.of = written.then_some((number, since));
    }

    /// Writes the reply to RETR, or to TOP when `lines` is given.
    ///
    /// Every octet was read from the mailbox of the login, or is that of a message that was seen as a
    /// whole, so that none is ever taken for the message that is another's. Where programs added notes to the header since login,
    /// these are sent too, and counted in the reply; LIST goes on to say what it said.
    ///
    /// # Errors
    ///
    /// See [`Unsent`].
    pub(super) fn send(
        &mut self,
        number: MessageNumber,
        lines: Option<u64>,
        output: &mut Output,
    ) -> Result<(), Unsent> {
        let Some(mailbox) = &mut self.mailbox else { return Err(Unsent::Gone) };
        let prepared = self.prepared.of.take().filter(|(of, _)| *of == number && lines.is_none());
        if prepared.is_some_and(|(_, since)| mailbox.surely_is(&since)) {
            // It was read between two looks at the mailbox that saw the same.
            return output.take(&mut self.prepared.reply).map_err(Unsent::Broken);
        }
        let workspace = self.workspace.get_or_insert_default();
        let mark = output.mark();
        // Octets of the reply behind its first line, and the place that they came from.
        let mut written = 0;
        let mut begun: Option<Message> = None;
        let mut tries = TRIES;
        loop {
            let (place, mut proof) =
                match (mailbox.find(&self.index, number.index() as usize), begun) {
                    (Ok(found), None) => found,
                    // Elsewhere, the notes in the header may be others.
                    (Ok(found), Some(begun)) if begun.is_at(&found.0) => found,
                    (Err(Lost::Gone), None) => return Err(Unsent::Gone),
                    (Err(Lost::Changing), None) => return Err(Unsent::Changing),
                    (Ok(_) | Err(_), Some(_)) => return Err(changed_half_way()),
                };
            let before = written;
            let mut skip = written;
            let source = &mut mailbox.reader(&mut proof);
            let sent = mbox::transmit(workspace, source, &place, lines, &mut |piece| {
                if written == 0 {
                    write_first_line(&place, lines, output)?;
                }
                let had = piece.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
                let new = piece.get(had..).unwrap_or_default();
                skip -= had as u64;
                written += new.len() as u64;
                output.write_all(new)
            });
            match sent {
                Ok(()) => {
                    if written == 0 {
                        write_first_line(&place, lines, output).map_err(Unsent::Broken)?;
                    }
                    return output.write_all(END).map_err(Unsent::Broken);
                }
                Err(TransmitError::Sink(error)) => return Err(Unsent::Broken(error)),
                Err(TransmitError::Read(_) | TransmitError::Shrunk) => {}
            }
            // Somebody changed the mailbox: perhaps something else in it, perhaps this message.
            if output.take_back(mark) {
                written = 0;
            } else {
                begun = Some(place);
            }
            tries = if written > before { TRIES } else { tries - 1 };
            if tries == 0 {
                return Err(if begun.is_some() { changed_half_way() } else { Unsent::Changing });
            }
        }
    }
}

fn changed_half_way() -> Unsent {
    Unsent::Broken(io::ErrorKind::InvalidData.into())
}

/// The end of a reply of many lines (RFC 1939 section 3).
const END: &[u8] = b".\r\n";

fn write_first_line(
    message: &Message,
    lines: Option<u64>,
    output: &mut impl Write,
) -> io::Result<()> {
    match lines {
        None => write!(output, "+OK {} octets\r\n", message.octets()),
        Some(_) => pop3::reply::ok(output, "top of message follows"),
    }
}

impl pop3::Maildrop for Maildrop {
    fn count(&self) -> u32 {
        // The scan refuses more messages than `max-messages`, which fits.
        u32::try_from(self.index.messages().len()).unwrap_or(u32::MAX)
    }

    fn octets(&self, number: MessageNumber) -> Option<u64> {
        self.message(number).map(|message| message.octets().0)
    }

    fn write_unique_id(&self, number: MessageNumber, out: &mut impl Write) -> io::Result<()> {
        match self.message(number) {
            Some(message) => write!(out, "{}", self.index.unique_id(message)),
            None => Ok(()),
        }
    }
}

/// Reads a file by position: the system call filter knows no other way.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut octets = vec![0; size];
    file.read_exact_at(&mut octets, 0)?;
    Ok(octets)
}

pub(super) fn trouble(error: ScanError) -> Trouble {
    match error {
        ScanError::TooLarge { .. } => Trouble::TooLarge,
        ScanError::TooManyMessages { .. } => Trouble::TooManyMessages,
        ScanError::NotMbox { .. } => Trouble::NotMbox,
        ScanError::Shrunk => Trouble::Changed,
        ScanError::Read(error) => unreadable(error),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
pub(super) fn unreadable(error: io::Error) -> Trouble {
    Trouble::Unreadable(error.raw_os_error().unwrap_or_default())
}

#[cfg(test)]
mod tests;
