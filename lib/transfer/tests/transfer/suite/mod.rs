//! What holds over any transport; `TRANSPORT` of the module above says which.

pub(crate) mod connections;
pub(crate) mod demand;
pub(crate) mod exchange;
pub(crate) mod hostile;
pub(crate) mod looks;
pub(crate) mod node;
pub(crate) mod puppet;
pub(crate) mod recording;
