//! What the events are called in the journal: one line each.

use std::fmt;

use super::session::{tls_group, tls_suite, tls_version};
use super::{Event, Session};
use crate::channel::Totals;

/// An event of a session, as a reader of the journal sees it.
pub(super) struct Text<'a> {
    pub(super) session: &'a Session,
    pub(super) event: &'a Event<'a>,
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
            Event::Expunged { unique_id, message_id, octets } => {
                write!(f, "Deleted {unique_id} ({octets}) of {user} from {client}")?;
                message_id.map_or(Ok(()), |id| write!(f, ", message-id={id}"))
            }
            Event::UpdateFailed(path, why) => write!(f, "Failed to update {path}: {why}"),
            Event::UpdateRecovered { mailbox, how, removed } => {
                write!(f, "Update of {mailbox} that was interrupted: {how}")?;
                let Some(Totals { messages, octets }) = removed else { return Ok(()) };
                write!(f, ", {messages} ({octets}) deleted")
            }
            Event::UpdateNotRecovered(path, why) => {
                write!(f, "Update of {path} that was interrupted cannot be finished: {why}")
            }
            Event::UniqueIdsNotKept(why) => {
                write!(f, "Unique-ids of {user} that need remembering were not kept: {why}")
            }
            Event::NotKept(Totals { messages, octets }) => write!(
                f,
                "{messages} ({octets}) deleted and not kept: more than keep-deleted-size allows"
            ),
            Event::KeptExpired(removals, octets) => {
                write!(f, "{removals} kept removals of {user} expired ({octets} bytes)")
            }
            Event::KeptDropped(removals, octets) => write!(
                f,
                "{removals} kept removals of {user} dropped to make room for newer ones \
                 ({octets} bytes): more than keep-deleted-size allows"
            ),
            Event::Undeleted(messages, octets, path) => {
                write!(f, "{messages} messages ({octets} bytes) put back into {path}")
            }
            Event::SessionEnded => self.session.summary.write(self.session, f),
            Event::WorkerFailed(why) => write!(f, "Server failure, worker process: {why}"),
            Event::SandboxReduced(why) => write!(f, "Worker sandbox: {why}"),
            Event::SettingsRefused(error) => write!(f, "Settings refused: {error}"),
            Event::ServerFailure(why) => write!(f, "Server failure: {why}"),
            Event::Listening(address) => write!(f, "Listening on {address}"),
            Event::NotListening(address) => write!(
                f,
                "Not listening on {address}, another program has it: stop that one and reload this \
                 one, or leave the address to it by listen-tls = [] in /etc/popa3d.toml"
            ),
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
