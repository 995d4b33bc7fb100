//! What comes from outside to prove somebody: join tokens and revocation lists.

#![no_main]

use std::sync::LazyLock;

use shoal_core::Role;
use shoal_identity::{Authority, Identity, JoinToken, Serial};

static NODE: LazyLock<Identity> = LazyLock::new(|| {
    shoal_identity::install_crypto_provider();
    Authority::generate("fuzz").unwrap().issue(Role::Agent, "node").unwrap()
});

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = Serial::parse(text);
    let _ = JoinToken::parse(text);
    // Nobody but the authority can sign one.
    assert!(NODE.revoke(text).is_err());
});
