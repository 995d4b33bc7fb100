//! Rehearses a cluster in virtual time: hosts, links, zones and faults around the real exchange engine and the real
//! tracker's state and hand-out policy.
//!
//! Nothing of the decisions is copied here: what runs is [`shoal_swarm::Engine`], [`shoal_tracker::state`] and
//! [`shoal_tracker::handout`]. The same scenario and seed give the same run on every machine. What the model assumes
//! of networks and hosts is written at [`Scenario`].

mod agenda;
mod chart;
mod fault;
mod node;
mod pipe;
mod report;
mod scenario;
mod tracker;
mod world;

pub use chart::chart;
pub use fault::{Fault, FaultError, Share, Span};
pub use report::{HostReport, Quantiles, Report};
pub use scenario::{Scenario, ScenarioError};

/// Runs a scenario to its end: every host that can complete has done so, or the scenario's time limit is reached.
///
/// `progress` hears now and then how much of the work is done, from 0 to 1.
pub fn run(scenario: &Scenario, progress: impl FnMut(f64)) -> Result<Report, ScenarioError> {
    scenario.check()?;
    Ok(world::World::new(scenario).run(progress))
}
