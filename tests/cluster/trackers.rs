//! Several trackers: each with its share of the blobs, and all with the same state through a Redis server.

mod alone;
mod redis;
mod rig;
mod together;
