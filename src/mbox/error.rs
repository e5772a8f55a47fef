//! Why a mailbox can't be served. Runs in the worker.

use std::fmt;
use std::io;

/// Why a mailbox can't be served.
#[derive(Debug)]
pub enum ScanError {
    /// The file is larger than the limit.
    TooLarge {
        /// Its size on disk.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// There are more messages than the limit.
    TooManyMessages {
        /// What is allowed.
        limit: u32,
    },
    /// The file does not begin with a From_ line, so it is no mbox.
    NotMbox {
        /// Where something else was found.
        offset: u64,
    },
    /// The file ended early: another program shortened it.
    Shrunk,
    /// The file could not be read.
    Read(io::Error),
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size, limit } => {
                write!(f, "mailbox has {size} bytes, more than the limit of {limit}")
            }
            Self::TooManyMessages { limit } => {
                write!(f, "mailbox has more messages than the limit of {limit}")
            }
            Self::NotMbox { offset } => {
                write!(f, "not a mailbox in mbox format: no \"From \" line at byte {offset}")
            }
            Self::Shrunk => write!(f, "mailbox was shortened by another program while it was read"),
            Self::Read(_) => write!(f, "read the mailbox"),
        }
    }
}

impl std::error::Error for ScanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::TooLarge { .. }
            | Self::TooManyMessages { .. }
            | Self::NotMbox { .. }
            | Self::Shrunk => None,
        }
    }
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Shrunk } else { Self::Read(error) }
    }
}
