//! Complete sessions, one after the other, in several threads at once.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::bell::Bell;
use crate::client::{Client, Server};
use crate::options::Options;
use crate::times::{Times, processor_time};

/// Stages of a session, each from its command to the end of its reply.
const STAGES: [&str; 6] = ["greeting", "user", "pass", "stat", "uidl", "quit"];

/// After a failure a thread waits: a server that refuses everything is not to be flooded.
const RECOVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Outcome {
    whole: Times,
    /// When each session was over.
    ends: Vec<Instant>,
    stages: [Times; STAGES.len()],
    /// Those that failed included: a client may have waited in vain.
    longest: Duration,
    failures: u32,
    first_failure: Option<String>,
    /// Sessions that a ticket began.
    resumed: u32,
    /// What TLS used.
    tls: String,
}

/// What is said in a session.
#[derive(Clone, Copy)]
enum Dialogue {
    /// USER, PASS, STAT, UIDL, QUIT.
    Full,
    /// USER, PASS, STAT, QUIT.
    Short,
    /// QUIT.
    Handshake,
    /// Nothing: the server ends it.
    Greeting,
}

impl Dialogue {
    fn of(options: &Options) -> io::Result<Self> {
        match options.text("dialogue", "full") {
            "full" => Ok(Self::Full),
            "short" => Ok(Self::Short),
            "handshake" => Ok(Self::Handshake),
            "greeting" => Ok(Self::Greeting),
            other => Err(io::Error::other(format!("--dialogue {other}?"))),
        }
    }
}

pub(crate) fn run(options: &Options) -> io::Result<String> {
    let concurrency: usize = options.number("concurrency", 1)?;
    let users: usize = options.number("users", concurrency)?;
    let length = options.seconds()?;
    let dialogue = Dialogue::of(options)?;
    // Each thread is a client with tickets of its own.
    let servers: Vec<_> =
        (0..concurrency).map(|_| Server::of(options)).collect::<io::Result<_>>()?;
    let password = options.text("password", "");
    let bell = Bell::new(length, options.number("most", u32::MAX)?);
    let begun = Instant::now();
    let outcomes = thread::scope(|scope| {
        let bell = &bell;
        let workers: Vec<_> = (0..concurrency)
            .zip(&servers)
            .map(|(worker, server)| {
                scope.spawn(move || {
                    let mut outcome = Outcome::default();
                    // No two threads share a user: a maildrop has one session at a time.
                    let mut mine = (worker..users.max(worker + 1)).step_by(concurrency).cycle();
                    while bell.lets_begin() {
                        let user = format!("user{:03}", mine.next().unwrap_or(worker));
                        let begun = Instant::now();
                        let stages = &mut outcome.stages;
                        let result = session(server, dialogue, &user, password, stages);
                        let took = begun.elapsed();
                        outcome.longest = outcome.longest.max(took);
                        match result {
                            Ok(client) => {
                                outcome.whole.add(took);
                                outcome.ends.push(begun + took);
                                outcome.resumed += u32::from(client.is_resumed());
                                if outcome.tls.is_empty() {
                                    outcome.tls = client.agreed();
                                }
                            }
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
        workers.into_iter().map(|worker| worker.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    // Until the last session was over: those under way at the bell count with their whole time.
    let seconds = begun.elapsed().as_secs_f64();
    let mut total = Outcome::default();
    for outcome in outcomes {
        total.whole.append(outcome.whole);
        total.ends.extend(outcome.ends);
        for (sum, stage) in total.stages.iter_mut().zip(outcome.stages) {
            sum.append(stage);
        }
        total.longest = total.longest.max(outcome.longest);
        total.failures += outcome.failures;
        total.resumed += outcome.resumed;
        total.tls = outcome.tls;
        total.first_failure = total.first_failure.or(outcome.first_failure);
    }
    let stages: Vec<_> = STAGES
        .iter()
        .zip(&total.stages)
        .map(|(name, times)| format!(r#""{name}":{times}"#))
        .collect();
    Ok(format!(
        r#"{{"seconds":{seconds:.3},"rate":{:.3},"client":{:.6},"longest":{:.3},"failures":{},"first_failure":{:?},"resumed":{},"tls":{:?},"session":{},{}}}"#,
        bell.rate(&total.ends),
        processor_time()?.as_secs_f64(),
        total.longest.as_secs_f64() * 1e3,
        total.failures,
        total.first_failure.unwrap_or_default(),
        total.resumed,
        total.tls,
        total.whole,
        stages.join(","),
    ))
}

fn session(
    server: &Server,
    dialogue: Dialogue,
    user: &str,
    password: &str,
    stages: &mut [Times; STAGES.len()],
) -> io::Result<Client> {
    let [greeting, user_, pass, stat, uidl, quit] = stages;
    let mut client = greeting.of(|| Client::connect(server))?;
    if matches!(dialogue, Dialogue::Full | Dialogue::Short) {
        user_.of(|| client.ask(&format!("USER {user}")))?;
        pass.of(|| client.ask(&format!("PASS {password}")))?;
        stat.of(|| client.ask("STAT"))?;
    }
    if matches!(dialogue, Dialogue::Full) {
        uidl.of(|| client.fetch("UIDL"))?;
    }
    match dialogue {
        Dialogue::Greeting => until_end(&mut client)?,
        Dialogue::Full | Dialogue::Short | Dialogue::Handshake => {
            quit.of(|| client.ask("QUIT"))?;
        }
    }
    Ok(client)
}

fn until_end(client: &mut Client) -> io::Result<()> {
    match client.status() {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Ok(_) => Err(io::Error::other("more than a greeting")),
        Err(error) => Err(error),
    }
}
