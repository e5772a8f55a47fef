use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::super::patience::LEAST;
use super::*;
use crate::channel::{ToWorker, pair};

#[test]
fn reason_is_cut_between_characters_and_not_before_it_has_to_be() {
    let fits = "x".repeat(MAX_REASON);
    assert_eq!(bounded(&fits), fits);
    let long = bounded(&format!("x{}", "\u{f6}".repeat(MAX_REASON)));
    assert_eq!(long.len(), MAX_REASON - 1);
}

#[test]
fn client_that_never_stops_sending_gains_no_time_by_it() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let (monitor, _worker) = UnixStream::pair().unwrap();
    client.write_all(b"no line ends here").unwrap();
    let mut stream = Stream::new(server.into(), Duration::from_secs(60));
    let mut received = |deadline| stream.receive(&mut [0; 4], monitor.as_fd(), deadline);
    assert_eq!(received(Deadline::after(Duration::from_secs(60))), Ok(4));
    let passed = Deadline::after(Duration::ZERO);
    assert_eq!(received(passed), Err(Ending::TimedOut));
    let later = Deadline::after(Duration::from_secs(60));
    stream.wait_until(Some(passed));
    let received = stream.receive(&mut [0; 4], monitor.as_fd(), later);
    assert_eq!(received, Err(Ending::TimedOut));
    let mut ready = [PollFd::new(monitor.as_fd(), PollFlags::POLLOUT)];
    assert_eq!(passed.wait_for(&mut ready).unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn client_that_takes_nothing_is_not_waited_for_when_the_monitor_is_gone() {
    let (_client, server) = UnixStream::pair().unwrap();
    let (monitor, worker): (ToWorker, ToMonitor) = pair().unwrap();
    let mut stream = Stream::new(server.into(), Duration::from_secs(3600));
    stream.depend_on(Arc::new(worker));
    drop(monitor);
    let sent = stream.send_all(&vec![0; 16 << 20]);
    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    // Unless it is a matter of the last replies.
    stream.hurry(Deadline::after(Duration::ZERO));
    let sent = stream.send_all(&[0]);
    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn client_that_takes_nothing_is_not_waited_for_beyond_the_latest_time() {
    let (_client, server) = UnixStream::pair().unwrap();
    let year = Duration::from_secs(365 * 86_400);
    let mut stream = Stream::new(server.into(), year);
    stream.wait_until(Some(Deadline::after(Duration::from_millis(1))));
    let error = stream.send_all(&vec![0; 16 * 1024 * 1024]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(stream.is_late());
}

#[test]
fn what_fits_is_sent_even_when_it_is_late() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let mut stream = Stream::new(server.into(), Duration::from_secs(60));
    stream.wait_until(Some(Deadline::after(Duration::ZERO)));
    stream.send_all(b"-ERR late").unwrap();
    let mut received = [0; 9];
    client.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"-ERR late");
}

#[test]
fn client_that_takes_enough_of_a_reply_is_waited_for_anew_and_an_octet_now_and_then_is_not_enough()
{
    let patience = Patience::new(Duration::ZERO, None);
    let is_counted =
        || matches!(&patience, Patience::Renewed { deadline, .. } if deadline.get().is_some());
    assert!(!is_counted(), "nobody waits yet");
    for _ in 0..2 {
        let deadline = patience.deadline();
        for _ in 1..LEAST {
            patience.took(1);
        }
        assert_eq!(patience.deadline(), deadline);
        patience.took(1);
        assert!(!is_counted());
    }
}

#[test]
fn nobody_is_waited_for_beyond_the_latest_time_however_much_is_taken() {
    let latest = Deadline::after(Duration::from_secs(60));
    for patience in
        [Patience::new(Duration::from_secs(3600), Some(latest)), Patience::Until(latest)]
    {
        assert_eq!(patience.deadline(), latest);
        patience.took(1 << 30);
        assert_eq!(patience.deadline(), latest);
    }
}

#[test]
fn last_words_have_one_deadline_together() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let mut stream = Stream::new(server.into(), Duration::from_secs(3600));
    stream.hurry(Deadline::after(Duration::from_millis(1)));
    for _ in 0..2 {
        let sent = stream.send_all(&vec![0; 16 << 20]);
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // Room for much, and time for nothing.
        client.read_exact(&mut vec![0; 64 << 10]).unwrap();
    }
    // Nor do they move a time that was named before.
    let passed = Deadline::after(Duration::ZERO);
    stream.wait_until(Some(passed));
    stream.hurry(Deadline::after(Duration::from_secs(60)));
    assert!(stream.is_late());
}

#[test]
fn header_of_a_proxy_is_told_from_other_octets_that_are_no_handshake() {
    let begins = |octets: &[u8]| {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(octets).unwrap();
        begins_handshake(&server.into())
    };
    assert_eq!(begins(b"\x16\x03\x01"), Ok(()));
    for header in [&b"PROXY TCP4 192.0.2.7"[..], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0"] {
        assert_eq!(begins(header), Err(NoTls::ProxyHeader));
    }
    for other in [&b"P"[..], b"PASS x\r\n", b"\r\n\r\n", b"\x80\x2e\x01"] {
        assert_eq!(begins(other), Err(NoTls::Because(NOT_TLS.to_owned())));
    }
}
