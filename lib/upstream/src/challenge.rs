//! `WWW-Authenticate`: what a registry wants to see (RFC 9110, 11.3 and 11.6.1; RFC 6750, 3).

use std::collections::HashMap;

/// A way to prove who one is, of those that are understood here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token that the server at `realm` gives.
    Bearer {
        /// A URL.
        realm: String,
        /// What the registry calls itself there.
        service: Option<String>,
        /// What the token has to allow.
        scope: Option<String>,
    },
}

/// The best of all challenges of an answer: a token, for it says who gets the password, else a password.
pub(crate) fn best<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    let found: Vec<_> = headers.into_iter().filter_map(parse).flatten().take(MAX_CHALLENGES).collect();
    let known: Vec<_> = found.into_iter().filter_map(understood).collect();
    let bearer = known.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.or(known.first()).cloned()
}

/// A scheme with its parameters, by lower-case name; a bare token68 is dropped.
type Raw = (String, HashMap<String, String>);

fn understood((scheme, mut parameters): Raw) -> Option<Challenge> {
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
            scope: parameters.remove("scope"),
        }),
        _ => None,
    }
}

/// All challenges of one header; `None` where it breaks the grammar, for then nobody knows what was meant.
fn parse(header: &str) -> Option<Vec<Raw>> {
    if header.len() > MAX_HEADER {
        return None;
    }
    let mut rest = Cursor(header);
    let mut challenges: Vec<Raw> = Vec::new();
    loop {
        rest.skip(|byte| matches!(byte, b' ' | b'\t' | b','));
        if rest.0.is_empty() {
            return Some(challenges);
        }
        let name = rest.token()?.to_ascii_lowercase();
        let spaces = rest.skip(is_space);
        if rest.take(b'=') {
            rest.skip(is_space);
            let value = rest.value()?;
            let (_, parameters) = challenges.last_mut()?;
            // Twice the same parameter: whoever reads the other one is somebody else.
            if parameters.insert(name, value).is_some() {
                return None;
            }
        } else {
            challenges.push((name, HashMap::new()));
            if spaces > 0 {
                rest.skip_token68();
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, what: impl Fn(u8) -> bool) -> usize {
        let count = self.0.bytes().take_while(|&byte| what(byte)).count();
        self.0 = &self.0[count..];
        count
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.0.as_bytes().first() == Some(&byte);
        if there {
            self.0 = &self.0[1..];
        }
        there
    }

    fn token(&mut self) -> Option<&'a str> {
        let all = self.0;
        let count = self.skip(is_token);
        (count > 0).then(|| &all[..count])
    }

    fn value(&mut self) -> Option<String> {
        if self.take(b'"') { self.quoted() } else { self.token().map(str::to_owned) }
    }

    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut characters = self.0.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                character if character.is_control() && character != '\t' => return None,
                character => value.push(character),
            }
        }
        None
    }

    /// `Negotiate YII…==`: a value without a name, which ends the challenge.
    fn skip_token68(&mut self) {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let count = self.0.bytes().take_while(|&byte| inner(byte)).count();
        let padding = self.0[count..].bytes().take_while(|&byte| byte == b'=').count();
        let after = self.0[count + padding..].trim_start_matches([' ', '\t']);
        if count > 0 && (after.is_empty() || after.starts_with(',')) {
            self.0 = after;
        }
    }
}

/// Longer is no challenge.
const MAX_HEADER: usize = 8 << 10;
/// More ways nobody offers.
const MAX_CHALLENGES: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.into(), service: owned(service), scope: owned(scope) })
    }

    #[test]
    fn challenges_are_read_by_the_grammar() {
        let scope = Some("repository:a/b:pull,push");
        for (header, challenge) in [
            (r#"Basic realm="x""#, Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                r#"Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push""#,
                bearer("https://a/t", Some("s"), scope),
            ),
            (r#"BEARER  realm = "https://a/t" , error=invalid_token"#, bearer("https://a/t", None, None)),
            (r#"Basic realm="x, Bearer realm=", Bearer realm="r""#, bearer("r", None, None)),
            (r#"Negotiate YII=, Basic realm="x""#, Some(Challenge::Basic)),
            (r#"Bearer realm="a\"b""#, bearer("a\"b", None, None)),
            ("Bearer service=s", None),
            (r#"Bearer realm="a",realm="b""#, None),
            (r#"Bearer realm="a"#, None),
            (r#"realm="a""#, None),
            ("Digest x=y", None),
            ("", None),
        ] {
            assert_eq!(best([header]), challenge, "{header}");
        }
    }

    #[test]
    fn a_token_is_preferred_whatever_comes_first() {
        assert_eq!(best(["Basic realm=x", "Bearer realm=r"]), bearer("r", None, None));
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_as_it_was(realm in "[ -~]{0,40}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(best([format!("Bearer realm=\"{quoted}\"").as_str()]), bearer(&realm, None, None));
        }

        #[test]
        fn no_text_panics_the_parser(text in "[ -~é]{0,60}") {
            let _ = best([text.as_str()]);
        }
    }
}
