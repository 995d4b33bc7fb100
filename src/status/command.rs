//! `shoal status`, `shoal peers` and `shoal swarm`: ask an admin port, and print.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_core::Digest;

use super::render::Render;
use super::{Peers, Query, ReadOnly, Retried, Status, Swarm, path};

/// Whom to ask, and how to print the answer.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The admin port of the role to ask: `admin` of its configuration, with or without http://. An agent's is
    /// 127.0.0.1:16001 by default, an origin's 127.0.0.1:15001, a tracker's 127.0.0.1:15005.
    #[arg(long, env = "SHOAL_ADMIN", default_value = "127.0.0.1:16001", value_name = "URL")]
    admin: String,
    /// Print JSON in place of tables.
    #[arg(long)]
    json: bool,
    /// The most entries of a list; what is left out is said.
    #[arg(long, default_value_t = 1000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    limit: u64,
    /// How long the role is watched for the rates that are shown, in milliseconds; 0: no rates.
    #[arg(long, default_value_t = 500, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(..=Query::MAX_OVER_MS))]
    over: u64,
}

/// The same, of a blob.
#[derive(Clone, Debug, Args)]
pub(crate) struct SwarmOptions {
    /// The blob's digest, such as sha256:e3b0c442….
    #[arg(value_parser = |text: &str| Digest::parse(text), value_name = "DIGEST")]
    digest: Digest,
    #[command(flatten)]
    options: Options,
}

/// The same, and what is to be.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReadOnlyOptions {
    /// On: writes are refused with 405. Off: they are taken again. Without it: says which it is.
    #[arg(value_enum)]
    switch: Option<Switch>,
    #[command(flatten)]
    options: Options,
}

/// One of two.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switch {
    /// Pulls alone.
    On,
    /// Pulls and writes.
    Off,
}

/// Switches an origin to read only, or back; until it starts anew.
pub(crate) async fn read_only(ReadOnlyOptions { switch, options }: ReadOnlyOptions) -> anyhow::Result<()> {
    let mode: ReadOnly = match switch {
        None => options.ask(path::READ_ONLY, 0).await?,
        Some(Switch::On) => options.send(Method::POST, &format!("{}/on", path::READ_ONLY), 0).await?,
        Some(Switch::Off) => options.send(Method::POST, &format!("{}/off", path::READ_ONLY), 0).await?,
    };
    options.print(&mode)
}

/// What a role is and does.
pub(crate) async fn status(options: Options) -> anyhow::Result<()> {
    let status: Status = options.ask(path::STATUS, 0).await?;
    options.print(&status)
}

/// Has an origin try again what it gave up.
pub(crate) async fn retry(options: Options) -> anyhow::Result<()> {
    let retried: Retried = options.send(Method::POST, path::RETRY, 0).await?;
    options.print(&retried)
}

/// Whom a role knows, page by page.
pub(crate) async fn peers(options: Options) -> anyhow::Result<()> {
    let mut peers: Peers = options.ask(path::PEERS, 0).await?;
    if let Peers::Tracker(all) = &mut peers {
        while let Some(next) = all.next
            && (all.entries.len() as u64) < options.limit
        {
            let Peers::Tracker(more) = options.ask(path::PEERS, next).await? else {
                bail!("{} became another role while it was asked: ask again", options.admin);
            };
            all.entries.extend(more.entries);
            (all.total, all.next, all.truncated) = (more.total, more.next, more.truncated);
        }
        let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
        all.truncated |= all.entries.len() > limit;
        all.entries.truncate(limit);
    }
    options.print(&peers)
}

/// Who has what of a blob.
pub(crate) async fn swarm(SwarmOptions { digest, options }: SwarmOptions) -> anyhow::Result<()> {
    let swarm: Swarm = options.ask(&format!("{}/{digest}", path::SWARM), 0).await?;
    options.print(&swarm)
}

impl Options {
    fn print(&self, answer: &(impl Render + Serialize)) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(answer)?);
        } else {
            println!("{}", answer.render());
        }
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, after: u64) -> anyhow::Result<T> {
        self.send(Method::GET, path, after).await
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, after: u64) -> anyhow::Result<T> {
        let base = base(&self.admin)?;
        let mut url = base.join(path)?;
        let limit = self.limit.min(Query::MAX_LIMIT as u64);
        url.query_pairs_mut()
            .append_pair("limit", &limit.to_string())
            .append_pair("after", &after.to_string())
            .append_pair("over_ms", &self.over.to_string());
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        let response = http.request(method, url).send().await.map_err(|error| self.explain(error))?;
        let status = response.status();
        let body = read(response).await.with_context(|| format!("{base} did not answer in full"))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .with_context(|| format!("{base} answered what this version of shoal does not understand")),
            StatusCode::NOT_FOUND => bail!(
                "{base} has no {path}: is that the admin port of a role (`admin` of its configuration), and of this version?"
            ),
            status => bail!("{base} answered {status}: {}", String::from_utf8_lossy(&body).trim()),
        }
    }

    fn explain(&self, error: reqwest::Error) -> anyhow::Error {
        let what = if error.is_connect() {
            "nothing answers there: is the role running, and is this the `admin` address of its configuration? \
             Name another with --admin or SHOAL_ADMIN"
        } else if error.is_timeout() {
            "it does not answer in time: is that an admin port, and is the role busy or stopped?"
        } else {
            "that is no answer of an admin port"
        };
        anyhow::Error::from(error.without_url()).context(format!("{}: {what}", self.admin))
    }
}

/// The root of an admin port that was named as URL or as address.
fn base(admin: &str) -> anyhow::Result<Url> {
    let text = if admin.contains("://") { admin.to_owned() } else { format!("http://{admin}") };
    match Url::parse(&text) {
        Ok(url) if url.scheme() == "http" && url.has_host() => Ok(url),
        _ => {
            bail!("--admin {admin:?}: expected an address such as 127.0.0.1:16001, or http://127.0.0.1:16001")
        }
    }
}

/// The body, as far as it has no more bytes than any answer.
async fn read(mut response: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            bail!("it says more than {MAX_ANSWER} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The longest `over`, the trackers' second, and time to spare on a busy host.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A thousand entries of at most 2 KiB, twice.
const MAX_ANSWER: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_is_named_by_url_or_address() {
        for good in
            ["127.0.0.1:16001", "http://127.0.0.1:16001", "http://127.0.0.1:16001/", "[::1]:1", "localhost:1"]
        {
            assert_eq!(base(good).unwrap().path(), "/", "{good}");
        }
        for bad in ["https://127.0.0.1:1", "", "http://", "ftp://x:1"] {
            assert!(base(bad).unwrap_err().to_string().contains("such as 127.0.0.1:16001"), "{bad}");
        }
    }
}
