//! A network with a host for each origin, in namespaces that end with the test. Clients reach every origin over one
//! network, and origins reach each other over another, whose links can be cut without a word.

use std::path::Path;
use std::process::Command;

use super::rig::COUNT;

/// Told to the test that it runs inside. Not `SHOAL_…`, which roles read.
const INSIDE: &str = "TEST_INSIDE";

/// The hosts of a test.
pub(super) struct Network(());

/// Runs a test by its full name once more, in a network of its own, unless it runs there already; whether it does.
pub(super) fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare is there (util-linux)");
    assert!(status.success(), "inside of its network the test failed");
    false
}

impl Network {
    pub(super) fn new() -> Self {
        // Names of namespaces are files there.
        run("mount -t tmpfs hosts /run");
        run("mount -t proc proc /proc");
        run("ip link set lo up");
        for (bridge, address) in [("clients", client_address(COUNT)), ("peers", peer_address(COUNT))] {
            run(&format!("ip link add {bridge} type bridge"));
            run(&format!("ip address add {address}/24 dev {bridge}"));
            run(&format!("ip link set {bridge} up"));
        }
        for place in 0..COUNT {
            let host = host(place);
            run(&format!("ip netns add {host}"));
            run(&format!("ip -n {host} link set lo up"));
            for (bridge, address) in [("clients", client_address(place)), ("peers", peer_address(place))] {
                let (here, there) = (format!("{bridge}{place}"), format!("to-{bridge}"));
                run(&format!("ip link add {here} type veth peer name {there} netns {host}"));
                run(&format!("ip link set {here} master {bridge} up"));
                run(&format!("ip -n {host} address add {address}/24 dev {there}"));
                run(&format!("ip -n {host} link set {there} up"));
            }
        }
        Self(())
    }

    /// No origin reaches that one any more, nor the other way round. Nobody is told.
    pub(super) fn cut(&self, place: usize) {
        run(&format!("ip link set peers{place} down"));
    }

    pub(super) fn heal(&self, place: usize) {
        run(&format!("ip link set peers{place} up"));
    }

    /// What runs the binary on the host of an origin.
    pub(super) fn command(&self, place: usize, binary: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &host(place)]).arg(binary);
        command
    }
}

/// Where clients find what is on the host of that origin; behind the last origin is the test itself.
pub(super) fn client_address(place: usize) -> String {
    format!("10.77.0.{}", place + 1)
}

/// Where other origins find it.
pub(super) fn peer_address(place: usize) -> String {
    format!("10.78.0.{}", place + 1)
}

fn host(place: usize) -> String {
    format!("host{place}")
}

fn run(command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
