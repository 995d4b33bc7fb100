//! How a write by replication is known as one: by its `User-Agent`, which every registry passes on to whoever hears of it.
//!
//! It only saves work and ends what would go round: nobody gets a right by it, so it need not be proved.

/// By how many clusters a tag may be passed on: the longest chain that anybody should build.
pub(super) const MAX_HOPS: u32 = 8;

const SHOAL: &str = "shoal/";
const BEGIN: &str = " (replication; hops=";

/// What the write calls itself that passes on what came over so many clusters.
pub(super) fn user_agent(hops: u32) -> String {
    format!("{SHOAL}{}{BEGIN}{})", env!("CARGO_PKG_VERSION"), hops.saturating_add(1))
}

/// Over how many clusters a write came: 0 if a client of this one did it.
pub(super) fn hops(user_agent: &str) -> u32 {
    let Some((version, rest)) = user_agent.split_once(BEGIN) else { return 0 };
    if !version.starts_with(SHOAL) {
        return 0;
    }
    rest.strip_suffix(')').and_then(|hops| hops.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_write_says_one_more(before in 0u32..1000) {
            prop_assert_eq!(hops(&user_agent(before)), before + 1);
        }

        #[test]
        fn whatever_a_client_calls_itself_is_read(text: String) {
            hops(&text);
        }
    }

    #[test]
    fn clients_are_no_replication() {
        for other in
            ["", "docker/27", "shoal/0.1.0", "curl (replication; hops=3)", "shoal/1 (replication; hops=x)"]
        {
            assert_eq!(hops(other), 0, "{other}");
        }
    }
}
