//! How long a worker is waited for.

use std::time::Duration;

use nix::poll::PollTimeout;

use super::permission::Phase;
use super::session::Broken;

/// A worker that reads a mailbox, or says what to remove from it or what was removed, for longer than
/// this in all is not well, and others wait for the locks.
const LONGEST_LOCK: Duration = Duration::from_secs(600);

/// How long a worker may go on in a phase that has lasted for so long: keeping others from the mailbox,
/// and signals waiting, however often it says something.
pub(super) fn time_left(phase: Phase, lasted: Duration) -> Result<PollTimeout, Broken> {
    let too_long = match phase {
        Phase::Scanning | Phase::Updating => "keeps the mailbox locked too long",
        Phase::Expunged => "does not say what was removed",
        Phase::AwaitingProxy
        | Phase::AwaitingLogin
        | Phase::Handshaking
        | Phase::Finished
        | Phase::MaildropOpen => return Ok(PollTimeout::NONE),
    };
    let left = LONGEST_LOCK.checked_sub(lasted).filter(|left| !left.is_zero());
    let left = left.ok_or_else(|| Broken::Worker(too_long.to_owned()))?;
    // Rounded up to whole milliseconds: waking early would spin.
    let left = left.saturating_add(Duration::from_micros(999));
    Ok(PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_with_the_mailbox_locked_is_limited_in_all() {
        for phase in [Phase::Scanning, Phase::Updating, Phase::Expunged] {
            let half = time_left(phase, LONGEST_LOCK / 2);
            assert_eq!(half.ok().and_then(|left| left.as_millis()), Some(300_000));
            assert!(matches!(time_left(phase, LONGEST_LOCK), Err(Broken::Worker(_))));
        }
        assert!(time_left(Phase::MaildropOpen, 9 * LONGEST_LOCK).is_ok_and(|left| left.is_none()));
    }
}
