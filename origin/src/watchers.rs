//! Several who are told what clients do, as one.

use std::sync::Arc;

use async_trait::async_trait;
use shoal_registry::event::{Action, Event, Watcher};

/// All are told of everything that one of them watches; each leaves out what is not for it.
pub(crate) struct Watchers(pub(crate) Vec<Arc<dyn Watcher>>);

#[async_trait]
impl Watcher for Watchers {
    fn watches(&self, action: &Action) -> bool {
        self.0.iter().any(|watcher| watcher.watches(action))
    }

    async fn happened(&self, event: Event) {
        for watcher in self.0.iter().filter(|watcher| watcher.watches(&event.action)) {
            watcher.happened(event.clone()).await;
        }
    }
}
