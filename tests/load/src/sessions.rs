//! Complete sessions, one after the other, in several threads at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::options::Options;
use crate::times::Times;

/// Stages of a session, each from its command to the end of its reply.
const STAGES: [&str; 6] = ["greeting", "user", "pass", "stat", "uidl", "quit"];

/// After a failure a thread waits: a server that refuses everything is not to be flooded.
const RECOVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Outcome {
    whole: Times,
    stages: [Times; STAGES.len()],
    failures: u32,
    first_failure: Option<String>,
}

/// `full`: connect, USER, PASS, STAT, UIDL, QUIT. `greeting`: connect and read until the end.
pub(crate) fn run(options: &Options) -> io::Result<String> {
    let port = options.port()?;
    let concurrency: usize = options.number("concurrency", 1)?;
    let users: usize = options.number("users", concurrency)?;
    let length = options.seconds()?;
    let is_full = options.text("dialogue", "full") == "full";
    let password = options.text("password", "");
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let outcomes = thread::scope(|scope| {
        let over = &over;
        let workers: Vec<_> = (0..concurrency)
            .map(|worker| {
                scope.spawn(move || {
                    let mut outcome = Outcome::default();
                    // No two threads share a user: a maildrop has one session at a time.
                    let mut mine = (worker..users.max(worker + 1)).step_by(concurrency).cycle();
                    while !over.load(Ordering::Relaxed) {
                        let user = format!("user{:03}", mine.next().unwrap_or(worker));
                        let begun = Instant::now();
                        let done = if is_full {
                            session(port, &user, password, &mut outcome.stages)
                        } else {
                            Client::connect(port).and_then(|mut client| until_end(&mut client))
                        };
                        match done {
                            Ok(()) => outcome.whole.add(begun.elapsed()),
                            Err(error) => {
                                outcome.failures += 1;
                                outcome.first_failure.get_or_insert(error.to_string());
                                thread::sleep(RECOVERY);
                            }
                        }
                    }
                    outcome
                })
            })
            .collect();
        thread::sleep(length);
        over.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    // Until the last session was over: those under way at the bell count with their whole time.
    let seconds = begun.elapsed().as_secs_f64();
    let mut total = Outcome::default();
    for outcome in outcomes {
        total.whole.append(outcome.whole);
        for (sum, stage) in total.stages.iter_mut().zip(outcome.stages) {
            sum.append(stage);
        }
        total.failures += outcome.failures;
        total.first_failure = total.first_failure.or(outcome.first_failure);
    }
    let stages: Vec<_> = STAGES
        .iter()
        .zip(&total.stages)
        .map(|(name, times)| format!(r#""{name}":{times}"#))
        .collect();
    Ok(format!(
        r#"{{"seconds":{seconds:.3},"failures":{},"first_failure":{:?},"session":{},{}}}"#,
        total.failures,
        total.first_failure.unwrap_or_default(),
        total.whole,
        stages.join(","),
    ))
}

fn session(
    port: u16,
    user: &str,
    password: &str,
    stages: &mut [Times; STAGES.len()],
) -> io::Result<()> {
    let [greeting, user_, pass, stat, uidl, quit] = stages;
    let mut client = greeting.of(|| Client::connect(port))?;
    user_.of(|| client.ask(&format!("USER {user}")))?;
    pass.of(|| client.ask(&format!("PASS {password}")))?;
    stat.of(|| client.ask("STAT"))?;
    uidl.of(|| client.fetch("UIDL"))?;
    quit.of(|| client.ask("QUIT"))?;
    Ok(())
}

fn until_end(client: &mut Client) -> io::Result<()> {
    match client.status() {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Ok(_) => Err(io::Error::other("more than a greeting")),
        Err(error) => Err(error),
    }
}
