//! Images between registries and files by the commands of the binary: our origin and agent, Debian's docker-registry beside them.

mod files;
mod registries;
mod resume;
pub(crate) mod rig;
mod tls;
mod tokens;
