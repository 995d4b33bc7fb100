//! How deep a JSON document is nested, before anybody reads it by recursion.

/// The most arrays and objects that are open at one place. Brackets in strings are text. For what is no JSON it is
/// some number: the reader says what is wrong.
pub(super) fn of(json: &[u8]) -> usize {
    let (mut open, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                open += 1;
                deepest = deepest.max(open);
            }
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_counted_outside_of_strings() {
        for (json, depth) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[{}],"b":[]}"#, 3),
            (r#"{"[[[":"{{{","\"[":"\\","a":[]}"#, 2),
            ("]]]]", 0),
            ("[[[", 3),
        ] {
            assert_eq!(of(json.as_bytes()), depth, "{json}");
        }
    }
}
