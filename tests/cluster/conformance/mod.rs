//! The distribution specification as a client sees it: check by check, over HTTP, against a real origin and a real agent.
//!
//! The tree is that of the OCI conformance suites, the current one and that of version 1.1.1, with every data set; the
//! suites themselves are Go programs, which this project does not fetch. A check has a name and counts once. That they can
//! fail is shown too: the same run against a registry that errs in one thing finds it.

mod blobs;
mod client;
mod content;
mod data;
mod pulls;
mod report;
mod spoiled;
mod version_one;

use client::Registry;
use data::DataSet;
use futures_util::future::join_all;
use report::Report;
use shoal_core::Algorithm;

use crate::process::Processes;

/// A copy of a few platforms of an image is a sparse index.
const ORIGIN: &str = "[registry]\nsparse_indexes = true\n";
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];
/// Fewer checks than were once counted: some were lost.
const AT_LEAST: usize = 1900;

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_and_an_agent_conform_in_every_check() {
    let cluster = Processes::start_with(ORIGIN).await;
    let agent = cluster.agent("agent").await;
    let origin = Registry::at(cluster.origin.registry());
    let mut report = Report::default();
    let sets = data::sets();
    everything_but_deletes(&origin, &sets, &mut report).await;
    let agent = Registry::at(agent.registry());
    of_each(&sets, &mut report, async |set, report| pulls::read_only(&agent, set, report).await).await;
    pulls::refuses_writes(&agent, &mut report).await;
    of_each(&sets, &mut report, async |set, report| content::delete(&origin, set, report).await).await;
    report.print();
    assert!(report.failures().is_empty(), "{:#?}", report.failures());
    assert!(report.count() >= AT_LEAST, "only {} checks", report.count());
}

/// What both runs do: the whole tree, as far as it leaves the data sets where they are.
async fn everything_but_deletes(registry: &Registry, sets: &[DataSet], report: &mut Report) {
    pulls::before_anything(registry, report).await;
    of_each(&ALGORITHMS, report, async |algorithm, report| blobs::check(registry, *algorithm, report).await)
        .await;
    of_each(sets, report, async |set, report| push_and_read(registry, set, report).await).await;
    content::refused(registry, report).await;
    version_one::check(registry, report).await;
}

async fn push_and_read(registry: &Registry, set: &DataSet, report: &mut Report) {
    content::push(registry, set, report).await;
    content::tag_list(registry, set, report).await;
    pulls::head(registry, set, "", report).await;
    pulls::pull(registry, set, "", report).await;
    pulls::referrers(registry, set, "", report).await;
}

/// The same checks of many things, side by side.
async fn of_each<T>(things: &[T], report: &mut Report, check: impl AsyncFn(&T, &mut Report)) {
    let reports = join_all(things.iter().map(async |thing| {
        let mut report = Report::default();
        check(thing, &mut report).await;
        report
    }));
    reports.await.into_iter().for_each(|one| report.add(one));
}
