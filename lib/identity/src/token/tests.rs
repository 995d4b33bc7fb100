//! Whose tokens count, for what, and for how long.

use proptest::prelude::*;

use super::*;
use crate::Authority;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

fn order(name: &str, uses: u32) -> TokenOrder {
    let name = NamePattern::parse(name).unwrap();
    TokenOrder { id: [7; 16], role: Role::Agent, name, uses, lifetime: Duration::from_secs(3600) }
}

#[test]
fn the_authority_finds_in_its_token_what_it_put_there() {
    let authority = Authority::generate("prod").unwrap();
    let token = authority.token(order("host-1", 1), now()).unwrap();
    let read = JoinToken::parse(&format!(" {}\n", token.as_str())).unwrap();
    assert_eq!((read.cluster(), read.role()), ("prod", Role::Agent));
    let grant = authority.check_token(&read, now()).unwrap();
    assert_eq!((grant.id, grant.role, grant.uses), ([7; 16], Role::Agent, 1));
    assert_eq!(grant.name.name_of(&PeerId::from_public_key([1; 32])), "host-1");
    assert_eq!(grant.expires, NOW.as_secs() + 3600);
}

#[test]
fn a_star_becomes_the_nodes_id() {
    let node = PeerId::from_public_key([1; 32]);
    assert_eq!(NamePattern::parse("rack7-*").unwrap().name_of(&node), format!("rack7-{node}"));
    for bad in ["", "**", "a/*", "a b", "..", &"x".repeat(254), &format!("{}*", "x".repeat(230))] {
        assert!(NamePattern::parse(bad).is_err(), "{bad} was accepted");
    }
}

#[test]
fn a_token_ends() {
    let authority = Authority::generate("prod").unwrap();
    let token = authority.token(order("a", 1), now()).unwrap();
    let at = |seconds| now() + Duration::from_secs(seconds);
    authority.check_token(&token, at(3599)).unwrap();
    assert_eq!(authority.check_token(&token, at(3610)), Err(TokenError::Expired { ago: 10 }));
    assert_eq!(token.check_time(at(3610)), Err(TokenError::Expired { ago: 10 }));
}

#[test]
fn another_authoritys_token_is_refused() {
    let [ours, theirs] = [(); 2].map(|()| Authority::generate("prod").unwrap());
    let token = theirs.token(order("a", 1), now()).unwrap();
    let refused = ours.check_token(&token, now());
    assert_eq!(refused, Err(StatementError::Signature { kind: "token" }.into()));
}

#[test]
fn a_token_of_another_cluster_is_refused() {
    let authority = Authority::generate("prod").unwrap();
    let token = authority.token(order("a", 1), now()).unwrap();
    let refused = authority.renamed("staging").check_token(&token, now());
    assert!(matches!(refused, Err(TokenError::OtherCluster { .. })), "{refused:?}");
}

#[test]
fn tokens_that_make_no_sense_are_not_made() {
    let authority = Authority::generate("prod").unwrap();
    let refused = |order| authority.token(order, now()).unwrap_err().to_string();
    assert!(refused(order("a", 2)).contains('*'));
    assert!(refused(order("a", 0)).contains("no use"));
    let endless = TokenOrder { lifetime: JoinToken::MAX_LIFETIME * 2, ..order("a", 1) };
    assert!(refused(endless).contains("30 days"));
}

proptest! {
    #[test]
    fn an_altered_token_is_refused(at: prop::sample::Index, byte: u8) {
        let authority = Authority::generate("prod").unwrap();
        let token = authority.token(order("rack-*", 9), now()).unwrap();
        let mut altered = token.as_str().as_bytes().to_vec();
        let at = at.index(altered.len());
        prop_assume!(altered[at] != byte);
        altered[at] = byte;
        if let Ok(read) = std::str::from_utf8(&altered).map_err(drop).and_then(|text| JoinToken::parse(text).map_err(drop)) {
            prop_assert!(authority.check_token(&read, now()).is_err());
        }
    }

    #[test]
    fn garbage_is_refused(text in "(shoal-token-1\\.)?[A-Za-z0-9_.-]{0,300}") {
        prop_assert!(JoinToken::parse(&text).is_err());
    }

    #[test]
    fn any_json_is_read_or_refused(claims in "\\{(\"(id|role|uses|name)\":(1|-1|\"agent\"|\"\\*\"|null),?){0,6}\\}") {
        let text = format!("shoal-token-1.{}.AAAA", data_encoding::BASE64URL_NOPAD.encode(claims.as_bytes()));
        prop_assert!(JoinToken::parse(&text).is_err());
    }
}

#[test]
fn a_text_without_end_is_refused_unread() {
    let text = format!("shoal-token-1.{}", "A".repeat(1 << 20));
    let refused = JoinToken::parse(&text).unwrap_err();
    assert_eq!(refused, StatementError::TooLong { kind: "token", max: 2048 }.into());
}
