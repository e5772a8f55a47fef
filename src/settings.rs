//! `/etc/popa3d.toml`: what an admin can set, see popa3d.toml(5). Read by the monitor of a
//! super-server's session, the listener for all of its own, and commands.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::channel::NameIn;

mod lists;
mod networks;
mod numbers;

pub use networks::Networks;
pub use numbers::{Count, Size, Span, duration};

/// Where the settings are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `/etc/popa3d.toml`, which need not exist.
    Usual,
    /// A file that was named, and so has to be there.
    File(PathBuf),
}

impl Place {
    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Usual => Path::new("/etc/popa3d.toml"),
            Self::File(path) => path,
        }
    }
}

/// RFC 1939 section 3 wants an idle client to have at least ten minutes.
const RFC_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// All settings; each has a default that is safe.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Where mailboxes are: `{user}` and `{home}` stand for the user's name and home directory.
    pub mailbox: Template,
    /// A mailbox with more messages is not served. It bounds the worker's memory.
    pub max_messages: Count<2_000_000_000>,
    /// A larger mailbox, in octets on disk, is not served.
    pub max_mailbox_size: Size,
    /// From whom a password is taken that comes without encryption.
    pub plaintext_login: PlaintextLogin,
    /// Certificates to show; `None` for the unit's credentials or Debian's own pair, and an empty
    /// list for no TLS.
    #[serde(deserialize_with = "lists::certificates")]
    pub certificates: Option<Vec<CertificateFiles>>,
    /// Who may log in with a certificate (AUTH EXTERNAL); nobody by default.
    pub client_certificates: Option<ClientCertificates>,
    /// Which clients are proxies, that say in a PROXY header whose connection they pass on.
    pub proxies: Networks,
    /// A TLS handshake, or a PROXY header, that takes longer ends the session.
    pub handshake_timeout: Span<1>,
    /// After so many failed logins the connection is closed.
    pub login_attempts: Count<100>,
    /// A client that says nothing, or reads next to nothing, for so long is dropped.
    pub idle_timeout: Span<1>,
    /// Who has not logged in so long after the connection began is dropped.
    pub login_timeout: Span<1>,
    /// Longest delay of the logins of a source that failed to log in before; none when zero.
    pub login_delay_max: Span<0>,
    /// A refused login is answered this long after PASS, or later if PAM wants so.
    pub failure_delay: Span<0>,
    /// A PAM stack that takes longer to answer ends the session.
    pub pam_timeout: Span<1>,
    /// How long to wait for programs that hold the mailbox's locks.
    pub lock_timeout: Span<0>,
    /// How long a login waits for another session of the same user.
    pub session_wait: Span<0>,
    /// Where the listener (`-D`) accepts connections; those to which TLS may come later …
    #[serde(deserialize_with = "lists::addresses")]
    pub listen: Vec<SocketAddr>,
    /// … and those that begin with TLS, as long as there is a certificate.
    #[serde(deserialize_with = "lists::addresses")]
    pub listen_tls: Vec<SocketAddr>,
    /// The listener serves no more clients at once.
    pub max_sessions: Count<100_000>,
    /// Nor more of one source.
    pub max_sessions_per_source: Count<100_000>,
    /// Nor more that have not logged in.
    pub max_unauthenticated: Count<100_000>,
    /// A session counts for its source at least so long.
    pub session_slot: Span<0>,
    /// Whether to make `MAILBOX.lock` besides the fcntl lock.
    pub dotlock: bool,
    /// Age from which a dotlock that names no process counts as left behind.
    pub dotlock_stale_after: Span<1>,
    /// Whether the journal is told of each message that is removed.
    pub log_expunged: bool,
    /// How long what UPDATE removes is kept for `popa3d --undelete`; not at all when zero.
    pub keep_deleted: Span<0>,
    /// How much of it is kept for each user.
    pub keep_deleted_size: Size,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mailbox: Template("/var/mail/{user}".to_owned()),
            max_messages: Count(2_097_152),
            max_mailbox_size: Size(None),
            plaintext_login: PlaintextLogin::Loopback,
            certificates: None,
            client_certificates: None,
            proxies: Networks::default(),
            handshake_timeout: Span(Duration::from_secs(30)),
            login_attempts: Count(3),
            idle_timeout: Span(RFC_IDLE_TIMEOUT),
            login_timeout: Span(Duration::from_secs(60)),
            login_delay_max: Span(Duration::from_secs(15)),
            failure_delay: Span(Duration::from_secs(1)),
            pam_timeout: Span(Duration::from_secs(60)),
            lock_timeout: Span(Duration::from_secs(10)),
            session_wait: Span(Duration::from_secs(10)),
            listen: vec![(Ipv6Addr::UNSPECIFIED, 110).into()],
            listen_tls: vec![(Ipv6Addr::UNSPECIFIED, 995).into()],
            max_sessions: Count(500),
            max_sessions_per_source: Count(50),
            max_unauthenticated: Count(250),
            session_slot: Span(Duration::from_secs(10)),
            dotlock: true,
            dotlock_stale_after: Span(Duration::from_secs(600)),
            log_expunged: true,
            keep_deleted: Span(Duration::ZERO),
            keep_deleted_size: Size(Some(100 << 20)),
        }
    }
}

impl Settings {
    /// Reads the settings; without a file at the usual place the defaults hold.
    ///
    /// # Errors
    ///
    /// Says what is wrong, with file and line.
    pub fn load(place: &Place) -> Result<Self, Error> {
        let path = place.path();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|(line, message)| Error::Invalid {
                path: path.to_owned(),
                line,
                message,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && *place == Place::Usual => {
                Ok(Self::default())
            }
            Err(source) => Err(Error::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// Whether a peer with this address and port is a proxy; one that is not on a network is none.
    #[must_use]
    pub fn is_proxy(&self, peer: Option<(IpAddr, u16)>) -> bool {
        peer.is_some_and(|(address, _)| self.proxies.contains(address))
    }

    /// What is allowed and yet worth a second thought.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.idle_timeout.0 < RFC_IDLE_TIMEOUT {
            warnings.push("idle-timeout: RFC 1939 wants at least \"10m\"".to_owned());
        }
        if self.plaintext_login == PlaintextLogin::Always {
            warnings.push(
                "plaintext-login = \"always\": whoever listens on the way reads passwords and mail"
                    .to_owned(),
            );
        }
        warnings.extend(self.proxies.unbounded().map(|network| {
            format!("proxies: {network} is everybody, and anybody in it can claim any address")
        }));
        if !self.dotlock {
            warnings.push(
                "dotlock = false: programs that lock with dotlocks alone are not kept away"
                    .to_owned(),
            );
        }
        warnings
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().get(..offset).unwrap_or_default();
            let line = 1 + memchr::memchr_iter(b'\n', before).count();
            (line, error.message().trim().replace('\n', ", "))
        })
    }
}

/// Why settings could not be used.
#[derive(Debug)]
pub enum Error {
    /// The file is there and cannot be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not say what it should.
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Which line of it, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Invalid { path, line, message } => {
                write!(f, "{}:{line}: {message}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Invalid { .. } => None,
        }
    }
}

/// From whom a password is taken that comes without encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaintextLogin {
    /// From nobody.
    Never,
    /// From clients on this very host.
    Loopback,
    /// From everybody.
    Always,
}

impl PlaintextLogin {
    /// Whether a client with this address may send its password without encryption; one that is
    /// not on a network has none.
    #[must_use]
    pub fn allows(self, client: Option<IpAddr>) -> bool {
        match self {
            Self::Never => false,
            Self::Loopback => client.is_none_or(|address| address.to_canonical().is_loopback()),
            Self::Always => true,
        }
    }
}

impl<'de> Deserialize<'de> for PlaintextLogin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = PlaintextLogin;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"never\", \"loopback\" or \"always\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PlaintextLogin, E> {
                match text {
                    "never" => Ok(PlaintextLogin::Never),
                    "loopback" => Ok(PlaintextLogin::Loopback),
                    "always" => Ok(PlaintextLogin::Always),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Where a certificate is; both files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "{ chain = \"/etc/ssl/mail.crt\", key = \"/etc/ssl/private/mail.key\" }"
)]
pub struct CertificateFiles {
    /// The certificate, and behind it those that lead to a root.
    #[serde(deserialize_with = "absolute")]
    pub chain: PathBuf,
    /// Its private key.
    #[serde(deserialize_with = "absolute")]
    pub key: PathBuf,
}

/// Which certificates of clients are accepted, and for whom they stand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificates {
    /// The authorities that issue them, in PEM.
    #[serde(deserialize_with = "absolute")]
    pub ca: PathBuf,
    /// Where in a certificate the user is named.
    pub user: NameIn,
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(D::Error::custom(format!("{:?} is not a path that begins with \"/\"", path.display())))
    }
}

/// A path with `{user}` and `{home}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// The path for one user.
    #[must_use]
    pub fn path(&self, user: &str, home: &Path) -> PathBuf {
        // `{home}` stands only at the beginning, so a home directory may be any sequence of octets.
        match self.0.strip_prefix("{home}") {
            Some(rest) => {
                let mut path = home.as_os_str().to_owned();
                path.push(rest.replace("{user}", user));
                path.into()
            }
            None => self.0.replace("{user}", user).into(),
        }
    }
}

/// Where mailboxes are, as far as that is the same for all users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spool<'a> {
    /// All of them in this directory.
    Directory(&'a Path),
    /// Somewhere below this one, which is another for each user.
    Below(&'a Path),
    /// In homes.
    Homes,
}

impl Template {
    /// Where the mailboxes of all users are.
    #[must_use]
    pub fn spool(&self) -> Spool<'_> {
        if self.0.starts_with("{home}") {
            return Spool::Homes;
        }
        let fixed = self.0.split('{').next().unwrap_or_default();
        let directory = fixed.rsplit_once('/').map_or("/", |(directory, _)| directory);
        let directory = Path::new(if directory.is_empty() { "/" } else { directory });
        if Path::new(&self.0).parent() == Some(directory) {
            Spool::Directory(directory)
        } else {
            Spool::Below(directory)
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let rest = text.strip_prefix("{home}").unwrap_or(&text);
        let literal = rest.replace("{user}", "");
        if !rest.starts_with('/') {
            Err(D::Error::custom("a mailbox begins with \"/\" or with \"{home}/\""))
        } else if literal.contains(['{', '}']) {
            Err(D::Error::custom(
                "a mailbox may contain {user}, and {home} at its beginning, and no other braces",
            ))
        } else if rest.len() == text.len() && !rest.contains("{user}") {
            Err(D::Error::custom("without {user} or {home} all users would share one mailbox"))
        } else {
            Ok(Self(text))
        }
    }
}

#[cfg(test)]
mod tests;
