//! The maildrop of this session: a mailbox as it was scanned, and whether it still is.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use super::client::Output;
use crate::channel::{Totals, Trouble};
use crate::mbox::{self, Index, Limits, Message, Remembered, ScanError, TransmitError, Workspace};
use crate::pop3::{self, MessageNumber};

/// A file that was changed so recently may be changed again within one tick of its time stamps.
const UNSETTLED: Duration = Duration::from_secs(1);

/// How often a mailbox that changes while it is locked is read again.
const TRIES: usize = 3;

/// Everything known of the mailbox; without a file there are no messages.
#[derive(Default)]
pub(super) struct Maildrop {
    file: Option<File>,
    index: Index,
    state: Option<State>,
    key: u64,
    workspace: Option<Workspace>,
    remembered: Remembered,
}

/// Two equal ones mean: nobody changed the file in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Whether the time stamps are old enough to be trusted.
    settled: bool,
}

impl State {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            settled: is_settled(&metadata),
        })
    }

    /// Whether a file in the state `now` surely has the content that it had in this one.
    fn surely_is(&self, now: &Self) -> bool {
        self.settled && Self { settled: true, ..*now } == *self
    }

    /// Whether the time stamps saw no difference.
    fn seems(&self, now: &Self) -> bool {
        Self { settled: self.settled, ..*now } == *self
    }
}

fn is_settled(metadata: &Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_some_and(|age| age >= UNSETTLED)
}

/// Why a message is not sent.
#[derive(Debug)]
pub(super) enum Unsent {
    /// Another program changed it; nothing of it was sent.
    Changed,
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
        let file = File::from(mailbox);
        let mut state = State::of(&file).map_err(unreadable)?;
        for _ in 0..TRIES {
            let index = match mbox::scan(&file, state.size, limits, key) {
                Ok(index) => Some(index),
                Err(ScanError::Shrunk) => None,
                Err(error) => return Err(trouble(error)),
            };
            let now = State::of(&file).map_err(unreadable)?;
            match index {
                Some(index) if state.seems(&now) => {
                    return Ok(Self {
                        file: Some(file),
                        index,
                        state: Some(state),
                        key,
                        ..Self::default()
                    });
                }
                // Somebody does not respect locks.
                Some(_) | None => state = now,
            }
        }
        Err(Trouble::Changed)
    }

    /// Makes the unique-ids of different messages different, as they were before, by `file`.
    ///
    /// # Errors
    ///
    /// The mailbox could not be read again.
    pub(super) fn distinguish(&mut self, file: Option<OwnedFd>) -> Result<(), Trouble> {
        // An unreadable file of unique-ids costs some clients a second download, and no more.
        let text = file.and_then(|file| read(&File::from(file)).ok()).unwrap_or_default();
        let (remembered, _damaged) = Remembered::parse(&text);
        self.remembered = remembered;
        match &self.file {
            Some(file) => self.index.distinguish(file, &self.remembered).map_err(trouble),
            None => Ok(()),
        }
    }

    /// What has to be remembered when the messages that `is_deleted` names are gone; `None` when
    /// that is what is remembered already.
    pub(super) fn to_remember(&self, is_deleted: impl FnMut(usize) -> bool) -> Option<String> {
        let new = self.index.remembered(is_deleted);
        (new != self.remembered).then(|| new.to_string())
    }

    pub(super) fn has_mailbox(&self) -> bool {
        self.file.is_some()
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

    /// Whether `mailbox` is this one, unchanged since it was scanned.
    pub(super) fn is_unchanged_in(&self, mailbox: &File) -> bool {
        State::of(mailbox).is_ok_and(|now| self.was(&now))
    }

    /// Whether a file in this state is this mailbox as it was scanned.
    fn was(&self, now: &State) -> bool {
        self.state.is_some_and(|then| then.surely_is(now))
    }

    /// Whether `message` is in `mailbox` just where it was scanned.
    pub(super) fn is_in_place(&self, mailbox: &File, message: &Message) -> bool {
        mbox::still_there(mailbox, message, self.key).unwrap_or(false)
    }

    /// Scans another state of the mailbox for comparison.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn scan_again(&self, mailbox: &File, limits: &Limits) -> Result<Index, Trouble> {
        let state = State::of(mailbox).map_err(unreadable)?;
        mbox::scan(mailbox, state.size, limits, self.key).map_err(trouble)
    }

    /// Writes the reply to RETR, or to TOP when `lines` is given.
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
        let (Some(message), Some(file)) = (self.message(number).copied(), &self.file) else {
            return Err(Unsent::Changed);
        };
        let before = State::of(file).map_err(|_| Unsent::Changed)?;
        if !self.was(&before) && !self.is_in_place(file, &message) {
            return Err(Unsent::Changed);
        }
        let mark = output.mark();
        let workspace = self.workspace.get_or_insert_default();
        let written = write_message(workspace, file, &message, lines, output);
        let after = State::of(file).ok();
        let is_same =
            after.is_some_and(|after| before.seems(&after)) || self.is_in_place(file, &message);
        match written {
            Ok(()) if is_same => Ok(()),
            Err(TransmitError::Sink(error)) => Err(Unsent::Broken(error)),
            // What another program did shows only now: take it back, if it is not too late.
            Ok(()) | Err(TransmitError::Read(_) | TransmitError::Shrunk) => {
                if output.take_back(mark) {
                    Err(Unsent::Changed)
                } else {
                    Err(Unsent::Broken(io::ErrorKind::InvalidData.into()))
                }
            }
        }
    }
}

fn write_message(
    workspace: &mut Workspace,
    file: &File,
    message: &Message,
    lines: Option<u64>,
    output: &mut Output,
) -> Result<(), TransmitError> {
    match lines {
        None => write!(output, "+OK {} octets\r\n", message.octets()),
        Some(_) => pop3::reply::ok(output, "top of message follows"),
    }
    .map_err(TransmitError::Sink)?;
    mbox::transmit(workspace, file, message, lines, &mut |piece| output.write_all(piece))?;
    output.write_all(b".\r\n").map_err(TransmitError::Sink)
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
fn unreadable(error: io::Error) -> Trouble {
    Trouble::Unreadable(error.raw_os_error().unwrap_or_default())
}
