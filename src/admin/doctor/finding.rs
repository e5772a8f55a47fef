//! A line of the report.

use std::fmt;
use std::io;

/// How bad it is; the worst comes last, where a terminal shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// As it should be.
    Fine,
    /// It takes root to look at it.
    Unseen,
    /// Worth knowing.
    Hint,
    /// Something is going wrong, or soon will.
    Warning,
    /// Somebody is not served, or safety is broken.
    Error,
}

/// What was found, in one line, with what mends it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) text: String,
    /// Stands behind the text; empty where nothing needs doing.
    remedy: String,
}

impl Finding {
    pub(super) fn fine(text: impl Into<String>) -> Self {
        Self::new(Severity::Fine, text, "")
    }

    /// Of something that only root can look at; its name.
    pub(super) fn unseen(thing: impl Into<String>) -> Self {
        Self::new(Severity::Unseen, thing, "")
    }

    pub(super) fn hint(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Hint, text, remedy)
    }

    pub(super) fn warning(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Warning, text, remedy)
    }

    pub(super) fn error(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Error, text, remedy)
    }

    fn new(severity: Severity, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity, text: text.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.severity {
            Severity::Fine | Severity::Unseen => "",
            Severity::Hint => "note: ",
            Severity::Warning => "warning: ",
            Severity::Error => "error: ",
        };
        let separator = if self.remedy.is_empty() { "" } else { "; " };
        write!(f, "{kind}{}{separator}{}", self.text, self.remedy)
    }
}

/// Why something cannot be had.
pub(super) fn why(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "it is not there".to_owned()
    } else {
        error.to_string()
    }
}

/// `text` as one word of a command, for a shell.
pub(super) fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "./_@:+-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_is_one_line_with_what_mends_it() {
        let finding = Finding::error("/var/mail is gone", "run: mkdir /var/mail");
        assert_eq!(finding.to_string(), "error: /var/mail is gone; run: mkdir /var/mail");
        assert_eq!(Finding::fine("clock: fine").to_string(), "clock: fine");
    }

    #[test]
    fn worst_sorts_last() {
        let mut all = [Severity::Error, Severity::Hint, Severity::Fine, Severity::Warning];
        all.sort();
        assert_eq!(all, [Severity::Fine, Severity::Hint, Severity::Warning, Severity::Error]);
    }

    #[test]
    fn name_cannot_become_a_command() {
        assert_eq!(word("/var/mail/alice"), "/var/mail/alice");
        assert_eq!(word("a'; rm -r x"), r"'a'\''; rm -r x'");
        assert_eq!(word(""), "''");
    }
}
