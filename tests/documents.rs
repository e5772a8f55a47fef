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

fn options(text: &str) -> BTreeSet<String> {
    words(text, "--", |c| c.is_ascii_lowercase() || c == '-')
}

fn fields(text: &str) -> BTreeSet<String> {
    words(text, "POPA3D_", |c| c.is_ascii_uppercase() || c == '_')
}

/// Each event's name and priority, as the journal has them: literals in front of a MESSAGE_ID.
fn events() -> BTreeMap<String, String> {
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
        events.insert(window[1].to_owned(), priority.to_owned());
    }
    assert!(events.len() > 15, "only {} events found: is the search broken?", events.len());
    events
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
fn manual_page_lists_every_event_with_its_priority() {
    let page = read("man/popa3d.8");
    let (_, list) = page.split_once("The events, with their priority:").unwrap();
    let (list, _) = list.split_once("\n.El").unwrap();
    let documented: BTreeMap<String, String> = between(list, ".It Cm ", "\n.Pq ")
        .zip(between(list, "\n.Pq ", "\n"))
        .map(|(event, priority)| (event.to_owned(), priority.to_owned()))
        .collect();
    assert_eq!(documented, events());
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
fn manual_page_lists_every_journal_field() {
    assert_eq!(fields(&read("man/popa3d.8")), fields(&read("src/event/session.rs")));
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
    let rows: Vec<&str> = between(&readme, "\n| `", "` |").collect();
    let named: Vec<&str> =
        rows.into_iter().filter(|word| !word.contains([' ', '/', '.'])).collect();
    assert!(named.len() > 5, "{named:?}: is the search broken?");
    for event in named {
        assert!(known.contains_key(event), "{event}: no such event");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_popa3d")).arg("--help").output().unwrap();
    let help = options(std::str::from_utf8(&help.stdout).unwrap());
    for line in readme.lines().filter(|line| line.contains("popa3d --")) {
        let (_, behind) = line.split_once("popa3d --").unwrap();
        let used = options(&format!("--{behind}"));
        assert!(used.is_subset(&help), "{line}");
    }
}
