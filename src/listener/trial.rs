//! Running a program to see whether it is well: nobody is served meanwhile, so that neither its time nor
//! what it says is without bounds.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// It is done in a few milliseconds. Less than the service manager waits for a sign of life.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// Octets of what it says that are of interest.
const MOST: usize = 2048;

/// Runs `command` to its end.
///
/// # Errors
///
/// Says why it cannot be run, or how it ended, when that was not well.
pub(super) fn run(command: Command) -> Result<(), String> {
    run_for(PATIENCE, command)
}

fn run_for(patience: Duration, mut command: Command) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let deadline = Instant::now() + patience;
    let mut child = command.spawn().map_err(text)?;
    let said = child.stderr.take().map(|stderr| hear(stderr, deadline)).unwrap_or_default();
    let Some(status) = wait(&mut child, deadline).map_err(text)? else {
        child.kill().and_then(|()| child.wait()).map_err(text)?;
        return Err(format!("not done after {} seconds", patience.as_secs()));
    };
    if status.success() {
        return Ok(());
    }
    Err(format!("{status}, {}", String::from_utf8_lossy(&said).trim()))
}

/// What it says until it has nothing more to say, or has said enough.
fn hear(mut stderr: ChildStderr, deadline: Instant) -> Vec<u8> {
    let mut said = Vec::new();
    while let Some(room) = MOST.checked_sub(said.len()).filter(|room| *room > 0) {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)], limit) {
            Err(nix::Error::EINTR) => continue,
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let mut part = vec![0; room];
        match stderr.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(length) => said.extend(part.into_iter().take(length)),
        }
    }
    said
}

/// `None` when it is not over in time.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(patience: Duration, script: &str) -> Result<(), String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run_for(patience, command)
    }

    #[test]
    fn program_that_is_well_is_and_one_that_is_not_says_why() {
        assert_eq!(shell(PATIENCE, "exit 0"), Ok(()));
        assert_eq!(
            shell(PATIENCE, "echo 'line 7' >&2; exit 2"),
            Err("exit status: 2, line 7".to_owned())
        );
        assert!(run(Command::new("/nonexistent/popa3d")).is_err());
    }

    #[test]
    fn program_that_does_not_end_is_not_waited_for() {
        let patience = Duration::from_millis(50);
        for script in ["exec sleep 1000", "exec sleep 1000 2>&-"] {
            let outcome = shell(patience, script);
            assert!(outcome.is_err_and(|why| why.starts_with("not done")), "{script}");
        }
    }

    #[test]
    fn program_that_leaves_another_one_behind_is_done_when_it_is() {
        assert_eq!(shell(Duration::from_millis(500), "sleep 3 & exit 0"), Ok(()));
    }

    #[test]
    fn program_that_says_too_much_is_not_listened_to() {
        let outcome = shell(PATIENCE, "yes >&2; exit 1").unwrap_err();
        assert!(outcome.len() < MOST + 100, "{} octets", outcome.len());
    }
}
