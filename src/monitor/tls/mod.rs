//! The monitor's part in TLS: it has the keys, and lends signatures.
//!
//! Nothing is read from disk before a client wants TLS, which is after the worker was forked; and
//! everything is dropped again when the handshake is over.

pub(super) mod certificates;
mod report;
mod ticket_keys;
mod transcript;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::{env, io};

use nix::sys::wait::{WaitStatus, waitpid};
use rustls::SignatureScheme;

use crate::channel::{ClientAuthorities, MAX_TICKET, Secret, TlsMaterial};
use crate::event::{Event, Session as Log};
use crate::settings::{ClientCertificates, Settings};
use certificates::Pair;
pub use report::report;
use ticket_keys::TicketKeys;

/// What a worker may ask for in one handshake: a signature …
const SIGNATURES: u32 = 1;
/// … a ticket for the client …
const TICKETS: u32 = 2;
/// … and a look at those that the client has.
const OPENED: u32 = 8;

/// The certificates, for as long as a handshake needs them.
#[derive(Default)]
pub(super) struct Keys {
    pairs: Option<Vec<Pair>>,
    tickets: Option<TicketKeys>,
    signed: u32,
    sealed: u32,
    opened: u32,
}

/// What a worker may not ask for.
pub(super) struct Forbidden(pub(super) &'static str);

impl Keys {
    /// Whether there is a certificate that can be used; the journal is told of those that cannot.
    pub(super) fn are_there(&mut self, settings: &Settings, log: &Log) -> bool {
        let pairs = self.pairs.get_or_insert_with(|| load(settings, log));
        !pairs.is_empty()
    }

    /// What the worker needs for a handshake; `None` when there is no certificate.
    ///
    /// # Errors
    ///
    /// No memory for it.
    pub(super) fn material(
        &mut self,
        settings: &Settings,
        log: &Log,
    ) -> io::Result<Option<OwnedFd>> {
        if !self.are_there(settings, log) {
            return Ok(None);
        }
        let certificates = self.pairs.iter().flatten().map(|pair| pair.certificate.clone());
        let material =
            TlsMaterial { certificates: certificates.collect(), clients: clients(settings, log) };
        material.to_descriptor().map(Some)
    }

    /// Signs a part of a handshake.
    ///
    /// # Errors
    ///
    /// It is none, or the second one.
    pub(super) fn sign(
        &mut self,
        certificate: u8,
        scheme: u16,
        input: &[u8],
    ) -> Result<Vec<u8>, Forbidden> {
        let scheme = SignatureScheme::from(scheme);
        self.signed += 1;
        if self.signed > SIGNATURES {
            return Err(Forbidden("a second signature"));
        }
        if !transcript::is_to_be_signed(scheme, input) {
            return Err(Forbidden("a signature of something that is no part of a handshake"));
        }
        let pair = self.pairs.iter().flatten().nth(certificate.into());
        let pair = pair.ok_or(Forbidden("a signature by a key that there is not"))?;
        let signer = pair.key.choose_scheme(&[scheme]);
        let signer = signer.ok_or(Forbidden("a signature that the key cannot make"))?;
        signer.sign(input).map_err(|_| Forbidden("a signature that failed"))
    }

    /// Encrypts what a client is to keep.
    ///
    /// # Errors
    ///
    /// One of too many tickets.
    pub(super) fn seal(&mut self, state: &Secret, log: &Log) -> Result<Option<Vec<u8>>, Forbidden> {
        self.sealed += 1;
        if self.sealed > TICKETS {
            return Err(Forbidden("more tickets than a handshake has"));
        }
        let sealed = self.ticket_keys(log).and_then(|keys| keys.seal(state.expose()));
        Ok(sealed.filter(|ticket| ticket.len() <= MAX_TICKET))
    }

    /// Decrypts what a client kept.
    ///
    /// # Errors
    ///
    /// One of too many tickets.
    pub(super) fn open(&mut self, ticket: &[u8], log: &Log) -> Result<Option<Secret>, Forbidden> {
        self.opened += 1;
        if self.opened > OPENED {
            return Err(Forbidden("more tickets opened than a handshake needs"));
        }
        let opened = self.ticket_keys(log).and_then(|keys| keys.open(ticket));
        Ok(opened.map(|state| Secret::new(&state)))
    }

    /// Without keys there is no resumption, and nothing else is missing.
    fn ticket_keys(&mut self, log: &Log) -> Option<&TicketKeys> {
        if self.tickets.is_none() {
            match TicketKeys::load() {
                Ok(keys) => self.tickets = Some(keys),
                Err(error) => log.log(&Event::ServerFailure(&format!("ticket keys: {error}"))),
            }
        }
        self.tickets.as_ref()
    }
}

/// Whether there is a certificate that can be used now. Looked at in a process of its own: this one is
/// not to have had a private key in memory.
#[must_use]
pub fn has_certificate(settings: &Settings) -> bool {
    let look = || i32::from(load(settings, &Log::default()).is_empty());
    let child = crate::ffi::process::fork(look);
    child.is_ok_and(|pid| matches!(waitpid(pid, None), Ok(WaitStatus::Exited(_, 0))))
}

/// Whose certificates are accepted from clients; nobody's, when theirs cannot be read.
fn clients(settings: &Settings, log: &Log) -> Option<ClientAuthorities> {
    let ClientCertificates { ca, user } = settings.client_certificates.as_ref()?;
    match certificates::authorities(ca) {
        Ok(certificates) => Some(ClientAuthorities { certificates, user: *user }),
        Err(trouble) => {
            log.log(&Event::CertificateUnusable(&trouble.to_string()));
            None
        }
    }
}

fn load(settings: &Settings, log: &Log) -> Vec<Pair> {
    let directory = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let files = certificates::find(settings, directory.as_deref()).unwrap_or_else(|error| {
        log.log(&Event::CertificateUnusable(&format!("credentials: {error}")));
        Vec::new()
    });
    let (usable, unusable) = certificates::load(&files);
    for trouble in unusable {
        log.log(&Event::CertificateUnusable(&trouble.to_string()));
    }
    usable
}
