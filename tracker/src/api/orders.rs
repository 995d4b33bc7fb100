//! Orders to fetch something: origins publish them and ask how far they are, agents ask for their own.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use shoal_control::prefetch::{PrefetchOrder, PrefetchReply, PrefetchState, PrefetchTaken};
use shoal_core::{PeerId, Role, Zone};
use shoal_identity::Peer;
use tokio::time::Instant;

use super::{Api, Body, Caller, Shared, lock};
use crate::prefetch::Orders;
use crate::refusal::Refusal;

impl Api {
    /// The ids of the orders that are for a node.
    pub(super) fn orders_for(&self, peer: &Peer, zone: &Zone) -> Vec<u64> {
        if peer.role != Role::Agent {
            return Vec::new();
        }
        let orders = self.orders();
        orders.of_agent(Instant::now().into_std(), &peer.id, zone).map(|order| order.id).collect()
    }

    fn publish(&self, caller: &Caller, order: PrefetchOrder) -> Result<PrefetchTaken, Refusal> {
        if caller.peer.role != Role::Origin {
            return Err(Refusal::OrderOfAgent(caller.peer.id));
        }
        let (now, id) = (Instant::now().into_std(), order.id);
        let selection = order.selection.clone();
        let agents: Vec<_> = {
            let state = lock(&self.state);
            let there = state.agents(now).filter(|(_, zone)| selection.has(zone));
            there.map(|(agent, zone)| (agent, zone.clone())).collect()
        };
        let mut orders = self.orders();
        orders.publish(now, order, agents.iter().map(|(agent, _)| *agent))?;
        let choice = orders.choice(id);
        let chosen =
            |(agent, zone): &&(PeerId, Zone)| choice.as_ref().is_some_and(|one| one.has(agent, zone));
        Ok(PrefetchTaken { agents: agents.iter().filter(chosen).count() as u64 })
    }

    /// The orders that are for an agent.
    fn orders_of(&self, agent: &Peer) -> PrefetchReply {
        let now = Instant::now().into_std();
        let zone = lock(&self.state).zone(now, &agent.id).cloned();
        let Some(zone) = zone else { return PrefetchReply::default() };
        let orders = self.orders();
        let own = orders.of_agent(now, &agent.id, &zone).cloned();
        PrefetchReply {
            orders: own.map(|order| PrefetchState { order, agents: 0, whole: Vec::new() }).collect(),
        }
    }

    /// All orders, and how far they are. However many ask, it is looked for a fifth of the time at most, and by one thread.
    async fn all_orders(self: Arc<Self>) -> Result<PrefetchReply, Refusal> {
        let mut progress = self.progress.lock().await;
        let began = Instant::now();
        if let Some((until, reply)) = &*progress
            && began < *until
        {
            return Ok(reply.clone());
        }
        let api = Arc::clone(&self);
        let look = tokio::task::spawn_blocking(move || {
            let now = Instant::now().into_std();
            let all = api.orders().all(now);
            PrefetchReply { orders: all.into_iter().filter_map(|order| api.how_far(now, order)).collect() }
        });
        let reply = look.await.map_err(|_| Refusal::TooSlow)?;
        *progress = Some((Instant::now() + (began.elapsed() * 4).max(PROGRESS_LIFETIME), reply.clone()));
        Ok(reply)
    }

    /// The state is locked once a blob: a look at the holders of one takes a millisecond in a large cluster.
    fn how_far(&self, now: std::time::Instant, order: PrefetchOrder) -> Option<PrefetchState> {
        let choice = self.orders().choice(order.id)?;
        let is_one = |agent: &PeerId, zone: &Zone| choice.has(agent, zone);
        let agents = lock(&self.state).agents(now).filter(|(agent, zone)| is_one(agent, zone)).count();
        let whole =
            order.blobs.iter().map(|blob| lock(&self.state).count_whole(now, &blob.digest, is_one) as u64);
        let whole = whole.collect();
        Some(PrefetchState { order, agents: agents as u64, whole })
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn publish(
    axum::extract::State(api): Shared,
    caller: Caller,
    Body(order): Body<PrefetchOrder>,
) -> Result<Json<PrefetchTaken>, Refusal> {
    api.publish(&caller, order).map(Json)
}

pub(super) async fn list(
    axum::extract::State(api): Shared,
    caller: Caller,
) -> Result<Json<PrefetchReply>, Refusal> {
    match caller.peer.role {
        Role::Origin => api.all_orders().await.map(Json),
        Role::Agent | Role::Tracker => Ok(Json(api.orders_of(&caller.peer))),
    }
}

/// People look at how far an order is; agents are so far in seconds.
const PROGRESS_LIFETIME: Duration = Duration::from_millis(500);
