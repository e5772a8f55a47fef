//! The protocol (RFC 1939, 2449, 2595, 3206, 5034, 6856), without any I/O but writing replies to a buffer.
//!
//! Runs in the worker. Lines become [`Command`]s; the state that receives one answers it or says
//! what has to be done. [`Authorization`] and [`Transaction`] are RFC 1939's states; UPDATE is
//! what the worker does when [`Step::Quit`] comes out of a transaction.

mod authorization;
pub mod capability;
mod command;
mod line;
pub mod reply;
mod sasl;
mod transaction;

pub use authorization::{Authorization, Step as LoginStep};
pub use command::{Command, Malformed, MessageNumber, parse};
pub use line::{Line, LineBuffer, MAX_LINE};
pub use sasl::Mechanism;
pub use transaction::{Maildrop, Step, Transaction};
