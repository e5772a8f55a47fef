use super::*;

/// A unit with an active state, and one of its file.
fn unit(name: &str, active: &str, file: &str) -> Unit {
    let listen = match name {
        PLAIN => "Listen=[::]:110 (Stream)\n",
        ENCRYPTED => "Listen=[::]:995 (Stream)\n",
        _ => "",
    };
    let shown = format!(
        "Id={name}\nLoadState=loaded\nActiveState={active}\nUnitFileState={file}\n{listen}"
    );
    systemd::parse(&shown).remove(0)
}

fn units(plain: [&str; 2], encrypted: [&str; 2], listener: [&str; 2]) -> Units {
    Units {
        plain: unit(PLAIN, plain[0], plain[1]),
        encrypted: unit(ENCRYPTED, encrypted[0], encrypted[1]),
        listener: unit(LISTENER, listener[0], listener[1]),
        ..Units::default()
    }
}

const UP: [&str; 2] = ["active", "enabled"];
const OFF: [&str; 2] = ["inactive", "disabled"];
const FAILED: [&str; 2] = ["failed", "enabled"];

fn holder(name: &str, unit: Option<&str>) -> Holder {
    let (process, unit) = (Some((name.to_owned(), 81)), unit.map(str::to_owned));
    Holder { address: any_with(110), process, unit, starts_us: false }
}

const NONE: SuperServers = SuperServers { inetd: false, xinetd: false };

fn said(units: &Units, holders: &[Holder], servers: SuperServers) -> Vec<String> {
    let others = Others { holders: holders.to_vec(), servers };
    judge(units, &usual_addresses(), &others).iter().map(Finding::to_string).collect()
}

#[test]
fn either_way_alone_is_fine() {
    assert_eq!(
        said(&units(UP, UP, OFF), &[], NONE),
        ["popa3d.socket listens on [::]:110; popa3ds.socket listens on [::]:995"]
    );
    assert_eq!(
        said(&units(UP, OFF, OFF), &[], NONE),
        ["popa3d.socket listens on [::]:110; popa3ds.socket is off"]
    );
    assert_eq!(said(&units(OFF, OFF, UP), &[], NONE), ["popa3d.service runs"]);
}

#[test]
fn nobody_who_listens_is_a_warning_that_says_how_to_enable() {
    let said = said(&units(OFF, OFF, OFF), &[], NONE);
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("warning: nobody listens"), "{said:?}");
    assert!(said[0].contains("run: systemctl enable --now popa3d.socket popa3ds.socket"));
}

#[test]
fn another_program_on_the_port_is_named_with_its_unit() {
    let holders = [holder("dovecot", Some("dovecot.service"))];
    let found = said(&units(FAILED, UP, OFF), &holders, NONE);
    assert!(
        found.contains(
            &"error: popa3d.socket is enabled and failed; port 110 is held by dovecot (process 81, \
              dovecot.service); run: systemctl disable --now dovecot.service && systemctl restart \
              popa3d.socket"
                .to_owned()
        ),
        "{found:?}"
    );
    let found = said(&units(OFF, OFF, OFF), &holders, NONE);
    assert!(
        found[0].contains("dovecot.service && systemctl enable --now popa3d.socket"),
        "{found:?}"
    );
}

#[test]
fn super_server_that_starts_this_program_is_a_way_of_serving() {
    let inetd = SuperServers { inetd: true, ..NONE };
    let xinetd = SuperServers { xinetd: true, ..NONE };
    for (name, servers, other, remedy) in [
        ("inetd", inetd, xinetd, "take its line out of /etc/inetd.conf"),
        ("xinetd", xinetd, inetd, "have its file in /etc/xinetd.d say disable = yes"),
    ] {
        let holders = [holder(name, Some("inetd.service"))];
        let found = said(&units(OFF, OFF, OFF), &holders, servers);
        assert!(found[0].starts_with(&format!("port 110 is held by {name}")), "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
        let found = said(&units(FAILED, OFF, OFF), &holders, servers);
        assert!(found[0].contains(remedy), "{found:?}");
        let found = said(&units(OFF, OFF, OFF), &holders, NONE);
        assert!(found[0].starts_with("warning: nobody listens"), "{found:?}");
        if name == "inetd" {
            let found = said(&units(OFF, OFF, OFF), &holders, other);
            assert!(found[0].starts_with("warning: nobody listens"), "{found:?}");
        }
    }
}

#[test]
fn program_that_may_start_this_one_is_not_simply_to_be_ended() {
    let mut other = holder("tcpserver", None);
    let found = said(&units(OFF, OFF, OFF), &[other.clone()], NONE);
    assert!(found[0].contains("; unless that starts popa3d: run: kill 81 && "), "{found:?}");
    let own = Holder { process: Some(("systemd".to_owned(), 1)), ..other.clone() };
    let found = said(&units(OFF, OFF, OFF), &[own], NONE);
    assert!(found[0].contains("; unless that starts popa3d: systemctl list-sockets"), "{found:?}");
    other.starts_us = true;
    let found = said(&units(OFF, OFF, OFF), &[other], NONE);
    assert_eq!(found, ["port 110 is held by tcpserver (process 81), which starts popa3d"]);
}

#[test]
fn who_listens_elsewhere_is_not_in_the_way_of_the_listener() {
    let failed = units(OFF, OFF, FAILED);
    let mut other = holder("dovecot", Some("dovecot.service"));
    other.address = "127.0.0.1:110".parse().unwrap();
    let others = Others { holders: vec![other], servers: NONE };
    for (wanted, is_in_the_way) in
        [("127.0.0.1:110", true), ("192.0.2.1:110", false), ("[::]:2110", false)]
    {
        let found = judge(&failed, &[wanted.parse().unwrap()], &others);
        let found = found[0].to_string();
        assert_eq!(found.contains("disable --now dovecot.service"), is_in_the_way, "{found}");
    }
}

#[test]
fn both_ways_at_once_are_a_warning_that_keeps_the_one_that_works() {
    let found = said(&units(UP, UP, ["inactive", "enabled"]), &[], NONE);
    assert!(found[0].starts_with("warning: popa3d.service and its sockets are both enabled"));
    assert!(found[0].ends_with("run: systemctl disable popa3d.service"), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
    let down = ["inactive", "enabled"];
    let found = said(&units(down, down, UP), &[], NONE);
    assert!(found[0].ends_with("disable popa3d.socket popa3ds.socket"), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn way_that_is_in_use_excuses_the_other() {
    let down = ["inactive", "enabled"];
    let found = said(&units(down, down, ["active", "disabled"]), &[], NONE);
    assert_eq!(
        found,
        [
            "warning: popa3d.service is up, but not enabled: it is gone after a boot; run: systemctl \
             enable popa3d.service",
            "popa3d.service runs"
        ]
    );
}

#[test]
fn what_is_up_but_not_enabled_is_gone_after_a_boot() {
    let found = said(&units(["active", "disabled"], UP, OFF), &[], NONE);
    assert!(found[0].ends_with("run: systemctl enable popa3d.socket"), "{found:?}");
}

#[test]
fn listener_that_systemd_listens_for_needs_not_be_enabled() {
    let mut all = units(OFF, OFF, OFF);
    all.triggers = vec![unit("popa3d-listen.socket", "active", "enabled")];
    assert_eq!(said(&all, &[], NONE), ["popa3d.service is started by a socket unit"]);
}

#[test]
fn masked_units_are_unmasked_first() {
    let found = said(&units(["inactive", "masked"], OFF, OFF), &[], NONE);
    assert!(
        found[0].contains("run: systemctl unmask popa3d.socket && systemctl enable"),
        "{found:?}"
    );
}

#[test]
fn listener_without_its_port_is_an_error() {
    let up = units(OFF, OFF, UP);
    assert!(missing(&up, &[any_with(110)], &[holder("popa3d", None)]).is_none());
    assert!(missing(&up, &[any_with(110)], &[]).is_some());
    assert!(missing(&units(UP, UP, OFF), &[any_with(110)], &[]).is_none());
}

#[test]
fn listener_without_a_port_that_another_program_has_is_a_warning_that_names_it() {
    let up = units(OFF, OFF, UP);
    let holders = [
        holder("popa3d", Some(LISTENER)),
        Holder { address: any_with(995), ..holder("stunnel4", Some("stunnel4.service")) },
    ];
    let found =
        taken(&up, &usual_addresses(), &[any_with(995)], &holders).map(|found| found.to_string());
    assert_eq!(
        found.as_deref(),
        Some(
            "warning: popa3d.service runs without port 995; port 995 is held by stunnel4 (process 81, \
             stunnel4.service); to leave the port to it, have /etc/popa3d.toml say listen-tls = [] and run: \
             systemctl reload popa3d.service (or, once your certificate is in place: run: systemctl disable \
             --now stunnel4.service && systemctl reload popa3d.service)"
        )
    );
    assert!(taken(&up, &[any_with(110)], &[any_with(995)], &holders).is_none());
    // Beside it, on another address.
    let both = [&holders[..], &[Holder { address: any_with(995), ..holders[0].clone() }]].concat();
    assert!(taken(&up, &usual_addresses(), &[any_with(995)], &both).is_none());
    let off = units(OFF, OFF, OFF);
    assert!(taken(&off, &usual_addresses(), &[any_with(995)], &holders).is_none());
}

#[test]
fn program_that_does_tls_for_another_is_left_its_port_first() {
    let stunnel = Holder {
        process: Some(("stunnel4".to_owned(), 82)),
        address: any_with(995),
        ..holder("stunnel4", Some("stunnel4.service"))
    };
    let off = said(&units(OFF, OFF, OFF), std::slice::from_ref(&stunnel), NONE);
    let wanted = "stunnel4.service); to leave the port to it, run: systemctl enable --now popa3d.socket (or, \
        once your certificate is in place: run: systemctl disable --now stunnel4.service && systemctl enable \
        --now popa3d.socket popa3ds.socket)";
    assert!(off[0].ends_with(wanted), "{off:?}");
    let failed = units(UP, FAILED, OFF);
    let found = said(&failed, std::slice::from_ref(&stunnel), NONE);
    let wanted = "to leave the port to it, run: systemctl disable popa3ds.socket (or, once";
    assert!(found.iter().any(|found| found.contains(wanted)), "{found:?}");
    // One that does all of POP3 is to make room for it.
    let dovecot = [110, 995].map(|port| Holder { address: any_with(port), ..stunnel.clone() });
    let found = said(&failed, &dovecot, NONE);
    let wanted =
        "; run: systemctl disable --now stunnel4.service && systemctl restart popa3ds.socket";
    assert!(found.iter().any(|found| found.ends_with(wanted)), "{found:?}");
    let found = said(&units(OFF, OFF, OFF), &dovecot, NONE);
    assert!(found[0].contains("; run: systemctl disable --now stunnel4.service"), "{found:?}");
}

#[test]
fn address_that_the_host_does_not_have_is_an_error() {
    for address in ["127.0.0.1:110", "[::]:110", "0.0.0.0:995"] {
        assert_eq!(not_here(&address.parse().unwrap()), None, "{address}");
    }
    // For documentation (RFC 5737).
    let found = not_here(&"192.0.2.55:110".parse().unwrap()).map(|found| found.to_string());
    let found = found.unwrap_or_default();
    assert!(found.starts_with("error: listening on 192.0.2.55:110: this host does not"), "{found}");
}

#[test]
fn settings_say_where_the_listener_listens_unless_a_socket_unit_does() {
    assert!(listens_itself(&units(OFF, OFF, UP)));
    assert!(listens_itself(&units(OFF, OFF, FAILED)));
    assert!(!listens_itself(&units(UP, UP, OFF)));
    let mut triggered = units(OFF, OFF, UP);
    triggered.triggers = vec![unit("popa3d-listen.socket", "active", "enabled")];
    assert!(!listens_itself(&triggered));
}

#[test]
fn units_that_are_gone_are_found() {
    let found = said(&Units::default(), &[], NONE);
    assert!(found[0].contains("systemd does not know them"), "{found:?}");
}

#[test]
fn ports_that_systemd_keeps_for_the_listener_are_in_nobodys_way() {
    let mut units = units(OFF, OFF, FAILED);
    let systemd = Holder { process: Some(("systemd".to_owned(), 1)), ..holder("systemd", None) };
    let held = "error: popa3d.service is enabled and failed; port 110 is held by systemd, for another unit; \
        systemctl list-sockets names it: disable that, then run: systemctl restart popa3d.service";
    assert_eq!(said(&units, std::slice::from_ref(&systemd), NONE), [held]);

    let kept = "Id=popa3d.service\nLoadState=loaded\nActiveState=failed\nUnitFileState=enabled\n\
        NFileDescriptorStore=2\n";
    units.listener = systemd::parse(kept).remove(0);
    let why = "error: popa3d.service is enabled and failed; run: systemctl restart popa3d.service; \
        journalctl -u popa3d.service -n 20 tells why if that fails";
    assert_eq!(said(&units, &[systemd], NONE), [why]);
}
