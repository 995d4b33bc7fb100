//! Several origins that keep blobs together.

mod deletes;
mod garbage;
mod history;
mod kills;
mod linearizable;
mod rig;
mod tags;
mod together;
