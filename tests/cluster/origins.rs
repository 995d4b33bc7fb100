//! Several origins that keep blobs together.

mod kills;
mod rig;
mod together;
