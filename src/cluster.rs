//! A whole cluster in one process: tracker, origin and agents, each with its own folder, on loopback.
//!
//! Every role is the real one, with real sockets and certificates. The demo, `shoal dev` and the tests start it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use prometheus::Registry;
use serde::de::DeserializeOwned;
use serde_json::json;
use shoal_agent::Agent;
use shoal_core::Role;
use shoal_identity::{Authority, Identity};
use shoal_origin::Origin;
use shoal_tracker::Tracker;

/// What kind of cluster is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything is kept. What an earlier cluster left there is taken up again.
    pub directory: PathBuf,
    /// How many agents.
    pub agents: usize,
    /// Which ports.
    pub ports: Ports,
}

/// Which ports a cluster listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Any that are free.
    Free,
    /// The well-known ones of development: 15000 (origin), 15003 (tracker), 16000, 16010, 16020 … (agents).
    Development,
}

/// A cluster at work.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    authority: Authority,
    tracker: Option<Tracker>,
    tracker_url: String,
    origin: Option<Origin>,
    origin_url: String,
    agents: Vec<Option<Agent>>,
}

impl Cluster {
    /// Starts tracker, origin and agents, in that order.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let authority = authority(&plan.directory.join("ca"))?;
        let (tracker, origin) = (String::new(), String::new());
        let mut cluster = Self {
            plan,
            authority,
            tracker: None,
            tracker_url: tracker,
            origin: None,
            origin_url: origin,
            agents: Vec::new(),
        };
        cluster.start_tracker().await?;
        cluster.start_origin().await?;
        for number in 0..cluster.plan.agents {
            cluster.agents.push(None);
            cluster.start_agent(number).await?;
        }
        Ok(cluster)
    }

    /// The origin.
    ///
    /// # Panics
    /// If it was stopped.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        self.origin.as_ref().expect("the origin was not stopped")
    }

    /// The agent of that number, from 0.
    ///
    /// # Panics
    /// If there is none, or it was stopped.
    #[must_use]
    pub fn agent(&self, number: usize) -> &Agent {
        self.agents[number].as_ref().expect("the agent was not stopped")
    }

    /// How many agents there are, stopped ones included.
    #[must_use]
    pub fn agent_count(&self) -> usize {
        self.agents.len()
    }

    /// Starts the tracker: again on its old port, if it was stopped.
    pub async fn start_tracker(&mut self) -> anyhow::Result<()> {
        let identity = self.identity(Role::Tracker, "tracker")?;
        let listen = match self.tracker_url.strip_prefix("https://") {
            Some(old) => old.parse()?,
            None => self.listen(15003),
        };
        let config: shoal_tracker::Config = made(json!({
            "listen": listen,
            "identity": { "directory": "" },
        }))?;
        let tracker = Tracker::bind(config, identity, &Registry::new()).await?;
        self.tracker_url = format!("https://{}", tracker.local_address());
        self.tracker = Some(tracker);
        Ok(())
    }

    /// Starts the origin: again on its old API port, if it was stopped.
    pub async fn start_origin(&mut self) -> anyhow::Result<()> {
        let identity = self.identity(Role::Origin, "origin")?;
        let api: SocketAddr = match self.origin_url.strip_prefix("https://") {
            Some(old) => old.parse()?,
            None => self.listen(15002),
        };
        let config: shoal_origin::Config = made(json!({
            "listen": self.listen(15000),
            "api_listen": api,
            "tracker": [self.tracker_url],
            "identity": { "directory": "" },
            "store": { "directory": self.folder("origin") },
            "transfer": { "listen": self.listen(15001) },
        }))?;
        let origin = Origin::bind(config, identity, &Registry::new()).await?;
        self.origin_url = format!("https://{}", origin.api_address());
        self.origin = Some(origin);
        Ok(())
    }

    /// Starts an agent, or one that was stopped again, with what its folder holds.
    pub async fn start_agent(&mut self, number: usize) -> anyhow::Result<()> {
        let name = format!("agent-{number}");
        let identity = self.identity(Role::Agent, &name)?;
        let base = 16000 + 10 * u16::try_from(number).context("too many agents")?;
        let config: shoal_agent::Config = made(json!({
            "listen": self.listen(base),
            "tracker": [self.tracker_url],
            "origins": [self.origin_url],
            "identity": { "directory": "" },
            // A developer's disk may well be smaller than a host's, and fuller than that should be.
            "store": { "directory": self.folder(&name), "capacity": "100%", "min_free": "256MiB" },
            "transfer": { "listen": self.listen(base + 1) },
            "registry": { "namespaces": { "registry.example.com": "" } },
        }))?;
        self.agents[number] = Some(Agent::bind(config, identity, &Registry::new()).await?);
        Ok(())
    }

    /// Stops an agent; its folder stays.
    pub async fn stop_agent(&mut self, number: usize) {
        if let Some(agent) = self.agents[number].take() {
            agent.shutdown().await;
        }
    }

    /// Stops the origin; its folder stays.
    pub async fn stop_origin(&mut self) {
        if let Some(origin) = self.origin.take() {
            origin.shutdown().await;
        }
    }

    /// Stops the tracker; it forgets everything.
    pub async fn stop_tracker(&mut self) {
        if let Some(tracker) = self.tracker.take() {
            tracker.shutdown().await;
        }
    }

    /// Stops everything.
    pub async fn shutdown(mut self) {
        for number in 0..self.agents.len() {
            self.stop_agent(number).await;
        }
        self.stop_origin().await;
        self.stop_tracker().await;
    }

    /// The tracker, as its clients name it.
    #[must_use]
    pub fn tracker_url(&self) -> &str {
        &self.tracker_url
    }

    /// A further certificate of this cluster: the one of an earlier run, if there was one.
    pub fn identity(&self, role: Role, name: &str) -> anyhow::Result<Identity> {
        let directory = self.folder(name).join("identity");
        if directory.exists() {
            return Ok(Identity::load(&shoal_identity::Config::at(directory))?);
        }
        let identity = self.authority.issue(role, name)?;
        identity.save(&directory)?;
        Ok(identity)
    }

    /// Where a role keeps what it has.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.plan.directory.join(name)
    }

    fn listen(&self, port: u16) -> SocketAddr {
        let port = if self.plan.ports == Ports::Free { 0 } else { port };
        (Ipv4Addr::LOCALHOST, port).into()
    }
}

fn authority(directory: &Path) -> anyhow::Result<Authority> {
    if directory.exists() {
        return Ok(Authority::load(directory)?);
    }
    let authority = Authority::generate("shoal-dev")?;
    authority.save(directory)?;
    Ok(authority)
}

/// A configuration as a file would give it, every default included.
fn made<Config: DeserializeOwned>(value: serde_json::Value) -> anyhow::Result<Config> {
    serde_json::from_value(value).context("the cluster's own configuration")
}
