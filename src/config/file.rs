//! Settings from a TOML file, and the check of the environment's variables.
//!
//! An entry of the file is turned into the flag that it stands for, so that all ways of giving a setting
//! pass the same parser.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;

use super::ConfigError;
use super::service_links::{Variables, is_service_link};
use super::settings::{settings, without_environment};

/// The settings in the file at `path` as flags, for a parser that lets later flags win. A key whose
/// variable is set is left out, since the variable wins.
///
/// # Errors
/// A [`ConfigError`] that names the file, the key and what is allowed.
pub fn flags_of_file(path: &Path) -> Result<Vec<OsString>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let begin = error.span().map_or(0, |span| span.start);
        let before = text.bytes().take(begin);
        ConfigError::NotToml {
            path: path.to_owned(),
            line: 1 + before.filter(|byte| *byte == b'\n').count(),
            cause: error.message().to_owned(),
        }
    })?;
    let settings = settings();
    let mut flags = Vec::with_capacity(table.len());
    for (key, value) in &table {
        let flag = flag_of_entry(path, &settings, key, value)?;
        let variable = settings
            .get_arguments()
            .find(|arg| arg.get_id() == key)
            .and_then(|arg| arg.get_env());
        if variable.is_none_or(|name| std::env::var_os(name).is_none()) {
            flags.push(flag);
        }
    }
    Ok(flags)
}

/// Refuses a `HUSHNET_` variable that is no setting: a misspelt limit would have no effect. The variables with which
/// Kubernetes names a Service's address are nobody's mistake.
///
/// # Errors
/// [`ConfigError::UnknownVariable`] with the known ones.
pub fn check_variables(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    let settings = settings();
    let known: Vec<&OsStr> = settings
        .get_arguments()
        .filter_map(clap::Arg::get_env)
        .collect();
    let text = |text: &OsStr| text.to_string_lossy().into_owned();
    let prefixed: Variables = variables
        .map(|(name, value)| (text(&name), text(&value)))
        .filter(|(name, _)| name.starts_with("HUSHNET_"))
        .collect();
    for name in prefixed.keys() {
        if !known.contains(&OsStr::new(name)) && !is_service_link(name, &prefixed) {
            return Err(ConfigError::UnknownVariable {
                name: name.clone(),
                known: known
                    .iter()
                    .map(|k| k.to_string_lossy())
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
    }
    Ok(())
}

/// The flag for one entry of the file, checked by itself.
fn flag_of_entry(
    path: &Path,
    settings: &Command,
    key: &str,
    value: &toml::Value,
) -> Result<OsString, ConfigError> {
    let names = || {
        settings
            .get_arguments()
            .map(|arg| arg.get_id().as_str())
            .filter(|id| *id != "config")
    };
    if !names().any(|name| name == key) {
        let known = names().collect::<Vec<_>>().join(", ");
        return Err(ConfigError::UnknownKey {
            path: path.to_owned(),
            key: key.to_owned(),
            known,
        });
    }
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(truth) => truth.to_string(),
        _ => {
            return Err(ConfigError::NotScalar {
                path: path.to_owned(),
                key: key.to_owned(),
            });
        }
    };
    let flag = OsString::from(format!("--{}={text}", key.replace('_', "-")));
    without_environment(settings.clone())
        .try_get_matches_from([OsString::new(), flag.clone()])
        .map_err(|error| ConfigError::BadValue {
            path: path.to_owned(),
            cause: first_paragraph(&error.to_string()),
        })?;
    Ok(flag)
}

/// clap's error without its usage lines.
fn first_paragraph(error: &str) -> String {
    error
        .split("\n\n")
        .next()
        .unwrap_or(error)
        .trim_start_matches("error: ")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn file(text: &str) -> Result<Vec<OsString>, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hushnet.toml");
        std::fs::write(&path, text).unwrap();
        flags_of_file(&path)
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let printed = Config::default().to_toml();
        let flags = file(&printed).unwrap();
        assert_eq!(flags.len(), printed.lines().count(), "{printed}");
    }

    #[test]
    fn mistakes_in_a_file_are_named_with_what_is_allowed() {
        for (text, said) in [
            (
                "user_chanel_capacity = 16",
                "unknown key user_chanel_capacity; known: database_url, ",
            ),
            ("user_channel_capacity = 0", "0 is not in 1..=4096"),
            (
                "listen = 'nowhere'",
                "invalid value 'nowhere' for '--listen <ADDRESS:PORT>'",
            ),
            ("log_format = 'xml'", "[possible values: text, json]"),
            (
                "listen = ['127.0.0.1:1']",
                "listen takes a text, a number or true or false",
            ),
            ("listen = ", "is not TOML: line 1: "),
        ] {
            let error = file(text).unwrap_err().to_string();
            assert!(
                error.contains("hushnet.toml") && error.contains(said),
                "{error}"
            );
        }
    }

    #[test]
    fn a_secret_in_a_line_that_is_no_toml_is_not_printed() {
        let error = file("log = 'info'\ndatabase_url = 'postgres://app:s3cret@db/d\n").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("is not TOML: line 2: "), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    /// Checks these variables, each as `NAME=value`.
    fn check(variables: &[&str]) -> Result<(), String> {
        let variables = variables
            .iter()
            .map(|variable| variable.split_once('=').unwrap())
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let variables: Vec<_> = variables.collect();
        check_variables(variables.into_iter()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_misspelt_variable_is_refused() {
        check(&["PATH=/bin", "HUSHNET_LISTEN=127.0.0.1:0"]).unwrap();
        let error = check(&["HUSHNET_LISTN=127.0.0.1:0"]).unwrap_err();
        assert!(
            error.contains("HUSHNET_LISTN") && error.contains("HUSHNET_LISTEN"),
            "{error}"
        );
    }

    const SERVICE: &[&str] = &[
        "HUSHNET_X_SERVICE_HOST=10.96.0.12",
        "HUSHNET_X_SERVICE_PORT=80",
        "HUSHNET_X_SERVICE_PORT_HTTP=80",
        "HUSHNET_X_PORT=tcp://10.96.0.12:80",
        "HUSHNET_X_PORT_80_TCP=tcp://10.96.0.12:80",
        "HUSHNET_X_PORT_80_TCP_PROTO=tcp",
        "HUSHNET_X_PORT_80_TCP_PORT=80",
        "HUSHNET_X_PORT_80_TCP_ADDR=10.96.0.12",
        "HUSHNET_X_PORT_53_UDP=udp://10.96.0.12:53",
    ];

    #[test]
    fn the_variables_of_a_kubernetes_service_are_no_settings() {
        check(SERVICE).unwrap();
        check(&[
            "HUSHNET_SERVICE_HOST=fd00::12",
            "HUSHNET_SERVICE_PORT=80",
            "HUSHNET_PORT=tcp://[fd00::12]:80",
        ])
        .unwrap();
    }

    #[test]
    fn a_variable_beside_those_of_a_service_is_refused_if_it_is_none_of_them() {
        for more in [
            "HUSHNET_LISTN=127.0.0.1:0",
            "HUSHNET_X_LIMIT=80",
            "HUSHNET_X_PORTS=80",
            "HUSHNET_X_PORT_80=80",
            "HUSHNET_X_PORT_81_TCP=81",
            "HUSHNET_X_SERVICE_PORT_METRICS=many",
            "HUSHNET_Y_SERVICE_HOST=10.96.0.12",
        ] {
            let error = check(&[SERVICE, &[more]].concat()).unwrap_err();
            let name = more.split_once('=').unwrap().0;
            assert!(error.contains(&format!("variable {name};")), "{error}");
        }
        // A part of the set alone may be a mistake.
        for alone in SERVICE {
            check(&[alone]).unwrap_err();
        }
    }
}
