//! Several origins that keep blobs together.

mod history;
mod kills;
mod linearizable;
mod rig;
mod tags;
mod together;
