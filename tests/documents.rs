//! Holds the manual pages, the settings file that is shipped and the README to what the program
//! does: each names all that there is, and nothing else.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that meets what it did not expect may say so by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use popa3d::settings::{Place, Settings};

const SHIPPED: &str = "debian/popa3d.toml";
const EVENTS_PAGE: &str = "man/popa3d-events.7";

/// Keys that have no value for what holds without them, so that an example has to do.
const WITHOUT_DEFAULT: [&str; 2] = ["certificates", "client-certificates"];

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What the program makes of a settings file with this text.
fn settings(text: &str) -> Result<Settings, String> {
    let thread = std::thread::current();
    let name: String =
        thread.name().unwrap().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let file = format!("popa3d-documents-{}-{name}.toml", std::process::id());
    let path: PathBuf = std::env::temp_dir().join(file);
    fs::write(&path, text).unwrap();
    let place = Place::File(path.clone());
    let settings = Settings::load(&place).map_err(|error| error.to_string());
    fs::remove_file(path).unwrap();
    settings
}

/// The keys that there are: the program names them when it meets another one.
fn keys() -> BTreeSet<String> {
    let complaint = settings("no-such-key = 1\n").unwrap_err();
    let (_, list) = complaint.split_once("expected one of ").unwrap();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// "key = value", when a line sets a key.
fn setting(line: &str) -> Option<(String, String)> {
    let (key, value) = line.split_once(" = ")?;
    let is_key = key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    is_key.then(|| (key.to_owned(), value.to_owned()))
}

/// The keys in the comments of the shipped file, with their defaults or examples.
fn shipped() -> BTreeMap<String, String> {
    read(SHIPPED).lines().filter_map(|line| setting(line.strip_prefix('#')?)).collect()
}

/// The parts of a text between two marks.
fn between<'a>(text: &'a str, mark: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(mark).skip(1).filter_map(move |rest| rest.split_once(end)).map(|(part, _)| part)
}

/// Every word of a text that begins with `start`, as long as it is made of what `is_part` allows.
fn words(text: &str, start: &str, is_part: impl Fn(char) -> bool) -> BTreeSet<String> {
    text.match_indices(start)
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| is_part(c) || c == '-'))
        .map(|(at, _)| {
            let rest = text[at + start.len()..].chars().take_while(|c| is_part(*c));
            start.chars().chain(rest).collect()
        })
        .collect()
}

/// What a text wants these fields of the journal to be.
fn values(text: &str, field: &str) -> BTreeSet<String> {
    let named = words(text, field, |c| c.is_ascii_lowercase() || c == '-');
    named.iter().map(|word| word.trim_start_matches(field).to_owned()).collect()
}

fn options(text: &str) -> BTreeSet<String> {
    words(text, "--", |c| c.is_ascii_lowercase() || c == '-')
}

fn fields(text: &str) -> BTreeSet<String> {
    words(text, "POPA3D_", |c| c.is_ascii_uppercase() || c == '_')
}

/// An event as the journal has it.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    priority: String,
    message_id: String,
}

/// Each event by its name: literals in front of a MESSAGE_ID.
fn events() -> BTreeMap<String, Event> {
    let source = read("src/event.rs");
    let parts: Vec<&str> = source.split('"').collect();
    let is_id = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let mut events = BTreeMap::new();
    for window in parts.windows(4).filter(|window| is_id(window[3])) {
        let level = window[0].rsplit('(').next().unwrap().trim().trim_end_matches(',');
        let priority = match level {
            "ERROR" => "err",
            "WARNING" => "warning",
            "NOTICE" => "notice",
            "INFO" => "info",
            _ => panic!("{level}: what priority is that?"),
        };
        let event = Event { priority: priority.to_owned(), message_id: window[3].to_owned() };
        assert_eq!(events.insert(window[1].to_owned(), event), None, "{}", window[1]);
    }
    assert!(events.len() > 15, "only {} events found: is the search broken?", events.len());
    events
}

/// What POPA3D_ENDING may be: literals in the function that gives it.
fn endings() -> BTreeSet<String> {
    let source = read("src/event/summary.rs");
    let (_, function) = source.split_once("fn word(self)").unwrap();
    let (function, _) = function.split_once("\n    }\n").unwrap();
    let endings: BTreeSet<String> = between(function, "=> \"", "\"").map(str::to_owned).collect();
    assert!(endings.len() > 10, "{endings:?}: is the search broken?");
    endings
}

/// The fields that the program sends.
fn fields_sent() -> BTreeSet<String> {
    fields(&read("src/event/session.rs"))
}

/// A section of the manual page of the events.
fn section(page: &str, title: &str) -> String {
    let (_, rest) = page.split_once(&format!(".Sh {title}\n")).unwrap();
    rest.split(".Sh ").next().unwrap().to_owned()
}

#[test]
fn shipped_settings_show_every_key_with_its_default() {
    let (examples, defaults): (BTreeMap<_, _>, BTreeMap<_, _>) =
        shipped().into_iter().partition(|(key, _)| WITHOUT_DEFAULT.contains(&key.as_str()));
    let line = |(key, value): (&String, &String)| format!("{key} = {value}\n");
    let text: String = defaults.iter().map(line).collect();
    assert_eq!(settings(&text).unwrap(), Settings::default());
    for example in examples.iter().map(line) {
        assert_ne!(settings(&example).unwrap(), Settings::default(), "{example}");
    }
    assert_eq!(examples.into_keys().chain(defaults.into_keys()).collect::<BTreeSet<_>>(), keys());
}

#[test]
fn shipped_settings_set_nothing() {
    let lines = read(SHIPPED);
    let is_silent = |line: &str| line.is_empty() || line.starts_with('#');
    assert!(lines.lines().all(is_silent));
}

#[test]
fn manual_page_of_the_settings_names_every_key_with_its_default() {
    let page = read("man/popa3d.toml.5");
    let mut documented: BTreeMap<String, String> = page
        .lines()
        .filter_map(|line| setting(line.strip_prefix(".It Cm ")?))
        .map(|(key, value)| {
            let text = value.strip_prefix("Qq ").map(|text| format!("\"{text}\""));
            let list = value.strip_prefix("Bo Qo ").and_then(|list| list.strip_suffix(" Qc Bc"));
            let list = list.map(|text| format!("[\"{text}\"]"));
            (key, text.or(list).unwrap_or(value))
        })
        .collect();
    let mut shipped = shipped();
    for key in WITHOUT_DEFAULT {
        assert!(documented.remove(key).is_some() && shipped.remove(key).is_some(), "{key}");
    }
    assert_eq!(documented, shipped);
}

#[test]
fn examples_of_settings_are_accepted() {
    let page = read("man/popa3d.toml.5");
    let readme = read("README.md");
    let in_page = between(&page, ".Bd -literal -offset indent\n", ".Ed");
    let mut examples = 0;
    for example in in_page.chain(between(&readme, "```toml\n", "```")) {
        assert_ne!(settings(example), Ok(Settings::default()), "it sets nothing: {example}");
        settings(example).unwrap();
        examples += 1;
    }
    assert!(examples >= 2, "only {examples} examples found: is the search broken?");
}

#[test]
fn manual_page_has_the_options_of_help() {
    let program = env!("CARGO_BIN_EXE_popa3d");
    let help = Command::new(program).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let listed: BTreeSet<String> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  -"))
        .flat_map(|line| line.split("   ").next().unwrap().split(", "))
        .map(|option| option.split(' ').next().unwrap().trim_start_matches('-').to_owned())
        .collect();
    let page = read("man/popa3d.8");
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Fl "))
        .flat_map(|line| line.split(" , Fl "))
        .map(|option| option.split(' ').next().unwrap().trim_start_matches('-').to_owned())
        .collect();
    assert!(listed.len() > 3, "{listed:?}: is the search broken?");
    assert_eq!(listed, documented);
}

#[test]
fn manual_page_of_the_events_lists_each_with_its_priority_and_message_id() {
    let list = section(&read(EVENTS_PAGE), "EVENTS");
    let documented: BTreeMap<String, Event> = between(&list, ".It Cm ", "\n.Pq ")
        .zip(between(&list, "\n.Pq ", "\n"))
        .map(|(event, rest)| {
            let (priority, message_id) = rest.split_once(" , Li ").unwrap();
            let (priority, message_id) = (priority.to_owned(), message_id.to_owned());
            (event.to_owned(), Event { priority, message_id })
        })
        .collect();
    assert_eq!(documented, events());
}

#[test]
fn manual_page_of_the_events_lists_every_field() {
    let page = read(EVENTS_PAGE);
    let listed = section(&page, "FIELDS");
    let entries: String = listed.lines().filter(|line| line.starts_with(".It Ev ")).collect();
    assert_eq!(fields(&entries), fields_sent());
    for other in [page, read("man/popa3d.8")] {
        assert!(fields(&other).is_subset(&fields_sent()), "{:?}", fields(&other));
    }
}

#[test]
fn manual_page_of_the_events_lists_every_ending() {
    let list = section(&read(EVENTS_PAGE), "ENDINGS");
    let documented: BTreeSet<String> = between(&list, ".It Cm ", "\n").map(str::to_owned).collect();
    assert_eq!(documented, endings());
}

#[test]
fn catalog_of_the_journal_explains_every_event_and_nothing_else() {
    let catalog = read("systemd/popa3d.catalog");
    let known: BTreeSet<String> = events().into_values().map(|event| event.message_id).collect();
    let mut explained = BTreeSet::new();
    let mut subjects = BTreeSet::new();
    for entry in catalog.split("\n-- ").skip(1) {
        let (head, text) = entry.split_once("\n\n").unwrap();
        let mut head = head.lines();
        let id = head.next().unwrap();
        assert!(explained.insert(id.to_owned()), "{id}: explained twice");
        let subject = head.next().unwrap().strip_prefix("Subject: ").unwrap();
        assert!(subjects.insert(subject.to_owned()), "{subject}: the subject of two");
        let rest: Vec<&str> = head.collect();
        assert_eq!(
            rest,
            ["Defined-By: popa3d", "Documentation: man:popa3d-events(7)"],
            "{subject}"
        );
        // What happened and what it means, then what to do.
        assert!(text.trim().contains("\n\n"), "{subject}: one paragraph");
        assert!(fields(text).is_subset(&fields_sent()), "{subject}: {:?}", fields(text));
        // Others would have to be there in each entry, and have no digits in their names: journalctl fills
        // in no such ones.
        for filled_in in text.split('@').skip(1).step_by(2) {
            assert_eq!(filled_in, "_PID", "{subject}");
        }
    }
    assert_eq!(explained, known);
}

#[test]
fn manual_page_lists_every_kind_of_oddity() {
    let source = read("src/admin/mailbox/oddity.rs");
    let kinds: BTreeSet<&str> = between(&source, "described(", ",")
        .filter_map(|kind| kind.trim().strip_prefix('"')?.strip_suffix('"'))
        .collect();
    let page = read("man/popa3d.8");
    let (_, list) = page.split_once("The kinds of oddities are").unwrap();
    let (list, _) = list.split_once("\n.Ss ").unwrap();
    let documented: BTreeSet<&str> = between(list, "\n.It Cm ", "\n").collect();
    assert!(kinds.len() > 10, "{kinds:?}: is the search broken?");
    assert_eq!(documented, kinds);
}

#[test]
fn readme_names_options_events_and_fields_that_exist() {
    let readme = read("README.md");
    // Journal fields, and what tests read from the environment.
    let sources = [
        "src/event/session.rs",
        "src/as_user/redo/simulator/proofs.rs",
        "tests/system/test_kill.py",
    ];
    let fields_known = sources.into_iter().flat_map(|source| fields(&read(source))).collect();
    assert!(fields(&readme).is_subset(&fields_known), "{:?}", fields(&readme));
    let known = events();
    let named = values(&readme, "POPA3D_EVENT=");
    assert!(named.len() > 4, "{named:?}: is the search broken?");
    for event in named {
        assert!(known.contains_key(&event), "{event}: no such event");
    }
    assert!(values(&readme, "POPA3D_ENDING=").is_subset(&endings()));
    let help = Command::new(env!("CARGO_BIN_EXE_popa3d")).arg("--help").output().unwrap();
    let help = options(std::str::from_utf8(&help.stdout).unwrap());
    for line in readme.lines().filter(|line| line.contains("popa3d --")) {
        let (_, behind) = line.split_once("popa3d --").unwrap();
        let used = options(&format!("--{behind}"));
        assert!(used.is_subset(&help), "{line}");
    }
}

/// Machine code of others is in the package, and their notices have to be.
#[test]
fn copyright_file_names_every_crate_that_is_linked() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal,no-proc-macro"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let linked: BTreeSet<String> = tree
        .lines()
        .map(|package| format!("crate/{}", package.split(' ').next().unwrap()))
        .filter(|name| name != "crate/popa3d")
        .collect();
    assert!(linked.len() > 20, "{linked:?}: is the search broken?");
    let copyright = read("debian/copyright");
    let (_, paragraphs) = copyright.split_once("\nFiles: *\n").unwrap();
    assert_eq!(
        words(paragraphs, "crate/", |c| c.is_ascii_alphanumeric() || c == '-' || c == '_'),
        linked
    );
}
