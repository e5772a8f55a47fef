//! Handing sockets and sessions over to the program as it is on disk now, in this very process.
//!
//! execve(2) keeps the process, its children, its signals, and the descriptors that it is told to.
//! What they are stands in a file in memory, a line each; a line that the other program does not know
//! is passed over, so that versions need not be the same.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Pid, execve};

use super::accept::Listener;
use super::slots::Slot;
use super::sockets::{Change, Listening};
use super::trial;
use crate::channel::ToSession;
use crate::ffi::process::take_descriptor;
use crate::monitor::Port;
use crate::settings::Place;
use crate::source::Source;

/// In the environment: the number of the descriptor of the file.
const VARIABLE: &str = "POPA3D_HANDOVER";

/// Octets of the file that are read: sessions have a line each.
const MOST: u64 = 16 * 1024 * 1024;

/// In the place of what is not there.
const NONE: &str = "-";
const AUTHENTICATED: &str = "authenticated";
const ENDING: &str = "ending";

/// What the program before left.
#[derive(Debug, Default)]
pub(super) struct Handover {
    pub(super) sockets: Vec<Listening>,
    /// Without a channel when that has ended before the process.
    pub(super) sessions: Vec<(Pid, Slot, Option<ToSession>)>,
    /// Sessions that are over and count for their source until then.
    pub(super) ended: Vec<(Duration, Source)>,
    pub(super) regulars: Vec<Source>,
    pub(super) served: u64,
    pub(super) refused: u64,
}

impl Handover {
    /// What is there for this program; `None` when it was started afresh.
    pub(super) fn take() -> Option<Self> {
        let number = env::var(VARIABLE).ok()?.parse().ok()?;
        let file = File::from(take_descriptor(number).ok()?);
        let size = file.metadata().map_or(0, |metadata| metadata.len()).min(MOST);
        let mut text = vec![0; usize::try_from(size).ok()?];
        file.read_exact_at(&mut text, 0).ok()?;
        let mut handover = Self::default();
        for line in String::from_utf8_lossy(&text).lines() {
            // What cannot be understood is not worth the others.
            let _ = handover.take_line(line);
        }
        Some(handover)
    }

    fn take_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        match words.next()? {
            "socket" => {
                let descriptor = take_descriptor(words.next()?.parse().ok()?).ok()?;
                let port = if words.next()? == "pop3s" { Port::Pop3s } else { Port::Pop3 };
                let is_of_a_unit = words.next()? == "unit";
                self.sockets.push(Listening::of(descriptor, port, is_of_a_unit).ok()?);
            }
            "session" => {
                let channel = match words.next()? {
                    NONE => None,
                    number => Some(ToSession::of(take_descriptor(number.parse().ok()?).ok()?)),
                };
                let pid = Pid::from_raw(words.next()?.parse().ok()?);
                let since = Duration::from_nanos(words.next()?.parse().ok()?);
                let authenticated = words.next()? == AUTHENTICATED;
                let source = words.next()?.parse::<IpAddr>().ok().map(Source::of);
                let ending = words.next() == Some(ENDING);
                self.sessions.push((pid, Slot { source, since, authenticated, ending }, channel));
            }
            "ended" => {
                let until = Duration::from_nanos(words.next()?.parse().ok()?);
                self.ended.push((until, Source::of(words.next()?.parse().ok()?)));
            }
            "regular" => self.regulars.push(Source::of(words.next()?.parse().ok()?)),
            "counts" => {
                self.served = words.next()?.parse().ok()?;
                self.refused = words.next()?.parse().ok()?;
            }
            _ => {}
        }
        Some(())
    }
}

/// How this program was started, which is how a newer one will be.
#[derive(Debug)]
pub(super) struct Origin {
    program: io::Result<PathBuf>,
    pub(super) place: Place,
}

impl Origin {
    /// Finds the program that runs now, which takes its settings from `place`.
    pub(super) fn find(place: Place) -> Self {
        let program = std::fs::read_link("/proc/self/exe").map(|path| {
            // What the kernel says of a file that was replaced meanwhile.
            let octets = path.as_os_str().as_bytes();
            let octets = octets.strip_suffix(b" (deleted)").unwrap_or(octets);
            Path::new(OsStr::from_bytes(octets)).to_owned()
        });
        Self { program, place }
    }

    fn program(&self) -> Result<&Path, String> {
        self.program.as_deref().map_err(|error| format!("where is this program? {error}"))
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec!["-D".into()];
        if let Place::File(path) = &self.place {
            arguments.extend(["--config".into(), path.into()]);
        }
        arguments
    }

    /// Whether the program that is there now runs at all, and takes the settings. Once this process has
    /// become one that does not, all sessions are lost.
    pub(super) fn check(&self) -> Result<(), String> {
        let program = self.program()?;
        let mut command = Command::new(program);
        command.args(self.arguments()).arg("--check-config");
        trial::run(command).map_err(|why| format!("{} --check-config: {why}", program.display()))
    }
}

/// Becomes the program that is there now, with the sockets after `change`; returns only when that
/// failed.
pub(super) fn hand_over(listener: &Listener, change: &Change) -> String {
    let program = match listener.origin.program() {
        Ok(program) => program,
        Err(why) => return why,
    };
    match become_program(listener, change, program) {
        Ok(never) => match never {},
        Err(error) => format!("{}: {error}", program.display()),
    }
}

fn become_program(listener: &Listener, change: &Change, program: &Path) -> io::Result<Infallible> {
    let file = File::from(memfd_create(c"popa3d-handover", MFdFlags::MFD_CLOEXEC)?);
    file.write_all_at(describe(listener, change).as_bytes(), 0)?;
    let sockets = change.sockets(&listener.sockets).map(AsFd::as_fd);
    let channels = listener.channels.values().map(AsFd::as_fd);
    let handed: Vec<BorrowedFd<'_>> = sockets.chain(channels).chain([file.as_fd()]).collect();
    let mut arguments = vec![to_c(&env::args_os().next().unwrap_or_default())?];
    for argument in listener.origin.arguments() {
        arguments.push(to_c(&argument)?);
    }
    let is_ours = |name: &OsStr| name == VARIABLE || name.as_bytes().starts_with(b"LISTEN_");
    let mut environment = vec![to_c(OsStr::new(&format!("{VARIABLE}={}", file.as_raw_fd())))?];
    for (name, value) in env::vars_os().filter(|(name, _)| !is_ours(name)) {
        let entry = [name.as_bytes(), b"=", value.as_bytes()].concat();
        environment.push(to_c(OsStr::from_bytes(&entry))?);
    }
    let path = to_c(program.as_os_str())?;
    let set = |flag: FdFlag| {
        handed.iter().try_for_each(|fd| fcntl(fd, FcntlArg::F_SETFD(flag)).map(drop))
    };
    let became = set(FdFlag::empty()).and_then(|()| execve(&path, &arguments, &environment));
    // Still this program: sessions to come are not to have these.
    set(FdFlag::FD_CLOEXEC)?;
    Ok(became?)
}

fn describe(listener: &Listener, change: &Change) -> String {
    let mut text = String::new();
    for socket in change.sockets(&listener.sockets) {
        let port = if socket.port == Port::Pop3s { "pop3s" } else { "pop3" };
        let maker = if socket.is_of_a_unit { "unit" } else { "own" };
        let number = socket.as_fd().as_raw_fd();
        let _ = writeln!(text, "socket {number} {port} {maker}");
    }
    for (pid, slot) in listener.slots.processes() {
        let channel = listener.channels.get(&pid).map(|channel| channel.as_fd().as_raw_fd());
        let channel = channel.map_or_else(|| NONE.to_owned(), |number| number.to_string());
        let state = if slot.authenticated { AUTHENTICATED } else { NONE };
        let source = slot.source.map(|source| source.address().to_string());
        let source = source.as_deref().unwrap_or(NONE);
        let ending = if slot.ending { ENDING } else { NONE };
        let since = slot.since.as_nanos();
        let _ = writeln!(text, "session {channel} {pid} {since} {state} {source} {ending}");
    }
    for (until, source) in listener.slots.ended() {
        let _ = writeln!(text, "ended {} {}", until.as_nanos(), source.address());
    }
    for source in listener.slots.regulars.all() {
        let _ = writeln!(text, "regular {}", source.address());
    }
    let _ = writeln!(text, "counts {} {}", listener.served, listener.refusals.total());
    text
}

fn to_c(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}
