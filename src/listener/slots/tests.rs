use super::*;

const LIMITS: Limits =
    Limits { sessions: 8, per_source: 3, unauthenticated: 4, slot: Duration::from_secs(10) };

fn source(last: u8) -> Option<Source> {
    Some(Source::of([192, 0, 2, last].into()))
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1000 + seconds)
}

/// A table, and the number of the next process.
struct Table(Slots, i32);

impl Table {
    fn new() -> Self {
        Self(Slots::new(LIMITS), 1)
    }

    /// A session of a client from there, whatever the limits say.
    fn begin(&mut self, last: u8, seconds: u64) -> Pid {
        let pid = Pid::from_raw(self.1);
        self.1 += 1;
        let (since, authenticated, ending) = (at(seconds), false, false);
        self.0.insert(pid, Slot { source: source(last), since, authenticated, ending });
        pid
    }

    fn admit(&mut self, last: u8, seconds: u64) -> Admission {
        self.0.admit(source(last), at(seconds))
    }
}

#[test]
fn source_at_its_limit_is_refused_and_others_are_not() {
    let mut table = Table::new();
    for _ in 0..3 {
        assert_eq!(table.admit(1, 0), Admission::Free);
        table.begin(1, 0);
    }
    assert_eq!(table.admit(1, 0), Admission::Refused(Full::Source));
    assert_eq!(table.admit(2, 0), Admission::Free);
}

#[test]
fn ended_session_counts_for_its_source_until_its_slot_is_over() {
    let mut table = Table::new();
    for _ in 0..3 {
        let pid = table.begin(1, 0);
        assert!(table.0.remove(pid, at(1)));
    }
    assert_eq!(table.admit(1, 9), Admission::Refused(Full::TooOften));
    assert_eq!(table.admit(2, 9), Admission::Free);
    assert_eq!(table.admit(1, 10), Admission::Free);
}

#[test]
fn what_counts_of_ended_sessions_counts_for_another_table_as_well() {
    let mut before = Table::new();
    for _ in 0..3 {
        let pid = before.begin(1, 0);
        before.0.remove(pid, at(1));
    }
    let mut table = Table::new();
    for (until, source) in before.0.ended() {
        table.0.insert_ended(until, source);
    }
    assert_eq!(table.admit(1, 9), Admission::Refused(Full::TooOften));
    assert_eq!(table.admit(1, 10), Admission::Free);
}

#[test]
fn ended_sessions_of_one_source_take_no_slots_of_others() {
    let mut table = Table::new();
    for last in 10..40 {
        let pid = table.begin(last, 0);
        table.0.remove(pid, at(0));
    }
    assert_eq!(table.admit(1, 0), Admission::Free);
    assert_eq!(table.0.count(), 0);
}

#[test]
fn all_slots_taken_by_users_means_no_more() {
    let mut table = Table::new();
    for last in 0..8 {
        let pid = table.begin(last, 0);
        table.0.logged_in(pid);
    }
    assert_eq!(table.admit(100, 0), Admission::Refused(Full::Sessions));
}

#[test]
fn where_all_slots_are_taken_those_without_a_login_make_room_as_well() {
    let mut table = with_regulars();
    for last in 20..27 {
        let pid = table.begin(last, 0);
        table.0.logged_in(pid);
    }
    let stranger = table.begin(1, 1);
    assert_eq!(table.admit(2, 2), Admission::Refused(Full::Sessions));
    assert_eq!(table.admit(11, 2), Admission::InPlaceOf(stranger));
    assert_eq!(table.admit(2, 4), Admission::InPlaceOf(stranger));
    table.0.told_to_end(stranger);
    assert_eq!(table.admit(11, 4), Admission::Refused(Full::Sessions));
}

#[test]
fn where_all_slots_are_taken_a_login_that_has_just_begun_is_not_ended_for_a_stranger() {
    let mut table = with_regulars();
    for last in 20..25 {
        let pid = table.begin(last, 0);
        table.0.logged_in(pid);
    }
    let silent = table.begin(1, 0);
    for _ in 0..2 {
        table.begin(11, 50);
    }
    assert_eq!(table.admit(2, 50), Admission::InPlaceOf(silent));
    table.0.told_to_end(silent);
    assert_eq!(table.admit(2, 50), Admission::Refused(Full::Sessions));
}

#[test]
fn those_who_are_still_there_though_they_were_told_to_end_are_not_without_number() {
    let mut table = with_regulars();
    for number in 0..200 {
        match table.admit(11, 4) {
            Admission::Free => {}
            Admission::InPlaceOf(pid) => table.0.told_to_end(pid),
            Admission::Refused(full) => {
                assert_eq!(full, Full::Sessions);
                break;
            }
        }
        table.begin(100 + number, 1);
    }
    assert_eq!(table.0.count(), LIMITS.sessions + MAKING_ROOM);
}

#[test]
fn source_with_most_silent_clients_makes_room_for_another_one() {
    let mut table = Table::new();
    table.begin(2, 0);
    let oldest = table.begin(1, 1);
    table.begin(1, 2);
    table.begin(1, 3);
    assert_eq!(table.admit(3, 3), Admission::InPlaceOf(oldest));
    // Told to end, it is not chosen again before it has.
    table.0.told_to_end(oldest);
    assert_ne!(table.admit(3, 3), Admission::InPlaceOf(oldest));
}

#[test]
fn where_everybody_has_one_the_slowest_makes_room_and_only_when_it_took_long() {
    let mut table = Table::new();
    let first = table.begin(1, 0);
    for last in 2..5 {
        table.begin(last, 1);
    }
    assert_eq!(table.admit(9, 2), Admission::Refused(Full::Unauthenticated));
    assert_eq!(table.admit(9, 3), Admission::InPlaceOf(first));
}

/// With four sources that somebody logged in from: 11 to 14.
fn with_regulars() -> Table {
    let mut table = Table::new();
    for last in 11..15 {
        let pid = table.begin(last, 0);
        table.0.logged_in(pid);
        table.0.remove(pid, at(0));
    }
    table
}

#[test]
fn for_a_source_that_somebody_logged_in_from_a_stranger_makes_room_at_once() {
    let mut table = with_regulars();
    table.begin(11, 0);
    let stranger = table.begin(1, 1);
    table.begin(2, 2);
    table.begin(3, 2);
    assert_eq!(table.admit(12, 2), Admission::InPlaceOf(stranger));
    assert_eq!(table.admit(9, 2), Admission::Refused(Full::Unauthenticated));
}

#[test]
fn strangers_make_room_before_sources_that_somebody_logged_in_from() {
    let mut table = with_regulars();
    for last in 11..14 {
        table.begin(last, 0);
    }
    let stranger = table.begin(1, 1);
    assert_eq!(table.admit(9, 9), Admission::InPlaceOf(stranger));
}

#[test]
fn sources_that_somebody_logged_in_from_do_not_make_room_for_each_other_at_once() {
    let mut table = with_regulars();
    for last in [11, 12, 13, 14] {
        table.begin(last, 0);
    }
    table.0.regulars.note(Source::of([192, 0, 2, 15].into()));
    assert_eq!(table.admit(15, 0), Admission::Refused(Full::Unauthenticated));
}

#[test]
fn flooding_source_gains_nothing_by_coming_again() {
    let mut table = Table::new();
    for last in [1, 1, 2, 3] {
        table.begin(last, 0);
    }
    assert_eq!(table.admit(1, 0), Admission::Refused(Full::Unauthenticated));
}

#[test]
fn those_who_logged_in_take_none_of_the_share_of_those_who_did_not() {
    let mut table = Table::new();
    for last in 0..4 {
        let pid = table.begin(last, 0);
        table.0.logged_in(pid);
        table.0.logged_in(pid);
    }
    assert_eq!((table.0.count(), table.0.unauthenticated()), (4, 0));
    assert_eq!(table.admit(9, 0), Admission::Free);
}

#[test]
fn client_behind_a_proxy_counts_for_its_own_source() {
    let mut table = Table::new();
    for number in 1..=4 {
        let pid = Pid::from_raw(number);
        let (source, authenticated, ending) = (None, false, false);
        table.0.insert(pid, Slot { source, since: at(0), authenticated, ending });
        let placed = table.0.place(pid, Source::of([192, 0, 2, 1].into()), at(0));
        assert_eq!(placed, if number <= 3 { Ok(()) } else { Err(Full::Source) });
    }
}

#[test]
fn process_that_is_no_session_changes_nothing() {
    let mut table = Table::new();
    table.begin(1, 0);
    assert!(!table.0.remove(Pid::from_raw(99), at(0)));
    assert_eq!(table.0.count(), 1);
}

#[test]
fn nothing_is_left_of_sources_that_are_gone() {
    let mut table = Table::new();
    for last in 0..200 {
        let pid = table.begin(last, 0);
        table.0.remove(pid, at(1));
    }
    table.admit(1, 100);
    assert!(table.0.per_source.is_empty() && table.0.ended_per_source.is_empty());
    assert!(table.0.ended.is_empty());
}
