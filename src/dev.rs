//! `shoal dev`: a cluster on well-known ports for real runtimes, until Ctrl-C.

use std::path::PathBuf;

use clap::Args;

use crate::cluster::{Cluster, Plan, Ports};
use crate::roles;

/// What the cluster of `shoal dev` is like.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// How many agents.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16), value_name = "N")]
    agents: u16,
    /// Where the cluster keeps its files; what an earlier run left there is served again.
    #[arg(long, default_value = "shoal-data", value_name = "FOLDER")]
    directory: PathBuf,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let directory = std::path::absolute(&options.directory)?;
    let plan = Plan { directory, agents: options.agents.into(), ports: Ports::Development };
    let cluster = Cluster::start(plan).await?;
    print!("{}", instructions(&cluster));
    roles::terminated().await?;
    println!("draining");
    cluster.shutdown().await;
    Ok(())
}

fn instructions(cluster: &Cluster) -> String {
    let origin = cluster.origin().registry_address();
    let agents: Vec<_> =
        (0..cluster.agent_count()).map(|number| cluster.agent(number).registry_address()).collect();
    let listed: Vec<String> = agents.iter().map(ToString::to_string).collect();
    let (origin_port, agent, agent_port) = (origin.port(), agents[0], agents[0].port());
    format!(
        "origin registry  {origin}\n\
         tracker          {}\n\
         agent registries {}\n\
         \n\
         docker (push to the origin, pull through an agent):\n\
         \x20 docker tag IMAGE localhost:{origin_port}/team/app:1 && docker push localhost:{origin_port}/team/app:1\n\
         \x20 docker pull localhost:{agent_port}/team/app:1\n\
         \n\
         containerd (any name below registry.example.com goes through the agent):\n\
         \x20 mkdir -p /etc/containerd/certs.d/registry.example.com\n\
         \x20 cat > /etc/containerd/certs.d/registry.example.com/hosts.toml <<'END'\n\
         \x20 server = \"https://registry.example.com\"\n\
         \x20 [host.\"http://{agent}\"]\n\
         \x20   capabilities = [\"pull\", \"resolve\"]\n\
         \x20 END\n\
         \x20 ctr images pull --hosts-dir /etc/containerd/certs.d registry.example.com/team/app:1\n\
         \n\
         podman, skopeo (registries.conf, or a file in registries.conf.d):\n\
         \x20 [[registry]]\n\
         \x20 location = \"registry.example.com\"\n\
         \x20 [[registry.mirror]]\n\
         \x20 location = \"{agent}\"\n\
         \x20 insecure = true\n\
         \x20 and then: podman pull registry.example.com/team/app:1\n\
         \n\
         Ctrl-C ends it.\n",
        cluster.tracker_url(),
        listed.join(" "),
    )
}
