//! SIGHUP: the program and the settings as they are on disk now take over, or all stays as it is.

use super::accept::Listener;
use super::sockets::Change;
use super::{handover, is_for_tls, service};
use crate::event::{Event, Session as Log};
use crate::settings::Settings;

impl Listener {
    /// Returns only when that failed; the journal knows why then.
    pub(super) fn reload(&mut self) {
        service::reloading();
        match Settings::load(&self.origin.place) {
            Ok(settings) => {
                let why = self.give_way(&settings);
                Log::default().log(&Event::ServerFailure(&format!("reload: {why}")));
            }
            Err(error) => Log::default().log(&Event::SettingsRefused(&error)),
        }
        service::ready(&self.counts());
    }

    /// What can go wrong is tried before there is no way back.
    fn give_way(&mut self, settings: &Settings) -> String {
        if let Err(why) = self.origin.check() {
            return why;
        }
        let change = match Change::prepare(settings, is_for_tls(settings), &self.sockets) {
            Ok(change) => change,
            Err(error) => return error.to_string(),
        };
        if change.sockets(&self.sockets).next().is_none() {
            change.undo(&self.sockets);
            return super::NOWHERE.to_owned();
        }
        // The next program does not know of them.
        if let Some(unlogged) = self.refusals.take_unlogged() {
            Log::default().log(&Event::RefusalsNotLogged(unlogged));
        }
        let why = handover::hand_over(self, &change);
        change.undo(&self.sockets);
        why
    }
}
