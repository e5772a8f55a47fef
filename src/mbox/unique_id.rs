//! Unique-ids: those of 1.0.3, made unique where it gives one id to several messages. Runs in the
//! worker.
//!
//! 1.0.3 hashes a few headers only, so that different messages can share an id, which RFC 1939
//! section 7 forbids. Of the messages that share one, the first keeps it as it is; the id of each
//! other one gets a suffix: the digest of its content, and an ordinal from the second copy of the
//! same content on. Which messages have which of these ids is [`Remembered`] between sessions,
//! so that an id stays when the messages before it are gone, and no new message gets one
//! while messages that shared it are there.
//!
//! Copies of one content can't be told apart, and need not be: they hold their ordinals in the
//! order of the file.

use std::fmt;
use std::fs::File;

use super::content::ContentDigest;
use super::error::ScanError;
use super::remembered::{Entry, Remembered};
use super::scan::Pass;
use super::{Index, Message, NOT_DISTINGUISHED};

/// The id as 1.0.3 gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BaseId(pub(super) u64);

impl BaseId {
    /// Of the digest of the identifying header lines: its first two little-endian words.
    pub(super) fn new(digest: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Self(u64::from_be_bytes([d, c, b, a, h, g, f, e]))
    }
}

impl fmt::Display for BaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// MD5 of the content of a message, without the headers in which programs note its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ContentId(pub(super) [u8; 16]);

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What tells a message from others with the same base id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Distinction {
    content: ContentId,
    ordinal: Ordinal,
}

/// Which of the copies of one content a message is. 0 is the message whose id has no suffix.
pub(super) type Ordinal = u32;

/// The ordinal of the message that has the id as 1.0.3 gives it.
const WITHOUT_SUFFIX: Ordinal = 0;

/// The unique-id of a message: 16 to 60 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueId {
    base: BaseId,
    distinction: Option<Distinction>,
}

impl UniqueId {
    /// Whether 1.0.3 gives it to another message as well, so that it is longer here.
    pub fn has_suffix(&self) -> bool {
        self.distinction.is_some_and(|distinction| distinction.ordinal != WITHOUT_SUFFIX)
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.fmt(f)?;
        match self.distinction {
            None | Some(Distinction { ordinal: WITHOUT_SUFFIX, .. }) => Ok(()),
            Some(Distinction { content, ordinal: 1 }) => write!(f, "-{content}"),
            Some(Distinction { content, ordinal }) => write!(f, "-{content}-{ordinal}"),
        }
    }
}

impl Index {
    /// The unique-id of a message of this index.
    pub fn unique_id(&self, message: &Message) -> UniqueId {
        UniqueId { base: message.base, distinction: self.distinction(message).copied() }
    }

    /// Makes the ids unique, with those that are remembered. Reads messages again that share
    /// their id with others, or did when it was last written down.
    pub fn distinguish(&mut self, file: &File, remembered: &Remembered) -> Result<(), ScanError> {
        self.distinctions.clear();
        for message in &mut self.messages {
            message.distinction = NOT_DISTINGUISHED;
        }
        let bases = self.messages.iter().map(|message| message.base);
        let mut by_base: Vec<(BaseId, u32)> = bases.zip(0..).collect();
        by_base.sort_unstable();
        let mut pass = Pass::new(ContentDigest::default());
        for group in by_base.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((base, _)) = group.first() else { continue };
            let entries = remembered.of(*base);
            if group.len() > 1 || !entries.is_empty() {
                self.distinguish_group(file, &mut pass, group, entries)?;
            }
        }
        Ok(())
    }

    /// What has to be remembered when the messages of which `is_deleted` is true are gone.
    /// It takes the number of a message counted from 0.
    pub fn remembered(&self, mut is_deleted: impl FnMut(usize) -> bool) -> Remembered {
        let kept = self.messages.iter().enumerate().filter(|(number, _)| !is_deleted(*number));
        Remembered::of_ordinals(kept.filter_map(|(_, message)| {
            let Distinction { content, ordinal } = *self.distinction(message)?;
            Some((message.base, content, ordinal))
        }))
    }

    fn distinction(&self, message: &Message) -> Option<&Distinction> {
        self.distinctions.get(message.distinction as usize)
    }

    /// `group`: all messages of one base id, in the order of the file.
    fn distinguish_group(
        &mut self,
        file: &File,
        pass: &mut Pass<ContentDigest>,
        group: &[(BaseId, u32)],
        entries: &[Entry],
    ) -> Result<(), ScanError> {
        let mut copies = Vec::with_capacity(group.len());
        for (_, number) in group {
            let Some(message) = self.messages.get(*number as usize) else { continue };
            copies.push((content_id(file, pass, message)?, *number));
        }
        copies.sort_unstable();
        let is_here = |entry: &Entry| {
            copies.binary_search_by_key(&entry.content, |(content, _)| *content).is_ok()
        };
        // As long as a message is here whose id was told apart from another one's, the id without
        // a suffix is that other one's, here or gone.
        let first = group.first().map(|(_, number)| *number);
        let without_suffix = if entries.iter().any(is_here) { None } else { first };
        for same in copies.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((content, _)) = same.first() else { continue };
            let mut known = ordinals_of(entries, *content);
            let mut next = WITHOUT_SUFFIX + 1;
            for (content, number) in same {
                let ordinal = match known.next() {
                    Some(ordinal) => ordinal,
                    None if without_suffix == Some(*number) => WITHOUT_SUFFIX,
                    None => next,
                };
                next = next.max(ordinal.saturating_add(1));
                if let Some(message) = self.messages.get_mut(*number as usize) {
                    let at = u32::try_from(self.distinctions.len());
                    message.distinction = at.unwrap_or(NOT_DISTINGUISHED);
                    self.distinctions.push(Distinction { content: *content, ordinal });
                }
            }
        }
        Ok(())
    }
}

/// The ids that messages get which share theirs with one before them, whether any of these does or not.
pub struct LongIds<'a> {
    file: &'a File,
    pass: Pass<ContentDigest>,
}

impl<'a> LongIds<'a> {
    /// Of the messages in `file`.
    pub fn of(file: &'a File) -> Self {
        Self { file, pass: Pass::new(ContentDigest::default()) }
    }

    /// That of the first copy of `message`; further ones have `-` and a number behind it.
    pub fn find(&mut self, message: &Message) -> Result<UniqueId, ScanError> {
        let content = content_id(self.file, &mut self.pass, message)?;
        let distinction = Some(Distinction { content, ordinal: WITHOUT_SUFFIX + 1 });
        Ok(UniqueId { base: message.base, distinction })
    }
}

/// The ordinals that are remembered for one content, ascending.
fn ordinals_of(entries: &[Entry], content: ContentId) -> impl Iterator<Item = Ordinal> {
    let from = entries.partition_point(|entry| entry.content < content);
    let of_content = entries.iter().skip(from).take_while(move |entry| entry.content == content);
    of_content.flat_map(|entry| entry.first..=entry.last)
}

/// Reads a message again for the digest of its content.
fn content_id(
    file: &File,
    pass: &mut Pass<ContentDigest>,
    message: &Message,
) -> Result<ContentId, ScanError> {
    let mut digest = None;
    pass.run(file, message.range(), &mut |found| {
        digest.get_or_insert(found.hash);
        Ok(())
    })?;
    // No message is here any more: the file changed under the scan.
    digest.map(ContentId).ok_or(ScanError::Shrunk)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::mbox::samples::{Random, file, index, mailbox};

    /// A message whose id does not depend on its text.
    fn message(text: &str) -> String {
        format!("From a\nSubject: {text}\n\n{text}\n\n")
    }

    /// One session: the ids, and what is remembered when it deletes some messages.
    fn session(mailbox: &str, remembered: &mut String, deleted: &[usize]) -> Vec<String> {
        let mut index = index(mailbox.as_bytes());
        let before = Remembered::parse(remembered.as_bytes()).0;
        index.distinguish(&file(mailbox.as_bytes()), &before).unwrap();
        *remembered = index.remembered(|number| deleted.contains(&number)).to_string();
        index.messages().iter().map(|message| index.unique_id(message).to_string()).collect()
    }

    fn all_differ(ids: &[String]) -> bool {
        ids.iter().collect::<HashSet<_>>().len() == ids.len()
    }

    #[test]
    fn an_id_is_the_one_of_popa3d_1_0_3() {
        // As Debian's popa3d 1.0.3-1.1 gives them.
        let mailbox = "From a@b Mon\nSubject: x\nDate: y\n\nbody\n\nFrom c\n\nq\n";
        let ids = session(mailbox, &mut String::new(), &[]);
        assert_eq!(ids, ["2361652db9c46537", "d98c1dd404b2008f"]);
    }

    #[test]
    fn ids_that_differ_leave_nothing_to_remember() {
        let mut remembered = String::new();
        session("From a\nDate: 1\n\na\n\nFrom b\nDate: 2\n\na\n", &mut remembered, &[]);
        assert_eq!(remembered, "");
    }

    #[test]
    fn only_the_first_of_a_shared_id_is_without_suffix() {
        let mailbox = [message("one"), message("two"), message("one")].concat();
        let ids = session(&mailbox, &mut String::new(), &[]);
        assert_eq!(ids[0], "d98c1dd404b2008f");
        assert!(ids[1].starts_with("d98c1dd404b2008f-"));
        assert!(all_differ(&ids));
        assert!(ids.iter().all(|id| id.len() <= 70));
    }

    #[test]
    fn long_id_is_the_one_that_a_message_has_behind_another() {
        let [one, two] = ["one", "two"].map(message);
        let ids = session(&format!("{one}{two}{two}"), &mut String::new(), &[]);
        let alone = index(two.as_bytes());
        let file = file(two.as_bytes());
        let long = LongIds::of(&file).find(&alone.messages()[0]).unwrap().to_string();
        assert_eq!((&long, format!("{long}-2")), (&ids[1], ids[2].clone()));
    }

    #[test]
    fn a_suffix_stays_when_the_first_is_gone_and_new_mail_gets_another() {
        let mut remembered = String::new();
        let [one, two, three] = ["one", "two", "three"].map(message);
        let before = session(&format!("{one}{two}"), &mut remembered, &[0]);
        let after = session(&format!("{two}{three}"), &mut remembered, &[]);
        assert_eq!(before[1], after[0]);
        assert!(!before.contains(&after[1]));
        assert_eq!(session(&two, &mut remembered, &[]), after[..1]);
    }

    #[test]
    fn the_last_one_without_suffix_needs_no_memory() {
        let mut remembered = String::new();
        let [one, two] = ["one", "two"].map(message);
        session(&format!("{one}{two}"), &mut remembered, &[1]);
        assert_eq!(remembered, "");
    }

    #[test]
    fn a_suffix_is_the_same_whatever_status_another_program_notes() {
        let mut remembered = String::new();
        let [one, two] = ["one", "two"].map(message);
        let before = session(&format!("{one}{two}"), &mut remembered, &[]);
        let read = |message: String| message.replacen("\n\n", "\nStatus: RO\nX-Keywords:\n\n", 1);
        let after = session(&format!("{}{}", read(two), read(one)), &mut remembered, &[]);
        assert_eq!([&before[1], &before[0]], [&after[0], &after[1]]);
    }

    #[test]
    fn copies_keep_their_ids_whichever_is_deleted() {
        for deleted in 0..5 {
            let mut remembered = String::new();
            let mut ids = session(&message("same").repeat(5), &mut remembered, &[deleted]);
            assert!(all_differ(&ids));
            ids.remove(deleted);
            // One more arrives in the meantime.
            let after = session(&message("same").repeat(5), &mut remembered, &[]);
            assert!(all_differ(&after));
            assert_eq!(ids, after[..4]);
        }
    }

    #[test]
    fn copies_that_another_program_deleted_leave_ids_to_the_others() {
        let mut remembered = String::new();
        let before = session(&message("same").repeat(5), &mut remembered, &[]);
        let after = session(&message("same").repeat(2), &mut remembered, &[]);
        assert_eq!(before[..2], after);
    }

    #[test]
    fn many_copies_are_remembered_in_one_line() {
        let mut remembered = String::new();
        let ids = session(&message("same").repeat(5000), &mut remembered, &[]);
        assert!(all_differ(&ids));
        assert_eq!(remembered.lines().count(), 1);
    }

    #[test]
    fn ids_differ_and_stay_through_sessions_of_deletion_and_delivery() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut remembered = String::new();
            let mut messages: Vec<(String, Option<String>)> = Vec::new();
            for _ in 0..12 {
                for _ in 0..random.below(4) {
                    messages.push((message(["one", "two", "three"][random.below(3)]), None));
                }
                let mailbox: String = messages.iter().map(|(text, _)| text.as_str()).collect();
                let deleted: Vec<_> =
                    (0..messages.len()).filter(|_| random.below(4) == 0).collect();
                let ids = session(&mailbox, &mut remembered, &deleted);
                assert!(all_differ(&ids), "seed {seed}");
                for ((_, before), id) in messages.iter_mut().zip(&ids) {
                    assert_eq!(before.get_or_insert(id.clone()), id, "seed {seed}");
                }
                for number in deleted.into_iter().rev() {
                    messages.remove(number);
                }
            }
        }
    }

    #[test]
    fn ids_of_any_mailbox_differ_with_any_memory() {
        for seed in 0..300 {
            let mailbox = mailbox(seed);
            let mut index = index(&mailbox);
            index.distinguish(&file(&mailbox), &Remembered::default()).unwrap();
            let remembered = index.remembered(|number| number % 2 == 0);
            index.distinguish(&file(&mailbox), &remembered).unwrap();
            let ids = index.messages().iter().map(|message| index.unique_id(message).to_string());
            assert!(all_differ(&ids.collect::<Vec<_>>()), "seed {seed}");
        }
    }
}
