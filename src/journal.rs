//! The way of events to the journal, and to standard error where there is none.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{Extensions, ExtensionsMut, LookupSpan, SpanData};

/// Sends events to the journal, or to standard error where there is none.
pub fn start() {
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Notice,
        debug: Priority::Informational,
        trace: Priority::Debug,
    };
    let set = match tracing_journald::layer() {
        Ok(journal) => {
            let journal = journal
                .with_field_prefix(None)
                .with_priority_mappings(priorities)
                .with_syslog_identifier("popa3d".to_owned())
                // For those who let journald pass it on to syslog: facility mail.
                .with_custom_fields([("SYSLOG_FACILITY", "2")]);
            tracing::subscriber::set_global_default(NoSpans.with(journal))
        }
        Err(_) => tracing::subscriber::set_global_default(NoSpans.with(Stderr)),
    };
    // Only a second call can fail, and the first subscriber serves as well.
    drop(set);
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

/// Events as plain lines, for hosts without a journal.
struct Stderr;

impl<S: Subscriber> Layer<S> for Stderr {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("popa3d[{}]: {value:?}\n", std::process::id());
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        // Where not even standard error works there is nobody to tell.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), message.0.as_bytes());
    }
}
