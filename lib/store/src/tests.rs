//! What the store promises, by theme.

mod appending;
mod crash;
mod evicting;
mod importing;
mod model;
mod opening;
mod reading;
mod writing;
