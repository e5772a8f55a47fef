//! What `popa3d --sessions` lists: a file of root's for each session that has gone on for a moment.
//!
//! The monitor has its file locked for as long as it lives, so that those of killed ones are known and
//! removed. The text is for programs of other versions as well, since sessions outlive an upgrade: lines of
//! a name and a value, in any order, up to an empty line; what is behind that is left of an earlier text.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

/// No user's name begins with a dot.
const DIRECTORY: &str = "/run/popa3d/.sessions";

/// Octets of a text; a user's name and what a proxy says of TLS are bounded, so it is far less.
const LARGEST: u64 = 4096;

/// A session, as others may know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its monitor: the process to kill.
    pub pid: u32,
    /// POPA3D_SESSION.
    pub session: String,
    /// When it began, since the host was started.
    pub started: Duration,
    /// AUTHORIZATION, TRANSACTION or UPDATE.
    pub state: String,
    /// Who is logged in.
    pub user: Option<String>,
    /// The client, as in the journal's texts.
    pub client: String,
    /// The address of the proxy that it comes through.
    pub proxy: Option<String>,
    /// The version of TLS.
    pub tls: Option<String>,
    /// How many there were at login.
    pub messages: Option<u32>,
    /// The inode of the connection's socket.
    pub socket: Option<u64>,
}

impl Listed {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| text.push_str(&format!("{name} {value}\n"));
        line("session", &self.session);
        line("started-ms", &self.started.as_millis().to_string());
        line("state", &self.state);
        line("client", &self.client);
        for (name, value) in [("user", &self.user), ("proxy", &self.proxy), ("tls", &self.tls)] {
            value.iter().for_each(|value| line(name, value));
        }
        self.messages.iter().for_each(|messages| line("messages", &messages.to_string()));
        self.socket.iter().for_each(|socket| line("socket", &socket.to_string()));
        text.push('\n');
        text
    }

    /// `None` when there is no whole text.
    fn parse(pid: u32, text: &str) -> Option<Self> {
        let (text, _) = text.split_once("\n\n")?;
        let mut listed = Self { pid, ..Self::default() };
        for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let text = value.to_owned();
            match name {
                "session" => listed.session = text,
                "started-ms" => listed.started = Duration::from_millis(value.parse().ok()?),
                "state" => listed.state = text,
                "client" => listed.client = text,
                "user" => listed.user = Some(text),
                "proxy" => listed.proxy = Some(text),
                "tls" => listed.tls = Some(text),
                "messages" => listed.messages = value.parse().ok(),
                "socket" => listed.socket = value.parse().ok(),
                _ => {}
            }
        }
        Some(listed)
    }
}

/// The file of this process; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
    file: Flock<File>,
}

impl Entry {
    /// Makes the file, which nobody takes for a session yet.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub(super) fn create() -> io::Result<Self> {
        Self::create_in(Path::new(DIRECTORY))
    }

    fn create_in(directory: &Path) -> io::Result<Self> {
        let path = directory.join(std::process::id().to_string());
        loop {
            let file = match open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
                    open(&path)?
                }
                file => file?,
            };
            let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
            // Whoever lists sessions removes files that are not locked, and this one just was not.
            if file.metadata()?.nlink() > 0 {
                return Ok(Self { path, file });
            }
        }
    }

    /// Says how the session is now.
    ///
    /// # Errors
    ///
    /// pwrite(2)'s.
    pub(super) fn write(&self, listed: &Listed) -> io::Result<()> {
        self.file.write_all_at(listed.text().as_bytes(), 0)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> io::Result<File> {
    // One with this number may have been killed.
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// All sessions of this host, the oldest first. Forgets those whose monitor was killed.
///
/// # Errors
///
/// The directory is there and cannot be read.
pub fn all() -> io::Result<Vec<Listed>> {
    all_in(Path::new(DIRECTORY))
}

fn all_in(directory: &Path) -> io::Result<Vec<Listed>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut sessions = Vec::new();
    for entry in entries {
        let entry = entry?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // It may have come to its end meanwhile.
        if let (Some(pid), Ok(file)) = (pid, File::open(entry.path())) {
            sessions.extend(look(pid, &entry.path(), file));
        }
    }
    sessions.sort_by_key(|session| (session.started, session.pid));
    Ok(sessions)
}

fn look(pid: u32, path: &Path, file: File) -> Option<Listed> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_locked) => {
            let _ = std::fs::remove_file(path);
            None
        }
        Err((file, _)) => {
            let mut text = String::new();
            file.take(LARGEST).read_to_string(&mut text).ok()?;
            Listed::parse(pid, &text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("popa3d-{name}-{}", std::process::id()))
    }

    fn listed() -> Listed {
        Listed {
            pid: std::process::id(),
            session: "0123456789abcdef".to_owned(),
            started: Duration::from_millis(1234),
            state: "TRANSACTION".to_owned(),
            user: Some("alice with a space".to_owned()),
            client: "a client of 10.0.0.1".to_owned(),
            proxy: Some("10.0.0.1".to_owned()),
            tls: Some("TLSv1.3".to_owned()),
            messages: Some(3),
            socket: Some(u64::MAX),
        }
    }

    #[test]
    fn session_is_listed_as_it_is_now_until_it_ends() {
        let directory = directory("listing");
        assert_eq!(all_in(&directory).unwrap(), []);
        let entry = Entry::create_in(&directory).unwrap();
        assert_eq!(all_in(&directory).unwrap(), [], "nothing is said yet");
        entry.write(&listed()).unwrap();
        assert_eq!(all_in(&directory).unwrap(), [listed()]);
        let shorter = Listed { pid: std::process::id(), ..Listed::default() };
        entry.write(&shorter).unwrap();
        assert_eq!(all_in(&directory).unwrap(), [shorter]);
        drop(entry);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn session_whose_process_was_killed_is_no_session() {
        let directory = directory("killed");
        let entry = Entry::create_in(&directory).unwrap();
        entry.write(&listed()).unwrap();
        // What the kernel does when a process ends, however it does.
        let path = entry.path.clone();
        let text = std::fs::read(&path).unwrap();
        drop(entry);
        std::fs::write(&path, text).unwrap();
        assert_eq!(all_in(&directory).unwrap(), []);
        assert!(!path.exists());
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn lines_of_other_versions_are_passed_over_and_half_a_text_is_none() {
        let text = listed().text();
        let newer = format!("colour green\nword\n{text}session of before\n");
        assert_eq!(Listed::parse(std::process::id(), &newer), Some(listed()));
        assert_eq!(Listed::parse(1, text.trim_end()), None);
        assert_eq!(Listed::parse(1, ""), None);
    }
}
