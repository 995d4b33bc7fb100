//! `Link: <…>; rel="next"`: where a list goes on (RFC 8288, 3; distribution-spec, "Content Discovery").

use reqwest::Url;

/// Why a list cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("its Link header is not valid")]
    Invalid,
    #[error("its next page is at {0}, another host")]
    OtherHost(String),
}

/// The next page, if there is one; `page` is where this one came from.
pub(crate) fn next<'a>(
    page: &Url,
    headers: impl IntoIterator<Item = &'a str>,
) -> Result<Option<Url>, LinkError> {
    for header in headers {
        let mut rest = header.trim_start_matches(SEPARATORS);
        while !rest.is_empty() {
            let (target, parameters, after) = one(rest).ok_or(LinkError::Invalid)?;
            if is_next(parameters) {
                return resolve(page, target).map(Some);
            }
            rest = after.trim_start_matches(SEPARATORS);
        }
    }
    Ok(None)
}

fn resolve(page: &Url, target: &str) -> Result<Url, LinkError> {
    let url = page.join(target).map_err(|_| LinkError::Invalid)?;
    if url.origin() != page.origin() || !url.username().is_empty() || url.password().is_some() {
        return Err(LinkError::OtherHost(url.origin().ascii_serialization()));
    }
    Ok(url)
}

/// The first link: its target, its parameters, and what comes after it. A comma in quotes ends nothing.
fn one(text: &str) -> Option<(&str, &str, &str)> {
    let (target, rest) = text.strip_prefix('<')?.split_once('>')?;
    let (mut quoted, mut escaped) = (false, false);
    let end = rest.find(|character| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return character == ',' && !quoted,
        }
        false
    });
    let (parameters, after) = rest.split_at(end.unwrap_or(rest.len()));
    Some((target, parameters, after))
}

fn is_next(parameters: &str) -> bool {
    parameters.split(';').filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let relations = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel")
            && relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

const SEPARATORS: [char; 3] = [' ', '\t', ','];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page() -> Url {
        Url::parse("https://registry.example/v2/a/tags/list?n=2").unwrap()
    }

    #[test]
    fn the_next_page_is_found() {
        let there = |path: &str| Ok(Some(Url::parse(&format!("https://registry.example{path}")).unwrap()));
        for (header, next_page) in [
            ("</v2/a/tags/list?last=b&n=2>; rel=\"next\"", there("/v2/a/tags/list?last=b&n=2")),
            ("<?last=b>;rel=next", there("/v2/a/tags/list?last=b")),
            ("<https://registry.example/x>; title=\"a,b\"; REL=\"last next\"", there("/x")),
            ("</a>; rel=prev, </b,c>; rel=next", there("/b,c")),
            ("</a>; rel=prev", Ok(None)),
            ("", Ok(None)),
            ("nonsense", Err(LinkError::Invalid)),
            ("<https://evil.example/x>; rel=next", Err(LinkError::OtherHost("https://evil.example".into()))),
            (
                "<http://registry.example/x>; rel=next",
                Err(LinkError::OtherHost("http://registry.example".into())),
            ),
            ("<//evil.example/x>; rel=next", Err(LinkError::OtherHost("https://evil.example".into()))),
        ] {
            assert_eq!(next(&page(), [header]), next_page, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_link_leaves_the_host(text in "[ -~]{0,60}") {
            if let Ok(Some(url)) = next(&page(), [format!("<{text}>; rel=next").as_str()]) {
                prop_assert_eq!(url.origin(), page().origin());
            }
        }
    }
}
