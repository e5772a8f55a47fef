//! The PAM service: whether libpam finds it, understands it, and has what it names.

mod file;

use std::fs::{metadata, read_to_string};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::finding::{Finding, word};
use crate::as_user::WRITABLE_BY_OTHERS;
use crate::event::printable;
use crate::monitor::PAM_DIRECTORIES;
use file::{Kind, Module, Rule};

const SERVICE: &str = "popa3d";

/// libpam's own limit, which a circle meets as well.
const DEEPEST: usize = 16;

/// What the package has in the file.
const WRITE: &str =
    "run: printf '@include common-%s\\n' auth account session-noninteractive >/etc/pam.d/popa3d";

pub(super) fn look() -> Vec<Finding> {
    let directories: Vec<&Path> = PAM_DIRECTORIES.iter().map(Path::new).collect();
    if !directories.iter().any(|directory| directory.is_dir())
        && Path::new("/etc/pam.conf").exists()
    {
        return vec![Finding::hint(
            "/etc/pam.conf: there is no /etc/pam.d, and it was not looked at",
            "",
        )];
    }
    let mut stack = Stack { directories: &directories, modules: modules(), ..Stack::default() };
    stack.read(SERVICE, None, &[]);
    stack.report()
}

/// Where libpam, which this program is linked with, has its modules; `None` without /proc.
fn modules() -> Option<PathBuf> {
    let maps = read_to_string("/proc/self/maps").ok()?;
    let library = maps.split_whitespace().find(|word| word.contains("/libpam.so"))?;
    Some(Path::new(library).parent()?.join("security"))
}

/// What was found on the way through the files.
#[derive(Default)]
struct Stack<'a> {
    directories: &'a [&'a Path],
    modules: Option<PathBuf>,
    path: PathBuf,
    findings: Vec<Finding>,
    kinds: Vec<Kind>,
}

impl Stack<'_> {
    /// Reads a file of this name, of which only rules of a `kind` count if given; `above` are the files
    /// that led here.
    fn read(&mut self, name: &str, kind: Option<Kind>, above: &[String]) {
        let path = self
            .directories
            .iter()
            .map(|directory| directory.join(name))
            .find(|path| path.exists());
        let origin = above.last();
        let Some(path) = path else {
            let finding = match origin {
                None => Finding::error(
                    format!("/etc/pam.d/{SERVICE}: it is not there, and nobody can log in"),
                    WRITE,
                ),
                Some(origin) => Finding::error(
                    format!(
                        "{origin}: there is no /etc/pam.d/{}, and nobody can log in",
                        shown(name)
                    ),
                    format!("edit {}", file_of(origin)),
                ),
            };
            self.findings.push(finding);
            return;
        };
        let place = shown(&path.to_string_lossy());
        if above.is_empty() {
            self.path.clone_from(&path);
        }
        if above.len() >= DEEPEST {
            let text = format!("{place}: it is included by way of itself, and nobody can log in");
            self.findings.push(Finding::error(text, "take the @include out that leads back"));
            return;
        }
        let text = match read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.findings.push(Finding::unseen(place));
                return;
            }
            Err(error) => {
                let text = format!("{place}: {error}, and nobody can log in");
                self.findings.push(Finding::error(text, WRITE));
                return;
            }
        };
        if metadata(&path)
            .is_ok_and(|found| found.uid() != 0 || found.mode() & WRITABLE_BY_OTHERS != 0)
        {
            let text = format!("{place}: others than root can change it, and so who may log in");
            let name = word(&path.to_string_lossy());
            self.findings
                .push(Finding::error(text, format!("run: chown root {name} && chmod go-w {name}")));
        }
        for (number, rule) in file::rules(&text) {
            let at = format!("{place}:{number}");
            let matters = |found: Kind| kind.is_none_or(|kind| kind == found);
            match rule {
                Ok(Rule::IncludeAll(name)) => self.read(&name, kind, &below(above, at)),
                Ok(Rule::Include(found, name)) if matters(found) => {
                    self.read(&name, Some(found), &below(above, at));
                }
                Ok(Rule::Module(module)) if matters(module.kind) => self.judge(&module, &at),
                Ok(Rule::Include(..) | Rule::Module(_)) => {}
                Err(mistake) => self.findings.push(Finding::error(
                    format!("{at}: {}, and PAM refuses everybody", printable(mistake.as_bytes())),
                    format!("edit {}", file_of(&at)),
                )),
            }
            // A circle comes by many times.
            if self.findings.len() > DEEPEST {
                return;
            }
        }
    }

    fn judge(&mut self, module: &Module, at: &str) {
        if !self.kinds.contains(&module.kind) {
            self.kinds.push(module.kind);
        }
        let path = match (&self.modules, Path::new(&module.path)) {
            (_, path) if path.is_absolute() => path.to_owned(),
            (Some(directory), path) => directory.join(path),
            (None, _) => return,
        };
        // libpam puts the name of the architecture in the place of this.
        if module.path.contains("$ISA") || path.exists() || module.kind == Kind::Password {
            return;
        }
        let text = format!("{at}: there is no module {}", shown(&path.to_string_lossy()));
        if module.is_decisive {
            self.findings.push(Finding::error(
                format!("{text}, and nobody can log in"),
                format!(
                    "install it (apt-file search {}), or edit {}",
                    shown(&module.path),
                    file_of(at)
                ),
            ));
        } else if !module.is_dispensable {
            self.findings.push(Finding::warning(
                format!("{text}, and PAM goes on without it"),
                format!("install it, or edit {}", file_of(at)),
            ));
        }
    }

    fn report(mut self) -> Vec<Finding> {
        let place = shown(&self.path.to_string_lossy());
        if self.findings.is_empty() {
            for (kind, name, common) in [
                (Kind::Auth, "auth", "auth"),
                (Kind::Account, "account", "account"),
                (Kind::Session, "session", "session-noninteractive"),
            ] {
                if !self.kinds.contains(&kind) {
                    self.findings.push(Finding::warning(
                        format!("{place}: it has no {name} rule, so that those of /etc/pam.d/other count"),
                        format!("run: echo '@include common-{common}' >>{place}"),
                    ));
                }
            }
        }
        if self.findings.is_empty() {
            self.findings.push(Finding::fine(format!("{place}: fine")));
        }
        self.findings
    }
}

fn below(above: &[String], at: String) -> Vec<String> {
    above.iter().cloned().chain([at]).collect()
}

/// The file in front of the number of a line.
fn file_of(at: &str) -> &str {
    at.rsplit_once(':').map_or(at, |(file, _)| file)
}

fn shown(text: &str) -> String {
    printable(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A directory of a test's own with files of PAM, and one module.
    struct Place(PathBuf);

    impl Place {
        fn new(files: &[(&str, &str)]) -> Self {
            let name = format!("popa3d-doctor-pam-{:016x}", getrandom::u64().unwrap());
            let place = Self(std::env::temp_dir().join(name));
            fs::create_dir(&place.0).unwrap();
            fs::write(place.0.join("pam_there.so"), "").unwrap();
            for (name, text) in files {
                fs::write(place.0.join(name), text).unwrap();
            }
            place
        }

        /// What is said of it, with the directory taken out; who owns files is not the test's.
        fn said(&self) -> Vec<String> {
            let directories = [self.0.as_path()];
            let modules = Some(self.0.clone());
            let mut stack = Stack { directories: &directories, modules, ..Stack::default() };
            stack.read(SERVICE, None, &[]);
            let said = stack.report().iter().map(Finding::to_string).collect::<Vec<_>>();
            let own = format!("{}/", self.0.display());
            said.iter()
                .filter(|line| !line.contains("others than root"))
                .map(|line| line.replace(&own, ""))
                .collect()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const WHOLE: &str = "auth required pam_there.so\naccount required pam_there.so\nsession required pam_there.so\n";

    #[test]
    fn stack_that_is_whole_is_fine() {
        let place = Place::new(&[
            (
                SERVICE,
                "@include all\npassword required pam_missing.so\n-auth optional pam_missing.so\n",
            ),
            ("all", WHOLE),
        ]);
        assert!(place.said().iter().all(|line| line == "popa3d: fine"), "{:?}", place.said());
    }

    #[test]
    fn missing_files_and_modules_are_errors() {
        let place = Place::new(&[]);
        assert!(place.said()[0].starts_with("error: /etc/pam.d/popa3d: it is not there"));
        let place = Place::new(&[(SERVICE, "@include nowhere\n")]);
        assert!(place.said()[0].starts_with("error: popa3d:1: there is no /etc/pam.d/nowhere"));
        let place = Place::new(&[(SERVICE, &format!("{WHOLE}auth required pam_typo.so\n"))]);
        let said = place.said();
        assert!(
            said[0].starts_with("error: popa3d:4: there is no module pam_typo.so, and nobody"),
            "{said:?}"
        );
        let place = Place::new(&[(SERVICE, &format!("{WHOLE}auth optional pam_typo.so\n"))]);
        assert!(place.said()[0].starts_with("warning: popa3d:4: there is no module"));
    }

    #[test]
    fn kinds_that_fall_through_to_other_are_warned_of() {
        let place = Place::new(&[
            (SERVICE, "auth required pam_there.so\naccount include all\n"),
            ("all", WHOLE),
        ]);
        let said = place.said();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("warning: popa3d: it has no session rule"), "{said:?}");
    }

    #[test]
    fn circle_comes_to_an_end() {
        let place = Place::new(&[(SERVICE, "@include popa3d\n@include popa3d\n")]);
        let said = place.said();
        assert!(said.len() < 50, "{}", said.len());
        assert!(said[0].contains("by way of itself"), "{said:?}");
    }
}
