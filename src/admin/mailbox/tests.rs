use super::*;
use crate::channel::Totals;
use crate::monitor::Facts;

fn overview(messages: u32, octets: u64) -> Overview {
    let file = Facts { size: 99, group: "mail".to_owned(), mode: 0o660, modified: 1_793_000_000 };
    Overview {
        user: "alice".to_owned(),
        path: "/var/mail/alice".into(),
        file: Some(file),
        totals: Totals { messages, octets },
        remarks: vec![Remark::RedoRecord],
    }
}

fn message(unique_id: &str, message_id: Option<&[u8]>, oddities: Vec<Oddity>) -> SeenMessage {
    SeenMessage {
        octets: 17,
        unique_id: unique_id.to_owned(),
        message_id: message_id.map(<[u8]>::to_vec),
        oddities,
    }
}

/// All of the output about these messages.
fn shown(form: Form, overview: &Overview, messages: &[SeenMessage], odd: &[Oddity]) -> String {
    let mut octets = Vec::new();
    let mut output = Output { form, number: 0, output: &mut octets };
    output.begin(overview).unwrap();
    messages.iter().for_each(|message| output.message(message, overview).unwrap());
    output.end(&overview.remarks, odd).unwrap();
    String::from_utf8(octets).unwrap()
}

#[test]
fn text_is_aligned_and_what_a_message_says_is_escaped() {
    let odd = vec![Oddity::CrlfLines(1), Oddity::SharesMessageId(1)];
    let messages = [
        message("2361652db9c46537", Some(b"<1@b>\x1b[2J"), vec![]),
        message("d98c1dd404b2008f", None, odd),
    ];
    let expected = "\
mailbox   /var/mail/alice
file      99 octets, owner alice:mail, mode 0660
maildrop  2 messages, 34 octets

NUMBER  OCTETS  UNIQUE-ID         MESSAGE-ID
     1      17  2361652db9c46537  <1@b>\\u{1b}[2J
     2      17  d98c1dd404b2008f  -
        - 1 line with CRLF at the end
        - the Message-ID of message 1

about the mailbox:
- an update was interrupted, and the mailbox may be half-way: the next login finishes it, or popa3d --recover
- its last line has no line end
";
    let odd = [Oddity::NoFinalLineEnd];
    assert_eq!(shown(Form::Text, &overview(2, 34), &messages, &odd), expected);
}

#[test]
fn json_is_one_object_whatever_a_message_says() {
    let id = b"<\"\\1\xff\n\0\xc2\x9b2J\x7f\xe2\x80\xae\xf0\x9f\x93\xac@b>";
    let messages = [
        message("2361652db9c46537", Some(id), vec![Oddity::NulOctets(u64::MAX)]),
        message("d98c1dd404b2008f", None, vec![]),
    ];
    let text = shown(Form::Json, &overview(2, 34), &messages, &[Oddity::InternalData]);
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["user"], "alice");
    assert_eq!(object["mode"], "0660");
    assert_eq!(object["size"], 99);
    let id = "<\"\\1\u{fffd}\n\0\u{9b}2J\u{7f}\u{202e}\u{1f4ec}@b>";
    assert_eq!(object["messages"][0]["message_id"], id);
    assert!(text.chars().all(|character| character == '\n' || (' '..='~').contains(&character)));
    assert_eq!(object["messages"][0]["oddities"][0]["value"], u64::MAX);
    assert_eq!(object["messages"][1]["number"], 2);
    assert!(object["messages"][1]["message_id"].is_null());
    assert_eq!(object["oddities"][0]["kind"], "redo-record");
    assert_eq!(object["oddities"][1]["kind"], "internal-data");
    assert_eq!(text.lines().count(), 14);
}

#[test]
fn mailbox_that_does_not_exist_is_an_empty_maildrop() {
    let nothing = Overview { file: None, remarks: vec![], ..overview(0, 0) };
    let expected = "\
mailbox   /var/mail/alice
file      none, so the maildrop is empty
maildrop  0 messages, 0 octets
";
    assert_eq!(shown(Form::Text, &nothing, &[], &[]), expected);
    let text = shown(Form::Json, &nothing, &[], &[]);
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["exists"], false);
    assert!(object["size"].is_null());
    assert_eq!(object["messages"], serde_json::json!([]));
}
