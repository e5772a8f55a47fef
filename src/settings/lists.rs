//! Lists, whose mistakes are told with an example of what is wanted.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::CertificateFiles;

/// Reads addresses with their ports.
pub(super) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    let texts: Vec<String> = deserializer.deserialize_seq(List::of("[\"[::]:110\"]"))?;
    let address = |text: &String| {
        let wanted = "\"[::]:110\" or \"192.0.2.10:110\"";
        let wrong =
            |_| D::Error::custom(format!("{text:?} is no address with a port such as {wanted}"));
        text.parse().map_err(wrong)
    };
    texts.iter().map(address).collect()
}

/// Reads where certificates are.
pub(super) fn certificates<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<CertificateFiles>>, D::Error> {
    let example = "[{ chain = \"/etc/ssl/mail.crt\", key = \"/etc/ssl/private/mail.key\" }]";
    deserializer.deserialize_seq(List::of(example)).map(Some)
}

struct List<T> {
    example: &'static str,
    of: PhantomData<T>,
}

impl<T> List<T> {
    fn of(example: &'static str) -> Self {
        Self { example, of: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list such as {}", self.example)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(element) = elements.next_element()? {
            all.push(element);
        }
        Ok(all)
    }
}
