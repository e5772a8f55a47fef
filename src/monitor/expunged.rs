//! What a session tells the journal of each message that UPDATE removed.

use super::permission::Phase;
use super::session::{Broken, Session};
use crate::channel::{Expunged, MAX_EXPUNGED, MAX_MESSAGE_ID};
use crate::event::{Event, printable, printable_up_to};

impl Session<'_> {
    /// So many messages are gone; what comes next.
    pub(super) fn expect_names(&mut self, removed: u32) -> Phase {
        self.unnamed = if self.settings.log_expunged { removed } else { 0 };
        self.phase_of_names()
    }

    /// The worker says which they were: no more than went.
    pub(super) fn expunged(&mut self, messages: &[Expunged]) -> Result<Phase, Broken> {
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        if messages.is_empty() || messages.len() > MAX_EXPUNGED || count > self.unnamed {
            return Err(Broken::Worker("names other messages than were removed".to_owned()));
        }
        self.unnamed -= count;
        for message in messages {
            let message_id = message.message_id.as_ref();
            let message_id = message_id.map(|id| printable_up_to(MAX_MESSAGE_ID, id));
            self.log.log(&Event::Expunged {
                unique_id: &printable(message.unique_id.as_bytes()),
                message_id: message_id.as_deref(),
                octets: message.octets,
            });
        }
        Ok(self.phase_of_names())
    }

    fn phase_of_names(&self) -> Phase {
        if self.unnamed > 0 { Phase::Expunged } else { Phase::Finished }
    }
}
