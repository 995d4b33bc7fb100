//! Configuration files: TOML, then the environment, then `--set`. Whatever is wrong is said with file, key and remedy.

use std::path::Path;

use anyhow::{Context as _, bail};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::de::DeserializeOwned;

/// Environment variables that start with `SHOAL_` and are no key of a role's configuration.
const NOT_KEYS: [&str; 3] = ["log", "log_format", "config"];

/// Reads the configuration of a role. `overrides` are `key=value` texts, keys with dots.
pub fn load<Config: DeserializeOwned>(file: &Path, overrides: &[String]) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(file).with_context(|| {
        format!("configuration file {}: cannot be read; `--config` names it, and config/ of the source has examples", file.display())
    })?;
    let environment = Env::prefixed("SHOAL_").ignore(&NOT_KEYS).filter(|key| !is_service_link(key.as_str()));
    let environment = environment.split("__");
    let mut figment = Figment::new().merge(Toml::string(&text)).merge(environment);
    for text in overrides {
        let Some((key, value)) = text.split_once('=') else {
            bail!("--set {text:?}: expected KEY=VALUE, for example --set transfer.listen=0.0.0.0:16002");
        };
        let value: figment::value::Value = value.parse().expect("any text is a value");
        figment = figment.merge(Serialized::default(key, value));
    }
    figment.extract().map_err(|error| explain(file, error))
}

/// Kubernetes sets `SHOAL_TRACKER_SERVICE_HOST`, `SHOAL_TRACKER_PORT_15003_TCP` and the like in every container beside a
/// service that is called `shoal-tracker`. Nobody meant them as configuration.
fn is_service_link(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains("_service_") || key.contains("_port_") || key.ends_with("_port")
}

/// One line for each thing that is wrong: where it was set, which key, what, and what to do.
fn explain(file: &Path, errors: figment::Error) -> anyhow::Error {
    let lines: Vec<String> = errors.into_iter().map(|error| line(file, &error)).collect();
    anyhow::anyhow!(lines.join("\n"))
}

fn line(file: &Path, error: &figment::Error) -> String {
    use figment::error::Kind;

    let place = match error.metadata.as_ref().map(|metadata| metadata.name.as_ref()) {
        Some(name) if name.contains("environment") => "the environment (SHOAL_…)".to_owned(),
        Some(name) if name.contains("TOML") => format!("configuration file {}", file.display()),
        Some(_) => "--set".to_owned(),
        None => format!("configuration file {}", file.display()),
    };
    let parent = error.path.join(".");
    let key = |name: &str| match error.path.last() {
        Some(last) if last != name => format!("{parent}.{name}"),
        Some(_) => parent.clone(),
        None => name.to_owned(),
    };
    match &error.kind {
        Kind::UnknownField(name, known) => {
            format!(
                "{place}: key `{}` is unknown: remove it or correct it; known here are {}",
                key(name),
                known.join(", ")
            )
        }
        Kind::MissingField(name) => {
            format!("{place}: key `{}` is missing: add it, config/ of the source has an example", key(name))
        }
        kind if parent.is_empty() => format!("{place}: {kind}"),
        kind => format!("{place}: key `{parent}` has a bad value: {kind}{}", remedy(kind)),
    }
}

/// How a value is written that was expected, where its name alone does not say it.
fn remedy(kind: &figment::error::Kind) -> &'static str {
    use figment::error::Kind;

    let (Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected)) = kind else { return "" };
    match expected.as_str() {
        "a sequence" => r#": write a list, such as ["https://host:15003"]"#,
        "a duration" => r#": write it with its unit, such as "5s" or "1m 30s""#,
        section if section.starts_with("struct ") => ": this is a section with keys of its own",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load_text(text: &str, overrides: &[&str]) -> anyhow::Result<shoal_agent::Config> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        load(file.path(), &overrides)
    }

    const GOOD: &str = r#"
        listen = "127.0.0.1:1"
        tracker = ["https://127.0.0.1:2"]
        origins = ["https://127.0.0.1:3"]
        [identity]
        directory = "identity"
        [store]
        directory = "store"
        [transfer]
        listen = "127.0.0.1:4"
    "#;

    #[test]
    fn set_wins_over_the_file() {
        let config = load_text(GOOD, &["transfer.listen=127.0.0.1:9", "tag_ttl=7s"]).unwrap();
        assert_eq!(config.transfer.listen.port(), 9);
        assert_eq!(config.tag_ttl.as_secs(), 7);
        assert_eq!(config.listen.port(), 1);
    }

    #[test]
    fn what_kubernetes_says_of_services_is_no_configuration() {
        for name in
            ["TRACKER_SERVICE_HOST", "TRACKER_PORT", "TRACKER_PORT_15003_TCP_ADDR", "tracker_service_port"]
        {
            assert!(is_service_link(name), "{name}");
        }
        for name in ["LISTEN", "TRANSFER__LISTEN", "STORE__DIRECTORY", "HTTP__MAX_CONNECTIONS"] {
            assert!(!is_service_link(name), "{name}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file() {
        let error =
            load_text(&GOOD.replace("[store]", "[store]\ndirektory = \"x\""), &[]).unwrap_err().to_string();
        assert!(
            error.contains("configuration file") && error.contains("`store.direktory` is unknown"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = load_text(&GOOD.replace("[store]\n        directory = \"store\"", ""), &[]).unwrap_err();
        assert!(error.to_string().contains("`store` is missing"), "{error}");
    }

    #[test]
    fn a_bad_value_is_named_with_its_key() {
        let error = load_text(&GOOD.replace("127.0.0.1:4", "nowhere"), &[]).unwrap_err().to_string();
        assert!(error.contains("`transfer.listen` has a bad value"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_with_how_to_write_it() {
        for (set, remedy) in [
            ("tracker=https://127.0.0.1:2", "write a list"),
            ("tag_ttl=5", "with its unit"),
            ("tag_ttl=5parsecs", "with its unit"),
            ("http=5", "a section"),
        ] {
            let error = load_text(GOOD, &[set]).unwrap_err().to_string();
            assert!(error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_the_remedy() {
        let error = load::<shoal_agent::Config>(Path::new("no/such.toml"), &[]).unwrap_err();
        assert!(
            error.to_string().contains("no/such.toml") && error.to_string().contains("--config"),
            "{error}"
        );
    }

    #[test]
    fn a_set_without_value_is_refused() {
        assert!(load_text(GOOD, &["listen"]).unwrap_err().to_string().contains("expected KEY=VALUE"));
    }
}
