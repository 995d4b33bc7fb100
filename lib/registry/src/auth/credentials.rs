//! The `Authorization` header. Nothing here can be printed: what it holds goes into no log and no error.

use data_encoding::BASE64;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::Refusal;

/// What a client says to prove who it is.
pub(crate) enum Credentials {
    /// Nothing.
    None,
    /// A name and a password.
    Basic(Basic),
    /// A token, not looked into.
    Bearer(String),
}

/// A name and a password (RFC 7617).
pub(crate) struct Basic {
    pub(crate) name: String,
    pub(crate) password: Vec<u8>,
}

impl Credentials {
    /// Takes them out of the headers: nobody behind can log them or pass them on.
    pub(crate) fn take(headers: &mut HeaderMap) -> Result<Self, Refusal> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let credentials = match (values.next(), values.next()) {
            (None, _) => Ok(Self::None),
            (Some(value), None) => value.to_str().ok().and_then(Self::parse).ok_or(UNREADABLE),
            (Some(_), Some(_)) => Err(Refusal::BadCredentials("more than one Authorization header")),
        };
        headers.remove(AUTHORIZATION);
        credentials
    }

    fn parse(value: &str) -> Option<Self> {
        if value.len() > MAX_LENGTH {
            return None;
        }
        let (scheme, rest) = value.trim().split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            let mut decoded = BASE64.decode(rest.as_bytes()).ok()?;
            let colon = decoded.iter().position(|byte| *byte == b':')?;
            let password = decoded.split_off(colon + 1);
            decoded.truncate(colon);
            let name = String::from_utf8(decoded).ok().filter(|name| !name.is_empty())?;
            return Some(Self::Basic(Basic { name, password }));
        }
        scheme.eq_ignore_ascii_case("bearer").then(|| Self::Bearer(rest.to_owned()))
    }
}

const UNREADABLE: Refusal = Refusal::BadCredentials("the Authorization header is not readable");
/// A token with some hundred scopes is that long.
const MAX_LENGTH: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn basic(value: &str) -> Option<(String, Vec<u8>)> {
        match Credentials::parse(value)? {
            Credentials::Basic(basic) => Some((basic.name, basic.password)),
            _ => None,
        }
    }

    #[test]
    fn a_password_may_hold_colons_and_be_empty() {
        let encoded = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        assert_eq!(basic(&encoded("a:b:c")), Some(("a".into(), b"b:c".to_vec())));
        assert_eq!(basic(&encoded("a:")), Some(("a".into(), vec![])));
        assert_eq!(basic(&encoded("a:b").replace("Basic", "bAsIC")), Some(("a".into(), b"b".to_vec())));
        for bad in ["a", ":b", ""] {
            assert_eq!(basic(&encoded(bad)), None, "{bad}");
        }
        for bad in ["", "Basic", "Basic !!!", "Digest x", "Basic YTpi YTpi"] {
            assert!(Credentials::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn credentials_are_taken_out_and_two_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert!(matches!(Credentials::take(&mut headers), Ok(Credentials::Bearer(token)) if token == "x"));
        assert!(headers.is_empty());
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer y"));
        assert!(Credentials::take(&mut headers).is_err());
        assert!(headers.is_empty());
        let long = "Bearer ".to_owned() + &"x".repeat(MAX_LENGTH);
        assert!(Credentials::parse(&long).is_none());
    }
}
