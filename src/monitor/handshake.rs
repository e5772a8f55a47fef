//! What a session does in a TLS handshake: it lends what the worker shall not have.

use std::os::fd::AsFd;

use super::permission::Phase;
use super::session::{Broken, Session};
use super::tls::{Forbidden, Keys};
use crate::channel::{Answer, Encryption, Secret};
use crate::event::{Event, printable};

impl Session<'_> {
    /// Hands over the certificates.
    pub(super) fn begin_tls(&mut self) -> Result<Phase, Broken> {
        if self.log.encryption.is_some() {
            return Err(Broken::Worker("a second TLS handshake".to_owned()));
        }
        let material = self.keys.material(self.settings, self.log)?;
        let (answer, phase) = match material {
            Some(_) => (Answer::TlsMaterial, Phase::Handshaking),
            None => (Answer::NoCertificate, Phase::AwaitingLogin),
        };
        self.worker.channel.send(&answer, material.as_ref().map(AsFd::as_fd))?;
        Ok(phase)
    }

    pub(super) fn sign(
        &mut self,
        certificate: u8,
        scheme: u16,
        input: &[u8],
    ) -> Result<(), Broken> {
        let signature = self.keys.sign(certificate, scheme, input)?;
        Ok(self.worker.channel.send(&Answer::Signature(signature), None)?)
    }

    pub(super) fn seal_ticket(&mut self, state: &Secret) -> Result<(), Broken> {
        let ticket = self.keys.seal(state, self.log)?;
        Ok(self.worker.channel.send(&Answer::SealedTicket(ticket), None)?)
    }

    pub(super) fn open_ticket(&mut self, ticket: &[u8]) -> Result<(), Broken> {
        let state = self.keys.open(ticket, self.log)?;
        Ok(self.worker.channel.send(&Answer::OpenedTicket(state), None)?)
    }

    /// The handshake is over: nothing is signed any more.
    pub(super) fn encrypted(&mut self, encryption: Encryption) -> Phase {
        self.keys = Keys::default();
        let server_name = encryption.server_name.map(|name| printable(name.as_bytes()));
        self.log.encryption = Some(Encryption { server_name, ..encryption });
        self.log.log(&Event::TlsStarted);
        Phase::AwaitingLogin
    }
}

impl From<Forbidden> for Broken {
    fn from(Forbidden(what): Forbidden) -> Self {
        Self::Worker(format!("asked for {what}"))
    }
}
