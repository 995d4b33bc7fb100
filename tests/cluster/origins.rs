//! Several origins that keep blobs together.

mod backends;
mod behind;
mod deletes;
mod garbage;
mod history;
mod kills;
mod linearizable;
mod network;
mod rig;
mod sessions;
mod tags;
mod together;
mod upstreams;
