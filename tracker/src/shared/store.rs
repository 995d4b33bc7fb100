//! The commands to a Redis or Valkey server. What is written and what is believed is decided elsewhere.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, Script,
    TlsCertificates,
};
use shoal_core::PeerId;

use super::config::Redis;
use super::message::{self, MAX_FIELD, MAX_HEAD};
use crate::state::replica::{Event, Record, Said};

/// A connection to the server, and what the keys are called.
pub(super) struct Store {
    connection: MultiplexedConnection,
    client: Client,
    names: Names,
    scripts: Scripts,
    lease: Duration,
    max_fields: usize,
    connect_timeout: Duration,
}

/// What everything is called there.
#[derive(Clone)]
struct Names {
    prefix: String,
}

struct Scripts {
    write: Script,
    read: Script,
    list: Script,
}

/// What became of something that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// The store has later words of that node.
    Older,
    /// The store lacks what it builds on: all of the node must be written.
    Gap,
}

/// What there is of a node.
#[derive(Debug)]
pub(super) enum Read {
    Missing,
    Found {
        left: Duration,
        fields: Vec<Vec<u8>>,
    },
    /// Larger than can be, or without an end.
    Impossible,
}

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("the server cannot be used: {0}")]
    Redis(#[from] RedisError),
    #[error("no answer in time")]
    Timeout,
    #[error("the server closed the channel on which the trackers tell each other of changes")]
    Closed,
    #[error("more messages came than this tracker could read")]
    Flooded,
    #[error("cannot read {path}, which the configuration names for the server")]
    File { path: PathBuf, source: io::Error },
}

impl Store {
    /// Connects, and leaves the scripts there.
    pub(super) async fn connect(
        config: &Redis,
        lease: Duration,
        max_holdings: usize,
    ) -> Result<Self, StoreError> {
        let client = open(config)?;
        let timeouts = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.timeout));
        let connecting = client.get_multiplexed_async_connection_with_config(&timeouts);
        let connecting = tokio::time::timeout(config.connect_timeout * 2, connecting);
        let mut connection = connecting.await.map_err(|_| StoreError::Timeout)??;
        let scripts = Scripts {
            write: Script::new(include_str!("write.lua")),
            read: Script::new(include_str!("read.lua")),
            list: Script::new(include_str!("list.lua")),
        };
        for script in [&scripts.write, &scripts.read, &scripts.list] {
            script.load_async(&mut connection).await?;
        }
        Ok(Self {
            connection,
            client,
            names: Names { prefix: config.prefix.clone() },
            scripts,
            lease,
            max_fields: max_holdings.saturating_add(OTHER_FIELDS),
            connect_timeout: config.connect_timeout,
        })
    }

    /// What the other trackers say from now on (and this one too).
    pub(super) async fn subscribe(&self) -> Result<PubSub, StoreError> {
        let subscribing = async {
            let mut messages = self.client.get_async_pubsub().await?;
            messages.subscribe(self.names.channel()).await?;
            Ok(messages)
        };
        tokio::time::timeout(self.connect_timeout * 2, subscribing).await.map_err(|_| StoreError::Timeout)?
    }

    /// Asks whether it is there.
    pub(super) async fn ping(&mut self) -> Result<(), StoreError> {
        Ok(redis::cmd("PING").query_async(&mut self.connection).await?)
    }

    /// Writes what nodes said, and tells the others.
    pub(super) async fn write(&mut self, events: &[Event]) -> Result<Vec<Written>, StoreError> {
        let mut pipe = redis::pipe();
        events.iter().for_each(|event| self.write_one(&mut pipe, event));
        let answers: Vec<i64> = self.ask_all(&pipe).await?;
        let read = |answer| match answer {
            1 => Written::Done,
            0 => Written::Older,
            _ => Written::Gap,
        };
        Ok(answers.into_iter().map(read).collect())
    }

    fn write_one(&self, pipe: &mut Pipeline, event: &Event) {
        let (base, announce) = match &event.said {
            Said::Changed { base, announce } => (*base, Some(announce)),
            // Of something whole the record comes in its place.
            Said::Whole | Said::Left => (0, None),
        };
        let (added, removed) = announce.map_or((&[][..], &[][..]), |one| (&one.added[..], &one.removed[..]));
        let head = announce.map(|announce| message::head(announce)).unwrap_or_default();
        let command = pipe.cmd("EVALSHA").arg(self.scripts.write.get_hash()).arg(2);
        command.arg(self.names.node(&event.id)).arg(self.names.index());
        command.arg(event.id.to_string()).arg(event.version).arg(base).arg(milliseconds(self.lease));
        command.arg(self.names.channel()).arg(message::message(event)).arg(head).arg(added.len());
        for holding in added {
            command.arg(holding.digest.to_string()).arg(message::flag(holding.complete));
        }
        for digest in removed {
            command.arg(digest.to_string());
        }
    }

    /// Reads what there is of nodes.
    pub(super) async fn read(&mut self, ids: &[PeerId]) -> Result<Vec<Read>, StoreError> {
        let mut pipe = redis::pipe();
        for id in ids {
            let command =
                pipe.cmd("EVALSHA").arg(self.scripts.read.get_hash()).arg(1).arg(self.names.node(id));
            command.arg(self.max_fields).arg(MAX_FIELD).arg(MAX_HEAD);
        }
        let answers: Vec<(i64, Vec<Vec<u8>>)> = self.ask_all(&pipe).await?;
        let read = |(left, fields)| match u64::try_from(left) {
            Ok(left) => Read::Found { left: Duration::from_millis(left), fields },
            Err(_) if left == -2 => Read::Missing,
            Err(_) => Read::Impossible,
        };
        Ok(answers.into_iter().map(read).collect())
    }

    /// The ids from a place on, and how many there are in all. What is no id is left out.
    pub(super) async fn list(&mut self, from: usize) -> Result<(usize, Vec<PeerId>), StoreError> {
        let mut pipe = redis::pipe();
        let command = pipe.cmd("EVALSHA").arg(self.scripts.list.get_hash()).arg(1).arg(self.names.index());
        command.arg(from).arg(PAGE).arg(MAX_ID);
        let mut answers: Vec<(usize, Vec<Vec<u8>>)> = self.ask_all(&pipe).await?;
        let (count, ids) = answers.pop().unwrap_or_default();
        let id = |text: Vec<u8>| PeerId::parse(std::str::from_utf8(&text).ok()?).ok();
        Ok((count, ids.into_iter().filter_map(id).collect()))
    }

    async fn ask_all<T: FromRedisValue>(&mut self, pipe: &Pipeline) -> Result<Vec<T>, StoreError> {
        if pipe.is_empty() {
            return Ok(Vec::new());
        }
        Ok(pipe.query_async(&mut self.connection).await?)
    }
}

impl Names {
    fn node(&self, id: &PeerId) -> String {
        format!("{}node:{id}", self.prefix)
    }

    fn index(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    fn channel(&self) -> String {
        format!("{}changes", self.prefix)
    }
}

/// The messages of a subscription, as many as fit; whoever sends more than can be read costs this tracker the connection, not
/// its memory.
pub(super) async fn pump(messages: PubSub, to: tokio::sync::mpsc::Sender<Vec<u8>>) -> StoreError {
    let mut payloads = messages.into_on_message().map(|message| message.get_payload_bytes().to_vec());
    while let Some(payload) = payloads.next().await {
        if to.try_send(payload).is_err() {
            return StoreError::Flooded;
        }
    }
    StoreError::Closed
}

/// The events with which all of a node is written.
pub(super) fn whole(Record { version, announce, .. }: Record) -> Event {
    Event { id: announce.address.id, version, said: Said::Changed { base: 0, announce: Box::new(announce) } }
}

/// Files are read at each connection, so that they may change.
fn open(config: &Redis) -> Result<Client, StoreError> {
    let mut info = config.url.as_str().into_connection_info()?;
    if let Some(path) = &config.password_file {
        let password = String::from_utf8_lossy(&read_file(path)?).trim_end().to_owned();
        let settings = info.redis_settings().clone().set_password(password);
        info = info.set_redis_settings(settings);
    }
    let Some(path) = &config.ca else { return Ok(Client::open(info)?) };
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(read_file(path)?) };
    Ok(Client::build_with_tls(info, certificates)?)
}

fn read_file(path: &Path) -> Result<Vec<u8>, StoreError> {
    std::fs::read(path).map_err(|source| StoreError::File { path: path.to_owned(), source })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Ids of one page of the index: 26 KB.
pub(super) const PAGE: usize = 500;
/// The longest text of an id.
const MAX_ID: usize = 64;
/// Fields of a node beside its holdings.
const OTHER_FIELDS: usize = 2;
