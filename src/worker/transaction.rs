//! TRANSACTION: until QUIT, which leads to UPDATE.

use std::io::{self, Write};
use std::os::fd::AsFd;

use super::client::{Output, ending};
use super::maildrop::{Maildrop, Unsent};
use super::session::{Session, command};
use super::update::{self, Update};
use crate::channel::{Ending, Refusal};
use crate::ffi::process::trim_memory;
use crate::pop3::capability::Offers;
use crate::pop3::reply::{self, Code};
use crate::pop3::{Line, MessageNumber, Step, Transaction};

impl Session<'_> {
    /// TRANSACTION and UPDATE.
    pub(super) fn transact(
        &mut self,
        mut maildrop: Maildrop,
        offers: Offers,
    ) -> Result<(), Ending> {
        let mut state = Transaction::new(&maildrop, offers);
        // Half of what the scan touched is not needed again, and this session may idle for long.
        trim_memory();
        loop {
            self.client.wait_for_line(self.monitor.as_fd())?;
            let output = &mut self.client.output;
            let step = self
                .client
                .input
                .take(|line| transaction_line(&mut state, &maildrop, line, output));
            match step.unwrap_or(Ok(Step::Replied)).map_err(ending)? {
                Step::Replied => {}
                Step::Send(number, lines) => {
                    let sent = self.send(&mut maildrop, number, lines)?;
                    if sent && lines.is_none() {
                        state.retrieved(number);
                        self.prepare_next(&mut maildrop, &state, number)?;
                    }
                }
                Step::Quit => return self.update(&maildrop, &state),
            }
        }
    }

    /// Sends a message, or says why not; true when it was sent.
    fn send(
        &mut self,
        maildrop: &mut Maildrop,
        number: MessageNumber,
        lines: Option<u64>,
    ) -> Result<bool, Ending> {
        let output = &mut self.client.output;
        let refused = match maildrop.send(number, lines, output) {
            Ok(()) => {
                if let (None, Some(message)) = (lines, maildrop.message(number)) {
                    self.retrieved.messages += 1;
                    self.retrieved.octets += message.octets().0;
                }
                return Ok(true);
            }
            Err(Unsent::Gone) => {
                reply::err(output, "another program removed or edited this message")
            }
            Err(Unsent::Changing) => {
                let text = "another program is changing the mailbox, try again";
                reply::err_with(output, Code::SysTemp, text)
            }
            Err(Unsent::Broken(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Ending::Failed);
            }
            Err(Unsent::Broken(error)) => return Err(ending(error)),
        };
        refused.map_err(ending)?;
        Ok(false)
    }

    /// Prepares the message behind `number` while the client, which waits, takes in that one.
    fn prepare_next(
        &mut self,
        maildrop: &mut Maildrop,
        state: &Transaction,
        number: MessageNumber,
    ) -> Result<(), Ending> {
        if self.client.input.has_line() {
            return Ok(());
        }
        self.client.output.flush().map_err(ending)?;
        match MessageNumber::from_index(number.get()) {
            Some(next) if !state.is_marked(next) => maildrop.prepare(next),
            Some(_) | None => {}
        }
        Ok(())
    }

    /// UPDATE (RFC 1939 section 6): removes what is marked, then says goodbye.
    fn update(&mut self, maildrop: &Maildrop, state: &Transaction) -> Result<(), Ending> {
        // A pipelining client may have sent QUIT long before it has read the replies.
        self.client.output.flush().map_err(ending)?;
        let outcome = update::run(&self.monitor, maildrop, state, self.start);
        let outcome = outcome.map_err(|_| Ending::Failed);
        let output = &mut self.client.output;
        match outcome {
            Ok(Update::NothingToDo) => reply::ok(output, "goodbye"),
            Ok(Update::Removed(count)) => {
                reply::ok(output, &format!("goodbye, {count} messages deleted"))
            }
            Ok(Update::MailboxGone) => {
                reply::ok(output, "goodbye, another program removed the whole mailbox")
            }
            Ok(Update::Missing(count)) => reply::err_with(
                output,
                Code::SysTemp,
                &format!(
                    "{count} deleted messages not found, another program changed or removed them"
                ),
            ),
            Ok(Update::Refused(Refusal::InUse)) => {
                reply::err_with(output, Code::InUse, "mailbox is locked, nothing was deleted")
            }
            Ok(Update::Refused(
                Refusal::Temporary | Refusal::Permanent | Refusal::Credentials | Refusal::Delayed,
            ))
            | Err(_) => {
                let text = "mailbox could not be updated, deleted messages may still be there";
                reply::err_with(output, Code::SysTemp, text)
            }
        }
        .map_err(ending)?;
        outcome.map(|_| ())
    }
}

fn transaction_line(
    state: &mut Transaction,
    maildrop: &Maildrop,
    line: Line<'_>,
    output: &mut Output,
) -> io::Result<Step> {
    match command(line, output)? {
        Some(command) => state.on(command, maildrop, output),
        None => Ok(Step::Replied),
    }
}
