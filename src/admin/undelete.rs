//! `popa3d --undelete`: what was deleted and is kept, and putting it back.
//!
//! Messages are chosen by unique-id, not by their place in the list: what expires, or is deleted while
//! the admin reads, moves places, and never turns one message into another.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::channel::KeptMessage;
use crate::event::printable;
use crate::ffi::time::LocalTime;
use crate::monitor::{self, Kept, Returned};
use crate::settings::{Settings, duration};

/// What is wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose messages.
    pub user: String,
    /// Those that were removed since then; all without it.
    pub since: Option<SystemTime>,
    /// Which of these to put back.
    pub choice: Choice,
}

/// Which messages to put back.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// None: show what there is.
    List,
    /// All.
    All,
    /// Those with these unique-ids.
    Ids(BTreeSet<String>),
}

impl Request {
    /// A list of all that is kept for `user`.
    #[must_use]
    pub fn new(user: String) -> Self {
        Self { user, since: None, choice: Choice::List }
    }

    fn is_about(&self, kept: &Kept) -> bool {
        self.since.is_none_or(|since| kept.removed >= since)
    }
}

impl Choice {
    /// Chooses all.
    ///
    /// # Errors
    ///
    /// Some were chosen already.
    pub fn all(&mut self) -> Result<(), String> {
        match self {
            Self::List | Self::All => {
                *self = Self::All;
                Ok(())
            }
            Self::Ids(_) => Err(EITHER.to_owned()),
        }
    }

    /// Chooses one more.
    ///
    /// # Errors
    ///
    /// All were chosen already.
    pub fn add(&mut self, id: String) -> Result<(), String> {
        match self {
            Self::List => *self = Self::Ids(BTreeSet::from([id])),
            Self::Ids(ids) => {
                ids.insert(id);
            }
            Self::All => return Err(EITHER.to_owned()),
        }
        Ok(())
    }
}

const EITHER: &str = "--undelete takes --all or unique-ids, not both";

/// Reads a time as people write it: how long ago (`2h`), a day (`2026-11-24`), or the time of a day
/// (`2026-11-24 13:00`), in the host's time zone.
///
/// # Errors
///
/// It is none, or never comes.
pub fn since(text: &str) -> Result<SystemTime, String> {
    let since = match duration(text) {
        Some(ago) => SystemTime::now().checked_sub(ago),
        None => date(text).and_then(LocalTime::time),
    };
    since.ok_or_else(|| {
        "not a time such as \"2h\", \"3d\", \"2026-11-24\", \"2026-11-24 13:00\"".to_owned()
    })
}

fn date(text: &str) -> Option<LocalTime> {
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
    let [year, month, day] = numbers(date, '-')?.try_into().ok()?;
    let time = numbers(time, ':')?;
    let (hour, minute, second) = match time.as_slice() {
        [hour, minute] => (*hour, *minute, 0),
        [hour, minute, second] => (*hour, *minute, *second),
        _ => return None,
    };
    let is_time = hour < 24 && minute < 60 && second < 60;
    is_time.then_some(LocalTime { year, month, day, hour, minute, second })
}

fn numbers(text: &str, between: char) -> Option<Vec<i32>> {
    let number = |part: &str| {
        let is_number = part.bytes().all(|octet| octet.is_ascii_digit());
        part.parse::<i32>().ok().filter(|_| is_number)
    };
    text.split(between).map(number).collect()
}

/// Does what is wanted; returns what to say.
///
/// # Errors
///
/// Says what is wrong.
pub fn run(request: &Request, settings: &Settings) -> Result<String, String> {
    let user = printable(request.user.as_bytes());
    let failed = |why| format!("{user}: {why}");
    match &request.choice {
        Choice::List => list(request, settings).map_err(failed),
        Choice::All => {
            let back = monitor::put_back(&request.user, settings, |kept| request.is_about(kept));
            back.map(said).map_err(failed)
        }
        Choice::Ids(ids) => {
            let (mut wanted, mut older) = (Wanted::new(ids), Wanted::new(ids));
            let mut find = |kept: &Kept| {
                if request.is_about(kept) {
                    wanted.note(&kept.message);
                } else {
                    older.note(&kept.message);
                }
            };
            let listed = monitor::list_kept(&request.user, settings, &mut find).map_err(failed)?;
            if let Some(id) = wanted.missing().next() {
                let why = if older.missing().any(|other| other == id) {
                    "is not kept"
                } else {
                    "is kept, but was deleted before that"
                };
                let id = printable(id.as_bytes());
                let unreadable = not_shown(&listed).replace('\n', "; ");
                return Err(failed(format!("{unreadable}{id} {why}; nothing was put back")));
            }
            let is_chosen = |kept: &Kept| request.is_about(kept) && wanted.chooses(&kept.message);
            monitor::put_back(&request.user, settings, is_chosen).map(said).map_err(failed)
        }
    }
}

/// Unique-ids, and what is known of the messages that they mean.
///
/// Those of the list mean what they stand beside. UIDL and the journal may have told another one of the
/// same message, when one shared it that is not among what is kept.
struct Wanted<'a> {
    ids: &'a BTreeSet<String>,
    /// Those that stand in the list.
    listed: BTreeSet<&'a str>,
    /// Those that can only be what UIDL told.
    told: BTreeSet<&'a str>,
}

impl<'a> Wanted<'a> {
    fn new(ids: &'a BTreeSet<String>) -> Self {
        Self { ids, listed: BTreeSet::new(), told: BTreeSet::new() }
    }

    fn note(&mut self, message: &KeptMessage) {
        self.listed.extend(self.ids.get(&message.unique_id).map(String::as_str));
        let told = self.ids.iter().filter(|id| is_long_id(id, message));
        self.told.extend(told.map(String::as_str));
    }

    fn missing(&self) -> impl Iterator<Item = &str> {
        let ids = self.ids.iter().map(String::as_str);
        ids.filter(|id| !self.listed.contains(id) && !self.told.contains(id))
    }

    fn chooses(&self, message: &KeptMessage) -> bool {
        self.ids.contains(&message.unique_id)
            || self.told.difference(&self.listed).any(|id| is_long_id(id, message))
    }
}

/// Whether `id` is the long one of a message, or of a copy of it.
fn is_long_id(id: &str, message: &KeptMessage) -> bool {
    let number = id.strip_prefix(&message.long_id);
    number.is_some_and(|number| number.is_empty() || number.starts_with('-'))
}

fn said(Returned { messages, mailbox, unreadable }: Returned) -> String {
    let what = if messages == 1 { "message" } else { "messages" };
    format!("{messages} {what} put back into {mailbox}\n{}", not_shown(&unreadable))
}

/// A line for each file that cannot be read.
fn not_shown(unreadable: &[String]) -> String {
    unreadable.iter().map(|why| format!("left out: {why}\n")).collect()
}

/// A line for each message; columns are aligned as long as they are of the usual width.
fn list(request: &Request, settings: &Settings) -> Result<String, String> {
    let mut text = String::new();
    let mut count = 0_u64;
    let mut older = 0_u64;
    let unreadable = monitor::list_kept(&request.user, settings, &mut |kept| {
        if request.is_about(kept) {
            count += 1;
            text.push_str(&line(kept));
        } else {
            older += 1;
        }
    })?;
    let unreadable = not_shown(&unreadable);
    if count == 0 && unreadable.is_empty() {
        if older > 0 {
            let (messages, are) = if older == 1 { ("message", "is") } else { ("messages", "are") };
            return Ok(format!(
                "nothing that was deleted since then is kept; {older} older {messages} {are}\n"
            ));
        }
        let off = settings.keep_deleted.0.is_zero();
        let why = if off { "; keep-deleted is off, see /etc/popa3d.toml" } else { "" };
        return Ok(format!("nothing is kept{why}\n"));
    }
    text.push_str(&unreadable);
    text.insert_str(0, "DELETED              UNIQUE-ID            OCTETS  MESSAGE\n");
    Ok(text)
}

fn line(kept: &Kept) -> String {
    let message = &kept.message;
    let id = printable(message.unique_id.as_bytes());
    let texts = [&message.from, &message.subject, &message.message_id].map(|text| printable(text));
    let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    format!("{}  {id:<16}  {:>9}  {}\n", clock(kept.removed), message.octets, texts.join("  "))
}

fn clock(time: SystemTime) -> String {
    let Some(LocalTime { year, month, day, hour, minute, second }) = LocalTime::of(time) else {
        return "?".to_owned();
    };
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::channel::Range;

    #[test]
    fn times_are_taken_as_people_write_them() {
        let day = since("2026-11-24").unwrap();
        assert_eq!(since("2026-11-24 13:05").unwrap(), day + Duration::from_secs(47_100));
        assert_eq!(since("2026-11-24T13:05:01").unwrap(), day + Duration::from_secs(47_101));
        assert_eq!(clock(day), "2026-11-24 00:00:00");
        let two_hours_ago = since("2h").unwrap();
        let ago = SystemTime::now().duration_since(two_hours_ago).unwrap();
        assert!((7_200..7_260).contains(&ago.as_secs()));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-11",
            "2026-02-30",
            "2026-11-24 25:00",
            "+2026-11-24",
            "2026-11-24 13",
            "2 h",
            "99999999999-1-1",
            "-1-1-1",
        ] {
            assert!(since(text).is_err(), "{text:?}");
        }
    }

    fn message(unique_id: &str, long_id: &str) -> KeptMessage {
        KeptMessage {
            range: Range { start: 0, end: 9 },
            line_feeds: 0,
            octets: 1,
            unique_id: unique_id.to_owned(),
            long_id: long_id.to_owned(),
            message_id: Vec::new(),
            from: Vec::new(),
            subject: Vec::new(),
        }
    }

    /// Which of `kept` these ids choose, and which id is missing.
    fn chosen(ids: &[&str], kept: &[KeptMessage]) -> (Vec<usize>, Option<String>) {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let mut wanted = Wanted::new(&ids);
        kept.iter().for_each(|message| wanted.note(message));
        let chosen = kept.iter().enumerate().filter(|(_, message)| wanted.chooses(message));
        (chosen.map(|(number, _)| number).collect(), wanted.missing().next().map(str::to_owned))
    }

    #[test]
    fn message_is_chosen_by_what_the_list_says_and_by_what_uidl_said() {
        let kept = [
            message("x", "x-a"),
            message("x", "x-b"),
            message("x-c", "x-c"),
            message("x-c-2", "x-c"),
            message("y", "y-a"),
        ];
        for (ids, expected) in [
            (vec!["x"], vec![0, 1]),
            (vec!["x-b"], vec![1]),
            (vec!["x-b-7"], vec![1]),
            (vec!["x-c"], vec![2]),
            (vec!["x-c-2", "y-a"], vec![3, 4]),
            (vec!["x-c-3"], vec![2, 3]),
        ] {
            assert_eq!(chosen(&ids, &kept), (expected, None), "{ids:?}");
        }
        for id in ["x-", "x-bb", "x-d", "z", ""] {
            assert_eq!(chosen(&["y", id], &kept), (vec![4], Some(id.to_owned())));
        }
    }

    #[test]
    fn all_and_unique_ids_exclude_each_other() {
        let mut choice = Choice::List;
        choice.add("a".to_owned()).unwrap();
        assert!(choice.all().is_err());
        let mut choice = Choice::List;
        choice.all().unwrap();
        assert!(choice.add("a".to_owned()).is_err());
    }
}
