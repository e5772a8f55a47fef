//! Root's side of the process that looks into kept mail (`worker::kept`): starts it, and takes what it tells.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::maildrop::SMALLEST_MESSAGE;
use super::prepared::Prepared;
use super::worker_process::confinement;
use crate::channel::{Found, KeptMessage, Look, Range, ToReader, pair};
use crate::event::printable;
use crate::ffi::process::fork_without_modules;
use crate::settings::Settings;
use crate::worker;

/// That process.
#[derive(Debug)]
pub(super) struct KeptReader {
    pid: Pid,
    /// `None` while being dropped: the process ends when its channel does.
    channel: Option<ToReader>,
}

impl KeptReader {
    /// Forks it.
    ///
    /// # Errors
    ///
    /// Says what is missing on this host.
    pub(super) fn start(settings: &Settings) -> Result<Self, String> {
        let confinement = confinement(settings, &Prepared::default())?;
        let failed = |error: io::Error| format!("starting a process that reads: {error}");
        let (ours, theirs) = pair().map_err(failed)?;
        let child = || worker::read_kept(&confinement, theirs);
        let pid = fork_without_modules(child).map_err(failed)?;
        Ok(Self { pid, channel: Some(ours) })
    }

    /// Gives each message in `file` to `each`.
    ///
    /// # Errors
    ///
    /// Says why the file cannot be read, or what the process did that it may not do.
    pub(super) fn look_into(
        &mut self,
        file: &File,
        each: &mut impl FnMut(KeptMessage),
    ) -> Result<(), String> {
        let failed = |error: io::Error| format!("the process that reads it: {error}");
        let channel = self.channel.as_ref().ok_or("there is no process to read it")?;
        channel.send(&Look::Inside, Some(file.as_fd())).map_err(failed)?;
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        let mut end = 0;
        loop {
            match channel.receive().map_err(failed)? {
                (Found::Message(message), None) => {
                    if !can_be(message.range, end, size) || message.line_feeds > 2 {
                        return Err("the process that reads it names impossible places".to_owned());
                    }
                    end = message.range.end;
                    each(message);
                }
                (Found::All, None) => return Ok(()),
                (Found::Nothing(why), None) => return Err(printable(why.as_bytes())),
                (_, Some(_)) => return Err("the process that reads it sends files".to_owned()),
            }
        }
    }
}

/// Whether a message can be there, in a file of `size` octets, behind one that ends at `end`.
fn can_be(range: Range, end: u64, size: u64) -> bool {
    let least = range.start.checked_add(SMALLEST_MESSAGE);
    range.start >= end && least.is_some_and(|least| least <= range.end) && range.end <= size
}

impl Drop for KeptReader {
    fn drop(&mut self) {
        self.channel = None;
        let _ = waitpid(self.pid, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_follow_each_other_within_the_file_and_have_a_from_line() {
        let can_be = |start, end| can_be(Range { start, end }, 10, 100);
        assert!(can_be(10, 15) && can_be(20, 100));
        for (start, end) in
            [(9, 20), (10, 14), (20, 101), (30, 20), (u64::MAX, 5), (u64::MAX - 1, u64::MAX)]
        {
            assert!(!can_be(start, end), "{start}, {end}");
        }
    }
}
