//! The house rules that a compiler does not check: who may depend on whom, and configuration files that are true.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may name whom (ARCHITECTURE.md, "The map"). A new edge is a decision: it is argued there, then added here.
const ALLOWED: [(&str, &[&str]); 17] = [
    (
        "shoal",
        &[
            "agent",
            "origin",
            "tracker",
            "simulation",
            "swarm",
            "transfer",
            "control",
            "store",
            "http",
            "identity",
            "images",
            "upstream",
            "core",
        ],
    ),
    ("agent", &["registry", "driver", "transfer", "control", "identity", "store", "core", "http", "s3"]),
    (
        "origin",
        &[
            "registry", "driver", "transfer", "control", "identity", "store", "core", "http", "s3", "images",
            "upstream",
        ],
    ),
    ("tracker", &["control", "identity", "core", "http"]),
    ("simulation", &["swarm", "tracker", "core"]),
    ("registry", &["driver", "core"]),
    ("s3", &["driver", "core"]),
    ("driver", &["store", "core"]),
    ("transfer", &["swarm", "store", "identity", "core"]),
    ("control", &["identity", "core"]),
    ("identity", &["core"]),
    ("images", &["upstream", "core"]),
    ("upstream", &["core"]),
    ("swarm", &["core"]),
    ("store", &["core"]),
    ("http", &[]),
    ("core", &[]),
];

/// Crates that know no network: they decide, name and keep.
const QUIET: [&str; 4] = ["core", "swarm", "store", "driver"];
const NETWORK: [&str; 6] = ["quinn", "libp2p", "axum", "hyper", "reqwest", "rustls"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn manifest(path: &Path) -> toml::Table {
    std::fs::read_to_string(path)
        .unwrap()
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every package of the workspace by its short name, with what it depends on outside of tests.
fn packages() -> BTreeMap<String, BTreeSet<String>> {
    let workspace = manifest(&root().join("Cargo.toml"));
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let folders = members.iter().map(|member| member.as_str().unwrap()).chain(["."]);
    folders
        .map(|folder| {
            let manifest = manifest(&root().join(folder).join("Cargo.toml"));
            let name = manifest["package"]["name"].as_str().unwrap();
            let dependencies = manifest["dependencies"].as_table().unwrap().keys().cloned().collect();
            (short(name).to_owned(), dependencies)
        })
        .collect()
}

fn short(package: &str) -> &str {
    package.strip_prefix("shoal-").unwrap_or(package)
}

#[test]
fn crates_depend_only_on_whom_they_may() {
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    for (name, dependencies) in packages() {
        let allowed = allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not in the table"));
        for dependency in dependencies.iter().filter_map(|dependency| dependency.strip_prefix("shoal-")) {
            assert!(
                allowed.contains(&dependency),
                "{name} depends on {dependency}: argue it in ARCHITECTURE.md first"
            );
        }
    }
}

#[test]
fn every_crate_of_the_table_exists() {
    let packages = packages();
    for (name, _) in ALLOWED {
        assert!(packages.contains_key(name), "{name} is in the table and not in the workspace");
    }
}

#[test]
fn deciding_and_keeping_know_no_network() {
    for (name, dependencies) in packages() {
        if QUIET.contains(&name.as_str()) {
            for banned in NETWORK {
                assert!(!dependencies.contains(banned), "{name} depends on {banned}");
            }
        }
    }
}

#[test]
fn versions_are_named_once() {
    let workspace = manifest(&root().join("Cargo.toml"));
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        let path = root().join(member.as_str().unwrap()).join("Cargo.toml");
        let manifest = manifest(&path);
        for section in ["dependencies", "dev-dependencies"] {
            for (name, value) in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                let inherited = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                assert!(inherited, "{}: {name} has a version of its own", path.display());
            }
        }
    }
}

#[test]
fn example_configurations_hold_no_unknown_key() {
    let file = |name: &str| root().join("config").join(name);
    shoal::config::load::<shoal_agent::Config>(&file("agent.toml"), &[]).unwrap();
    shoal::config::load::<shoal_origin::Config>(&file("origin.toml"), &[]).unwrap();
    shoal::config::load::<shoal_tracker::Config>(&file("tracker.toml"), &[]).unwrap();
    let known = ["agent.toml", "origin.toml", "tracker.toml"];
    for entry in std::fs::read_dir(root().join("config")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name.as_str()), "config/{name} is parsed by no test");
    }
}

/// The example configuration of an origin with a table that stands there commented out.
fn origin_with(header: &str) -> shoal_origin::Config {
    let text = std::fs::read_to_string(root().join("config/origin.toml")).unwrap();
    let (before, rest) = text.split_once(&format!("# {header}\n")).unwrap();
    let (table, rest) = rest.split_once("\n\n").unwrap();
    let keys = table.lines().filter(|line| line.contains(" = "));
    let keys: Vec<_> = keys.map(|line| line.trim_start_matches("# ")).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    let whole = format!("{before}{header}\n{}\n\n{rest}", keys.join("\n"));
    std::fs::write(file.path(), whole).unwrap();
    shoal::config::load::<shoal_origin::Config>(file.path(), &[]).unwrap()
}

/// They stand there commented out, since an origin may well be alone.
#[test]
fn the_cluster_and_what_stands_behind_it_of_the_example_hold_no_unknown_key() {
    assert_eq!(origin_with("[cluster]").cluster.unwrap().origins.len(), 3);
    assert_eq!(origin_with("[[source]]").source.len(), 1);
    assert_eq!(origin_with("[[upstream]]").upstream.len(), 1);
    assert_eq!(origin_with("[[backend]]").backends.len(), 1);
    let (shown, default) = (origin_with("[write_back]").write_back, shoal_origin::WriteBackConfig::default());
    assert_eq!(format!("{shown:?}"), format!("{default:?}"));
    let (shown, default) = (origin_with("[eviction]").eviction, shoal_origin::EvictionConfig::default());
    assert_eq!(format!("{shown:?}"), format!("{:?}", Some(default)));
    let (shown, default) = (origin_with("[refill]").refill, shoal_origin::RefillConfig::default());
    assert_eq!(
        format!("{shown:?}"),
        format!("{default:?}"),
        "keys that are commented out show their default"
    );
}

/// The same of what copies, orders and hears of images.
#[test]
fn the_replication_and_preheat_of_the_example_hold_no_unknown_key() {
    let text = std::fs::read_to_string(root().join("config/origin.toml")).unwrap();
    let table = |heading: &str| {
        let (_, rest) = text.split_once(&format!("# {heading}\n")).unwrap();
        let lines = rest.lines().take_while(|line| !line.is_empty());
        let keys: Vec<_> = lines.map(|line| line.trim_start_matches("# ")).collect();
        format!("{heading}\n{}\n", keys.join("\n"))
    };
    let tables = ["[[replication]]", "[[preheat]]", "[notifications]"].map(table);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{text}\n{}", tables.join(""))).unwrap();
    let config = shoal::config::load::<shoal_origin::Config>(file.path(), &[]).unwrap();
    assert_eq!((config.replication.len(), config.preheat.len()), (1, 1));
    assert!(config.notifications.is_some());
}
