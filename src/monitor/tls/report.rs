//! What an admin wants to know of the certificates before a client does.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::certificates::{self, Pair};
use crate::event::printable;
use crate::settings::{CertificateFiles, Settings};

/// An expiry that is nearer than this deserves a warning.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Of a key: others than its owner and its group can read it.
const READABLE_BY_ALL: u32 = 0o004;

/// A certificate may be for hundreds.
const MOST_NAMES: usize = 3;

/// The units that credentials may be configured in: one for each connection …
const SESSION: &str = "popa3d@.service";
/// … or one for all, where that is the one in use.
const LISTENER: &str = "popa3d.service";

/// Findings, a line each.
#[derive(Debug, Default)]
pub struct Report {
    /// What will be shown to clients.
    pub usable: Vec<String>,
    /// What will not for long, or that there is none.
    pub warnings: Vec<String>,
    /// What cannot be used at all.
    pub mistakes: Vec<String>,
    /// Files that only root can read.
    pub unseen: Vec<String>,
}

/// Looks at the certificates that sessions with these settings would use.
#[must_use]
pub fn report(settings: &Settings) -> Report {
    let mut report = Report::default();
    let unit = unit();
    let loaded = text_of(unit);
    let loaded = loaded_by(&loaded);
    for (_, path) in loaded.iter().filter(|(_, path)| is_missing(path)) {
        report.mistakes.push(format!(
            "{}: it is not there, and without it systemd starts no session: LoadCredential= in {unit} \
             names it; run: systemctl edit {unit}",
            path.display()
        ));
    }
    let credentials = pairs(&loaded);
    let mut files = match certificates::find(settings, None) {
        Ok(files) if settings.certificates.is_some() || credentials.is_empty() => files,
        Ok(_) => credentials,
        Err(error) => {
            report.mistakes.push(format!("certificates: {error}"));
            Vec::new()
        }
    };
    if files.is_empty() && settings.certificates.is_none() {
        report.warnings.push(format!(
            "no certificate: TLS is not offered; install ssl-cert, or set certificates, or \
             LoadCredential= in {unit}"
        ));
    }
    files.retain(|files| {
        let hidden = [&files.chain, &files.key].into_iter().find(|path| is_hidden(path));
        report.unseen.extend(hidden.map(|path| path.display().to_string()));
        let is_named = |path: &Path| loaded.iter().any(|(_, named)| named == path);
        let is_reported =
            |path: &Path| settings.certificates.is_none() && is_named(path) && is_missing(path);
        hidden.is_none() && !is_reported(&files.chain) && !is_reported(&files.key)
    });
    let (usable, unusable) = certificates::load(&files);
    let unusable = unusable.iter().map(|trouble| format!("certificate cannot be used: {trouble}"));
    report.mistakes.extend(unusable);
    if let Some(clients) = &settings.client_certificates {
        if let Err(trouble) = certificates::authorities(&clients.ca) {
            report.mistakes.push(format!("client-certificates cannot be used: {trouble}"));
        }
    }
    for pair in usable {
        let path = pair.files.chain.display();
        let days = left(&pair).as_secs() / 86_400;
        let names = names(&pair);
        if left(&pair) < SOON {
            report.warnings.push(format!(
                "{path}: certificate expires in {days} days{names}; renew it (certbot renew, if that made it)"
            ));
        } else {
            report.usable.push(format!("{path}: certificate usable for {days} days{names}"));
        }
        let key = pair.files.key.display();
        if std::fs::metadata(&pair.files.key).is_ok_and(|found| found.mode() & READABLE_BY_ALL != 0)
        {
            report
                .warnings
                .push(format!("{key}: every user can read this key; run: chmod o= {key}"));
        }
    }
    report
}

/// The hosts that a certificate is for, as far as a line has room for them.
fn names(pair: &Pair) -> String {
    let Some(first) = pair.certificate.chain.first() else { return String::new() };
    let first = CertificateDer::from(first.as_slice());
    let Ok(parsed) = webpki::EndEntityCert::try_from(&first) else { return String::new() };
    let names: Vec<_> = parsed.valid_dns_names().map(|name| printable(name.as_bytes())).collect();
    match names.as_slice() {
        [] => ", for no host".to_owned(),
        few if few.len() <= MOST_NAMES => format!(", for {}", few.join(", ")),
        [first, others @ ..] => format!(", for {first} and {} more", others.len()),
    }
}

fn is_missing(path: &Path) -> bool {
    path.is_absolute()
        && std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Root sees everything.
fn is_hidden(path: &Path) -> bool {
    File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// How long `pair` is still valid.
fn left(pair: &Pair) -> Duration {
    pair.expires.duration_since(SystemTime::now()).unwrap_or_default()
}

/// The unit that sessions get their credentials from on this host.
fn unit() -> &'static str {
    let asked = |question| {
        let asked = Command::new("systemctl").args(["--quiet", question, LISTENER]).output();
        asked.is_ok_and(|asked| asked.status.success())
    };
    if asked("is-active") || asked("is-enabled") { LISTENER } else { SESSION }
}

/// The text of a unit with its drop-ins; none where systemd does not know it.
fn text_of(unit: &str) -> String {
    let output = Command::new("systemctl").args(["cat", "--no-pager", unit]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// What LoadCredential= passes (systemd.exec(5)), under which names.
fn loaded_by(unit: &str) -> Vec<(&str, PathBuf)> {
    let mut loaded: Vec<(&str, PathBuf)> = Vec::new();
    for line in unit.lines() {
        // There may be spaces around the sign (systemd.syntax(7)).
        let Some((key, value)) = line.split_once('=') else { continue };
        if key.trim() != "LoadCredential" {
            continue;
        }
        match value.trim().split_once(':') {
            Some((name, path)) => loaded.push((name, path.into())),
            // An empty assignment takes back those before it.
            None => loaded.clear(),
        }
    }
    loaded
}

/// The pairs of certificate and key among credentials, in the order of their names.
fn pairs(loaded: &[(&str, PathBuf)]) -> Vec<CertificateFiles> {
    let key_of = |chain: &str| {
        let name = format!("{chain}.key");
        loaded.iter().find(|(other, _)| *other == name).map(|(_, path)| path.clone())
    };
    let mut pairs: Vec<_> = loaded
        .iter()
        .filter_map(|(name, chain)| {
            let stem = name.strip_suffix(".crt")?;
            let key = key_of(stem).unwrap_or_else(|| chain.with_extension("key"));
            Some((stem, CertificateFiles { chain: chain.clone(), key }))
        })
        .collect();
    pairs.sort_unstable_by(|one, other| one.0.cmp(other.0));
    pairs.into_iter().map(|(_, files)| files).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_in_drop_ins() {
        let unit = "[Service]\nLoadCredential=popa3d.crt:/old\nLoadCredential=\n\
            # /etc/systemd/system/popa3d@.service.d/certificate.conf\n[Service]\n\
            LoadCredential=z.crt:/z/fullchain.pem\nLoadCredential = z.key:/z/privkey.pem \n\
            LoadCredential=popa3d.crt:/a/fullchain.pem\nLoadCredential=popa3d.key:/a/privkey.pem\n";
        let found = pairs(&loaded_by(unit));
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].chain, Path::new("/a/fullchain.pem"));
        assert_eq!(found[1].key, Path::new("/z/privkey.pem"));
    }

    #[test]
    fn unit_without_credentials_has_none() {
        assert!(loaded_by("[Service]\nExecStart=/usr/sbin/popa3d\n").is_empty());
    }
}
