use super::*;

#[test]
fn empty_file_means_the_defaults() {
    assert_eq!(Settings::parse(""), Ok(Settings::default()));
}

#[test]
fn each_key_is_read() {
    let text = "mailbox = \"{home}/Mailbox\"\nmax-messages = 5\nmax-mailbox-size = \"2G\"\n\
        login-attempts = 1\nidle-timeout = \"20m\"\nfailure-delay = \"0s\"\n\
        pam-timeout = \"5s\"\nlock-timeout = \"1m\"\nsession-wait = \"3s\"\ndotlock = false\n\
        dotlock-stale-after = \"1h\"\nplaintext-login = \"never\"\nhandshake-timeout = \"9s\"\n\
        certificates = [{ chain = \"/a.crt\", key = \"/a.key\" }]\n\
        login-timeout = \"8s\"\nlogin-delay-max = \"0s\"\n\
        proxies = [\"192.0.2.10\", \"2001:db8:1::/64\"]\n";
    let settings = Settings::parse(text).unwrap();
    assert_eq!(settings.mailbox.path("alice", Path::new("/h")), Path::new("/h/Mailbox"));
    assert_eq!(settings.max_messages, Count(5));
    assert_eq!(settings.max_mailbox_size, Size(Some(2 << 30)));
    assert_eq!(settings.lock_timeout, Span(Duration::from_secs(60)));
    assert_eq!(settings.dotlock_stale_after, Span(Duration::from_secs(3600)));
    assert!(!settings.dotlock);
    assert_eq!(settings.plaintext_login, PlaintextLogin::Never);
    assert_eq!(settings.handshake_timeout, Span(Duration::from_secs(9)));
    assert!(settings.proxies.contains("2001:db8:1::5".parse().unwrap()));
    assert_eq!(settings.login_timeout, Span(Duration::from_secs(8)));
    assert_eq!(settings.login_delay_max, Span(Duration::ZERO));
    assert_eq!(settings.certificates.unwrap()[0].key, Path::new("/a.key"));
}

#[test]
fn mistake_is_named_with_its_line() {
    let line_of = |text| Settings::parse(text).map_err(|(line, _)| line);
    assert_eq!(line_of("dotlock = true\n\nidle-timeuot = \"1m\"\n"), Err(3));
    assert_eq!(line_of("# note\nidle-timeout = 600\n"), Err(2));
    assert_eq!(line_of("\nlogin-attempts = 0\n"), Err(2));
    assert_eq!(line_of("max-mailbox-size = \"2X\"\n"), Err(1));
    assert_eq!(line_of("dotlock = yes\n"), Err(1));
    assert_eq!(line_of("pam-timeout = \"0s\"\n"), Err(1));
    assert_eq!(line_of("\nproxies = [\n  \"192.0.2.10\",\n  \"192.0.2.1/24\",\n]\n"), Err(2));
    assert_eq!(line_of("\nproxies = \"192.0.2.10\"\n"), Err(2));
    assert_eq!(line_of("login-timeout = \"0s\"\n"), Err(1));
}

#[test]
fn mistake_is_told_with_what_is_wanted() {
    let files = "{ chain = \"/etc/ssl/mail.crt\", key = \"/etc/ssl/private/mail.key\" }";
    for (text, wanted) in [
        ("plaintext-login = true", "expected \"never\", \"loopback\" or \"always\""),
        ("plaintext-login = \"yes\"", "expected \"never\", \"loopback\" or \"always\""),
        ("certificates = [\"x\"]", &format!("expected {files}")),
        ("certificates = \"x\"", &format!("expected a list such as [{files}]")),
        ("listen = [\"110\"]", "\"110\" is no address with a port such as \"[::]:110\""),
        ("listen-tls = 995", "expected a list such as [\"[::]:110\"]"),
        ("idle-timeout = 600", "expected a duration such as \"90s\""),
        ("idle-timeout = \"600\"", "\"600\" is not a duration such as \"90s\""),
    ] {
        let (_, message) = Settings::parse(text).unwrap_err();
        assert!(message.contains(wanted), "{text}: {message}");
    }
    let text = "listen = [\"127.0.0.1:110\", \"[::1]:110\"]\nlisten-tls = []";
    let settings = Settings::parse(text).unwrap();
    assert_eq!((settings.listen.len(), settings.listen_tls.len()), (2, 0));
}

#[test]
fn loopback_is_this_very_host_and_nothing_near_it() {
    let allows = |address: &str| PlaintextLogin::Loopback.allows(address.parse().ok());
    for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert!(allows(address), "{address}");
    }
    for address in ["128.0.0.1", "10.0.0.1", "fe80::1", "::", "0.0.0.0", "::127.0.0.1"] {
        assert!(!allows(address), "{address}");
    }
    assert!(PlaintextLogin::Loopback.allows(None));
    assert!(!PlaintextLogin::Never.allows(None));
}

#[test]
fn certificate_has_two_absolute_paths() {
    assert!(Settings::parse("certificates = []").unwrap().certificates.unwrap().is_empty());
    assert!(Settings::parse("certificates = [{ chain = \"/a\" }]").is_err());
    assert!(Settings::parse("certificates = [{ chain = \"a\", key = \"/b\" }]").is_err());
    assert!(Settings::parse("plaintext-login = \"yes\"").is_err());
}

#[test]
fn client_certificates_name_their_authority_and_rule() {
    let text = "client-certificates = { ca = \"/ca.pem\", user = \"common-name\" }";
    let clients = Settings::parse(text).unwrap().client_certificates.unwrap();
    assert_eq!((clients.ca, clients.user), ("/ca.pem".into(), NameIn::CommonName));
    assert!(Settings::parse("client-certificates = { ca = \"/ca.pem\" }").is_err());
}

#[test]
fn unknown_key_is_named() {
    let (_, message) = Settings::parse("maibox = \"x\"\n").unwrap_err();
    assert!(message.contains("maibox"), "{message}");
}

#[test]
fn mailbox_that_all_users_would_share_is_refused() {
    assert!(Settings::parse("mailbox = \"/var/mail/all\"").is_err());
    assert!(Settings::parse("mailbox = \"mail/{user}\"").is_err());
    assert!(Settings::parse("mailbox = \"/m/{usr}\"").is_err());
    assert!(Settings::parse("mailbox = \"/m/{user}/{home}\"").is_err());
}

#[test]
fn proxies_that_are_everybody_deserve_a_warning() {
    let warnings = |text| Settings::parse(text).unwrap().warnings();
    assert_eq!(warnings("proxies = [\"192.0.2.0/24\", \"::/1\"]"), [""; 0]);
    let found = warnings("proxies = [\"::1\", \"0.0.0.0/0\", \"::/0\"]");
    assert_eq!(found.len(), 2);
    assert!(found[0].contains("0.0.0.0/0") && found[1].contains("::/0"), "{found:?}");
}
