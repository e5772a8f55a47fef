//! Options, and what `popa3d` does with them.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

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
       popa3d --undelete USER [--since WHEN] [--all | UNIQUE-ID...] [--config FILE]
       popa3d --expire [--config FILE]
       popa3d -V | -h

Serves POP3 to the client whose connection is passed by systemd
(systemctl enable --now popa3d.socket popa3ds.socket) or, as standard input,
by inetd. On port 995, which is popa3ds.socket's, TLS begins at once. With -D it
accepts connections on its own (systemctl enable --now popa3d.service).

  --all            with --undelete: put back all
  --check-config   look at the settings and at this host, say what is wrong and
                   what mends it; with -D at the settings alone, as a reload does
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
  --since WHEN     with --undelete: what was deleted since then: 2h (ago), 3d, 2026-11-24,
                   or '2026-11-24 13:00'
  --undelete USER  list or put back deleted messages that are kept
  -V, --version    print the version and exit
";

/// Exit status: an option, the settings or the way of starting is wrong.
const MISTAKE: u8 = 2;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Serve(Place),
    Listen(Place, Ground),
    CheckConfig(Place),
    CheckSettings(Place),
    Mailbox(Place, String, Form),
    Recover(Place),
    Sessions,
    Undelete(admin::undelete::Request, Place),
    Expire(Place),
    Print(&'static str),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Action::Serve(config)) => serve(&config),
        Ok(Action::Listen(config, ground)) => {
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
        Ok(Action::CheckConfig(config)) => admin::doctor::check(&config),
        Ok(Action::CheckSettings(config)) => match Settings::load(&config) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => complain(&error.to_string()),
        },
        Ok(Action::Mailbox(config, user, form)) => show_mailbox(&config, &user, form),
        Ok(Action::Recover(config)) => {
            journal::start();
            monitor::recover_all(&config)
        }
        Ok(Action::Sessions) => show(admin::sessions::table()),
        Ok(Action::Undelete(request, config)) => undelete(&request, &config),
        Ok(Action::Expire(config)) => {
            journal::start();
            monitor::expire_all(&config)
        }
        Ok(Action::Print(text)) => print(text),
        Err(error) => complain(&format!("{error}; popa3d --help tells more")),
    }
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Action, lexopt::Error> {
    use lexopt::prelude::{Long, Short, ValueExt};
    let mut config = Place::Usual;
    let mut action: fn(Place) -> Action = Action::Serve;
    let mut mailbox = None;
    let mut form = Form::Text;
    let mut listens = false;
    let mut ground = Ground::Back;
    let mut undelete: Option<admin::undelete::Request> = None;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('V') | Long("version") => return Ok(Action::Print(VERSION)),
            Short('D') | Long("daemon") => listens = true,
            Short('F') | Long("foreground") => ground = Ground::Front,
            Short('h') | Long("help") => return Ok(Action::Print(USAGE)),
            Long("config") => config = Place::File(parser.value()?.into()),
            Long("check-config") => action = Action::CheckConfig,
            Long("json") => form = Form::Json,
            Long("mailbox") => mailbox = Some(parser.value()?.string()?),
            Long("recover") => action = Action::Recover,
            // None of the settings matters to it.
            Long("sessions") => action = |_| Action::Sessions,
            Long("expire") => action = Action::Expire,
            Long("undelete") => {
                let user = parser.value()?.string()?;
                undelete = Some(admin::undelete::Request::new(user));
            }
            // The rest stands behind --undelete USER.
            Short(_) | Long(_) | lexopt::Arg::Value(_) => match (&mut undelete, argument) {
                (Some(request), Long("since")) => {
                    request.since = Some(parser.value()?.parse_with(since)?);
                }
                (Some(request), Long("all")) => request.choice.all()?,
                (Some(request), lexopt::Arg::Value(id)) => request.choice.add(id.string()?)?,
                (_, argument) => return Err(argument.unexpected()),
            },
        }
    }
    if let Some(request) = undelete {
        return match (action(config), listens, ground) {
            (Action::Serve(config), false, Ground::Back) => Ok(Action::Undelete(request, config)),
            _ => Err("--undelete goes with --since, --all and --config alone".into()),
        };
    }
    let action = match (mailbox, form) {
        (None, Form::Text) => action(config),
        (Some(user), form) if action(Place::Usual) == Action::Serve(Place::Usual) => {
            Action::Mailbox(config, user, form)
        }
        (Some(_), _) => return Err("--mailbox goes with --json and --config at most".into()),
        (None, Form::Json) => return Err("--json is for --mailbox only".into()),
    };
    match (action, listens, ground) {
        (Action::Serve(config), true, ground) => Ok(Action::Listen(config, ground)),
        (Action::CheckConfig(config), true, Ground::Back) => Ok(Action::CheckSettings(config)),
        (action, false, Ground::Back) => Ok(action),
        (_, true, _) => Err("-D listens, and goes with --check-config at most".into()),
        (_, false, Ground::Front) => Err("-F is for -D only".into()),
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
    match admin::undelete::run(request, &settings) {
        Ok(text) => print(&text),
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
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

    fn parsed(arguments: &[&str]) -> Result<Action, lexopt::Error> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn no_argument_means_serving() {
        assert_eq!(parsed(&[]).unwrap(), Action::Serve(Place::Usual));
    }

    #[test]
    fn settings_may_be_elsewhere() {
        let action = parsed(&["--check-config", "--config", "x"]).unwrap();
        assert_eq!(action, Action::CheckConfig(Place::File("x".into())));
    }

    #[test]
    fn listener_checks_its_settings_alone() {
        let action = parsed(&["-D", "--config", "x", "--check-config"]).unwrap();
        assert_eq!(action, Action::CheckSettings(Place::File("x".into())));
    }

    #[test]
    fn foreground_is_for_the_listener() {
        assert_eq!(parsed(&["-FD"]).unwrap(), Action::Listen(Place::Usual, Ground::Front));
        for arguments in [&["-F"][..], &["-F", "--check-config"], &["-D", "--recover"]] {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn what_is_put_back_is_named_behind_undelete() {
        use admin::undelete::{Choice, Request};
        let action = |choice| {
            let request = Request { choice, ..Request::new("alice".to_owned()) };
            Action::Undelete(request, Place::Usual)
        };
        assert_eq!(parsed(&["--undelete", "alice"]).unwrap(), action(Choice::List));
        assert_eq!(parsed(&["--undelete", "alice", "--all"]).unwrap(), action(Choice::All));
        let ids = Choice::Ids(["a".to_owned(), "b".to_owned()].into());
        assert_eq!(parsed(&["--undelete", "alice", "a", "b"]).unwrap(), action(ids));
        for arguments in [
            &["--undelete"][..],
            &["--all"],
            &["--since", "2h"],
            &["--undelete", "alice", "--since", "yesterday"],
            &["--undelete", "alice", "--all", "a"],
            &["--undelete", "alice", "-D"],
            &["--undelete", "alice", "--recover"],
        ] {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn mailbox_needs_a_user_and_goes_alone() {
        let action = parsed(&["--json", "--mailbox", "alice", "--config", "x"]).unwrap();
        assert_eq!(action, Action::Mailbox(Place::File("x".into()), "alice".into(), Form::Json));
        let action = parsed(&["--mailbox=alice"]).unwrap();
        assert_eq!(action, Action::Mailbox(Place::Usual, "alice".into(), Form::Text));
        for arguments in [
            &["--mailbox"][..],
            &["--json"],
            &["--json", "--sessions"],
            &["--mailbox", "alice", "--sessions"],
            &["-D", "--mailbox", "alice"],
            &["-D", "--sessions"],
        ] {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn unknown_options_and_operands_are_refused() {
        for arguments in [&["-x"][..], &["--nonsense"], &["operand"], &["--config"]] {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }
}
