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
    let text = text_of(unit);
    let loaded = loaded_by(&text);
    for (_, path) in loaded.iter().filter(|(_, path)| is_missing(path)) {
        report.mistakes.push(format!(
            "{}: it is not there, and without it systemd starts no session: LoadCredential= in {unit} \
             names it; run: systemctl edit {unit}",
            path.display()
        ));
    }
    let (credentials, keyless) = pairs(&loaded, &text);
    if settings.certificates.is_none() {
        let restart = if unit == LISTENER { "; then restart it" } else { "" };
        report.mistakes.extend(keyless.iter().map(|name| {
            format!(
                "{name}.crt: there is no credential {name}.key for it, and without it no TLS; run: systemctl \
                 edit {unit} and have it say [Service], LoadCredential={name}.key: with the path of the key \
                 behind it{restart}"
            )
        }));
    }
    let mut files = match certificates::find(settings, None) {
        Ok(files) if settings.certificates.is_some() => files,
        // Where there is a credential, Debian's own pair is not shown.
        Ok(files) if credentials.is_empty() && keyless.is_empty() => files,
        Ok(_) => credentials,
        Err(error) => {
            report.mistakes.push(format!("certificates: {error}"));
            Vec::new()
        }
    };
    if files.is_empty() && keyless.is_empty() && settings.certificates.is_none() {
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

/// The pairs of certificate and key among credentials, in the order of their names, and the names of the
/// certificates without a key.
fn pairs<'a>(loaded: &[(&'a str, PathBuf)], unit: &str) -> (Vec<CertificateFiles>, Vec<&'a str>) {
    let (mut pairs, mut keyless) = (Vec::new(), Vec::new());
    for (name, chain) in loaded {
        let Some(stem) = name.strip_suffix(".crt") else { continue };
        let wanted = format!("{stem}.key");
        match loaded.iter().find(|(other, _)| *other == wanted) {
            Some((_, key)) => {
                pairs.push((stem, CertificateFiles { chain: chain.clone(), key: key.clone() }));
            }
            None if may_have(unit, &wanted) => {
                let key = chain.with_extension("key");
                pairs.push((stem, CertificateFiles { chain: chain.clone(), key }));
            }
            None => keyless.push(stem),
        }
    }
    pairs.sort_unstable_by(|one, other| one.0.cmp(other.0));
    (pairs.into_iter().map(|(_, files)| files).collect(), keyless)
}

/// Whether a credential of this name comes in a way that is not followed here (systemd.exec(5)).
fn may_have(unit: &str, name: &str) -> bool {
    unit.lines().filter_map(|line| line.split_once('=')).any(|(key, value)| match key.trim() {
        "LoadCredentialEncrypted" | "SetCredential" | "SetCredentialEncrypted" => {
            value.trim().split(':').next() == Some(name)
        }
        // It may be given by the name alone, too.
        "LoadCredential" => value.trim() == name,
        "ImportCredential" => true,
        _ => false,
    })
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
        let (found, keyless) = pairs(&loaded_by(unit), unit);
        assert_eq!((found.len(), keyless.len()), (2, 0));
        assert_eq!(found[0].chain, Path::new("/a/fullchain.pem"));
        assert_eq!(found[1].key, Path::new("/z/privkey.pem"));
    }

    #[test]
    fn certificate_whose_key_is_called_otherwise_has_none() {
        let unit = "[Service]\nLoadCredential=popa3d.crt:/a/mail.crt\nLoadCredential=popa3.key:/a/mail.key\n";
        assert_eq!(pairs(&loaded_by(unit), unit), (Vec::new(), vec!["popa3d"]));
        for other in
            ["LoadCredentialEncrypted=popa3d.key:/a/mail.cred", "ImportCredential=popa3d.*"]
        {
            let unit = format!("{unit}{other}\n");
            let (found, keyless) = pairs(&loaded_by(&unit), &unit);
            assert_eq!((found.len(), keyless.len()), (1, 0), "{other}");
        }
    }

    #[test]
    fn unit_without_credentials_has_none() {
        assert!(loaded_by("[Service]\nExecStart=/usr/sbin/popa3d\n").is_empty());
    }
}
