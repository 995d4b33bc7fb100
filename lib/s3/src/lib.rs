//! The S3 face of a storage driver: what the `s3` storage driver of the stock registry asks, answered by any [`StorageDriver`].
//!
//! An object's key is a path of the registry layout, and nothing else is a key: [`Keys`]. A multipart upload is a writer's
//! session, a copy of an upload onto a blob is a rename, and what such a copy left behind is deleted by saying so. The
//! protocol and its signatures are those of `s3s`. Not an object store: no other layout, no versions, no access lists.
//!
//! [`StorageDriver`]: shoal_driver::StorageDriver

mod config;
mod error;
mod keys;
mod listing;
mod multipart;
mod objects;
mod parts;
mod repositories;
mod service;
mod uploads;

pub use config::{Access, Config, ConfigError, SecretKey};
pub use keys::{Content, InvalidRoot, Keys, Named};
pub use service::router;
