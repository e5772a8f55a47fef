//! Options, and what `popa3d` does with them.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use nix::unistd::geteuid;

use crate::admin::mailbox::{Form, NotShown};
use crate::admin::undelete::since;
use crate::listener::{Failure, Ground};
use crate::settings::{Place, Settings};
use crate::{admin, journal, listener, monitor};

const VERSION: &str = concat!("popa3d ", env!("CARGO_PKG_VERSION"), "\n");

const USAGE: &str = "\
Usage: popa3d [--config FILE]
       popa3d -D [-F] [--config FILE]
       popa3d [-D] --check-config [--config FILE]
       popa3d --mailbox USER [--json] [--config FILE]
       popa3d --recover [--config FILE]
       popa3d --sessions
       popa3d --undelete USER [--since WHEN] [--all | UNIQUE-ID...]
              [--config FILE]
       popa3d --expire [--config FILE]
       popa3d -V | -h

Serves POP3 to the client whose connection is passed by systemd
(systemctl enable --now popa3d.socket popa3ds.socket) or, as standard input,
by inetd. On port 995, which is popa3ds.socket's, TLS begins at once. With -D it
accepts connections on its own (systemctl enable --now popa3d.service).

  --all            with --undelete: put back all
  --check-config   look at the settings and at this host, say what is wrong and
                   what mends it; with -D at the settings alone, for a reload
  --config FILE    read the settings from FILE, not from /etc/popa3d.toml
  -D, --daemon     listen, and start a session for each connection
  -F, --foreground with -D: do not go to the background
  --expire         drop deleted messages that were kept long enough
  -h, --help       print this and exit
  --json           with --mailbox: for programs
  --mailbox USER   show what there is in the mailbox of USER, and what is odd
                   about it, without changing it
  --recover        finish updates of mailboxes that a crash interrupted
  --sessions       show who is there, a line for each session
  --since WHEN     with --undelete: what was deleted since then: 2h (ago), 3d,
                   2026-11-24, or '2026-11-24 13:00'
  --undelete USER  list or put back deleted messages that are kept
  -V, --version    print the version and exit
";

/// Exit status: an option, the settings or the way of starting is wrong.
const MISTAKE: u8 = 2;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Serve,
    Listen(Ground),
    CheckConfig,
    CheckSettings,
    Expire,
    Mailbox(String, Form),
    Recover,
    Sessions,
    Undelete(admin::undelete::Request),
    Print(&'static str),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let (action, config) = match parse(std::env::args_os().skip(1)) {
        Ok(asked_for) => asked_for,
        Err(error) => return complain(&format!("{error}; popa3d --help tells more")),
    };
    if matches!(action, Action::Expire | Action::Recover | Action::Undelete(_))
        && !geteuid().is_root()
    {
        complain("only root can do that");
        return ExitCode::FAILURE;
    }
    match action {
        Action::Serve => serve(&config),
        Action::Listen(ground) => listen(config, ground),
        Action::CheckConfig => admin::doctor::check(&config),
        Action::CheckSettings => match Settings::load(&config) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => complain(&error.to_string()),
        },
        Action::Expire => {
            journal::start();
            show(monitor::expire_all(&config).map(|()| String::new()))
        }
        Action::Mailbox(user, form) => show_mailbox(&config, &user, form),
        Action::Recover => {
            journal::start();
            monitor::recover_all(&config)
        }
        Action::Sessions => show(admin::sessions::table()),
        Action::Undelete(request) => undelete(&request, &config),
        Action::Print(text) => print(text),
    }
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<(Action, Place), lexopt::Error> {
    use lexopt::prelude::{Long, Short, ValueExt};
    let mut config = Place::Usual;
    let mut action = None;
    let mut form = Form::Text;
    let mut listens = false;
    let mut ground = Ground::Back;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        let chosen = match argument {
            Short('V') | Long("version") => return Ok((Action::Print(VERSION), config)),
            Short('h') | Long("help") => return Ok((Action::Print(USAGE), config)),
            Long("check-config") => Action::CheckConfig,
            Long("expire") => Action::Expire,
            Long("mailbox") => Action::Mailbox(parser.value()?.string()?, Form::Text),
            Long("recover") => Action::Recover,
            Long("sessions") => Action::Sessions,
            Long("undelete") => {
                Action::Undelete(admin::undelete::Request::new(parser.value()?.string()?))
            }
            Short('D') | Long("daemon") => {
                listens = true;
                continue;
            }
            Short('F') | Long("foreground") => {
                ground = Ground::Front;
                continue;
            }
            Long("config") => {
                config = Place::File(parser.value()?.into());
                continue;
            }
            Long("json") => {
                form = Form::Json;
                continue;
            }
            // The rest stands behind --undelete USER.
            Short(_) | Long(_) | lexopt::Arg::Value(_) => {
                match (&mut action, argument) {
                    (Some(Action::Undelete(request)), Long("since")) => {
                        request.since = Some(parser.value()?.parse_with(since)?);
                    }
                    (Some(Action::Undelete(request)), Long("all")) => request.choice.all()?,
                    (Some(Action::Undelete(request)), lexopt::Arg::Value(id)) => {
                        request.choice.add(id.string()?)?;
                    }
                    (_, Long("since" | "all")) => {
                        return Err("--since and --all stand behind --undelete USER".into());
                    }
                    (_, argument) => return Err(argument.unexpected()),
                }
                continue;
            }
        };
        if action.replace(chosen).is_some() {
            return Err("one thing at a time".into());
        }
    }
    let action = match (action, listens, ground, form) {
        (None, false, Ground::Back, Form::Text) => Action::Serve,
        (None, true, ground, Form::Text) => Action::Listen(ground),
        (Some(Action::CheckConfig), true, Ground::Back, Form::Text) => Action::CheckSettings,
        (Some(Action::Mailbox(user, _)), false, Ground::Back, form) => Action::Mailbox(user, form),
        (Some(action), false, Ground::Back, Form::Text) => action,
        (_, _, _, Form::Json) => return Err("--json is for --mailbox only".into()),
        (_, true, _, _) => return Err("-D listens, and goes with --check-config at most".into()),
        (_, false, Ground::Front, _) => return Err("-F is for -D only".into()),
    };
    Ok((action, config))
}

fn listen(config: Place, ground: Ground) -> ExitCode {
    let journal = journal::start();
    match listener::run(config, ground, journal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Mistake(text)) => complain(&text),
        Err(Failure::Host(text)) => {
            complain(&text);
            ExitCode::FAILURE
        }
    }
}

fn serve(config: &Place) -> ExitCode {
    match monitor::take_connection() {
        Ok(connection) => {
            journal::start();
            monitor::serve(connection, config)
        }
        Err(error) => complain(&format!(
            "{error}: popa3d serves POP3 over a connection that a super-server hands to it; \
             start it with: systemctl enable --now popa3d.socket popa3ds.socket \
             (popa3d -D accepts connections on its own: systemctl enable --now popa3d.service)"
        )),
    }
}

fn undelete(request: &admin::undelete::Request, place: &Place) -> ExitCode {
    let settings = match Settings::load(place) {
        Ok(settings) => settings,
        Err(error) => return complain(&error.to_string()),
    };
    journal::start();
    show(admin::undelete::run(request, &settings))
}

fn show_mailbox(config: &Place, user: &str, form: Form) -> ExitCode {
    let settings = match Settings::load(config) {
        Ok(settings) => settings,
        Err(error) => return complain(&error.to_string()),
    };
    let mut output = BufWriter::new(std::io::stdout().lock());
    let shown = admin::mailbox::show(user, form, &settings, &mut output);
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(NotShown::Mailbox(why)) => {
            // What is there belongs before the reason why there is no more.
            let _ = output.flush();
            complain(&why);
            ExitCode::FAILURE
        }
        Err(NotShown::Output(_)) => ExitCode::FAILURE,
    }
}

/// Prints what an admin asked for, or why it cannot be had.
fn show(asked_for: Result<String, String>) -> ExitCode {
    match asked_for {
        Ok(text) => print(&text),
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) -> ExitCode {
    // Where standard error is closed, the exit status has to do.
    let _ = writeln!(std::io::stderr(), "popa3d: {text}");
    ExitCode::from(MISTAKE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<(Action, Place), lexopt::Error> {
        parse(arguments.iter().map(OsString::from))
    }

    fn action(arguments: &[&str]) -> Action {
        parsed(arguments).unwrap().0
    }

    #[track_caller]
    fn assert_refused(all: &[&[&str]]) {
        for arguments in all {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn no_argument_means_serving() {
        assert_eq!(parsed(&[]).unwrap(), (Action::Serve, Place::Usual));
    }

    #[test]
    fn settings_may_be_elsewhere() {
        let asked_for = parsed(&["--check-config", "--config", "x"]).unwrap();
        assert_eq!(asked_for, (Action::CheckConfig, Place::File("x".into())));
    }

    #[test]
    fn listener_checks_its_settings_alone() {
        assert_eq!(action(&["-D", "--config", "x", "--check-config"]), Action::CheckSettings);
    }

    #[test]
    fn foreground_is_for_the_listener() {
        assert_eq!(action(&["-FD"]), Action::Listen(Ground::Front));
        assert_refused(&[&["-F"], &["-F", "--check-config"], &["-D", "--recover"]]);
    }

    #[test]
    fn what_is_put_back_is_named_behind_undelete() {
        use admin::undelete::{Choice, Request};
        let chosen =
            |choice| Action::Undelete(Request { choice, ..Request::new("alice".to_owned()) });
        assert_eq!(action(&["--undelete", "alice"]), chosen(Choice::List));
        assert_eq!(action(&["--undelete", "alice", "--all"]), chosen(Choice::All));
        let ids = Choice::Ids(["a".to_owned(), "b".to_owned()].into());
        assert_eq!(action(&["--undelete", "alice", "a", "b"]), chosen(ids));
        assert_refused(&[
            &["--undelete"],
            &["--all"],
            &["--since", "2h"],
            &["--undelete", "alice", "--since", "yesterday"],
            &["--undelete", "alice", "--all", "a"],
            &["--undelete", "alice", "-D"],
        ]);
    }

    #[test]
    fn mailbox_needs_a_user_and_has_two_forms() {
        let mailbox = |form| Action::Mailbox("alice".to_owned(), form);
        assert_eq!(action(&["--json", "--mailbox", "alice"]), mailbox(Form::Json));
        assert_eq!(action(&["--mailbox=alice"]), mailbox(Form::Text));
        assert_refused(&[
            &["--mailbox"],
            &["--json"],
            &["--json", "--sessions"],
            &["-D", "--json"],
        ]);
    }

    #[test]
    fn one_thing_at_a_time() {
        assert_refused(&[
            &["--mailbox", "alice", "--sessions"],
            &["--mailbox", "alice", "--undelete", "bob"],
            &["--undelete", "alice", "--recover"],
            &["--check-config", "--expire"],
            &["-D", "--mailbox", "alice"],
            &["-D", "--sessions"],
        ]);
    }

    #[test]
    fn unknown_options_and_operands_are_refused() {
        assert_refused(&[&["-x"], &["--nonsense"], &["operand"], &["--config"]]);
    }
}
