//! What an admin wants to know of the certificates before a client does.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::certificates::{self, Pair};
use crate::settings::{CertificateFiles, Settings};

/// An expiry that is nearer than this deserves a warning.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

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
}

/// Looks at the certificates that sessions with these settings would use.
#[must_use]
pub fn report(settings: &Settings) -> Report {
    let mut report = Report::default();
    let unit = unit();
    let credentials = credentials(&text_of(unit));
    let files = match certificates::find(settings, None) {
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
        if left(&pair) < SOON {
            report.warnings.push(format!("{path}: certificate expires in {days} days"));
        } else {
            report.usable.push(format!("{path}: certificate usable for {days} days"));
        }
    }
    report
}

/// How long `pair` is still valid.
fn left(pair: &Pair) -> Duration {
    pair.expires.duration_since(SystemTime::now()).unwrap_or_default()
}

/// The unit that sessions get their credentials from on this host.
fn unit() -> &'static str {
    let asked = |question| {
        let status = Command::new("systemctl").args(["--quiet", question, LISTENER]).status();
        status.is_ok_and(|status| status.success())
    };
    if asked("is-active") || asked("is-enabled") { LISTENER } else { SESSION }
}

/// The text of a unit with its drop-ins; none where systemd does not know it.
fn text_of(unit: &str) -> String {
    let output = Command::new("systemctl").args(["cat", "--no-pager", unit]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// The pairs that LoadCredential= passes (systemd.exec(5)), in the order of their names.
fn credentials(unit: &str) -> Vec<CertificateFiles> {
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
    use std::path::Path;

    use super::*;

    #[test]
    fn credentials_are_found_in_drop_ins() {
        let unit = "[Service]\nLoadCredential=popa3d.crt:/old\nLoadCredential=\n\
            # /etc/systemd/system/popa3d@.service.d/certificate.conf\n[Service]\n\
            LoadCredential=z.crt:/z/fullchain.pem\nLoadCredential = z.key:/z/privkey.pem \n\
            LoadCredential=popa3d.crt:/a/fullchain.pem\nLoadCredential=popa3d.key:/a/privkey.pem\n";
        let found = credentials(unit);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].chain, Path::new("/a/fullchain.pem"));
        assert_eq!(found[1].key, Path::new("/z/privkey.pem"));
    }

    #[test]
    fn unit_without_credentials_has_none() {
        assert!(credentials("[Service]\nExecStart=/usr/sbin/popa3d\n").is_empty());
    }
}
