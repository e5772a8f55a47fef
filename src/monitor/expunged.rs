//! What a session tells the journal of each message that UPDATE removed.

use super::permission::Phase;
use super::session::{Broken, Session};
use crate::channel::{Expunged, MAX_EXPUNGED, MAX_MESSAGE_ID};
use crate::event::{Event, printable, printable_up_to};

/// How many of the removed messages the worker has yet to name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unnamed(u32);

impl Unnamed {
    /// The worker names so many at once.
    fn take(&mut self, count: usize) -> Result<(), Broken> {
        let left = u32::try_from(count).ok().and_then(|count| self.0.checked_sub(count));
        match left {
            Some(left) if (1..=MAX_EXPUNGED).contains(&count) => {
                self.0 = left;
                Ok(())
            }
            Some(_) | None => {
                Err(Broken::Worker("names other messages than were removed".to_owned()))
            }
        }
    }

    fn phase(&self) -> Phase {
        if self.0 > 0 { Phase::Expunged } else { Phase::Finished }
    }
}

impl Session<'_> {
    /// So many messages are gone; what comes next.
    pub(super) fn expect_names(&mut self, removed: u32) -> Phase {
        self.update.unnamed = Unnamed(if self.settings.log_expunged { removed } else { 0 });
        self.update.unnamed.phase()
    }

    /// The worker says which they were.
    pub(super) fn expunged(&mut self, messages: &[Expunged]) -> Result<Phase, Broken> {
        self.update.unnamed.take(messages.len())?;
        for message in messages {
            let message_id = message.message_id.as_ref();
            let message_id = message_id.map(|id| printable_up_to(MAX_MESSAGE_ID, id));
            self.log.log(&Event::Expunged {
                unique_id: &printable(message.unique_id.as_bytes()),
                message_id: message_id.as_deref(),
                octets: message.octets,
            });
        }
        Ok(self.update.unnamed.phase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_named_as_were_removed_and_some_each_time() {
        let mut unnamed = Unnamed(12);
        assert!(unnamed.take(MAX_EXPUNGED + 1).is_err());
        assert!(unnamed.take(10).is_ok());
        assert_eq!(unnamed.phase(), Phase::Expunged);
        for count in [0, 3] {
            assert!(unnamed.take(count).is_err(), "{count}");
        }
        assert!(unnamed.take(2).is_ok());
        assert_eq!(unnamed.phase(), Phase::Finished);
    }
}
