//! What the journal is told: a closed set of events, with their fields. Who is confined tells it nothing:
//! monitors, the listener and commands do.
//!
//! Texts follow those of popa3d 1.0.3, so that those who know its log find their way. What came
//! from a client passes [`printable()`] first.

mod printable;
mod session;
mod summary;
mod text;

use tracing::Level;

use crate::channel::Totals;
use crate::settings;

pub use printable::{printable, printable_up_to};
pub use session::Session;
pub use summary::{Conclusion, Summary};

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
    /// A message was removed.
    Expunged {
        /// Its unique-id.
        unique_id: &'a str,
        /// Its Message-ID, if it had one.
        message_id: Option<&'a str>,
        /// Its size, as the client counts.
        octets: u64,
    },
    /// UPDATE did not happen; for which mailbox, and why.
    UpdateFailed(&'a str, &'a str),
    /// An UPDATE that a crash interrupted is settled.
    UpdateRecovered {
        /// Of which mailbox.
        mailbox: &'a str,
        /// In words.
        how: &'a str,
        /// What it removed, if it did.
        removed: Option<Totals>,
    },
    /// It is not, or its record does not fit the mailbox; for which mailbox, and why.
    UpdateNotRecovered(&'a str, &'a str),
    /// The unique-ids that differ from 1.0.3's could not be kept.
    UniqueIdsNotKept(&'a str),
    /// UPDATE removed more than may be kept, so that none of it is kept.
    NotKept(Totals),
    /// So many removals that were kept are dropped for their age; and their octets on disk.
    KeptExpired(u64, u64),
    /// The same, to make room for newer ones.
    KeptDropped(u64, u64),
    /// Messages were put back; how many, octets on disk, into which mailbox.
    Undeleted(u64, u64, &'a str),
    /// The session is over: the last event of each, with its [`Summary`].
    SessionEnded,
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
    /// It does without this address for TLS, which another program has.
    NotListening(&'a str),
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
            Self::Expunged { .. } => (INFO, "expunged", "9b661ee66af14e27b38e4c0436c215af"),
            Self::UpdateFailed(..) => (ERROR, "update-failed", "b73a8c504e704d8e899b7fda005e310a"),
            Self::UpdateRecovered { .. } => {
                (NOTICE, "update-recovered", "d8a9f15606794d70960fe79ad9502f00")
            }
            Self::UpdateNotRecovered(..) => {
                (ERROR, "update-not-recovered", "ac4f30a0b67745cbad5c2d482674df77")
            }
            Self::UniqueIdsNotKept(_) => {
                (WARNING, "unique-ids-not-kept", "d40c0a72a82e4e1fa62d3ec0e310305b")
            }
            Self::NotKept(_) => (WARNING, "not-kept", "d9307cbcfa584d7e9675195268953e92"),
            Self::KeptExpired(..) => (INFO, "kept-expired", "dd9e63fadf3644ab9f7c33848eeb8b0a"),
            Self::KeptDropped(..) => (NOTICE, "kept-dropped", "d1a313bb40e64b44aa2c96637fadfae7"),
            Self::Undeleted(..) => (NOTICE, "undeleted", "d7030963474a43b09b860966b2b963d9"),
            Self::SessionEnded => (INFO, "session-ended", "6ff9646bde04413ebc3dbda5717613c8"),
            Self::WorkerFailed(_) => (ERROR, "worker-failed", "cf0f3d4d50c2455ca7406ee622b10e35"),
            Self::SandboxReduced(_) => {
                (INFO, "sandbox-reduced", "b5d097ade64b415ead8f3fdc926f7a89")
            }
            Self::SettingsRefused(_) => {
                (ERROR, "settings-refused", "0e1c128ac412496f9583ee0a7de32ee6")
            }
            Self::ServerFailure(_) => (ERROR, "server-failure", "d7ddaeab335547c193144a75011c4153"),
            Self::Listening(_) => (INFO, "listening", "5d3a7d5dc7564734ad73e783a2310526"),
            Self::NotListening(_) => (WARNING, "not-listening", "c678783553074c2f9893e8451fe78841"),
            Self::ListenerStopped => (INFO, "listener-stopped", "4d379dec2a2446588260152cb85a1525"),
            Self::ConnectionRefused(..) | Self::RefusalsNotLogged(_) => {
                (NOTICE, "connection-refused", "5d6a61d4012641c38acd4dff590e4a2b")
            }
        }
    }

    /// What was in the maildrop when it was opened.
    fn loaded(&self) -> Option<Totals> {
        if let Self::MaildropLoaded(totals) = self { Some(*totals) } else { None }
    }

    /// Unique-id, Message-ID and octets of a message.
    fn message(&self) -> Option<(&str, Option<&str>, u64)> {
        if let Self::Expunged { unique_id, message_id, octets } = self {
            Some((unique_id, *message_id, *octets))
        } else {
            None
        }
    }

    /// What an UPDATE removed that is told of by nothing else.
    fn removed(&self) -> Option<Totals> {
        if let Self::UpdateRecovered { removed, .. } = self { *removed } else { None }
    }

    fn failures(&self) -> Option<u16> {
        if let Self::LoginFailed { failures, .. } = self { *failures } else { None }
    }
}
