use std::net::TcpStream;

use super::*;

/// Settings that want to listen there, by TLS never.
fn settings(addresses: &[SocketAddr]) -> Settings {
    Settings { listen: addresses.to_vec(), listen_tls: Vec::new(), ..Settings::default() }
}

/// An address of this host with a port that is free, as long as nobody else takes it.
fn address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn change(addresses: &[SocketAddr], present: &[Listening]) -> Result<Change, Unlistenable> {
    Change::prepare(&settings(addresses), false, present)
}

fn accepts(listening: &Listening) -> bool {
    let client = TcpStream::connect(listening.address);
    client.is_ok_and(|_| matches!(listening.accept(), Ok(Some(_))))
}

#[test]
fn sockets_that_are_wanted_again_stay_and_others_come_and_go() {
    let (one, two, three) = (address(), address(), address());
    let present = change(&[one, two], &[]).unwrap().carry_through(Vec::new());
    let kept = present[1].socket.as_raw_fd();
    let sockets = change(&[two, three], &present).unwrap().carry_through(present);
    assert_eq!(sockets.iter().map(|it| it.address).collect::<Vec<_>>(), [two, three]);
    assert_eq!(sockets[0].socket.as_raw_fd(), kept);
    assert!(sockets.iter().all(accepts));
    assert!(TcpStream::connect(one).is_err());
}

#[test]
fn address_that_an_old_one_takes_in_gets_its_place_though_somebody_else_keeps_the_old_one() {
    let one = address();
    let all: SocketAddr = (Ipv4Addr::UNSPECIFIED, one.port()).into();
    let present = change(&[all], &[]).unwrap().carry_through(Vec::new());
    let _kept_by_the_service_manager = present[0].socket.try_clone().unwrap();
    let sockets = change(&[one], &present).unwrap().carry_through(present);
    assert_eq!(sockets.len(), 1);
    assert_eq!(sockets[0].address, one);
    assert!(accepts(&sockets[0]));
}

#[test]
fn with_an_address_that_cannot_be_had_all_is_as_it_was() {
    let one = address();
    let all: SocketAddr = (Ipv4Addr::UNSPECIFIED, one.port()).into();
    let elsewhere: SocketAddr = "192.0.2.1:110".parse().unwrap();
    let present = change(&[all], &[]).unwrap().carry_through(Vec::new());
    let refused = change(&[one, elsewhere], &present).unwrap_err().to_string();
    assert!(refused.starts_with("listening on 192.0.2.1:110: "), "{refused}");
    assert!(accepts(&present[0]));
    change(&[one], &present).unwrap().undo(&present);
    assert!(accepts(&present[0]));
}

#[test]
fn port_of_another_program_is_refused_with_a_reason() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = change(&[other.local_addr().unwrap()], &[]).unwrap_err().to_string();
    assert!(refused.contains("another program has it"), "{refused}");
}

/// The same with one of port 110 and others with TLS.
fn change_with_tls(
    plain: &[SocketAddr],
    tls: &[SocketAddr],
    present: &[Listening],
) -> Result<Change, Unlistenable> {
    let settings = Settings { listen_tls: tls.to_vec(), ..settings(plain) };
    Change::prepare(&settings, true, present)
}

#[test]
fn port_for_tls_of_another_program_is_done_without_until_that_is_gone() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let (plain, tls) = (address(), other.local_addr().unwrap());
    let change = change_with_tls(&[plain], &[tls], &[]).unwrap();
    assert_eq!(change.taken().collect::<Vec<_>>(), [tls.to_string()]);
    let present = change.carry_through(Vec::new());
    assert!(present.len() == 1 && accepts(&present[0]));
    drop(other);
    let change = change_with_tls(&[plain], &[tls], &present).unwrap();
    assert_eq!(change.taken().count(), 0);
    let sockets = change.carry_through(present);
    assert!(sockets.len() == 2 && sockets.iter().all(accepts));
}

#[test]
fn port_for_tls_that_is_there_is_not_given_up_for_one_of_another_program() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let (plain, tls) = (address(), address());
    let present = change_with_tls(&[plain], &[tls], &[]).unwrap().carry_through(Vec::new());
    let refused = change_with_tls(&[plain], &[other.local_addr().unwrap()], &present).unwrap_err();
    assert!(refused.to_string().contains("another program has it"), "{refused}");
    assert!(present.iter().all(accepts));
}

#[test]
fn where_another_program_has_all_ports_there_is_nothing_to_go_on_with() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    assert!(change_with_tls(&[], &[taken], &[]).is_err());
    assert!(change_with_tls(&[], &[taken, address()], &[]).is_ok());
}

#[test]
fn sockets_of_a_unit_are_all_there_are_whatever_the_settings_say() {
    let of_unit = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let present = vec![
        Listening::of(own.into(), Port::Pop3, false).unwrap(),
        Listening::of(of_unit.into(), Port::Pop3, true).unwrap(),
    ];
    let unit = present[1].address;
    let sockets = change(&[address()], &present).unwrap().carry_through(present);
    assert_eq!(sockets.iter().map(|it| it.address).collect::<Vec<_>>(), [unit]);
}

#[test]
fn client_that_is_gone_before_it_was_accepted_is_no_failure() {
    let sockets = change(&[address()], &[]).unwrap().carry_through(Vec::new());
    assert!(matches!(sockets[0].accept(), Ok(None)));
    drop(TcpStream::connect(sockets[0].address).unwrap());
    assert!(sockets[0].accept().is_ok());
}

#[test]
fn connected_socket_is_none_to_listen_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(Listening::of(client.into(), Port::Pop3, true).is_err());
}
