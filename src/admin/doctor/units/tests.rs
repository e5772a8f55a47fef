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
    Holder { port: 110, process: Some((name.to_owned(), 81)), unit: unit.map(str::to_owned) }
}

fn said(units: &Units, holders: &[Holder], inetd: &str) -> Vec<String> {
    judge(units, holders, inetd).iter().map(Finding::to_string).collect()
}

#[test]
fn either_way_alone_is_fine() {
    assert_eq!(
        said(&units(UP, UP, OFF), &[], ""),
        ["popa3d.socket listens on [::]:110; popa3ds.socket listens on [::]:995"]
    );
    assert_eq!(
        said(&units(UP, OFF, OFF), &[], ""),
        ["popa3d.socket listens on [::]:110; popa3ds.socket is off"]
    );
    assert_eq!(said(&units(OFF, OFF, UP), &[], ""), ["popa3d.service runs"]);
}

#[test]
fn nobody_who_listens_is_a_warning_that_says_how_to_enable() {
    let said = said(&units(OFF, OFF, OFF), &[], "");
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("warning: nobody listens"), "{said:?}");
    assert!(said[0].contains("run: systemctl enable --now popa3d.socket popa3ds.socket"));
}

#[test]
fn another_program_on_the_port_is_named_with_its_unit() {
    let holders = [holder("dovecot", Some("dovecot.service"))];
    let found = said(&units(FAILED, UP, OFF), &holders, "");
    assert!(
        found.contains(
            &"error: popa3d.socket is enabled and failed; port 110 is held by dovecot (process 81, \
              dovecot.service); run: systemctl disable --now dovecot.service && systemctl restart \
              popa3d.socket"
                .to_owned()
        ),
        "{found:?}"
    );
    let found = said(&units(OFF, OFF, OFF), &holders, "");
    assert!(
        found[0].contains("dovecot.service && systemctl enable --now popa3d.socket"),
        "{found:?}"
    );
}

#[test]
fn inetd_that_starts_this_program_is_a_way_of_serving() {
    let line = "pop3 stream tcp nowait root /usr/sbin/tcpd /usr/sbin/popa3d\n";
    let holders = [holder("inetd", Some("inetd.service"))];
    let found = said(&units(OFF, OFF, OFF), &holders, line);
    assert!(found[0].starts_with("port 110 is held by inetd"), "{found:?}");
    for text in ["#pop3 popa3d\n", "pop3 stream tcp nowait root /usr/sbin/ipop3d\n"] {
        let found = said(&units(OFF, OFF, OFF), &holders, text);
        assert!(found[0].starts_with("warning: nobody listens"), "{found:?}");
    }
    let found = said(&units(FAILED, OFF, OFF), &holders, line);
    assert!(found[0].contains("take its line out of /etc/inetd.conf"), "{found:?}");
}

#[test]
fn both_ways_at_once_are_a_warning_that_keeps_the_one_that_works() {
    let found = said(&units(UP, UP, ["inactive", "enabled"]), &[], "");
    assert!(found[0].starts_with("warning: popa3d.service and its sockets are both enabled"));
    assert!(found[0].ends_with("run: systemctl disable popa3d.service"), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
    let down = ["inactive", "enabled"];
    let found = said(&units(down, down, UP), &[], "");
    assert!(found[0].ends_with("disable popa3d.socket popa3ds.socket"), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn way_that_is_in_use_excuses_the_other() {
    let down = ["inactive", "enabled"];
    let found = said(&units(down, down, ["active", "disabled"]), &[], "");
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
    let found = said(&units(["active", "disabled"], UP, OFF), &[], "");
    assert!(found[0].ends_with("run: systemctl enable popa3d.socket"), "{found:?}");
}

#[test]
fn listener_that_systemd_listens_for_needs_not_be_enabled() {
    let mut all = units(OFF, OFF, OFF);
    all.triggers = vec![unit("popa3d-listen.socket", "active", "enabled")];
    assert_eq!(said(&all, &[], ""), ["popa3d.service is started by a socket unit"]);
}

#[test]
fn masked_units_are_unmasked_first() {
    let found = said(&units(["inactive", "masked"], OFF, OFF), &[], "");
    assert!(
        found[0].contains("run: systemctl unmask popa3d.socket && systemctl enable"),
        "{found:?}"
    );
}

#[test]
fn listener_without_its_port_is_an_error() {
    let up = units(OFF, OFF, UP);
    assert!(missing_ports(&up, &[110], &[holder("popa3d", None)]).is_none());
    assert!(missing_ports(&up, &[110], &[]).is_some());
    assert!(missing_ports(&units(UP, UP, OFF), &[110], &[]).is_none());
}

#[test]
fn listener_without_a_port_that_another_program_has_is_a_warning_that_names_it() {
    let up = units(OFF, OFF, UP);
    let holders = [
        Holder { port: 110, process: Some(("popa3d".to_owned(), 80)), unit: Some(LISTENER.into()) },
        Holder { port: 995, ..holder("stunnel4", Some("stunnel4.service")) },
    ];
    let found = taken_ports(&up, &[110, 995], &holders).map(|found| found.to_string());
    assert_eq!(
        found.as_deref(),
        Some(
            "warning: popa3d.service runs without port 995; port 995 is held by stunnel4 (process 81, \
             stunnel4.service); run: systemctl disable --now stunnel4.service && systemctl reload \
             popa3d.service (or leave the port to it: listen-tls = [] in /etc/popa3d.toml)"
        )
    );
    assert!(taken_ports(&up, &[110], &holders).is_none());
    // Beside it, on another address.
    let both = [&holders[..], &[Holder { port: 995, ..holders[0].clone() }]].concat();
    assert!(taken_ports(&up, &[110, 995], &both).is_none());
    assert!(taken_ports(&units(OFF, OFF, OFF), &[110, 995], &holders).is_none());
}

#[test]
fn units_that_are_gone_are_found() {
    let found = said(&Units::default(), &[], "");
    assert!(found[0].contains("systemd does not know them"), "{found:?}");
}

#[test]
fn ports_that_systemd_keeps_for_the_listener_are_in_nobodys_way() {
    let mut units = units(OFF, OFF, FAILED);
    let systemd = Holder { port: 110, process: Some(("systemd".to_owned(), 1)), unit: None };
    let held = "error: popa3d.service is enabled and failed; port 110 is held by systemd, for another unit; \
        systemctl list-sockets names it: disable that, then run: systemctl restart popa3d.service";
    assert_eq!(said(&units, std::slice::from_ref(&systemd), ""), [held]);

    let kept = "Id=popa3d.service\nLoadState=loaded\nActiveState=failed\nUnitFileState=enabled\n\
        NFileDescriptorStore=2\n";
    units.listener = systemd::parse(kept).remove(0);
    let why = "error: popa3d.service is enabled and failed; run: systemctl restart popa3d.service; \
        journalctl -u popa3d.service -n 20 tells why if that fails";
    assert_eq!(said(&units, &[systemd], ""), [why]);
}
