//! Whose session it is, and how its events reach the journal: the fields that they have.

use std::net::IpAddr;
use std::time::Duration;

use rustls::{CipherSuite, NamedGroup, ProtocolVersion};
use tracing::Level;

use super::summary::{Summary, microseconds, processor_time};
use super::text::Text;
use super::{ERROR, Event, INFO, NOTICE, WARNING};
use crate::channel::{Encryption, Method, ProxyTls};

/// Whose session it is: the fields that all its events have.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Different for each session.
    pub id: u64,
    /// The client's address and port; `None` when it is not on a network, or as long as its proxy
    /// has not named it.
    pub client: Option<(IpAddr, u16)>,
    /// Those of the proxy that it comes through.
    pub proxy: Option<(IpAddr, u16)>,
    /// The user, as soon as there is one that this host knows.
    pub user: Option<String>,
    /// What the connection is encrypted with, once it is.
    pub encryption: Option<Encryption>,
    /// What it was encrypted with up to the proxy, if it was.
    pub proxy_tls: Option<ProxyTls>,
    /// How the last login came.
    pub method: Option<Method>,
    /// How long the login under way has to wait after failed ones, or would have to.
    pub login_delay: Option<Duration>,
    /// What it came to.
    pub summary: Summary,
}

impl Session {
    /// The client, for texts.
    #[must_use]
    pub fn client_text(&self) -> String {
        match (self.client, self.proxy) {
            (Some((address, _)), _) => address.to_string(),
            (None, Some((proxy, _))) => format!("a client of {proxy}"),
            (None, None) => "this host".to_owned(),
        }
    }

    /// Whether nobody could read what the client sends, on the way or up to its proxy.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.encryption.is_some() || self.proxy_tls.is_some()
    }

    /// The version of TLS that the client speaks, with this server or with its proxy; `?` when the
    /// proxy does not say which.
    #[must_use]
    pub fn tls_text(&self) -> Option<String> {
        let own = self.encryption.as_ref().map(|tls| tls_version(tls.version));
        let unknown = || "?".to_owned();
        self.proxy_tls.as_ref().map(|tls| tls.version.clone().unwrap_or_else(unknown)).or(own)
    }

    /// Whom a header comes from: the proxy, until it has named the client.
    pub(super) fn sender_text(&self) -> String {
        let sender = self.client.or(self.proxy);
        sender.map_or_else(|| self.client_text(), |(address, _)| address.to_string())
    }

    pub(super) fn user_text(&self) -> &str {
        // A name that nobody has may be a password typed into the wrong field.
        self.user.as_deref().unwrap_or("UNKNOWN USER")
    }

    /// What deserves a word at each login.
    pub(super) fn without_encryption(&self) -> &'static str {
        if self.is_encrypted() { "" } else { ", password sent in plaintext" }
    }

    /// Whole seconds, so that there is no 0 for somebody who had to wait.
    pub(super) fn login_delay(&self) -> Option<u64> {
        self.login_delay
            .map(|delay| delay.saturating_add(Duration::from_nanos(999_999_999)).as_secs())
    }

    pub(super) fn waited(&self) -> String {
        self.login_delay().map_or_else(String::new, |seconds| format!(", had to wait {seconds} s"))
    }

    /// Tells the journal.
    pub fn log(&self, event: &Event<'_>) {
        let (level, name, id) = event.kind();
        let text = Text { session: self, event };
        let session = format!("{:016x}", self.id);
        let address = self.client.map(|(address, _)| address.to_string());
        let port = self.client.map(|(_, port)| u64::from(port));
        let proxy = self.proxy.map(|(address, _)| address.to_string());
        let ended = matches!(event, Event::SessionEnded).then_some(&self.summary);
        let (deleted, left) = ended.and_then(|summary| summary.maildrop).unzip();
        let deleted = deleted.or(event.removed());
        let present = event.loaded().or(left);
        let message = event.message();
        let octets = present.map(|totals| totals.octets);
        let octets = message.map(|(_, _, octets)| octets).or(octets);
        let retrieved = ended.and_then(|summary| summary.retrieved);
        let update = ended.and_then(|summary| summary.update);
        let lock_wait = ended.and_then(|summary| summary.lock_wait);
        let processor_time = ended.and_then(|_| processor_time());
        // What the proxy says is about the client; behind that, TLS is the proxy's own.
        let tls = self.encryption.as_ref().filter(|_| self.proxy_tls.is_none());
        let version = tls.map(|tls| tls_version(tls.version));
        let version = self.proxy_tls.as_ref().map_or(version, |tls| tls.version.clone());
        let suite = tls.map(|tls| tls_suite(tls.suite));
        let suite = self.proxy_tls.as_ref().map_or(suite, |tls| tls.suite.clone());
        let group = tls.and_then(|tls| tls.group).map(tls_group);
        macro_rules! send {
            ($level:expr) => {
                tracing::event!(
                    $level,
                    MESSAGE_ID = id,
                    POPA3D_EVENT = name,
                    POPA3D_SESSION = session.as_str(),
                    POPA3D_CLIENT = address.as_deref(),
                    POPA3D_CLIENT_PORT = port,
                    POPA3D_PROXY = proxy.as_deref(),
                    POPA3D_USER = self.user.as_deref(),
                    POPA3D_METHOD = self.method.map(method_name),
                    POPA3D_LOGIN_DELAY = self.login_delay(),
                    POPA3D_LOGIN_FAILURES = event.failures(),
                    POPA3D_TLS = version.as_deref(),
                    POPA3D_TLS_SUITE = suite.as_deref(),
                    POPA3D_TLS_GROUP = group.as_deref(),
                    POPA3D_TLS_SERVER_NAME = tls.and_then(|tls| tls.server_name.as_deref()),
                    POPA3D_TLS_RESUMED = tls.map(|tls| if tls.resumed { "yes" } else { "no" }),
                    POPA3D_MESSAGES = present.map(|totals| totals.messages),
                    POPA3D_OCTETS = octets,
                    POPA3D_UNIQUE_ID = message.map(|(unique_id, ..)| unique_id),
                    POPA3D_MESSAGE_ID = message.and_then(|(_, message_id, _)| message_id),
                    POPA3D_DELETED_MESSAGES = deleted.map(|totals| totals.messages),
                    POPA3D_DELETED_OCTETS = deleted.map(|totals| totals.octets),
                    POPA3D_RETRIEVED_MESSAGES = retrieved.map(|totals| totals.messages),
                    POPA3D_RETRIEVED_OCTETS = retrieved.map(|totals| totals.octets),
                    POPA3D_ENDING = ended.map(|summary| summary.conclusion.word()),
                    POPA3D_DURATION_USEC =
                        ended.map(|summary| microseconds(summary.began.elapsed())),
                    POPA3D_CPU_USEC = processor_time.map(microseconds),
                    POPA3D_UPDATE_USEC = update.map(microseconds),
                    POPA3D_LOCK_WAIT_USEC = lock_wait.map(microseconds),
                    "{text}"
                )
            };
        }
        match level {
            Level::ERROR => send!(ERROR),
            Level::WARN => send!(WARNING),
            Level::INFO => send!(NOTICE),
            _ => send!(INFO),
        }
    }
}

/// The name of a ProtocolVersion.
pub(super) fn tls_version(number: u16) -> String {
    format!("{:?}", ProtocolVersion::from(number)).replace('_', ".")
}

/// The name of a CipherSuite, as IANA has it.
pub(super) fn tls_suite(number: u16) -> String {
    // The names in rustls tell the suites of TLS 1.3 apart by a prefix of their own.
    format!("{:?}", CipherSuite::from(number)).replace("TLS13_", "TLS_")
}

/// The name of a NamedGroup.
pub(super) fn tls_group(number: u16) -> String {
    format!("{:?}", NamedGroup::from(number))
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::UserPass => "USER",
        Method::Plain => "PLAIN",
        Method::Login => "LOGIN",
        Method::External => "EXTERNAL",
    }
}
