//! `popa3d --sessions`: who is there.

mod silence;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::geteuid;

use crate::event::printable;
use crate::monitor::listing::{self, Listed};

const COLUMNS: [&str; 9] =
    ["PID", "AGE", "IDLE", "STATE", "USER", "CLIENT", "TLS", "MESSAGES", "SESSION"];

/// What stands for something that there is not, or that is not known.
const NOTHING: &str = "-";

/// The live sessions, a line for each under a line of headings, the oldest first.
///
/// # Errors
///
/// Says why they cannot be seen.
pub fn table() -> Result<String, String> {
    if !geteuid().is_root() {
        return Err("only root can see the sessions".to_owned());
    }
    let sessions = listing::all().map_err(|error| format!("looking for sessions: {error}"))?;
    if sessions.is_empty() {
        return Ok("no sessions\n".to_owned());
    }
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    // A kernel that does not tell is no reason to show nothing at all.
    let silences = silence::of_all_connections().unwrap_or_default();
    let rows = sessions.iter().map(|session| {
        let silence = session.socket.and_then(|socket| silences.get(&socket));
        row(session, now, silence.copied())
    });
    Ok(align(rows.collect()))
}

fn row(session: &Listed, now: Duration, silence: Option<Duration>) -> [String; 9] {
    let text = |text: &str| printable(text.as_bytes());
    let or_nothing = |value: &Option<String>| value.as_deref().map_or(NOTHING.to_owned(), text);
    let client = match &session.proxy {
        // The proxy's own, as for a health check.
        Some(proxy) if *proxy != session.client => format!("{} via {proxy}", session.client),
        Some(_) | None => session.client.clone(),
    };
    [
        session.pid.to_string(),
        short(now.saturating_sub(session.started)),
        silence.map_or(NOTHING.to_owned(), short),
        text(&session.state),
        or_nothing(&session.user),
        text(&client),
        or_nothing(&session.tls),
        session.messages.map_or(NOTHING.to_owned(), |messages| messages.to_string()),
        text(&session.session),
    ]
}

/// Its two largest units.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

fn align(rows: Vec<[String; 9]>) -> String {
    let rows: Vec<[String; 9]> = std::iter::once(COLUMNS.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 9]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_aligned_and_what_others_wrote_is_escaped() {
        let alice = Listed {
            pid: 42,
            session: "00000000000000aa".to_owned(),
            started: Duration::from_secs(100),
            state: "TRANSACTION".to_owned(),
            user: Some("j\u{f6}rg\x1b".to_owned()),
            client: "192.0.2.7".to_owned(),
            proxy: Some("10.0.0.1".to_owned()),
            tls: Some("TLSv1.3".to_owned()),
            messages: Some(12),
            socket: None,
        };
        let health_check = Listed {
            pid: 12345,
            session: "00000000000000bb".to_owned(),
            state: "AUTHORIZATION".to_owned(),
            client: "10.0.0.1".to_owned(),
            proxy: Some("10.0.0.1".to_owned()),
            ..Listed::default()
        };
        let now = Duration::from_secs(165);
        let rows = vec![
            row(&alice, now, Some(Duration::from_millis(7999))),
            row(&health_check, now, None),
        ];
        let expected = "\
PID    AGE    IDLE  STATE          USER        CLIENT                  TLS      MESSAGES  SESSION
42     1m05s  7s    TRANSACTION    j\u{f6}rg\\u{1b}  192.0.2.7 via 10.0.0.1  TLSv1.3  12        00000000000000aa
12345  2m45s  -     AUTHORIZATION  -           10.0.0.1                -        -         00000000000000bb
";
        assert_eq!(align(rows), expected);
    }

    #[test]
    fn times_show_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (3600, "1h00m"),
            (86399, "23h59m"),
            (86400, "1d00h"),
            (400 * 86400, "400d00h"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }
}
