//! What an operator may set on a store: one that keeps everything, or one that keeps what there is room for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bytesize::ByteSize;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// A store that keeps everything until it is told to delete it: an origin's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory; made if missing. One process has it at a time.
    pub directory: PathBuf,
}

/// A store whose blobs can be had again from elsewhere: an agent's. It gives up what was not used for longest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// The directory; made if missing. One process has it at a time.
    pub directory: PathBuf,
    /// How many bytes of blobs there may be, those on their way included; never more. `"40GiB"`, or a share of the file
    /// system. 25 %: a runtime unpacks what it pulls to about three times its size, mostly onto the same file system.
    #[serde(default = "default_capacity")]
    pub capacity: Room,
    /// The share of the capacity above which blobs are given up in the background. 95 %: then a pull that begins finds room
    /// for a blob of a twentieth of the capacity without waiting for files to be removed.
    #[serde(default = "default_high_watermark")]
    pub high_watermark: Percent,
    /// The share of the capacity at which that ends. 90 %: a twentieth goes at a time, and the rest is worth keeping.
    #[serde(default = "default_low_watermark")]
    pub low_watermark: Percent,
    /// How much of the file system stays free for others, whatever the capacity: blobs are given up for it, and where that
    /// is not enough a pull is refused. Bytes or a share. 10 %: below it a kubelet begins to evict the pods of its host.
    #[serde(default = "default_min_free")]
    pub min_free: Room,
    /// What is checked before a blob counts as whole.
    #[serde(default)]
    pub verify: Verify,
}

/// What is checked of a blob that came in pieces. Each piece is always checked against the hash that an origin signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// The blob's own digest too, while it comes in: no trust in the origin that cut it is needed. Costs a second hash of
    /// every byte, 0.6 CPU s/GiB with SHA-256.
    #[default]
    Full,
    /// Nothing more: an origin computed both hashes in one pass and signed that they are of the same bytes.
    Pieces,
}

/// An amount of disk space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// That many bytes.
    Bytes(ByteSize),
    /// That share of the whole file system that the store is on.
    Share(Percent),
}

/// A share, in whole percent: `"25%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

/// What is no amount of disk space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: write {example}")]
pub struct RoomError {
    text: String,
    what: &'static str,
    example: &'static str,
}

impl CacheConfig {
    /// The defaults for a directory.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            capacity: default_capacity(),
            high_watermark: default_high_watermark(),
            low_watermark: default_low_watermark(),
            min_free: default_min_free(),
            verify: Verify::default(),
        }
    }
}

impl Room {
    /// In bytes, on a file system of that size.
    #[must_use]
    pub fn of(self, file_system: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.as_u64(),
            Self::Share(percent) => percent.of(file_system),
        }
    }
}

impl Percent {
    /// That many hundredths; `None` above a hundred.
    #[must_use]
    pub const fn new(hundredths: u8) -> Option<Self> {
        if hundredths <= 100 { Some(Self(hundredths)) } else { None }
    }

    /// That share of a whole.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        // Divided first where the product would not fit: exact to a hundred bytes is enough for exabytes.
        whole.checked_mul(self.0.into()).map_or(whole / 100 * u64::from(self.0), |product| product / 100)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for Percent {
    type Err = RoomError;

    fn from_str(text: &str) -> Result<Self, RoomError> {
        let hundredths = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        hundredths.and_then(Self::new).ok_or_else(|| RoomError {
            text: text.into(),
            what: "share",
            example: "\"25%\", from 0% to 100%",
        })
    }
}

impl FromStr for Room {
    type Err = RoomError;

    fn from_str(text: &str) -> Result<Self, RoomError> {
        if text.ends_with('%') {
            return text.parse().map(Self::Share);
        }
        text.parse().map(Self::Bytes).map_err(|_| RoomError {
            text: text.into(),
            what: "amount of disk space",
            example: "\"40GiB\" or \"25%\"",
        })
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Room {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(RoomVisitor)
    }
}

struct RoomVisitor;

impl Visitor<'_> for RoomVisitor {
    type Value = Room;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount of disk space, as \"40GiB\" or \"25%\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Room, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Room, E> {
        Ok(Room::Bytes(ByteSize(bytes)))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Room, E> {
        let bytes = u64::try_from(bytes).map_err(|_| E::custom("an amount of disk space is not below 0"))?;
        self.visit_u64(bytes)
    }
}

fn default_capacity() -> Room {
    Room::Share(Percent(25))
}

fn default_high_watermark() -> Percent {
    Percent(95)
}

fn default_low_watermark() -> Percent {
    Percent(90)
}

fn default_min_free() -> Room {
    Room::Share(Percent(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bytes_or_a_share() {
        let room = |text: &str| text.parse::<Room>();
        assert_eq!(room("40GiB").unwrap().of(0), 40 << 30);
        assert_eq!(room("25%").unwrap().of(1000), 250);
        assert_eq!(room("100%").unwrap().of(u64::MAX), u64::MAX / 100 * 100);
        for wrong in ["101%", "-1%", "%", "much", "", "1.5%"] {
            let error = room(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")) && error.contains('%'), "{error}");
        }
    }
}
