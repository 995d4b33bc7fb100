use proptest::prelude::*;
use shoal_control::ServerUrl;
use shoal_core::{Role, Zone};

use super::*;

fn id(number: u8) -> PeerId {
    PeerId::from_public_key([number; 32])
}

fn announce(count: u8) -> Announce {
    let addresses = vec!["10.0.0.1:7".parse().unwrap()];
    Announce {
        address: PeerAddress { id: id(1), role: Role::Origin, addresses, zone: Zone("berlin/rack-7".into()) },
        api: Some(ServerUrl::parse("https://origin:1").unwrap()),
        added: (0..count)
            .map(|number| Holding { digest: Digest::sha256(&[number]), complete: number % 2 == 0 })
            .collect(),
        removed: vec![Digest::sha256(b"gone")],
        everything: false,
    }
}

fn event(said: Said) -> Event {
    Event { id: id(1), version: 7, said }
}

fn fields(announce: &Announce) -> Vec<Vec<u8>> {
    let mut fields = vec!["version".into(), "7".into(), "head".into(), head(announce)];
    for holding in &announce.added {
        fields.extend([holding.digest.to_string(), flag(holding.complete).to_owned()]);
    }
    fields.into_iter().map(String::into_bytes).collect()
}

#[test]
fn messages_survive_the_way() {
    let sent = event(Said::Changed { base: 5, announce: Box::new(announce(3)) });
    let read = read_message(message(&sent).as_bytes()).unwrap();
    assert_eq!(format!("{read:?}"), format!("{sent:?}"));
    for said in [Said::Left, Said::Whole] {
        let sent = event(said);
        assert_eq!(format!("{:?}", read_message(message(&sent).as_bytes()).unwrap()), format!("{sent:?}"));
    }
}

#[test]
fn in_place_of_a_long_message_the_record_is_to_be_read() {
    let text = message(&event(Said::Changed { base: 5, announce: Box::new(announce(200)) }));
    assert!(text.len() <= MAX_MESSAGE);
    assert!(matches!(read_message(text.as_bytes()).unwrap().said, Said::Whole));
}

#[test]
fn what_no_node_can_announce_is_refused() {
    let good = message(&event(Said::Changed { base: 5, announce: Box::new(announce(1)) }));
    let other = id(2).to_string();
    for (what, by) in [
        ("\"version\":7", "\"version\":0"),
        ("\"version\":7", "\"version\":9007199254740992"),
        ("\"base\":5", "\"base\":7"),
        ("10.0.0.1:7", "0.0.0.0:7"),
        ("10.0.0.1:7", "224.0.0.1:7"),
        ("https://origin:1", "http://origin:1"),
        ("\"role\":\"origin\"", "\"role\":\"agent\""),
        ("\"role\":\"origin\"", "\"role\":\"tracker\""),
        (&format!("\"node\":\"{}\"", id(1)), &format!("\"node\":\"{other}\"")),
    ] {
        let bad = good.replace(what, by);
        assert_ne!(bad, good, "{what}");
        assert!(read_message(bad.as_bytes()).is_err(), "{by}");
    }
    let long = format!("{good}{}", " ".repeat(MAX_MESSAGE));
    assert!(matches!(read_message(long.as_bytes()), Err(Nonsense::TooLong)));
}

#[test]
fn records_are_read_as_they_were_written() {
    let announce = Announce { removed: vec![], everything: true, ..announce(5) };
    let record = read_record(id(1), Duration::from_secs(1), &fields(&announce)).unwrap().unwrap();
    assert_eq!((record.version, format!("{:?}", record.announce)), (7, format!("{announce:?}")));
    let left: Vec<Vec<u8>> = vec![b"version".to_vec(), b"7".to_vec()];
    assert!(read_record(id(1), Duration::from_secs(1), &left).unwrap().is_none());
}

#[test]
fn a_record_with_anything_wrong_is_refused_as_a_whole() {
    let good = fields(&announce(2));
    for (at, by) in
        [(1, "seven"), (1, "9007199254740993"), (3, "{}"), (3, "nonsense"), (4, "sha256:abc"), (5, "yes")]
    {
        let mut bad = good.clone();
        bad[at] = by.as_bytes().to_vec();
        assert!(read_record(id(1), Duration::from_secs(1), &bad).is_err(), "{by}");
    }
    assert!(read_record(id(2), Duration::from_secs(1), &good).is_err(), "of another node");
    assert!(read_record(id(1), Duration::from_secs(1), &good[1..]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, fields: Vec<Vec<u8>>, at in 0usize..300, byte: u8) {
        let _ = read_message(&bytes);
        let _ = read_record(id(1), Duration::from_secs(1), &fields);
        let mut altered = message(&event(Said::Changed { base: 5, announce: Box::new(announce(1)) })).into_bytes();
        if let Some(place) = altered.get_mut(at) {
            *place = byte;
        }
        let _ = read_message(&altered);
    }
}
