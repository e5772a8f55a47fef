//! What the processes of a session say to each other.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Secret;

/// Most ranges in one [`Request::Delete`] or [`Order::Delete`].
pub const MAX_RANGES: usize = 180;
/// Most octets in one [`Request::SealTicket`] or [`Request::OpenTicket`].
pub const MAX_TICKET: usize = 3 * 1024;
/// Most octets of a text that says why a handshake failed, or a PROXY header or an attempt to log in was
/// refused.
pub const MAX_REASON: usize = 200;
/// Most octets in one [`Request::Remember`].
pub const MAX_NOTE: usize = 3 * 1024;

/// Most messages in one [`Request::Expunged`].
pub const MAX_EXPUNGED: usize = 11;
/// Most octets of a Message-ID in one.
pub const MAX_MESSAGE_ID: usize = 250;

/// From the worker to the monitor. What is allowed when: `monitor::permission`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The kernel has no Landlock; the rest of the sandbox is in force.
    NoLandlock,
    /// The proxy that this connection comes from has said whose it is.
    Proxied {
        /// The client's address and port; `None` when the connection is the proxy's own.
        client: Option<(IpAddr, u16)>,
        /// The encryption between client and proxy, if there is any.
        tls: Option<ProxyTls>,
    },
    /// There is a PROXY header where none may be, or none that can be used where one must be; why,
    /// in at most [`MAX_REASON`] octets.
    ProxyRefused(String),
    /// Is there a certificate, so that TLS can be offered?
    OffersTls,
    /// A TLS handshake begins: which certificates are there?
    BeginTls,
    /// Sign this part of the handshake.
    Sign {
        /// The place of the certificate in the list, from 0.
        certificate: u8,
        /// How: a SignatureScheme (RFC 8446 section 4.2.3).
        scheme: u16,
        /// What TLS signs (RFC 8446 section 4.4.3, RFC 5246 section 7.4.3).
        input: Vec<u8>,
    },
    /// Encrypt the state of this TLS session for the client to keep.
    SealTicket(Secret),
    /// Decrypt what a client kept.
    OpenTicket(Vec<u8>),
    /// The handshake came to its end: from here on the connection is encrypted.
    Encrypted(Encryption),
    /// It did not; why, in at most [`MAX_REASON`] octets. Or the client did not speak the protocol
    /// of its port at all.
    HandshakeFailed(String),
    /// The client wanted to send a password without encryption, and may not.
    PlaintextRefused,
    /// The client tried to log in by what cannot be judged, which counts all the same.
    AttemptRefused {
        /// The commands that it came with.
        method: Method,
        /// What is wrong with it, in at most [`MAX_REASON`] octets.
        why: String,
    },
    /// Check this user and password and open the maildrop.
    Login {
        /// Who, as the client says.
        user: Vec<u8>,
        /// The password.
        password: Secret,
        /// The commands that it came with.
        method: Method,
    },
    /// The client's certificate, which a trusted authority issued, says that it is this user: check
    /// the account and open the maildrop.
    LoginByCertificate {
        /// Who, as the certificate says.
        user: Vec<u8>,
    },
    /// The maildrop is scanned: the mailbox may be unlocked.
    Scanned(Totals),
    /// The mailbox is not one that can be served.
    Unservable(Trouble),
    /// Something is wrong with the file of remembered unique-ids.
    NotRemembered(NotRemembered),
    /// Unique-ids that differ from those that popa3d 1.0.3 gives, a piece of their file.
    Remember(String),
    /// Lock the mailbox for UPDATE.
    Lock,
    /// Remove these octets on commit; ascending, and behind those named before.
    Delete(Vec<Range>),
    /// Remove what was named, durably, and unlock.
    Commit {
        /// Messages that this removes, and their octets.
        deleted: Totals,
        /// Messages that stay, and their octets.
        left: Totals,
    },
    /// These messages are gone by the commit; at most [`MAX_EXPUNGED`], and at least one.
    Expunged(Vec<Expunged>),
    /// Unlock and remove nothing.
    Abandon(Trouble),
    /// The session is over.
    End {
        /// Why.
        ending: Ending,
        /// Messages sent in full by RETR, and their octets.
        retrieved: Totals,
    },
}

/// From the monitor to the worker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The client behind the proxy may have a session.
    Admitted {
        /// Whether passwords may be sent over the connection as it is.
        takes_passwords: bool,
    },
    /// It has as many as it may have already.
    NotAdmitted,
    /// Whether there is a certificate.
    OffersTls(bool),
    /// What a handshake needs is attached ([`TlsMaterial`](super::TlsMaterial)).
    TlsMaterial,
    /// There is none.
    NoCertificate,
    /// The signature.
    Signature(Vec<u8>),
    /// The ticket.
    SealedTicket(Option<Vec<u8>>),
    /// What was in a ticket; `None` when it is none of ours, or too old.
    OpenedTicket(Option<Secret>),
    /// Not logged in, for this reason.
    Refused(Refusal),
    /// Logged in. The mailbox, locked until [`Request::Scanned`], is attached, read-only; none
    /// is attached when there is no mailbox.
    Maildrop {
        /// Random number for the fingerprints of this session.
        fingerprint_key: u64,
        /// The file of remembered unique-ids.
        remembered: Memory,
    },
    /// The file of remembered unique-ids is attached, read-only.
    Remembered,
    /// The mailbox, locked for UPDATE, is attached, read-only.
    Locked,
    /// There is no mailbox any more, so nothing of what was to be removed either.
    MailboxGone,
    /// The commit is durable.
    Committed,
    /// The UPDATE did not happen, for this reason; nothing was removed.
    NotUpdated(Refusal),
}

/// Whether unique-ids are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Memory {
    /// None are.
    Empty,
    /// [`Answer::Remembered`] follows.
    Follows,
    /// Nobody knows: the file cannot be opened, and none is to take its place.
    OutOfReach,
}

/// What is wrong with the file of remembered unique-ids, seen by the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotRemembered {
    /// Reading failed, with this errno; none is to take its place.
    Unreadable(i32),
    /// So many of its lines are no entry; the others hold.
    Damaged(u64),
}

/// Why the monitor did not do what was asked; what the client may know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// User or password or account, without telling which.
    Credentials,
    /// Another session or program holds the maildrop.
    InUse,
    /// Something is out of order and may be mended soon.
    Temporary,
    /// The mailbox is there and cannot be served as it is.
    Permanent,
    /// Too many logins of this source failed; this one was not looked at.
    Delayed,
}

/// How a client logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// USER and PASS.
    UserPass,
    /// AUTH PLAIN (RFC 4616).
    Plain,
    /// AUTH LOGIN.
    Login,
    /// AUTH EXTERNAL (RFC 4422 appendix A), with a certificate.
    External,
}

/// What a handshake settled on, as the numbers of TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// ProtocolVersion.
    pub version: u16,
    /// CipherSuite.
    pub suite: u16,
    /// NamedGroup of the key exchange; `None` when a resumed session needed none.
    pub group: Option<u16>,
    /// The host that the client wants to talk to (RFC 6066 section 3), at most 255 octets.
    pub server_name: Option<String>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// What a proxy says of the encryption that it ended; short texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyTls {
    /// The version of TLS.
    pub version: Option<String>,
    /// The cipher suite.
    pub suite: Option<String>,
}

/// Messages and their octets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many.
    pub messages: u32,
    /// Their sizes as POP3 counts them (RFC 1939 section 11).
    pub octets: u64,
}

/// A message that UPDATE removed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expunged {
    /// Its unique-id.
    pub unique_id: String,
    /// Its Message-ID, if it had one, in at most [`MAX_MESSAGE_ID`] octets.
    pub message_id: Option<Vec<u8>>,
    /// Its size, as [`Totals::octets`] counts.
    pub octets: u64,
}

/// What is wrong with a mailbox, seen by the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// It does not begin with a From_ line.
    NotMbox,
    /// It has more messages than `max-messages`.
    TooManyMessages,
    /// It is larger than `max-mailbox-size`.
    TooLarge,
    /// It changed while it was locked: another program ignores locks.
    Changed,
    /// Reading failed, with this errno.
    Unreadable(i32),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// QUIT.
    Quit,
    /// The client closed or broke the connection without QUIT.
    Disconnected,
    /// The client said nothing, or read next to nothing, for too long.
    TimedOut,
    /// Too many failed logins.
    TooManyFailures,
    /// TLS could not be had.
    WithoutTls,
    /// The session did not begin: something is wrong with a PROXY header.
    HeaderRefused,
    /// It did not, since its client has as many as it may have.
    NotAdmitted,
    /// The server ended it: something had failed.
    Failed,
}

/// Octets of the mailbox file, from `start` up to but not including `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Offset of the first octet.
    pub start: u64,
    /// Offset behind the last one.
    pub end: u64,
}

/// From the monitor of a session to the listener that started it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// Somebody has logged in.
    LoggedIn,
    /// The client behind a proxy is there; may it have a session?
    Client(IpAddr),
}

/// From the listener to the monitor of a session.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It may.
    Welcome,
    /// It may not: its source has all that it may have.
    TooMany,
}

/// From the monitor to an as-user helper.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// As [`Request::Delete`].
    Delete(Vec<Range>),
    /// Have what is removed in the empty file that is attached, too.
    Keep,
    /// Remove what was named, durably, unlock and end. An empty redo record is attached; these are the
    /// messages that this removes, for a recovery to tell.
    Commit(Totals),
    /// Append mail, durably, unlock and end. A redo record with that mail is attached.
    PutBack,
    /// Unlock and end.
    Release,
}

/// From an as-user helper to the monitor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The mailbox is locked, and attached, read-only.
    Opened {
        /// Whether the spool allowed no dotlock, so that the kernel's lock is all there is.
        without_dotlock: bool,
        /// How long others held it; zero when nobody did.
        waited: Duration,
        /// What became of the redo record that the helper was given, if it was given one.
        recovery: Option<Recovery>,
    },
    /// There is no mailbox.
    Missing,
    /// It is locked by somebody else.
    Locked {
        /// By whom, as far as can be told.
        holder: String,
    },
    /// It cannot be opened or is not the user's mailbox.
    Refused {
        /// Why, in words.
        reason: String,
        /// Whether it will stay so until somebody mends the mailbox.
        permanent: bool,
    },
    /// What was ordered is done.
    Done,
    /// What was ordered failed.
    Failed {
        /// Why, in words.
        reason: String,
        /// What became of the mailbox.
        mailbox: Outcome,
    },
}

/// What a failed commit left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The mailbox is as it was.
    Untouched,
    /// It is half-way, and the redo record will finish it.
    Unfinished,
}

/// What became of a redo record that a crash had left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recovery {
    /// Nothing had been decided on: the mailbox is as it was before.
    NothingBegun,
    /// The removal had come to its end before the crash; what was removed, unless mail was put back.
    WasFinished(Option<Totals>),
    /// It was finished now; likewise.
    Finished(Option<Totals>),
    /// It does not fit the mailbox, which was left alone; why.
    Conflict(String),
}
