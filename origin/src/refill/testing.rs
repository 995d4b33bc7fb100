//! A refill over sources that do what the test says.

use std::sync::Arc;

use bytes::Bytes;
use shoal_core::Proof;
use shoal_store::Store;

use super::{Named, Refill, RefillConfig};

pub(crate) fn proof() -> Proof {
    Proof { certificate: Bytes::from_static(b"certificate"), signature: Bytes::from_static(b"signature") }
}

pub(crate) fn refill(store: &Store, sources: Vec<Named>) -> Refill {
    let registry = prometheus::Registry::new();
    Refill::new(RefillConfig::default(), sources, store.clone(), Arc::new(|_| proof()), &registry).unwrap()
}
