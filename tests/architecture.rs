//! Keeps the privilege boundary honest: who uses whom is what the map in `src/lib.rs` says.
#![allow(clippy::unwrap_used, reason = "a test may say so by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The map in the documentation of `src/lib.rs`: a module, and those that it may use.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("//! ")?.split_once(" -> "))
        .map(|(user, used)| {
            (user.trim().to_owned(), used.split_whitespace().map(str::to_owned).collect())
        })
        .collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The top-level modules that a file names behind `crate::`, alone or in a braced list.
fn used_by(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, marker) in text.match_indices("crate::") {
        let behind = &text[at + marker.len()..];
        match behind.strip_prefix('{') {
            Some(list) => used.extend(outermost(list).split(',').map(name)),
            None => {
                used.insert(name(behind));
            }
        }
    }
    used.remove("");
    used
}

/// What stands in a braced list, up to its end and without the lists inside it.
fn outermost(list: &str) -> String {
    let mut depth = 1;
    let mut kept = String::new();
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            c if depth == 1 => kept.push(c),
            _ => {}
        }
    }
    kept
}

/// The name that `text` begins with.
fn name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn modules_use_only_what_the_map_allows() {
    let allowed = allowed();
    let mut checked = 0;
    for file in rust_files(&source()) {
        let inside = file.strip_prefix(source()).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_string_lossy();
        let module = module.trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        for used in used_by(&fs::read_to_string(&file).unwrap()) {
            checked += 1;
            let is_allowed =
                used == module || allowed.get(module).is_some_and(|users| users.contains(&used));
            assert!(is_allowed, "{}: {module} may not use {used}", inside.display());
        }
    }
    assert!(checked > 20, "only {checked} uses found: is the search broken?");
}

#[test]
fn the_search_finds_what_it_should() {
    let text = "use crate::{event, monitor::{a, b}};\nlet x = crate::mbox::scan();";
    assert_eq!(used_by(text), ["event", "mbox", "monitor"].map(str::to_owned).into());
}

#[test]
fn unsafe_code_stays_in_its_folder() {
    for file in rust_files(&source()) {
        let text = fs::read_to_string(&file).unwrap();
        let inside = file.strip_prefix(source()).unwrap();
        let has_unsafe = text.contains("unsafe {") || text.contains("allow(unsafe_code");
        assert!(inside.starts_with("ffi") || !has_unsafe, "{}", inside.display());
    }
}

#[test]
fn network_and_protocol_code_reaches_neither_pam_nor_the_file_system() {
    for folder in ["pop3", "proxy", "mbox", "worker"] {
        for file in rust_files(&source().join(folder)) {
            if file.ends_with("mbox/samples.rs") || file.ends_with("tests.rs") {
                continue; // compiled for tests alone
            }
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for forbidden in ["ffi::pam", "std::process::Command", "File::open", "OpenOptions"] {
                assert!(!code.contains(forbidden), "{}: {forbidden}", file.display());
            }
        }
    }
}
