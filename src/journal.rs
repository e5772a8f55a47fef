//! The way of events to the journal, or to what there is in its place.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::set_global_default;
use tracing::{Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{Extensions, ExtensionsMut, LookupSpan, SpanData};

/// Sends events to the journal; where there is no journal, to syslog, and to standard error whenever that is
/// not there.
///
/// Returns the number of the descriptor that they go through, for those who close what is not needed.
pub fn start() -> Option<RawFd> {
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Notice,
        debug: Priority::Informational,
        trace: Priority::Debug,
    };
    // The layer keeps its socket to itself; it is the lowest number that is free.
    let next = File::open("/dev/null").map(|file| file.as_raw_fd()).ok();
    let (set, descriptor) = match tracing_journald::layer() {
        Ok(journal) => {
            let journal = journal
                .with_field_prefix(None)
                .with_priority_mappings(priorities)
                .with_syslog_identifier("popa3d".to_owned())
                // For those who let journald pass it on to syslog: facility mail.
                .with_custom_fields([("SYSLOG_FACILITY", "2")]);
            (set_global_default(NoSpans.with(journal)), next)
        }
        Err(_) => {
            let lines = Lines::new(Path::new(SYSLOG));
            let descriptor = lines.socket.as_ref().map(AsRawFd::as_raw_fd);
            (set_global_default(NoSpans.with(lines)), descriptor)
        }
    };
    // Only a second call can fail, and the first subscriber serves as well.
    drop(set);
    descriptor
}

/// A subscriber that knows no spans, since nothing here opens one.
///
/// The usual registry would keep 43 KiB of tables for them in each process of a session.
struct NoSpans;

impl Subscriber for NoSpans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl<'a> LookupSpan<'a> for NoSpans {
    type Data = Never;

    fn span_data(&'a self, _: &Id) -> Option<Never> {
        None
    }
}

/// The data of a span, of which there is none.
enum Never {}

impl<'a> SpanData<'a> for Never {
    fn id(&self) -> Id {
        match *self {}
    }

    fn metadata(&self) -> &'static Metadata<'static> {
        match *self {}
    }

    fn parent(&self) -> Option<&Id> {
        match *self {}
    }

    fn extensions(&self) -> Extensions<'_> {
        match *self {}
    }

    fn extensions_mut(&self) -> ExtensionsMut<'_> {
        match *self {}
    }
}

/// The text of an event, for those who keep no fields.
fn text(event: &tracing::Event<'_>) -> String {
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("popa3d[{}]: {value:?}", std::process::id());
            }
        }
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

/// Where syslog daemons listen.
const SYSLOG: &str = "/dev/log";

/// Events as lines of syslog(3), for hosts that have that and no journal; as plain lines while they have not.
struct Lines {
    /// Not connected, so that it outlives the daemon: one that starts later, or again, is found at the next
    /// event, by sessions that inherited this descriptor, too.
    socket: Option<UnixDatagram>,
    syslog: &'static Path,
}

impl Lines {
    /// LOG_MAIL, times 8 (RFC 3164 section 4.1.1).
    const FACILITY: u8 = 2 << 3;

    fn new(syslog: &'static Path) -> Self {
        Self { socket: UnixDatagram::unbound().ok(), syslog }
    }

    fn send(&self, line: &str) -> bool {
        let socket = self.socket.as_ref();
        socket.is_some_and(|socket| socket.send_to(line.as_bytes(), self.syslog).is_ok())
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let severity = match *event.metadata().level() {
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 5,
            _ => 6,
        };
        let text = text(event);
        if !self.send(&format!("<{}>{text}", Self::FACILITY | severity)) {
            // Where not even standard error works there is nobody to tell.
            let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;

    use super::*;

    #[test]
    fn syslog_daemon_that_starts_late_or_again_hears_what_happens_then() {
        let path = std::env::temp_dir().join(format!("popa3d-syslog-{}", std::process::id()));
        let path: &'static Path = Box::leak(path.into_boxed_path());
        let _ = std::fs::remove_file(path);
        with_default(NoSpans.with(Lines::new(path)), || {
            tracing::info!("nobody listens");
            for _ in 0..2 {
                let daemon = UnixDatagram::bind(path).unwrap();
                tracing::info!("heard");
                daemon.set_nonblocking(true).unwrap();
                let mut line = [0; 100];
                let length = daemon.recv(&mut line).unwrap();
                let wanted = format!("<21>popa3d[{}]: heard", std::process::id());
                assert_eq!(String::from_utf8_lossy(&line[..length]), wanted);
                drop(daemon);
                tracing::info!("nobody listens any more");
                std::fs::remove_file(path).unwrap();
            }
        });
    }
}
