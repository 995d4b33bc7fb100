//! `shoal prefetch`: asks an origin, and watches how far the agents are.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytesize::ByteSize;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, RequestBuilder, Url};
use serde::de::DeserializeOwned;
use shoal_control::prefetch::Share;

use super::{Ordered, PATH, Progress};

/// What is to be fetched, and by whom.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    shoal prefetch team/app:1 --wait\n  \
    shoal prefetch team/app:1 --zone berlin --share 50% --platform linux/amd64\n  \
    shoal prefetch\n\n\
    Agents hear of it within an announce interval (20 s), and fetch after all that is read.")]
pub(crate) struct Options {
    /// The image, as it is called in this cluster: repository:tag or repository@digest; a host in front does not count. Without it
    /// all orders are shown.
    #[arg(value_name = "REFERENCE")]
    image: Option<String>,
    /// How many of the agents, in percent and rounded up.
    #[arg(long, default_value_t = Share::ALL, value_name = "PERCENT")]
    share: Share,
    /// Those of that data centre, or of that rack.
    #[arg(long, default_value = "", value_name = "ZONE")]
    zone: String,
    /// The image for one platform only: os/architecture[/variant], such as linux/amd64.
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// How long agents are told; 24h at most.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration, value_name = "TIME")]
    ttl: Duration,
    /// Wait until all agents have all of it.
    #[arg(long)]
    wait: bool,
    /// The admin port of an origin: `admin` of its configuration.
    #[arg(long, env = "SHOAL_ADMIN", default_value = "127.0.0.1:15001", value_name = "URL")]
    admin: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// An origin that can be asked.
struct Origin {
    http: Client,
    url: Url,
}

pub(crate) async fn prefetch(options: Options) -> anyhow::Result<()> {
    let origin = Origin::new(&options.admin)?;
    let Some(image) = options.image.clone() else {
        return show_all(&origin.list().await?, options.json);
    };
    let ordered = Ordered {
        image,
        zone: options.zone.clone(),
        share: options.share,
        platform: options.platform.clone(),
        ttl: options.ttl,
    };
    let mut progress = origin.order(&ordered).await?;
    ensure!(
        progress.agents > 0,
        "no tracker knows an agent there (`shoal peers` at a tracker shows them): those that come until {} later are told",
        humantime::format_duration(options.ttl)
    );
    if options.wait {
        progress = origin.watch(progress, options.ttl).await?;
    }
    show(&progress, options.json)
}

impl Origin {
    fn new(admin: &str) -> anyhow::Result<Self> {
        let text = if admin.contains("://") { admin.to_owned() } else { format!("http://{admin}") };
        let url = Url::parse(&text).ok().filter(|url| url.scheme() == "http");
        let url = url.with_context(|| {
            format!(
                "--admin {admin:?}: expected an address such as 127.0.0.1:15001, or http://127.0.0.1:15001"
            )
        })?;
        let http = Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        Ok(Self { http, url: url.join(PATH)? })
    }

    async fn order(&self, ordered: &Ordered) -> anyhow::Result<Progress> {
        self.ask(self.http.post(self.url.clone()).json(ordered)).await
    }

    async fn list(&self) -> anyhow::Result<Vec<Progress>> {
        self.ask(self.http.get(self.url.clone())).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let response = request.send().await.with_context(|| {
            format!("{}: nothing answers there: is that the admin port of an origin that runs? Name another with --admin or SHOAL_ADMIN", self.url)
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.json().await?);
        }
        let text = response.text().await?;
        ensure!(!text.is_empty(), "{} answered {status}: is that the admin port of an origin?", self.url);
        bail!("{}", text.trim())
    }

    /// Draws a bar until all have all.
    async fn watch(&self, mut progress: Progress, ttl: Duration) -> anyhow::Result<Progress> {
        let template = "{msg} {bar:40} {bytes:>10} of {total_bytes:10} {bytes_per_sec:>12}";
        let style = ProgressStyle::with_template(template)?;
        let bar = ProgressBar::new(progress.bytes).with_style(style);
        let end = tokio::time::Instant::now() + ttl;
        while !progress.complete {
            bar.set_message(format!("{} agents", progress.agents));
            bar.set_length(progress.bytes);
            bar.set_position(progress.bytes_there);
            tokio::time::sleep(LOOK).await;
            let found = self.list().await?.into_iter().find(|found| found.id == progress.id);
            match found {
                Some(found) => progress = found,
                None if tokio::time::Instant::now() < end => {}
                None => bail!(
                    "the order is over, and {} of {} are there: the logs of agents say what was not fetched",
                    ByteSize(progress.bytes_there),
                    ByteSize(progress.bytes)
                ),
            }
        }
        bar.finish_and_clear();
        Ok(progress)
    }
}

fn show(progress: &Progress, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(progress)?);
    } else {
        println!("{}", line(progress));
    }
    Ok(())
}

fn show_all(all: &[Progress], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(all)?);
    }
    for progress in all.iter().filter(|_| !json) {
        println!("{}", line(progress));
    }
    Ok(())
}

fn line(progress: &Progress) -> String {
    let Progress { image, zone, share, agents, blobs, bytes, bytes_there, left_s, .. } = progress;
    let place = if zone.is_empty() { String::new() } else { format!(" in {zone}") };
    let state = if progress.complete {
        "all of it is there".to_owned()
    } else {
        format!("{} of {} are there, {left_s} s left", ByteSize(*bytes_there), ByteSize(*bytes))
    };
    format!("{image}: {blobs} blobs to {agents} agents ({share}{place}): {state}")
}

/// An origin that asks trackers which do not answer says so before.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Trackers count the holders of each blob for each look.
const LOOK: Duration = Duration::from_millis(500);
