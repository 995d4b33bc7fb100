//! `shoal dev`: a cluster on well-known ports for real runtimes, until Ctrl-C.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
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
    let cluster = Cluster::start(plan)
        .await
        .context("shoal dev needs the ports 15000 to 15003 and two for each agent from 16000 on")?;
    print!("{}", instructions(&cluster));
    roles::terminated().await?;
    println!("draining");
    cluster.shutdown().await;
    Ok(())
}

fn instructions(cluster: &Cluster) -> String {
    let agents: Vec<_> =
        (0..cluster.agent_count()).map(|number| cluster.agent(number).registry_address()).collect();
    let listed: Vec<String> = agents.iter().map(ToString::to_string).collect();
    let origin = cluster.origin().registry_address();
    format!(
        "origin registry  {origin}\ntracker          {}\nagent registries {}\n\n{}\nCtrl-C ends it.\n",
        cluster.tracker_url(),
        listed.join(" "),
        commands(origin, agents[0]),
    )
}

/// What to paste for each runtime. Not indented: the end of a here-document is found at the start of a line only.
fn commands(origin: SocketAddr, agent: SocketAddr) -> String {
    let (origin_port, agent_port) = (origin.port(), agent.port());
    format!(
        "\
# docker: push to the origin, pull through an agent
docker tag IMAGE localhost:{origin_port}/team/app:1 && docker push localhost:{origin_port}/team/app:1
docker pull localhost:{agent_port}/team/app:1

# containerd: any name below registry.example.com goes through the agent
mkdir -p /etc/containerd/certs.d/registry.example.com
cat > /etc/containerd/certs.d/registry.example.com/hosts.toml <<'END'
server = \"https://registry.example.com\"
[host.\"http://{agent}\"]
  capabilities = [\"pull\", \"resolve\"]
END
ctr images pull --hosts-dir /etc/containerd/certs.d registry.example.com/team/app:1

# podman, skopeo: likewise
mkdir -p /etc/containers/registries.conf.d
cat > /etc/containers/registries.conf.d/shoal.conf <<'END'
[[registry]]
location = \"registry.example.com\"
[[registry.mirror]]
location = \"{agent}\"
insecure = true
END
podman pull registry.example.com/team/app:1
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pasted into a shell as they are, with the clients and the folders of this machine left alone.
    #[test]
    fn the_commands_can_be_pasted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        let commands = commands(([127, 0, 0, 1], 15000).into(), ([127, 0, 0, 1], 16000).into());
        let commands = commands.replace("/etc/", &format!("{root}/etc/"));
        let script =
            format!("set -e\ndocker() {{ :; }}\nctr() {{ :; }}\npodman() {{ echo \"$@\"; }}\n{commands}");
        let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        // The last command was not swallowed by a here-document.
        assert_eq!(output.stdout, b"pull registry.example.com/team/app:1\n");
        for file in [
            "etc/containerd/certs.d/registry.example.com/hosts.toml",
            "etc/containers/registries.conf.d/shoal.conf",
        ] {
            let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
            text.parse::<toml::Table>().unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }
}
