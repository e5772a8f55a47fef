//! `popa3d --mailbox`: how popa3d sees a maildrop.

mod json;
mod oddity;
mod text;

use std::io::{self, Write};

use crate::channel::{Oddity, Seen, SeenMessage};
use crate::monitor::{Inspection, Overview, Remark};
use crate::settings::Settings;

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Why it is not.
#[derive(Debug)]
pub enum NotShown {
    /// The mailbox cannot be looked at.
    Mailbox(String),
    /// Nobody takes the output.
    Output(io::Error),
}

impl From<String> for NotShown {
    fn from(why: String) -> Self {
        Self::Mailbox(why)
    }
}

impl From<io::Error> for NotShown {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Writes what popa3d makes of the mailbox of `user`, one message after the other.
///
/// # Errors
///
/// See [`NotShown`]; part of it may be written then.
pub fn show(
    user: &str,
    form: Form,
    settings: &Settings,
    output: &mut impl Write,
) -> Result<(), NotShown> {
    let mut inspection = Inspection::begin(user, settings)?;
    let mut shown = Output { form, number: 0, output };
    shown.begin(&inspection.overview)?;
    let about_all = loop {
        match inspection.see()? {
            Seen::Message(message) if shown.number < inspection.overview.totals.messages => {
                shown.message(&message, &inspection.overview)?;
            }
            Seen::End(oddities) => break oddities,
            Seen::Message(_) | Seen::Scanned(_) | Seen::Unservable(_) => {
                let path = inspection.overview.path.display();
                return Err(format!("{path}: more messages than there are").into());
            }
        }
    };
    Ok(shown.end(&inspection.overview.remarks, &about_all)?)
}

/// Where it is shown, and how many messages of it.
struct Output<'a, W> {
    form: Form,
    number: u32,
    output: &'a mut W,
}

impl<W: Write> Output<'_, W> {
    fn begin(&mut self, overview: &Overview) -> io::Result<()> {
        match self.form {
            Form::Text => text::begin(overview, self.output),
            Form::Json => json::begin(overview, self.output),
        }
    }

    fn message(&mut self, message: &SeenMessage, overview: &Overview) -> io::Result<()> {
        self.number += 1;
        match self.form {
            Form::Text => text::message(self.number, message, overview, self.output),
            Form::Json => json::message(self.number, message, self.output),
        }
    }

    fn end(&mut self, remarks: &[Remark], oddities: &[Oddity]) -> io::Result<()> {
        match self.form {
            Form::Text => text::end(remarks, oddities, self.output)?,
            Form::Json => json::end(remarks, oddities, self.output)?,
        }
        self.output.flush()
    }
}

#[cfg(test)]
mod tests;
