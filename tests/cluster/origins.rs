//! Several origins that keep blobs together.

mod backends;
mod behind;
mod history;
mod kills;
mod linearizable;
mod rig;
mod tags;
mod together;
