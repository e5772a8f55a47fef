use std::io::Write;

use super::*;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("popa3d-kept-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &[u8]) {
        File::create(self.0.join(name)).unwrap().write_all(content).unwrap();
    }

    /// Names with their contents, in order.
    fn content(&self) -> Vec<(String, Vec<u8>)> {
        let mut content: Vec<_> = files(&self.0)
            .unwrap()
            .into_iter()
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, std::fs::read(path).unwrap())
            })
            .collect();
        content.sort();
        content
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

const ONE: &str = "1795624775.000000001";
const TWO: &str = "1795624776.000000000";

fn pair(name: &str, content: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), content.to_vec())
}

#[test]
fn what_was_prepared_counts_only_when_it_happened() {
    for (decision, expected) in [
        (Decision::Happened, vec![pair(ONE, b"a")]),
        (Decision::DidNot, vec![]),
        (Decision::Unknown, vec![pair(ONE, b"a")]),
    ] {
        let directory = Directory::new(&format!("{decision:?}"));
        directory.write(&format!("{ONE}.new"), b"a");
        settle_in(&directory.0, decision).unwrap();
        settle_in(&directory.0, decision).unwrap();
        assert_eq!(directory.content(), expected, "{decision:?}");
    }
}

#[test]
fn what_was_put_back_leaves_and_the_rest_stays() {
    for (decision, expected) in [
        (Decision::Happened, vec![pair(ONE, b"b")]),
        (Decision::DidNot, vec![pair(ONE, b"ab"), pair(TWO, b"c")]),
        (Decision::Unknown, vec![pair(ONE, b"ab"), pair(TWO, b"c")]),
    ] {
        let directory = Directory::new(&format!("rest-{decision:?}"));
        directory.write(ONE, b"ab");
        directory.write(TWO, b"c");
        directory.write(&format!("{ONE}.new"), b"b");
        directory.write(&format!("{TWO}.new"), b"");
        settle_in(&directory.0, decision).unwrap();
        assert_eq!(directory.content(), expected, "{decision:?}");
    }
}

#[test]
fn a_prepared_file_is_durable_under_a_name_that_does_not_count_yet() {
    let directory = Directory::new("prepared");
    let own = directory.0.join("deleted/alice");
    prepare(&own.join(ONE)).unwrap().write_all(b"a").unwrap();
    assert_eq!(removals_in(&own, SystemTime::now()).unwrap(), []);
    settle_in(&own, Decision::Happened).unwrap();
    let [removal] = removals_in(&own, SystemTime::now()).unwrap().try_into().unwrap();
    assert_eq!(name_of(removal.time), ONE);
}

#[test]
fn a_directory_that_is_tidied_away_while_a_file_is_prepared_is_made_again() {
    let directory = Directory::new("tidied");
    let own = directory.0.join("deleted/alice");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::remove_dir(&own);
            }
        });
        for number in 0..200 {
            let prepared = prepare(&own.join(number.to_string())).map(drop);
            let _ = std::fs::remove_file(own.join(format!("{number}.new")));
            if prepared.is_err() {
                is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            prepared.unwrap();
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn what_has_expired_goes_and_the_newest_that_fit_stay() {
    let directory = Directory::new("pruned");
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    for seconds in [1_000_000_000, 1_000_000_010, 1_000_000_020, 1_000_000_030] {
        directory.write(&name_of(at(seconds)), b"four");
    }
    directory.write(&format!("{}.new", name_of(at(999_999_999))), b"of nobody");
    let pruned =
        prune_in(&directory.0, at(1_000_000_060), Duration::from_secs(60), 2 * BLOCK).unwrap();
    assert_eq!(pruned.expired, Dropped { removals: 1, octets: 4 });
    assert_eq!(pruned.crowded_out, Dropped { removals: 1, octets: 4 });
    let left: Vec<_> = removals_in(&directory.0, at(1_000_000_060)).unwrap();
    assert_eq!(
        left.iter().map(|removal| removal.time).collect::<Vec<_>>(),
        [at(1_000_000_020), at(1_000_000_030)]
    );
    assert_eq!(directory.content().len(), 2);
}

#[test]
fn what_was_removed_in_the_future_is_the_newest_of_what_was_removed_by_now() {
    let directory = Directory::new("redated");
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let after = |seconds: u64| name_of(now + Duration::from_secs(seconds));
    let contents = [b"older", b"newer", b"there", b"fresh"];
    for (name, content) in
        [&after(1_000_000), &after(2_000_000), &after(0), &after(60)].into_iter().zip(contents)
    {
        directory.write(name, content);
    }
    redate_in(&directory.0, now).unwrap();
    redate_in(&directory.0, now).unwrap();
    let contents: Vec<_> = directory.content().into_iter().map(|(_, content)| content).collect();
    assert_eq!(contents, [b"there", b"older", b"newer", b"fresh"]);
    prune_in(&directory.0, now + Duration::from_secs(30), Duration::ZERO, u64::MAX).unwrap();
    assert_eq!(directory.content(), [(after(60), b"fresh".to_vec())]);
}

#[test]
fn clock_that_is_a_year_behind_for_a_while_takes_nothing_of_what_is_kept() {
    const DAY: Duration = Duration::from_secs(86_400);
    let directory = Directory::new("behind");
    let then = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let wrong = then - 365 * DAY;
    for (now, content) in [(then, b"a"), (then + DAY, b"b"), (wrong, b"c"), (wrong + DAY, b"d")] {
        redate_in(&directory.0, now).unwrap();
        let place = free_place(&directory.0, now);
        prepare(&place).unwrap().write_all(content).unwrap();
        settle_in(&directory.0, Decision::Happened).unwrap();
        prune_in(&directory.0, now, 7 * DAY, u64::MAX).unwrap();
    }
    let pruned = prune_in(&directory.0, then + 2 * DAY, 7 * DAY, 3 * BLOCK).unwrap();
    assert_eq!((pruned.expired.removals, pruned.crowded_out.removals), (0, 1));
    let times = removals_in(&directory.0, then + 2 * DAY).unwrap();
    assert!(times.iter().all(|removal| removal.time >= then + DAY), "{times:?}");
    let contents: Vec<_> =
        times.iter().map(|removal| std::fs::read(&removal.path).unwrap()).collect();
    assert_eq!(contents, [b"b", b"c", b"d"]);
    let pruned = prune_in(&directory.0, then + 9 * DAY, 7 * DAY, u64::MAX).unwrap();
    assert_eq!(pruned.expired.removals, 3);
}

#[test]
fn other_names_are_no_removals() {
    for name in ["", "1795624775", "1795624775.1", "x795624775.000000000", "1795624775.00000000x"] {
        assert_eq!(time_of(name), None, "{name:?}");
    }
    assert!(time_of(ONE).is_some());
    assert_eq!(place_of(Path::new(&format!("/d/{ONE}.new"))), Some(Path::new("/d").join(ONE)));
    assert_eq!(place_of(Path::new("/d/1795624775.000000001")), None);
}
