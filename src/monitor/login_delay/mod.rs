//! Who failed to log in waits before the next attempt, on whichever connection that comes.
//!
//! The rules are in `table`: the delay of a source doubles with each failure, its attempts are judged
//! one after the other, that far apart, and all is forgotten after a while. `file` is where sessions
//! keep this in common. What an attacker does costs a fixed amount of memory, and of time at most
//! `login-delay-max` for each attempt; what is out of order here keeps nobody from logging in.

mod file;
mod table;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::hmac;
use nix::time::{ClockId, clock_gettime};

use crate::settings::Settings;
use crate::source::Source;
use file::{KEY, Table};
use table::{Bucket, FORGOTTEN_AFTER, Moment, PasswordMark, SourceTag};

pub(super) use table::Turn;

/// The delays of this host.
#[derive(Debug)]
pub(super) struct LoginDelays {
    path: PathBuf,
    longest: Duration,
}

/// An attempt to log in.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    /// Where it comes from; `None` when that is no network.
    pub(super) client: Option<IpAddr>,
    pub(super) user: &'a [u8],
    /// Empty for a certificate.
    pub(super) password: &'a [u8],
}

impl LoginDelays {
    /// No user is called so: names do not begin with a dot.
    pub(super) const FILE: &str = "/run/popa3d/.login-delays";

    /// `None` when they are turned off.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let longest = settings.login_delay_max.0;
        (!longest.is_zero()).then(|| Self::at(Path::new(Self::FILE), longest))
    }

    fn at(path: &Path, longest: Duration) -> Self {
        // Nothing is remembered for longer, either.
        Self { path: path.to_owned(), longest: longest.min(FORGOTTEN_AFTER) }
    }

    /// When `attempt` may be judged, behind those of its source that came before.
    ///
    /// # Errors
    ///
    /// Those of the file and the clock.
    pub(super) fn take_turn(&self, attempt: &Attempt<'_>) -> io::Result<Turn> {
        let Some(table) = Table::open(&self.path)? else { return Ok(Turn::Free) };
        self.change(&table, attempt, |bucket, source, now| {
            bucket.take_turn(source, now, self.longest)
        })
    }

    /// It was refused; returns how many failures of its source count now.
    ///
    /// # Errors
    ///
    /// Those of the file and the clock.
    pub(super) fn note_failure(&self, attempt: &Attempt<'_>) -> io::Result<u16> {
        let table = Table::open_or_make(&self.path)?;
        let password = attempt.password_mark(table.key());
        self.change(&table, attempt, |bucket, source, now| {
            bucket.note_failure(source, password, now, self.longest)
        })
    }

    /// Its user is logged in.
    ///
    /// # Errors
    ///
    /// Those of the file and the clock.
    pub(super) fn note_success(&self, attempt: &Attempt<'_>) -> io::Result<()> {
        let Some(table) = Table::open(&self.path)? else { return Ok(()) };
        self.change(&table, attempt, Bucket::note_success)
    }

    fn change<T>(
        &self,
        table: &Table,
        attempt: &Attempt<'_>,
        rule: impl FnOnce(&mut Bucket, SourceTag, Moment) -> T,
    ) -> io::Result<T> {
        let (number, source) = attempt.place(table.key());
        let before = table.read(number)?;
        let mut bucket = before.clone();
        let result = rule(&mut bucket, source, now()?);
        if bucket != before {
            table.write(number, &bucket)?;
        }
        Ok(result)
    }
}

impl Attempt<'_> {
    /// The bucket of its source, and the name that the source has there. With another key they are
    /// others, so that nobody can tell which sources share a bucket.
    fn place(&self, key: &[u8; KEY]) -> (u64, SourceTag) {
        let source = self.client.map(Source::of).filter(|source| !source.is_loopback());
        let digest = match source {
            Some(source) => keyed(key, &[b"source", source.to_string().as_bytes()]),
            // Webmail or stunnel: an attack by way of it must not hold up everybody else there.
            None => keyed(key, &[b"user on this host", &self.user.to_ascii_lowercase()]),
        };
        let mut words = digest.as_ref().chunks_exact(8);
        let mut word = || words.next().and_then(|word| word.try_into().ok()).unwrap_or_default();
        (u64::from_le_bytes(word()), SourceTag(u64::from_le_bytes(word())))
    }

    fn password_mark(&self, key: &[u8; KEY]) -> PasswordMark {
        let digest = keyed(key, &[b"password", self.user, self.password]);
        let short = digest.as_ref().first_chunk().copied().unwrap_or_default();
        PasswordMark(u16::from_le_bytes(short).max(1))
    }
}

/// Digest of `parts`, each of which has its bounds.
fn keyed(key: &[u8; KEY], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(&part.len().to_le_bytes());
        context.update(part);
    }
    context.sign()
}

/// A clock that nobody sets and that does not stop: like the file, it begins with the boot.
fn now() -> io::Result<Moment> {
    let since_boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    Ok(Moment(u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::file::tests::Place;
    use super::*;

    const FAR: &str = "192.0.2.7";

    struct Host {
        place: Place,
        delays: LoginDelays,
    }

    impl Host {
        fn new() -> Self {
            let place = Place::with_key(&[1; KEY]);
            // So long that no test can wait until a turn has come.
            let delays = LoginDelays::at(&place.path, FORGOTTEN_AFTER);
            Self { place, delays }
        }

        fn fail(&self, client: &str, user: &str, password: &str) -> u16 {
            self.delays.note_failure(&attempt(client, user, password)).unwrap()
        }

        fn turn(&self, client: &str, user: &str) -> Turn {
            self.delays.take_turn(&attempt(client, user, "")).unwrap()
        }
    }

    fn attempt<'a>(client: &str, user: &'a str, password: &'a str) -> Attempt<'a> {
        let (user, password) = (user.as_bytes(), password.as_bytes());
        Attempt { client: client.parse().ok(), user, password }
    }

    #[test]
    fn failures_of_a_source_count_together_whoever_it_wants_to_be() {
        let host = Host::new();
        assert_eq!(host.fail(FAR, "alice", "x"), 1);
        assert_eq!(host.fail(FAR, "bob", "x"), 2);
        assert_eq!(host.fail("::ffff:192.0.2.7", "carol", "x"), 3);
        assert_eq!(host.fail("192.0.2.8", "alice", "x"), 1);
        assert_eq!(host.turn("192.0.2.9", "alice"), Turn::Free);
        assert_ne!(host.turn(FAR, "dave"), Turn::Free);
    }

    #[test]
    fn ipv6_network_is_a_source() {
        let host = Host::new();
        assert_eq!(host.fail("2001:db8::1", "alice", "x"), 1);
        assert_eq!(host.fail("2001:db8::ffff:1", "alice", "y"), 2);
        assert_eq!(host.fail("2001:db8:0:1::1", "alice", "z"), 1);
    }

    #[test]
    fn failures_on_this_host_count_for_each_user() {
        let host = Host::new();
        assert_eq!(host.fail("127.0.0.1", "alice", "1"), 1);
        // Users of this host have many addresses to choose from, and some name services many ways to
        // write a name.
        for (number, client) in ["::1", "127.9.9.9", "not on a network"].into_iter().enumerate() {
            let failures = u16::try_from(number).unwrap() + 2;
            assert_eq!(host.fail(client, "Alice", &format!("{client}!")), failures);
        }
        assert_eq!(host.turn("127.0.0.1", "bob"), Turn::Free);
        assert_ne!(host.turn("127.0.0.1", "alice"), Turn::Free);
        assert_eq!(host.fail(FAR, "alice", "1"), 1);
    }

    #[test]
    fn same_password_for_another_user_is_another_guess() {
        let host = Host::new();
        assert_eq!(host.fail(FAR, "alice", "secret"), 1);
        assert_eq!(host.fail(FAR, "alice", "secret"), 1);
        assert_eq!(host.fail(FAR, "bob", "secret"), 2);
        assert_eq!(host.fail(FAR, "bobs", "ecret"), 3);
    }

    #[test]
    fn success_takes_a_failure_away() {
        let host = Host::new();
        host.fail(FAR, "alice", "x");
        assert_ne!(host.turn(FAR, "bob"), Turn::Free);
        host.delays.note_success(&attempt(FAR, "bob", "right")).unwrap();
        assert_eq!(host.turn(FAR, "bob"), Turn::Free);
    }

    #[test]
    fn who_only_logs_in_makes_no_file() {
        let place = Place::new();
        let delays = LoginDelays::at(&place.path, FORGOTTEN_AFTER);
        let attempt = attempt(FAR, "alice", "right");
        assert_eq!(delays.take_turn(&attempt).unwrap(), Turn::Free);
        delays.note_success(&attempt).unwrap();
        assert!(!place.path.exists());
        delays.note_failure(&attempt).unwrap();
        assert!(place.path.exists());
    }

    #[test]
    fn no_failure_is_lost_when_many_come_at_once() {
        let host = Host::new();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let host = &host;
                // Each opens the file for itself, as processes do.
                scope.spawn(move || {
                    for guess in 0..50 {
                        host.fail(FAR, "alice", &format!("{thread} {guess}"));
                    }
                });
            }
        });
        // With this key no two of them look alike.
        assert_eq!(host.fail(FAR, "alice", "one more"), 401);
    }

    #[test]
    fn file_holds_no_name_address_or_password() {
        let host = Host::new();
        host.fail(FAR, "alice-has-a-name", "a-long-password");
        host.fail("127.0.0.1", "alice-has-a-name", "a-long-password");
        let octets = std::fs::read(&host.place.path).unwrap();
        for word in ["alice-has-a-name", "a-long-password", FAR] {
            assert!(!octets.windows(word.len()).any(|part| part == word.as_bytes()), "{word}");
        }
        assert!(!octets.windows(4).any(|part| part == [192, 0, 2, 7]));
    }

    #[test]
    fn nothing_is_delayed_where_it_is_turned_off() {
        let off = crate::settings::Span(Duration::ZERO);
        let settings = Settings { login_delay_max: off, ..Settings::default() };
        assert!(LoginDelays::new(&settings).is_none());
        assert!(LoginDelays::new(&Settings::default()).is_some());
    }
}
