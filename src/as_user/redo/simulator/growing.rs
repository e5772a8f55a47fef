//! Mail that comes while the mailbox is locked, from a program that ignores locks.

use std::cell::RefCell;
use std::io;

use super::proofs::COSTS;
use super::{Case, Log, Random, Recorded, Which};
use crate::as_user::redo::commit::commit;
use crate::as_user::redo::put_back::{MAIL, put_back};
use crate::as_user::redo::{Error, Storage};

/// A mailbox to which a program that ignores locks appends mail, just before so many looks at its size.
struct Growing(Recorded, RefCell<usize>);

impl Storage for Growing {
    fn identity(&self) -> io::Result<u64> {
        self.0.identity()
    }
    fn size(&self) -> io::Result<u64> {
        let mut looks = self.1.borrow_mut();
        if *looks == 1 {
            self.0.write_at(LATE, self.0.size()?)?;
        }
        *looks = looks.saturating_sub(1);
        self.0.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(octets, offset)
    }
    fn reserve(&self, size: u64) -> io::Result<()> {
        self.0.reserve(size)
    }
    fn reserve_behind(&self, size: u64, more: u64) -> io::Result<()> {
        self.0.reserve_behind(size, more)
    }
    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.truncate(size)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

const LATE: &[u8] = b"From late\n\nmail\n\n";

#[test]
fn mail_that_comes_in_spite_of_the_locks_stays_behind_the_rest() {
    for seed in 0..300 {
        let case = Case::random(&mut Random(seed));
        for looks in 1.. {
            let log = Log::default();
            let mailbox =
                Growing(Recorded::new(Which::Mailbox, &case.old, &log), RefCell::new(looks));
            let record = Recorded::new(Which::Record, &[], &log);
            commit(&mailbox, &record, None::<&Recorded>, case.removal(), COSTS).unwrap();
            let after = mailbox.0.content.into_inner();
            // The last look is the one before the mailbox is cut.
            if mailbox.1.into_inner() > 0 {
                break;
            }
            assert!(after == [&case.new, LATE].concat(), "seed {seed}, before look {looks}");
        }
    }
}

#[test]
fn mail_that_comes_in_spite_of_the_locks_is_not_written_over() {
    let log = Log::default();
    // The second look is the last moment at which it is noticed.
    let mailbox = Growing(Recorded::new(Which::Mailbox, b"From a\n\n", &log), RefCell::new(2));
    let mut content = vec![0; usize::try_from(MAIL).unwrap()];
    content.extend(b"From b\n\n");
    let record = Recorded::new(Which::Record, &content, &log);
    assert!(matches!(put_back(&mailbox, &record), Err(Error::Untouched(_))));
    assert_eq!(*mailbox.0.content.borrow(), [b"From a\n\n", LATE].concat());
}
