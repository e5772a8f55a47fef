//! The command line: one work, then `--name value` pairs.

use std::collections::BTreeMap;
use std::io;
use std::str::FromStr;
use std::time::Duration;

/// What was asked for, by name.
#[derive(Debug)]
pub(crate) struct Options(BTreeMap<String, String>);

impl Options {
    pub(crate) fn parse(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<(String, Self), String> {
        let work = arguments.next().ok_or("what is to be done?")?;
        let mut named = BTreeMap::new();
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix("--").ok_or(format!("not an option: {argument}"))?;
            let value = arguments.next().ok_or(format!("--{name} needs a value"))?;
            named.insert(name.to_owned(), value);
        }
        Ok((work, Self(named)))
    }

    pub(crate) fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).map_or(default, String::as_str)
    }

    pub(crate) fn number<N: FromStr>(&self, name: &str, default: N) -> io::Result<N> {
        let refused = || io::Error::other(format!("--{name}: not a number"));
        self.0.get(name).map_or(Ok(default), |text| text.parse().map_err(|_| refused()))
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        self.number("port", 110)
    }

    pub(crate) fn seconds(&self) -> io::Result<Duration> {
        self.number("seconds", 3.0).map(Duration::from_secs_f64)
    }
}
