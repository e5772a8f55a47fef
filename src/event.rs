//! What the journal is told: a closed set of events, with their fields. Only the monitor logs.
//!
//! Texts follow those of popa3d 1.0.3, so that those who know its log find their way. What came
//! from a client passes [`printable()`] first.

mod printable;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rustls::{CipherSuite, NamedGroup, ProtocolVersion};
use tracing::Level;

use crate::channel::{Encryption, Ending, Method, ProxyTls, Totals};
use crate::settings;

pub use printable::printable;

/// Something that an admin may want to know.
#[derive(Debug)]
pub enum Event<'a> {
    /// A client connected.
    SessionStarted,
    /// A PROXY header is where none may be, or none that can be used where one must be; why.
    ProxyRefused(&'a str),
    /// The handshake is over; with what, the session knows.
    TlsStarted,
    /// TLS could not be had; why.
    TlsFailed(&'a str),
    /// A certificate cannot be used; which, and why.
    CertificateUnusable(&'a str),
    /// A client wanted to send a password without encryption, and may not.
    PlaintextRefused,
    /// A login succeeded.
    LoginPassed,
    /// A login was refused.
    LoginFailed {
        /// Why, which the client is not told.
        why: &'a str,
        /// How many failures of its source count by now.
        failures: Option<u16>,
    },
    /// A login was refused without a look at it, so many of its source had failed.
    LoginDelayed,
    /// A login could not be decided, because something on this host is out of order.
    LoginImpossible(&'a str),
    /// The PAM stack did not answer in time.
    PamHangs(u64),
    /// A PAM module had something to say.
    PamMessage(&'a str),
    /// The session could not be closed or its credentials not taken back.
    PamCloseFailed(&'a str),
    /// The maildrop is open.
    MaildropLoaded(Totals),
    /// Somebody else holds the maildrop; who.
    MaildropInUse(&'a str),
    /// The mailbox is not served; which, and why.
    MaildropRefused(&'a str, &'a str),
    /// The spool allows no dotlock; for which mailbox.
    NoDotlock(&'a str),
    /// What UPDATE did.
    Updated {
        /// Gone for good.
        deleted: Totals,
        /// Still there.
        left: Totals,
        /// Sent in full by RETR during the session.
        retrieved: Totals,
    },
    /// UPDATE did not happen; for which mailbox, and why.
    UpdateFailed(&'a str, &'a str),
    /// An UPDATE that a crash interrupted is settled; for which mailbox, and how.
    UpdateRecovered(&'a str, &'a str),
    /// It is not, or its record does not fit the mailbox; for which mailbox, and why.
    UpdateNotRecovered(&'a str, &'a str),
    /// The unique-ids that differ from 1.0.3's could not be kept.
    UniqueIdsNotKept(&'a str),
    /// The session ended otherwise than by UPDATE.
    SessionEnded(Ending, Totals),
    /// The session ended before anybody tried to log in.
    NoLoginAttempt,
    /// The session was ended by a signal.
    SessionStopped,
    /// The worker asked for what it may not, or died; how.
    WorkerFailed(&'a str),
    /// The worker's sandbox is weaker than it could be; why.
    SandboxReduced(&'a str),
    /// The settings cannot be used.
    SettingsRefused(&'a settings::Error),
    /// Something that a session needs is missing on this host.
    ServerFailure(&'a str),
    /// The listener accepts connections there.
    Listening(&'a str),
    /// It has come to its end, and all sessions with it.
    ListenerStopped,
    /// A connection was refused; why, and how many others before it that nothing was said of.
    ConnectionRefused(&'a str, u64),
    /// So many were refused that nothing was said of, and no other one since.
    RefusalsNotLogged(u64),
}

/// Severities, by tracing's levels.
const ERROR: Level = Level::ERROR;
const WARNING: Level = Level::WARN;
const NOTICE: Level = Level::INFO;
const INFO: Level = Level::DEBUG;

impl Event<'_> {
    /// Level, POPA3D_EVENT and MESSAGE_ID.
    fn kind(&self) -> (Level, &'static str, &'static str) {
        match self {
            Self::SessionStarted => (INFO, "session-started", "7fb590bd9c77456791e2e5fbe38de075"),
            Self::ProxyRefused(_) => (NOTICE, "proxy-refused", "5ad352aafa9b443da13bafb59f0ca5e2"),
            Self::TlsStarted => (INFO, "tls-started", "a8d2aa87b5f9469eaf806bfdc7a08a8b"),
            Self::TlsFailed(_) => (NOTICE, "tls-failed", "14d46e721a6248d9ad3746740356d95a"),
            Self::CertificateUnusable(_) => {
                (ERROR, "certificate-unusable", "b3e63a0d6dff40c8b938e58979ab0127")
            }
            Self::PlaintextRefused => {
                (NOTICE, "plaintext-refused", "e06c196c57ef42a4a2c01c98581f8c95")
            }
            Self::LoginPassed => (INFO, "login-passed", "d873747243d047ee863acc4086b53f41"),
            Self::LoginFailed { .. } => {
                (NOTICE, "login-failed", "66f2443f0e414b5595ab534fe59202fd")
            }
            Self::LoginDelayed => (NOTICE, "login-delayed", "27fc5302f3e3488d9f7808693673f422"),
            Self::LoginImpossible(_) => {
                (ERROR, "login-impossible", "4e41b24b82c74dd3b449868ba233d657")
            }
            Self::PamHangs(_) => (ERROR, "pam-hangs", "2a381701cef8471d983d62aa15479d76"),
            Self::PamMessage(_) => (INFO, "pam-message", "2e159bc2d8064cd9bce266dbf208c882"),
            Self::PamCloseFailed(_) => {
                (WARNING, "pam-close-failed", "7d17c4b97bc546afa561e253d87f7f44")
            }
            Self::MaildropLoaded(_) => {
                (INFO, "maildrop-loaded", "f80bad849afd4cceb288ff71e4b1ab40")
            }
            Self::MaildropInUse(_) => {
                (NOTICE, "maildrop-in-use", "aaf458c4c59246d4baba883b0e96ef70")
            }
            Self::MaildropRefused(..) => {
                (WARNING, "maildrop-refused", "099fb40a5cb1422390f92040b462d77d")
            }
            Self::NoDotlock(_) => (NOTICE, "no-dotlock", "b879b44cf8d541d49d00236ecbc42fb9"),
            Self::Updated { .. } => (INFO, "updated", "db3124983d6f4a47ad6d1de74cc0ad59"),
            Self::UpdateFailed(..) => (ERROR, "update-failed", "b73a8c504e704d8e899b7fda005e310a"),
            Self::UpdateRecovered(..) => {
                (NOTICE, "update-recovered", "d8a9f15606794d70960fe79ad9502f00")
            }
            Self::UpdateNotRecovered(..) => {
                (ERROR, "update-not-recovered", "ac4f30a0b67745cbad5c2d482674df77")
            }
            Self::UniqueIdsNotKept(_) => {
                (WARNING, "unique-ids-not-kept", "d40c0a72a82e4e1fa62d3ec0e310305b")
            }
            Self::SessionEnded(..) => (INFO, "session-ended", "6ff9646bde04413ebc3dbda5717613c8"),
            Self::NoLoginAttempt => (INFO, "no-login-attempt", "830c2d035fd6471895143ce42b68e556"),
            Self::SessionStopped => (NOTICE, "session-stopped", "bcd724a5411d46f4acc8b7ab103ed196"),
            Self::WorkerFailed(_) => (ERROR, "worker-failed", "cf0f3d4d50c2455ca7406ee622b10e35"),
            Self::SandboxReduced(_) => {
                (INFO, "sandbox-reduced", "b5d097ade64b415ead8f3fdc926f7a89")
            }
            Self::SettingsRefused(_) => {
                (ERROR, "settings-refused", "0e1c128ac412496f9583ee0a7de32ee6")
            }
            Self::ServerFailure(_) => (ERROR, "server-failure", "d7ddaeab335547c193144a75011c4153"),
            Self::Listening(_) => (INFO, "listening", "5d3a7d5dc7564734ad73e783a2310526"),
            Self::ListenerStopped => (INFO, "listener-stopped", "4d379dec2a2446588260152cb85a1525"),
            Self::ConnectionRefused(..) | Self::RefusalsNotLogged(_) => {
                (NOTICE, "connection-refused", "5d6a61d4012641c38acd4dff590e4a2b")
            }
        }
    }

    /// POPA3D_MESSAGES and POPA3D_OCTETS: what is in the maildrop.
    fn present(&self) -> Option<Totals> {
        match self {
            Self::MaildropLoaded(totals) | Self::Updated { left: totals, .. } => Some(*totals),
            Self::SessionStarted
            | Self::ProxyRefused(_)
            | Self::TlsStarted
            | Self::TlsFailed(_)
            | Self::CertificateUnusable(_)
            | Self::PlaintextRefused
            | Self::LoginPassed
            | Self::LoginFailed { .. }
            | Self::LoginDelayed
            | Self::LoginImpossible(_)
            | Self::PamHangs(_)
            | Self::PamMessage(_)
            | Self::PamCloseFailed(_)
            | Self::MaildropInUse(_)
            | Self::MaildropRefused(..)
            | Self::NoDotlock(_)
            | Self::UpdateFailed(..)
            | Self::UpdateRecovered(..)
            | Self::UpdateNotRecovered(..)
            | Self::UniqueIdsNotKept(_)
            | Self::NoLoginAttempt
            | Self::SessionEnded(..)
            | Self::SessionStopped
            | Self::WorkerFailed(_)
            | Self::SandboxReduced(_)
            | Self::SettingsRefused(_)
            | Self::ServerFailure(_)
            | Self::Listening(_)
            | Self::ListenerStopped
            | Self::ConnectionRefused(..)
            | Self::RefusalsNotLogged(_) => None,
        }
    }

    fn retrieved(&self) -> Option<Totals> {
        if let Self::Updated { retrieved, .. } | Self::SessionEnded(_, retrieved) = self {
            Some(*retrieved)
        } else {
            None
        }
    }

    fn failures(&self) -> Option<u16> {
        if let Self::LoginFailed { failures, .. } = self { *failures } else { None }
    }

    fn deleted(&self) -> Option<Totals> {
        if let Self::Updated { deleted, .. } = self { Some(*deleted) } else { None }
    }
}

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

    /// Whom a header comes from: the proxy, until it has named the client.
    fn sender_text(&self) -> String {
        let sender = self.client.or(self.proxy);
        sender.map_or_else(|| self.client_text(), |(address, _)| address.to_string())
    }

    fn user_text(&self) -> &str {
        // A name that nobody has may be a password typed into the wrong field.
        self.user.as_deref().unwrap_or("UNKNOWN USER")
    }

    /// What deserves a word at each login.
    fn without_encryption(&self) -> &'static str {
        if self.is_encrypted() { "" } else { ", password sent in plaintext" }
    }

    /// Whole seconds, so that there is no 0 for somebody who had to wait.
    fn login_delay(&self) -> Option<u64> {
        self.login_delay
            .map(|delay| delay.saturating_add(Duration::from_nanos(999_999_999)).as_secs())
    }

    fn waited(&self) -> String {
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
        let present = event.present();
        let (deleted, retrieved) = (event.deleted(), event.retrieved());
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
                    POPA3D_OCTETS = present.map(|totals| totals.octets),
                    POPA3D_DELETED_MESSAGES = deleted.map(|totals| totals.messages),
                    POPA3D_DELETED_OCTETS = deleted.map(|totals| totals.octets),
                    POPA3D_RETRIEVED_MESSAGES = retrieved.map(|totals| totals.messages),
                    POPA3D_RETRIEVED_OCTETS = retrieved.map(|totals| totals.octets),
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

struct Text<'a> {
    session: &'a Session,
    event: &'a Event<'a>,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.session.client_text();
        let user = self.session.user_text();
        match self.event {
            Event::SessionStarted => {
                write!(f, "Session from {client}")?;
                let proxy =
                    self.session.proxy.filter(|_| self.session.client != self.session.proxy);
                if let Some((proxy, _)) = proxy {
                    write!(f, " through {proxy}")?;
                }
                f.write_str(if self.session.proxy_tls.is_some() {
                    ", by TLS up to there"
                } else {
                    ""
                })
            }
            Event::ProxyRefused(why) => {
                write!(f, "PROXY header of {} refused: {why}", self.session.sender_text())
            }
            Event::TlsStarted => {
                let Some(tls) = &self.session.encryption else { return Ok(()) };
                write!(f, "{}, {}", tls_version(tls.version), tls_suite(tls.suite))?;
                if let Some(group) = tls.group {
                    write!(f, ", {}", tls_group(group))?;
                }
                if let Some(name) = &tls.server_name {
                    write!(f, ", for {name}")?;
                }
                f.write_str(if tls.resumed { ", resumed" } else { "" })
            }
            Event::TlsFailed(why) => write!(f, "No TLS with {client}: {why}"),
            Event::CertificateUnusable(why) => write!(f, "Certificate cannot be used: {why}"),
            Event::PlaintextRefused => write!(
                f,
                "Plaintext login from {client} refused: let the client use TLS (port 995 or STLS), \
                 or set plaintext-login in /etc/popa3d.toml"
            ),
            Event::LoginPassed => {
                let plaintext = self.session.without_encryption();
                let waited = self.session.waited();
                write!(f, "Authentication passed for {user}{plaintext}{waited}")
            }
            Event::LoginFailed { why, .. } => {
                let plaintext = self.session.without_encryption();
                let waited = self.session.waited();
                write!(
                    f,
                    "Authentication failed for {user} from {client}: {why}{plaintext}{waited}"
                )
            }
            Event::LoginDelayed => {
                let seconds = self.session.login_delay().unwrap_or_default();
                write!(
                    f,
                    "Login from {client} refused, too many failed ones from there: its turn would \
                     be in {seconds} s"
                )
            }
            Event::LoginImpossible(why) => {
                write!(f, "Server failure authenticating {user} from {client}: {why}")
            }
            Event::PamHangs(seconds) => write!(
                f,
                "Server failure, PAM gave no answer for {user} from {client} in {seconds} s \
                 (pam-timeout), session ended"
            ),
            Event::PamMessage(text) => write!(f, "PAM message for {user}: {text}"),
            Event::PamCloseFailed(why) => write!(f, "Closing the session of {user}: {why}"),
            Event::MaildropLoaded(totals) => {
                write!(f, "{} messages ({} bytes) loaded", totals.messages, totals.octets)
            }
            Event::MaildropInUse(holder) => {
                write!(f, "Another MUA active, giving up: {holder}")
            }
            Event::MaildropRefused(path, why) => {
                write!(f, "Failed or refused to load {path}: {why}")
            }
            Event::NoDotlock(path) => write!(
                f,
                "No dotlock for {path}, the directory does not allow it; locked with fcntl alone"
            ),
            Event::Updated { deleted, left, .. } => write!(
                f,
                "{} ({}) deleted, {} ({}) left",
                deleted.messages, deleted.octets, left.messages, left.octets
            ),
            Event::UpdateFailed(path, why) => write!(f, "Failed to update {path}: {why}"),
            Event::UpdateRecovered(path, how) => {
                write!(f, "Update of {path} that was interrupted: {how}")
            }
            Event::UpdateNotRecovered(path, why) => {
                write!(f, "Update of {path} that was interrupted cannot be finished: {why}")
            }
            Event::UniqueIdsNotKept(why) => {
                write!(f, "Unique-ids of {user} that need remembering were not kept: {why}")
            }
            Event::SessionEnded(Ending::Quit, _) => f.write_str("Session ended"),
            Event::SessionEnded(Ending::Disconnected, _) => f.write_str("Premature disconnect"),
            Event::SessionEnded(Ending::TimedOut, _) => f.write_str("Connection timed out"),
            Event::SessionEnded(Ending::TooManyFailures, _) => {
                f.write_str("Too many refused logins, connection closed")
            }
            Event::SessionEnded(Ending::WithoutTls, _) => f.write_str("Session ended without TLS"),
            Event::SessionEnded(Ending::TurnedAway, _) => f.write_str("Client turned away"),
            Event::SessionEnded(Ending::Failed, _) => f.write_str("Session ended by a failure"),
            Event::NoLoginAttempt => f.write_str("Didn't attempt authentication"),
            Event::SessionStopped => f.write_str("Session ended by a signal"),
            Event::WorkerFailed(why) => write!(f, "Server failure, worker process: {why}"),
            Event::SandboxReduced(why) => write!(f, "Worker sandbox: {why}"),
            Event::SettingsRefused(error) => write!(f, "Settings refused: {error}"),
            Event::ServerFailure(why) => write!(f, "Server failure: {why}"),
            Event::Listening(address) => write!(f, "Listening on {address}"),
            Event::ListenerStopped => f.write_str("Stopped listening"),
            Event::ConnectionRefused(why, 0) => write!(f, "{client}: {why}"),
            Event::ConnectionRefused(why, unlogged) => {
                write!(f, "{client}: {why} ({unlogged} refusals before this one were not logged)")
            }
            Event::RefusalsNotLogged(unlogged) => {
                write!(f, "{unlogged} more refusals were not logged")
            }
        }
    }
}

/// The name of a ProtocolVersion.
fn tls_version(number: u16) -> String {
    format!("{:?}", ProtocolVersion::from(number)).replace('_', ".")
}

/// The name of a CipherSuite, as IANA has it.
fn tls_suite(number: u16) -> String {
    // The names in rustls tell the suites of TLS 1.3 apart by a prefix of their own.
    format!("{:?}", CipherSuite::from(number)).replace("TLS13_", "TLS_")
}

/// The name of a NamedGroup.
fn tls_group(number: u16) -> String {
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
