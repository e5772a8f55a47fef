//! A file of PAM (pam.conf(5)), line by line. Pure.

/// What a module or a file is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Auth,
    Account,
    Session,
    /// Changing a password, which POP3 cannot.
    Password,
}

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// All lines of another file (Debian's `@include`).
    IncludeAll(String),
    /// The lines of another file that are for this.
    Include(Kind, String),
    /// A module.
    Module(Module),
}

/// A module, and what depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) kind: Kind,
    /// Its file; without a `/` at the beginning, where libpam has its own.
    pub(super) path: String,
    /// Without it nobody passes.
    pub(super) is_decisive: bool,
    /// It may be missing.
    pub(super) is_dispensable: bool,
}

const ACTIONS: [&str; 6] = ["ignore", "bad", "die", "ok", "done", "reset"];

/// What a module may return, and what stands for all that is not named (pam.conf(5)).
const RESULTS: &str = "success open_err symbol_err service_err system_err buf_err perm_denied auth_err \
    cred_insufficient authinfo_unavail user_unknown maxtries new_authtok_reqd acct_expired session_err \
    cred_unavail cred_expired cred_err no_module_data conv_err authtok_err authtok_recover_err \
    authtok_lock_busy authtok_disable_aging try_again ignore abort authtok_expired module_unknown bad_item \
    conv_again incomplete default";

/// The rules in a text with the numbers of their lines, or what is wrong there.
pub(super) fn rules(text: &str) -> Vec<(usize, Result<Rule, String>)> {
    let mut rules = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let mut whole = without_comment(line).to_owned();
        while let Some(begun) = whole.strip_suffix('\\') {
            let next = lines.next().map_or("", |(line, _)| without_comment(line));
            whole = format!("{begun} {next}");
        }
        if !whole.trim().is_empty() {
            rules.push((number, rule(&whole)));
        }
    }
    rules
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim_end()
}

fn rule(line: &str) -> Result<Rule, String> {
    let (word, rest) = first_word(line);
    if word.eq_ignore_ascii_case("@include") {
        let (file, _) = first_word(rest);
        return if file.is_empty() {
            Err("@include names no file".to_owned())
        } else {
            Ok(Rule::IncludeAll(file.to_owned()))
        };
    }
    let (is_dispensable, word) = word.strip_prefix('-').map_or((false, word), |word| (true, word));
    let kind = match word.to_ascii_lowercase().as_str() {
        "auth" => Kind::Auth,
        "account" => Kind::Account,
        "session" => Kind::Session,
        "password" => Kind::Password,
        _ => return Err(format!("\"{word}\" is none of auth, account, session, password")),
    };
    let (control, rest) = control(rest)?;
    let (path, _) = first_word(rest);
    if path.is_empty() {
        return Err("it names no module".to_owned());
    }
    let path = path.to_owned();
    Ok(match control {
        Control::Include => Rule::Include(kind, path),
        Control::Decisive => Rule::Module(Module { kind, path, is_decisive: true, is_dispensable }),
        Control::Optional => {
            Rule::Module(Module { kind, path, is_decisive: false, is_dispensable })
        }
    })
}

enum Control {
    Include,
    Decisive,
    Optional,
}

/// The control of a line, and what stands behind it.
fn control(text: &str) -> Result<(Control, &str), String> {
    if let Some(inside) = text.trim_start().strip_prefix('[') {
        let (inside, rest) =
            inside.split_once(']').ok_or_else(|| "a \"[\" without its \"]\"".to_owned())?;
        return Ok((bracketed(inside)?, rest));
    }
    let (word, rest) = first_word(text);
    let control = match word.to_ascii_lowercase().as_str() {
        "required" | "requisite" => Control::Decisive,
        "sufficient" | "optional" => Control::Optional,
        "include" | "substack" => Control::Include,
        _ => {
            return Err(format!(
                "\"{word}\" is none of required, requisite, sufficient, optional, include, substack, [...]"
            ));
        }
    };
    Ok((control, rest))
}

/// What stands between brackets: RESULT=ACTION, with spaces in between.
fn bracketed(inside: &str) -> Result<Control, String> {
    let mut of_missing = None;
    let mut of_others = None;
    for pair in inside.split_whitespace() {
        let (result, action) = pair
            .split_once('=')
            .filter(|(result, action)| {
                let is_jump = action.parse::<u16>().is_ok();
                RESULTS.split_whitespace().any(|known| known == *result)
                    && (is_jump || ACTIONS.contains(action))
            })
            .ok_or_else(|| format!("\"{pair}\" in the brackets means nothing to PAM"))?;
        match result {
            "module_unknown" => of_missing = Some(action),
            "default" => of_others = Some(action),
            _ => {}
        }
    }
    // What happens when there is no such module; without a word of it, it counts as bad.
    Ok(match of_missing.or(of_others) {
        Some("bad" | "die") | None => Control::Decisive,
        Some(_) => Control::Optional,
    })
}

fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(kind: Kind, path: &str, is_decisive: bool) -> Rule {
        Rule::Module(Module { kind, path: path.to_owned(), is_decisive, is_dispensable: false })
    }

    #[test]
    fn rules_of_debian_are_understood() {
        let text = "# comment\n@include common-auth\n\nauth\t[success=1 default=ignore]\tpam_unix.so nullok\n\
            auth requisite pam_deny.so # why\nAccount Required \\\n pam_unix.so\n\
            session substack other\n-session optional /lib/pam_x.so\n";
        let found = rules(text);
        let numbers: Vec<_> = found.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 4, 5, 6, 8, 9]);
        let found: Vec<_> = found.into_iter().map(|(_, rule)| rule.unwrap()).collect();
        assert_eq!(found[0], Rule::IncludeAll("common-auth".to_owned()));
        assert_eq!(found[1], module(Kind::Auth, "pam_unix.so", false));
        assert_eq!(found[2], module(Kind::Auth, "pam_deny.so", true));
        assert_eq!(found[3], module(Kind::Account, "pam_unix.so", true));
        assert_eq!(found[4], Rule::Include(Kind::Session, "other".to_owned()));
        let Rule::Module(last) = &found[5] else { panic!("{:?}", found[5]) };
        assert!(last.is_dispensable && !last.is_decisive && last.kind == Kind::Session);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (line, complaint) in [
            ("auht required pam_unix.so", "\"auht\" is none of auth"),
            ("auth requierd pam_unix.so", "\"requierd\" is none of required"),
            ("auth [success=ok default=bda] pam_unix.so", "\"default=bda\" in the brackets"),
            ("auth [sucess=ok] pam_unix.so", "\"sucess=ok\" in the brackets"),
            ("auth [default=bad pam_unix.so", "\"[\" without its"),
            ("auth required", "it names no module"),
            ("@include", "@include names no file"),
            ("auth", "\"\" is none of required"),
        ] {
            let found = rules(&format!("\n{line}\n"));
            let (number, rule) = &found[0];
            assert_eq!(*number, 2);
            assert!(
                rule.as_ref().is_err_and(|error| error.contains(complaint)),
                "{line}: {rule:?}"
            );
        }
    }

    #[test]
    fn what_a_missing_module_does_is_in_the_brackets() {
        for (control, is_decisive) in [
            ("[success=1 default=ignore]", false),
            ("[default=bad success=ok]", true),
            ("[success=ok]", true),
            ("[default=die module_unknown=ignore]", false),
        ] {
            let found = rules(&format!("auth {control} pam_x.so"));
            assert_eq!(found[0].1, Ok(module(Kind::Auth, "pam_x.so", is_decisive)), "{control}");
        }
    }

    #[test]
    fn text_that_ends_in_the_middle_is_read_all_the_same() {
        assert_eq!(rules("auth required \\"), [(1, Err("it names no module".to_owned()))]);
        assert!(rules("").is_empty());
    }
}
