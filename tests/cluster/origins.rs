//! Several origins that keep blobs together.

mod behind;
mod kills;
mod rig;
mod together;
