use super::checksum::Crc32c;
use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// 192.0.2.7:51822 to 198.51.100.1:110, and 2001:db8::7 to 2001:db8::1 with the same ports.
const IPV4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xca, 0x6e, 0, 110];
const IPV6: &[u8] = &[
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 1, 0xca, 0x6e, 0, 110,
];

fn client(address: &str) -> Option<(IpAddr, u16)> {
    Some((address.parse().unwrap(), 51822))
}

fn from(address: &str) -> Result<Header, Malformed> {
    Ok(Header { client: client(address), tls: None })
}

/// A header of version 2.
fn binary(command: u8, family: u8, parts: &[&[u8]]) -> Vec<u8> {
    let rest = parts.concat();
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, &rest].concat()
}

fn over_ipv4(values: &[&[u8]]) -> Vec<u8> {
    binary(0x21, 0x11, &[IPV4, &values.concat()])
}

fn value(kind: u8, octets: &[u8]) -> Vec<u8> {
    let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], octets].concat()
}

fn ssl(flags: u8, values: &[&[u8]]) -> Vec<u8> {
    value(0x20, &[&[flags, 0, 0, 0, 1], values.concat().as_slice()].concat())
}

/// Puts the checksum into the place that holds `0xeeeeeeee`.
fn with_checksum(mut header: Vec<u8>) -> Vec<u8> {
    let at = header.windows(4).position(|four| four == [0xee; 4]).unwrap();
    header[at..at + 4].fill(0);
    let mut checksum = Crc32c::default();
    checksum.update(&header);
    header[at..at + 4].copy_from_slice(&checksum.finish().to_be_bytes());
    header
}

/// Headers of every kind that are as they should be.
fn samples() -> Vec<Vec<u8>> {
    let version = value(0x21, b"TLSv1.3");
    let cipher = value(0x23, b"TLS_AES_256_GCM_SHA384");
    let mut samples: Vec<Vec<u8>> = [
        "PROXY TCP4 192.0.2.7 198.51.100.1 51822 110\r\n",
        "PROXY TCP6 2001:db8::7 2001:db8::1 51822 110\r\n",
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
         ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
    ]
    .map(|line| line.as_bytes().to_vec())
    .into();
    samples.extend([
        binary(0x20, 0x00, &[]),
        binary(0x21, 0x00, &[]),
        binary(0x21, 0x11, &[IPV4]),
        binary(0x21, 0x21, &[IPV6]),
        binary(0x21, 0x21, &[IPV6, &ssl(7, &[&version, &value(0x22, b"alice"), &cipher])]),
        with_checksum(over_ipv4(&[&value(4, &[0; 9]), &value(3, &[0xee; 4]), &value(2, b"pop")])),
    ]);
    samples
}

/// Reads one as the worker does.
fn read(octets: &[u8]) -> Result<Header, Malformed> {
    parse(&octets[..length(octets)?.ok_or(Malformed("unfinished"))?])
}

#[test]
fn header_is_the_same_with_whatever_behind_it() {
    for sample in samples() {
        let header = read(&sample).unwrap();
        for behind in [&b"\x16\x03\x01"[..], b"USER alice\r\n", b"\n", SIGNATURE] {
            let octets = [&sample, behind].concat();
            assert_eq!(length(&octets), Ok(Some(sample.len())), "{sample:?}");
            assert_eq!(read(&octets).as_ref(), Ok(&header));
        }
    }
}

#[test]
fn part_of_a_header_is_nothing_but_a_part() {
    for sample in samples() {
        for cut in 0..sample.len() {
            let part = &sample[..cut];
            match length(part) {
                Ok(None) => {}
                Ok(Some(length)) => assert_eq!(length, sample.len()),
                Err(error) => panic!("{part:?}: {error}"),
            }
            assert!(parse(part).is_err(), "{part:?}");
        }
    }
}

#[test]
fn what_cannot_become_a_header_is_refused_with_the_octet_that_shows_it() {
    for sample in samples() {
        let fixed = if sample[0] == b'P' { 6 } else { 13 };
        for at in 0..fixed {
            let mut octets = sample[..=at].to_vec();
            octets[at] ^= 0x40;
            assert!(length(&octets).is_err(), "{octets:?}");
        }
    }
    for octets in [&b"U"[..], b"\x16", b"\n", b"p", b"\0", b"PROXY\t", b"\r\nQ"] {
        assert_eq!(length(octets), Err(NO_HEADER));
    }
}

#[test]
fn line_names_the_client() {
    let line = |text: &str| read(text.as_bytes());
    assert_eq!(line("PROXY TCP4 192.0.2.7 198.51.100.1 51822 110\r\n"), from("192.0.2.7"));
    assert_eq!(line("PROXY TCP6 2001:DB8:0::7 ::1 51822 0\r\n"), from("2001:db8::7"));
    // As HAProxy writes it when only one end has IPv4.
    assert_eq!(line("PROXY TCP6 ::ffff:192.0.2.7 ::1 51822 1\r\n"), from("::ffff:192.0.2.7"));
    assert_eq!(line("PROXY TCP4 0.0.0.0 255.255.255.255 51822 65535\r\n"), from("0.0.0.0"));
}

#[test]
fn line_of_unknown_origin_is_the_proxys_own_whatever_else_it_says() {
    for rest in ["", " ", " TCP4 1.2.3.4", " \0\u{ff} x  y", " 1 2 3 4 5 6 7 8 9"] {
        let line = format!("PROXY UNKNOWN{rest}\r\n");
        assert_eq!(read(line.as_bytes()), Ok(Header::LOCAL), "{line:?}");
    }
}

#[test]
fn line_that_is_not_exact_is_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY  TCP4 192.0.2.7 198.51.100.1 51822 110\r\n",
        "PROXY TCP4 192.0.2.7  198.51.100.1 51822 110\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 51822 110 \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 51822 110 1\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 51822\r\n",
        "PROXY TCP4\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 51822 110\r\n",
        "PROXY tcp4 192.0.2.7 198.51.100.1 51822 110\r\n",
        "PROXY TCP5 192.0.2.7 198.51.100.1 51822 110\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY unknown\r\n",
        // Line ends.
        "PROXY TCP4 192.0.2.7 198.51.100.1 51822 110\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 51822 110\r\r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN \r \r\n",
        // Addresses.
        "PROXY TCP4 192.0.2.07 198.51.100.1 51822 110\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 51822 110\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 51822 110\r\n",
        "PROXY TCP4 0xc0.0.2.7 198.51.100.1 51822 110\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.x 51822 110\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 51822 110\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 51822 110\r\n",
        "PROXY TCP6 2001:db8::7 198.51.100.1 51822 110\r\n",
        "PROXY TCP6 2001:db8::7::1 2001:db8::1 51822 110\r\n",
        "PROXY TCP6 fe80::1%eth0 2001:db8::1 51822 110\r\n",
        "PROXY TCP6 [2001:db8::7] 2001:db8::1 51822 110\r\n",
        // Ports.
        "PROXY TCP4 192.0.2.7 198.51.100.1 051822 110\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 110\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +1 110\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 -1 110\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 00\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 x\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 \r\n",
    ] {
        assert!(read(line.as_bytes()).is_err(), "{line:?}");
    }
}

#[test]
fn line_has_107_octets_at_most() {
    let line = |length: usize| format!("PROXY UNKNOWN {:x<1$}\r\n", "", length - 16).into_bytes();
    assert_eq!(line(107).len(), 107);
    assert_eq!(read(&line(107)), Ok(Header::LOCAL));
    assert!(length(&line(108)).is_err());
    assert_eq!(length(&[b"PROXY ", [b'x'; 100].as_slice()].concat()), Ok(None));
    assert!(length(&[b"PROXY ", [b'x'; 101].as_slice()].concat()).is_err());
}

#[test]
fn binary_header_names_the_client() {
    assert_eq!(read(&binary(0x21, 0x11, &[IPV4])), from("192.0.2.7"));
    assert_eq!(read(&binary(0x21, 0x21, &[IPV6])), from("2001:db8::7"));
}

#[test]
fn binary_header_without_an_origin_is_the_proxys_own_whatever_else_it_says() {
    let encrypted = ssl(1, &[]);
    for rest in [&[][..], IPV4, IPV6, &[1, 0xff], &encrypted] {
        for header in [binary(0x20, 0x00, &[rest]), binary(0x21, 0x00, &[rest])] {
            assert_eq!(read(&header), Ok(Header::LOCAL));
        }
        // The family is ignored, one that there is not as well.
        for family in [0x11, 0x12, 0x21, 0x31, 0xff] {
            assert_eq!(read(&binary(0x20, family, &[rest])), Ok(Header::LOCAL));
        }
    }
}

#[test]
fn versions_and_commands_that_there_are_not_are_refused() {
    for octet in (0..=255).filter(|octet| !matches!(octet, 0x20 | 0x21)) {
        assert!(read(&binary(octet, 0x11, &[IPV4])).is_err(), "{octet:#x}");
        assert!(length(&[SIGNATURE, &[octet]].concat()).is_err(), "{octet:#x}");
    }
}

#[test]
fn families_other_than_tcp_are_refused() {
    let long = [0; 216];
    for octet in (0..=255).filter(|octet| !matches!(octet, 0x00 | 0x11 | 0x21)) {
        assert!(read(&binary(0x21, octet, &[&long])).is_err(), "{octet:#x}");
    }
}

#[test]
fn binary_header_that_is_too_short_for_its_addresses_is_refused() {
    for count in 0..IPV4.len() {
        assert!(read(&binary(0x21, 0x11, &[&IPV4[..count]])).is_err());
    }
    for count in 0..IPV6.len() {
        assert!(read(&binary(0x21, 0x21, &[&IPV6[..count]])).is_err());
    }
}

#[test]
fn binary_header_has_4096_octets_at_most() {
    let padded = |count: usize| over_ipv4(&[&value(4, &vec![0; count])]);
    assert_eq!(padded(MAX_HEADER - 31).len(), MAX_HEADER);
    assert_eq!(read(&padded(MAX_HEADER - 31)), from("192.0.2.7"));
    assert!(length(&padded(MAX_HEADER - 30)).is_err());
    assert!(length(&[SIGNATURE, &[0x20, 0, 0xff, 0xff]].concat()).is_err());
}

#[test]
fn values_of_other_kinds_are_passed_over() {
    let others: Vec<Vec<u8>> = [1, 2, 4, 5, 0x21, 0x23, 0x30, 0xe0, 0xea, 0xff]
        .into_iter()
        .flat_map(|kind| [value(kind, b"x"), value(kind, b"")])
        .collect();
    let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
    assert_eq!(read(&over_ipv4(&others)), from("192.0.2.7"));
}

#[test]
fn values_fill_their_room_exactly() {
    for rest in
        [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0xff, 0xff, 0], &[4, 0, 0, 4], &[4, 0, 1, 0, 4]]
    {
        assert!(read(&over_ipv4(&[rest])).is_err(), "{rest:?}");
        let inside = ssl(1, &[rest]);
        assert!(read(&over_ipv4(&[&inside])).is_err(), "{rest:?} inside");
    }
}

#[test]
fn tls_up_to_the_proxy_is_told() {
    let told =
        |flags, values: &[&[u8]]| Ok::<_, Malformed>(read(&over_ipv4(&[&ssl(flags, values)]))?.tls);
    let (version, suite) = (value(0x21, b"TLSv1.2"), value(0x23, b"ECDHE-RSA-AES128-GCM-SHA256"));
    let text = |text: &str| Some(text.to_owned());
    let both = Tls { version: text("TLSv1.2"), suite: text("ECDHE-RSA-AES128-GCM-SHA256") };
    assert_eq!(told(1, &[&version, &value(0x22, &[0xff; 300]), &suite]), Ok(Some(both)));
    assert_eq!(told(7, &[&version]), Ok(Some(Tls { version: text("TLSv1.2"), suite: None })));
    assert_eq!(told(1, &[]), Ok(Some(Tls::default())));
}

#[test]
fn connection_without_the_flag_of_tls_has_none_whatever_else_is_said() {
    for flags in [0, 2, 4, 6, 0xfe] {
        let octets = ssl(flags, &[&value(0x21, b"TLSv1.3")]);
        assert_eq!(read(&over_ipv4(&[&octets])), from("192.0.2.7"));
    }
    // Its values count inside it alone.
    assert_eq!(read(&over_ipv4(&[&value(0x21, b"TLSv1.3")])), from("192.0.2.7"));
}

#[test]
fn what_is_said_of_tls_is_short_printable_text() {
    for count in [1, MAX_TEXT] {
        let octets = ssl(1, &[&value(0x21, &vec![b'~'; count])]);
        assert!(read(&over_ipv4(&[&octets])).is_ok());
    }
    for text in [&b""[..], &[b'x'; MAX_TEXT + 1], b"TLS\n", b"\x7f", b"\0", "\u{f6}".as_bytes()] {
        for kind in [0x21, 0x23] {
            let octets = ssl(1, &[&value(kind, text)]);
            assert!(read(&over_ipv4(&[&octets])).is_err(), "{text:?}");
        }
    }
    for count in 0..5 {
        assert!(read(&over_ipv4(&[&value(0x20, &vec![1; count])])).is_err());
    }
}

#[test]
fn value_that_counts_is_there_once() {
    let version = value(0x21, b"TLSv1.3");
    let once = ssl(1, &[&version]);
    assert!(read(&over_ipv4(&[&once])).is_ok());
    assert!(read(&over_ipv4(&[&once, &once])).is_err());
    assert!(read(&over_ipv4(&[&ssl(1, &[&version, &version])])).is_err());
}

#[test]
fn checksum_is_verified_over_the_whole_header() {
    let header = with_checksum(over_ipv4(&[&value(3, &[0xee; 4]), &value(2, b"pop")]));
    assert_eq!(read(&header), from("192.0.2.7"));
    // The octet that makes it a checksum is left alone: with another one there is none.
    for at in (FIXED..header.len()).filter(|at| *at != FIXED + IPV4.len()) {
        let mut damaged = header.clone();
        damaged[at] ^= 1;
        assert!(read(&damaged).is_err(), "octet {at}");
    }
    assert!(read(&over_ipv4(&[&value(3, &[0; 3])])).is_err());
    assert!(read(&over_ipv4(&[&value(3, &[0; 5])])).is_err());
}

/// Where what differs between headers of version 2 begins.
const FIXED: usize = 16;

#[test]
fn no_octets_do_more_than_be_refused() {
    let mut state = 7_u64;
    let mut random = |below: usize| {
        // xorshift64: the same numbers each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    let samples = samples();
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..200_000 {
        let mut octets = match random(8) {
            // Nothing but noise, or noise behind a beginning that is right.
            0 => Vec::new(),
            1 => [SIGNATURE, &[0x21, 0x11, 0, 40]].concat(),
            2 => b"PROXY TCP4 ".to_vec(),
            _ => samples[random(samples.len())].clone(),
        };
        if octets.len() < 20 {
            let count = random(120);
            octets.extend((0..count).map(|_| u8::try_from(random(256)).unwrap()));
        }
        for _ in 0..random(4) {
            if let Some(last) = octets.len().checked_sub(1) {
                match random(4) {
                    0 => octets[random(last + 1)] = u8::try_from(random(256)).unwrap(),
                    1 => octets[random(last + 1)] ^= 1 << random(8),
                    2 => octets.truncate(random(last + 1)),
                    _ => octets.insert(random(last + 1), u8::try_from(random(256)).unwrap()),
                }
            }
        }
        match length(&octets) {
            Ok(Some(length)) => {
                assert!((15..=MAX_HEADER).contains(&length) || octets[0] == b'P', "{octets:?}");
                let Some(header) = octets.get(..length) else { continue };
                match parse(header) {
                    Ok(Header { tls, .. }) => {
                        accepted += 1;
                        let texts = tls.map(|tls| [tls.version, tls.suite]);
                        for text in texts.into_iter().flatten().flatten() {
                            assert!(!text.is_empty() && text.len() <= MAX_TEXT, "{octets:?}");
                        }
                    }
                    Err(_) => refused += 1,
                }
            }
            Ok(None) => assert!(octets.len() < 107, "{octets:?}"),
            Err(_) => refused += 1,
        }
    }
    // Both ways are taken, or the test tests nothing.
    assert!(accepted > 10_000 && refused > 10_000, "{accepted} and {refused}");
}
