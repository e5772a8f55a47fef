//! Handing sockets and sessions over to the program as it is on disk now, in this very process.
//!
//! execve(2) keeps the process, its children, its signals, and the descriptors that it is told to.
//! What they are stands in a file in memory, a line each; a line that the other program does not know
//! is passed over, so that versions need not be the same.

use std::env;
use std::ffi::{CString, OsStr};
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Pid, execve};

use super::accept::Listener;
use super::slots::Slot;
use super::sockets::Listening;
use crate::channel::ToSession;
use crate::ffi::process::take_descriptor;
use crate::monitor::Port;
use crate::source::Source;

/// In the environment: the number of the descriptor of the file.
const VARIABLE: &str = "POPA3D_HANDOVER";

/// Octets of the file that are read: sessions have a line each.
const MOST: u64 = 16 * 1024 * 1024;

/// What the program before left.
#[derive(Debug, Default)]
pub(super) struct Handover {
    pub(super) sockets: Vec<Listening>,
    pub(super) sessions: Vec<(Pid, Slot, ToSession)>,
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
                let channel = take_descriptor(words.next()?.parse().ok()?).ok()?;
                let pid = Pid::from_raw(words.next()?.parse().ok()?);
                let since = Duration::from_nanos(words.next()?.parse().ok()?);
                let authenticated = words.next()? == "authenticated";
                let source = words.next()?.parse::<IpAddr>().ok().map(Source::of);
                let slot = Slot { source, since, authenticated, ending: false };
                self.sessions.push((pid, slot, ToSession::of(channel)));
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

/// Where this program is, which a newer one will take.
///
/// # Errors
///
/// readlink(2)'s.
pub(super) fn program() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    // What the kernel says of a file that was replaced meanwhile.
    let octets = path.as_os_str().as_bytes();
    let octets = octets.strip_suffix(b" (deleted)").unwrap_or(octets);
    Ok(Path::new(OsStr::from_bytes(octets)).to_owned())
}

/// Becomes the program that is at `program` now; returns only when that failed.
pub(super) fn hand_over(listener: &Listener, program: &io::Result<PathBuf>) -> String {
    let program = match program {
        Ok(program) => program,
        Err(error) => return format!("where is this program? {error}"),
    };
    if let Err(why) = can_run(program) {
        return why;
    }
    match become_program(listener, program) {
        Ok(never) => match never {},
        Err(error) => format!("{}: {error}", program.display()),
    }
}

/// Once this process has become something that does not run, all sessions are lost.
fn can_run(program: &Path) -> Result<(), String> {
    let mut command = Command::new(program);
    command.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} -V: {status}", program.display())),
        Err(error) => Err(format!("{}: {error}", program.display())),
    }
}

fn become_program(listener: &Listener, program: &Path) -> io::Result<std::convert::Infallible> {
    let file = File::from(memfd_create(c"popa3d-handover", MFdFlags::MFD_CLOEXEC)?);
    file.write_all_at(describe(listener).as_bytes(), 0)?;
    let sockets = listener.sockets.iter().map(AsFd::as_fd);
    let channels = listener.channels.values().map(AsFd::as_fd);
    let handed: Vec<BorrowedFd<'_>> = sockets.chain(channels).chain([file.as_fd()]).collect();
    let arguments =
        env::args_os().map(|argument| to_c(&argument)).collect::<io::Result<Vec<_>>>()?;
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

fn describe(listener: &Listener) -> String {
    let mut text = String::new();
    for socket in &listener.sockets {
        let port = if socket.port == Port::Pop3s { "pop3s" } else { "pop3" };
        let maker = if socket.is_of_a_unit { "unit" } else { "own" };
        let number = socket.as_fd().as_raw_fd();
        let _ = writeln!(text, "socket {number} {port} {maker}");
    }
    for (pid, slot) in listener.slots.processes() {
        let Some(channel) = listener.channels.get(&pid) else { continue };
        let number = channel.as_fd().as_raw_fd();
        let state = if slot.authenticated { "authenticated" } else { "waiting" };
        let source =
            slot.source.map_or_else(|| "-".to_owned(), |source| source.address().to_string());
        let since = slot.since.as_nanos();
        let _ = writeln!(text, "session {number} {pid} {since} {state} {source}");
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
