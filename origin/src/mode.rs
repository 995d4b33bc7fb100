//! Whether an origin takes writes, as an operator changes it while it runs.

use shoal_registry::Registry;

/// The switch. Clones are one.
#[derive(Clone, Debug)]
pub struct ReadOnlySwitch(pub(crate) Registry);

impl ReadOnlySwitch {
    /// Whether the registry takes no writes.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_read_only()
    }

    /// Has it take none, or take them again. Forgotten by a restart, which does as `registry.read_only` says.
    pub fn set(&self, on: bool) {
        self.0.set_read_only(on);
        tracing::warn!(on, "an operator switched the registry to read only, or back");
    }
}
