//! Bars on a terminal: one for each blob that moves, one for all.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use shoal_core::Digest;
use shoal_images::{Progress, Put};
use shoal_upstream::Descriptor;

/// Draws to standard error, and nothing where that is no terminal.
pub(super) struct Bars {
    bars: MultiProgress,
    moving: Mutex<Moving>,
}

#[derive(Default)]
struct Moving {
    all: Option<ProgressBar>,
    sizes: HashMap<Digest, u64>,
    blobs: HashMap<Digest, ProgressBar>,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self { bars: MultiProgress::new(), moving: Mutex::default() }
    }

    /// Takes all bars away.
    pub(super) fn end(&self) {
        let _ = self.bars.clear();
    }

    fn bar(&self, name: String, length: u64) -> ProgressBar {
        let template = "{prefix:19} {bar:40} {bytes:>10} of {total_bytes:10} {bytes_per_sec:>12}";
        let style = ProgressStyle::with_template(template).expect("the template is a constant");
        self.bars.add(ProgressBar::new(length).with_style(style).with_prefix(name))
    }

    fn moving(&self) -> MutexGuard<'_, Moving> {
        // A panic elsewhere leaves a bar too many at worst.
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bars {
    fn planned(&self, blobs: &[Descriptor]) {
        let mut moving = self.moving();
        moving.sizes = blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
        moving.all = Some(self.bar("all".into(), blobs.iter().map(|blob| blob.size).sum()));
    }

    fn at(&self, digest: &Digest, bytes: u64) {
        let mut moving = self.moving();
        let Some(&size) = moving.sizes.get(digest) else { return };
        let bar = moving.blobs.entry(*digest).or_insert_with(|| {
            let hex = digest.hex();
            self.bar(format!("{}:{}", digest.algorithm(), &hex[..12]), size)
        });
        let before = bar.position();
        bar.set_position(bytes);
        if let Some(all) = &moving.all {
            all.set_position((all.position() + bytes).saturating_sub(before));
        }
    }

    fn done(&self, blob: &Descriptor, _put: Put) {
        let mut moving = self.moving();
        let counted = moving.blobs.remove(&blob.digest).map_or(0, |bar| {
            let counted = bar.position();
            bar.finish_and_clear();
            self.bars.remove(&bar);
            counted
        });
        if let Some(all) = &moving.all {
            all.inc(blob.size.saturating_sub(counted));
        }
    }
}
