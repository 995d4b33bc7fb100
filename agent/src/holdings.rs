//! What the cluster is told of what this agent holds: always what the store says, whoever notes it and when.
//!
//! A blob is fetched, committed, evicted and fetched again while others note what they saw; so each note is followed by
//! another look, and the last one is true.

use shoal_control::overlay::OverlayHandle;
use shoal_control::{AnnouncerHandle, Holding};
use shoal_core::Digest;
use shoal_store::{Entry, Store};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Holdings {
    store: Store,
    announcer: AnnouncerHandle,
    overlay: Option<OverlayHandle>,
}

impl Holdings {
    pub(crate) fn new(store: Store, announcer: AnnouncerHandle, overlay: Option<OverlayHandle>) -> Self {
        Self { store, announcer, overlay }
    }

    /// Somebody reads a blob that is here.
    pub(crate) fn used(&self, digest: &Digest) {
        if let Some(overlay) = &self.overlay {
            overlay.used(*digest);
        }
    }

    /// Something became of that blob.
    pub(crate) fn changed(&self, digest: &Digest) {
        note_until_true(
            || self.store.entry(digest).map(|entry| matches!(entry, Entry::Whole(_))),
            |held| match held {
                Some(complete) => {
                    self.announcer.added(Holding { digest: *digest, complete });
                    self.used(digest);
                }
                None => self.removed(digest),
            },
        );
    }

    /// The tracker introduces whoever asks for a blob as one who has some of it: not so, if nothing came.
    pub(crate) fn gave_up(&self, digest: &Digest) {
        match self.store.entry(digest) {
            Some(Entry::Partial(partial)) if partial.bitfield().count() == 0 => {
                self.removed(digest);
            }
            _ => self.changed(digest),
        }
    }

    fn removed(&self, digest: &Digest) {
        self.announcer.removed(*digest);
        if let Some(overlay) = &self.overlay {
            overlay.removed(digest);
        }
    }
}

fn note_until_true<T: PartialEq + Copy>(look: impl Fn() -> T, note: impl Fn(T)) {
    let mut seen = look();
    loop {
        note(seen);
        let now = look();
        if now == seen {
            return;
        }
        seen = now;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn what_changes_while_it_is_noted_is_noted_again() {
        let (held, notes) = (Cell::new(Some(true)), RefCell::new(Vec::new()));
        note_until_true(
            || held.get(),
            |seen| {
                notes.borrow_mut().push(seen);
                // Evicted just then; and begun anew while that is noted.
                held.set(if seen == Some(true) { None } else { Some(false) });
            },
        );
        assert_eq!(*notes.borrow(), [Some(true), None, Some(false)]);
    }
}
