use super::*;

const LONGEST: Duration = Duration::from_secs(15);
const ONE: SourceTag = SourceTag(1);

fn seconds(number: u64) -> Moment {
    Moment::default().after(Duration::from_secs(number))
}

fn wait(seconds: u64) -> Turn {
    Turn::After(Duration::from_secs(seconds))
}

/// One source of a bucket, and the time.
#[derive(Default)]
struct Guesser {
    bucket: Bucket,
    now: u64,
    guesses: u16,
}

impl Guesser {
    fn turn(&mut self) -> Turn {
        self.bucket.take_turn(ONE, seconds(self.now), LONGEST)
    }

    fn fail_with(&mut self, password: u16) -> u16 {
        self.bucket.note_failure(ONE, PasswordMark(password), seconds(self.now), LONGEST)
    }

    fn fail(&mut self) -> u16 {
        self.guesses += 1;
        self.fail_with(self.guesses)
    }

    fn fail_often(&mut self, often: u16) {
        for _ in 0..often {
            self.fail();
        }
    }

    fn succeed(&mut self) {
        self.bucket.note_success(ONE, seconds(self.now));
    }
}

#[test]
fn source_without_failures_has_no_turns_to_wait_for() {
    let mut guesser = Guesser::default();
    assert_eq!([guesser.turn(), guesser.turn()], [Turn::Free; 2]);
    assert_eq!(guesser.bucket, Bucket::default());
}

#[test]
fn each_failure_doubles_the_delay_up_to_the_longest() {
    let mut guesser = Guesser::default();
    for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 15), (6, 15), (7, 15)] {
        assert_eq!(guesser.fail(), failures);
        assert_eq!(guesser.turn(), wait(seconds), "{failures} failures");
        guesser.now += seconds;
    }
}

#[test]
fn time_that_passed_is_no_longer_waited_for() {
    let mut guesser = Guesser::default();
    guesser.fail_often(4);
    guesser.now += 5;
    assert_eq!(guesser.turn(), wait(3));
    guesser.now += 30;
    assert_eq!(guesser.turn(), wait(0));
}

#[test]
fn attempts_of_a_source_are_judged_one_after_the_other() {
    let mut guesser = Guesser::default();
    guesser.fail_often(3);
    // All at once: many connections gain nothing.
    assert_eq!([guesser.turn(), guesser.turn(), guesser.turn()], [wait(4), wait(8), wait(12)]);
    assert_eq!(guesser.turn(), Turn::TooFar(Duration::from_secs(16)));
    // Those that are sent away do not make the line longer.
    assert_eq!(guesser.turn(), Turn::TooFar(Duration::from_secs(16)));
    guesser.now += 1;
    assert_eq!(guesser.turn(), wait(15));
}

#[test]
fn same_wrong_password_again_does_not_count() {
    let mut guesser = Guesser::default();
    assert_eq!([1, 1, 2, 1, 2, 3, 1].map(|wrong| guesser.fail_with(wrong)), [1, 1, 2, 2, 2, 3, 3]);
    // 2 is the one that was not used for the longest time.
    assert_eq!([4, 1, 3, 2].map(|wrong| guesser.fail_with(wrong)), [4, 4, 4, 5]);
}

#[test]
fn same_wrong_password_again_leaves_the_delay_and_what_is_forgotten_when() {
    let mut guesser = Guesser::default();
    guesser.fail_with(1);
    guesser.now += 599;
    assert_eq!(guesser.fail_with(1), 1);
    assert_eq!(guesser.turn(), wait(0));
    guesser.now += 1;
    assert_eq!(guesser.turn(), Turn::Free);
}

#[test]
fn all_is_forgotten_ten_minutes_after_the_last_failure_that_counted() {
    let mut guesser = Guesser::default();
    guesser.fail();
    guesser.now += 599;
    assert_eq!(guesser.fail(), 2);
    guesser.now += 600;
    assert_eq!(guesser.turn(), Turn::Free);
    assert_eq!(guesser.fail(), 1);
}

#[test]
fn success_takes_one_failure_away() {
    let mut guesser = Guesser::default();
    guesser.fail_often(3);
    guesser.succeed();
    assert_eq!(guesser.fail(), 3);
    (0..9).for_each(|_| guesser.succeed());
    assert_eq!(guesser.turn(), Turn::Free);
    assert_eq!(guesser.fail(), 1);
}

#[test]
fn source_that_is_new_takes_the_place_of_the_oldest() {
    let mut bucket = Bucket::default();
    for (source, now, failures) in
        [(1, 11, 1), (2, 12, 1), (3, 13, 1), (4, 14, 1), (1, 15, 2), (5, 16, 1)]
    {
        let password = PasswordMark(u16::try_from(now).unwrap());
        let counted = bucket.note_failure(SourceTag(source), password, seconds(now), LONGEST);
        assert_eq!(counted, failures, "source {source}");
    }
    let is_known = |source: u64| {
        let mut bucket = bucket.clone();
        bucket.take_turn(SourceTag(source), seconds(16), LONGEST) != Turn::Free
    };
    assert_eq!([1, 2, 3, 4, 5].map(is_known), [true, false, true, true, true]);
}

#[test]
fn place_that_is_free_is_taken_before_one_that_is_not() {
    let mut bucket = Bucket::default();
    for source in 1..=4 {
        bucket.note_failure(SourceTag(source), PasswordMark(7), seconds(source), LONGEST);
    }
    bucket.note_success(SourceTag(3), seconds(5));
    bucket.note_failure(SourceTag(9), PasswordMark(7), seconds(6), LONGEST);
    assert_ne!(bucket.take_turn(ONE, seconds(6), LONGEST), Turn::Free);
}

#[test]
fn bucket_is_read_as_it_was_written() {
    let mut guesser = Guesser { now: 1_000_000, ..Guesser::default() };
    guesser.fail_often(5);
    guesser.bucket.note_failure(SourceTag(!0), PasswordMark(!0), Moment(!0), LONGEST);
    assert_eq!(Bucket::decode(&guesser.bucket.encode()), guesser.bucket);
    assert_eq!(Bucket::default().encode(), [0; BUCKET]);
}

#[test]
fn turn_that_no_attempt_can_have_been_given_is_not_believed() {
    let mut guesser = Guesser::default();
    guesser.bucket.note_failure(ONE, PasswordMark(1), seconds(0), 100 * LONGEST);
    guesser.bucket.0[0].next = seconds(31);
    assert_eq!(guesser.turn(), wait(0));
    assert_eq!(guesser.turn(), wait(1));
}

#[test]
fn nobody_waits_for_longer_than_the_longest_delay_whatever_the_bucket_says() {
    for octet in 0..=255 {
        let octets = [octet; BUCKET];
        let source = SourceTag(u64::from_le_bytes([octet; 8]));
        for now in [Moment(0), seconds(1), Moment(u64::from_le_bytes([octet; 8])), Moment(!0)] {
            let mut bucket = Bucket::decode(&octets);
            if let Turn::TooFar(wait) = bucket.take_turn(source, now, LONGEST) {
                assert!(wait <= 2 * LONGEST, "{wait:?}");
            }
            bucket.note_success(source, now);
            bucket.note_failure(source, PasswordMark(1), now, LONGEST);
        }
    }
}
