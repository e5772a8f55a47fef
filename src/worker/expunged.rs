//! What the journal is told of each message that UPDATE removes.

use std::fs::File;
use std::io;

use super::maildrop::Maildrop;
use crate::channel::{Expunged, MAX_EXPUNGED, MAX_MESSAGE_ID, Request, ToMonitor};
use crate::mbox::{self, MessageIds};

/// Octets of Message-IDs that are kept until the messages are gone; those of messages behind them are
/// left out. It is enough for 400,000 usual ones.
const MOST_KEPT: usize = 32 * 1024 * 1024;

/// Messages that are about to be removed.
pub(super) struct Records {
    /// The place of each in the maildrop, and its Message-ID.
    messages: Vec<(usize, Option<Box<[u8]>>)>,
}

impl Records {
    /// Of the messages that are at these places of the locked mailbox `now`: what is in there can be read
    /// only as long as they are.
    pub(super) fn of(doomed: &[(usize, mbox::Message)], now: &File) -> Self {
        let mut ids = MessageIds::of(now);
        let mut kept = 0;
        let messages = doomed.iter().map(|(number, place)| {
            // Without its Message-ID a record is still one.
            let id = if kept < MOST_KEPT { ids.find(place, MAX_MESSAGE_ID) } else { Ok(None) };
            let id = id.ok().flatten().map(Vec::into_boxed_slice);
            kept += id.as_ref().map_or(0, |id| id.len());
            (*number, id)
        });
        Self { messages: messages.collect() }
    }

    /// Tells the monitor, now that they are gone.
    ///
    /// # Errors
    ///
    /// It is gone itself.
    pub(super) fn send(mut self, monitor: &ToMonitor, maildrop: &Maildrop) -> io::Result<()> {
        let index = maildrop.index();
        for part in self.messages.chunks_mut(MAX_EXPUNGED) {
            let records = part.iter_mut().filter_map(|(number, id)| {
                let message = index.messages().get(*number)?;
                Some(Expunged {
                    unique_id: index.unique_id(message).to_string(),
                    message_id: id.take().map(Vec::from),
                    octets: message.octets().0,
                })
            });
            monitor.send(&Request::Expunged(records.collect()), None)?;
        }
        Ok(())
    }
}
