//! The roles as processes: configuration in, a role bound, its admin port, SIGTERM drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use prometheus::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shoal_agent::Agent;
use shoal_control::enrol;
use shoal_http::Running;
use shoal_origin::Origin;
use shoal_tracker::Tracker;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, Readiness};
use crate::cli::RoleOptions;
use crate::config;
use crate::prefetch;
use crate::status::{self, NodeSource, TrackerSource};

/// How long requests to the admin port may take to end.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

pub(crate) async fn agent(options: RoleOptions) -> anyhow::Result<()> {
    raise_open_files();
    let config: shoal_agent::Config = config::load(&options.config, &options.set)?;
    let (metrics, admin) = (Registry::new(), config.admin);
    let identity = enrol::open(&config.identity).await?;
    let (zone, directory) = (config.zone.clone(), config.store.directory.clone());
    let agent = Agent::bind(config, identity.clone(), &metrics).await?;
    let readiness: Readiness = Arc::new(agent.readiness());
    let status = NodeSource {
        identity,
        zone,
        transfer: agent.transfer().clone(),
        store: agent.store().clone(),
        directory,
        tracker: agent.tracker().clone(),
        overlay: agent.overlay(),
        readiness: Arc::clone(&readiness),
        queues: None,
        read_only: None,
        started: Instant::now(),
    };
    let admin = open_admin(admin, metrics, readiness, status::router(status)).await?;
    terminated().await?;
    agent.shutdown().await;
    admin.shutdown(ADMIN_DRAIN).await;
    Ok(())
}

pub(crate) async fn origin(options: RoleOptions) -> anyhow::Result<()> {
    raise_open_files();
    let config: shoal_origin::Config = config::load(&options.config, &options.set)?;
    let (metrics, admin) = (Registry::new(), config.admin);
    let identity = enrol::open(&config.identity).await?;
    let (zone, directory) = (config.zone.clone(), config.store.directory.clone());
    let origin = Origin::bind(config, identity.clone(), &metrics).await?;
    let readiness: Readiness = Arc::new(origin.readiness());
    let status = NodeSource {
        identity,
        zone,
        transfer: origin.transfer().clone(),
        store: origin.store().clone(),
        directory,
        tracker: origin.tracker().clone(),
        overlay: origin.overlay(),
        readiness: Arc::clone(&readiness),
        queues: Some(origin.queues()),
        read_only: Some(origin.read_only()),
        started: Instant::now(),
    };
    let answers = status::router(status).merge(prefetch::router(origin.preheat()));
    let admin = open_admin(admin, metrics, readiness, answers).await?;
    terminated().await?;
    origin.shutdown().await;
    admin.shutdown(ADMIN_DRAIN).await;
    Ok(())
}

pub(crate) async fn tracker(options: RoleOptions) -> anyhow::Result<()> {
    raise_open_files();
    let config: shoal_tracker::Config = config::load(&options.config, &options.set)?;
    let (metrics, admin) = (Registry::new(), config.admin);
    let identity = enrol::open(&config.identity).await?;
    let tracker = Tracker::bind(config, identity.clone(), &metrics).await?;
    let status = TrackerSource { identity, view: tracker.view(), started: Instant::now() };
    let admin = open_admin(admin, metrics, Arc::new(|| Ok(())), status::router(status)).await?;
    terminated().await?;
    tracker.shutdown().await;
    admin.shutdown(ADMIN_DRAIN).await;
    Ok(())
}

async fn open_admin(
    listen: SocketAddr,
    metrics: Registry,
    readiness: Readiness,
    status: Router,
) -> anyhow::Result<Running> {
    let admin = admin::serve(listen, metrics, readiness, status).await?;
    tracing::info!(address = %admin.local_address(), "admin port is up");
    Ok(admin)
}

/// Takes as many open files as the system's hard limit allows: the soft one is meant for programs that use `select`, and
/// below the connections that a busy role holds.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current = limit.current, "cannot raise the limit of open files to the hard limit");
    }
}

/// Waits for SIGTERM or Ctrl-C.
pub(crate) async fn terminated() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
    }
    Ok(())
}
