//! A cluster as a value: start it, push a blob to the origin, pull it through an agent, say where its bytes came from.
//!
//! `cargo run --release --example embed`

use shoal::client::Client;
use shoal::cluster::{Cluster, Plan, Ports};
use shoal::image::Layer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    shoal_identity::install_crypto_provider();
    let folder = tempfile::tempdir()?;
    let plan = Plan { directory: folder.path().to_owned(), agents: 1, ports: Ports::Free };
    let cluster = Cluster::start(plan).await?;

    let layer = Layer::generate(64 << 20, 1);
    Client::new(cluster.origin().registry_address())?.push_layer("example", layer, |_| ()).await?;
    let agent = Client::new(cluster.agent(0).registry_address())?;
    let pulled = agent.pull_blob("example", &layer.digest, |_| ()).await?;

    println!("{} bytes, the first after {:?}, all after {:?}", pulled.bytes, pulled.first_byte, pulled.whole);
    println!("{:?}", cluster.agent(0).stats());
    cluster.shutdown().await;
    Ok(())
}
