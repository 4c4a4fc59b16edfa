//! The variables with which Kubernetes names the address of a Service to every container of its namespace.
//!
//! For a Service `hushnet-x` they are `HUSHNET_X_SERVICE_HOST`, `HUSHNET_X_SERVICE_PORT`, `HUSHNET_X_PORT`, and some
//! for each port. They begin as the variables of settings do, and they are no settings.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The variables of a process, by name.
pub(super) type Variables = BTreeMap<String, String>;

/// Whether the variable is one of a Service. The variables of every Service are there too: a variable that only
/// looks like one of them is none.
pub(super) fn is_service_link(name: &str, variables: &Variables) -> bool {
    let services = variables
        .keys()
        .filter_map(|name| name.strip_suffix("_SERVICE_HOST"))
        .filter(|service| is_service(service, variables));
    let mut parts = services.filter_map(|service| name.strip_prefix(service)?.strip_prefix('_'));
    parts.any(|part| is_part(part, &variables[name]))
}

/// Whether the variables that every Service has are there.
fn is_service(service: &str, variables: &Variables) -> bool {
    let value = |part: &str| variables.get(&format!("{service}_{part}"));
    value("SERVICE_HOST").is_some_and(|host| host.parse::<IpAddr>().is_ok())
        && value("SERVICE_PORT").is_some_and(|port| is_port(port))
        && value("PORT").is_some_and(|url| is_url(url))
}

/// Whether this is the rest of a name that Kubernetes gives, with such a value.
fn is_part(part: &str, value: &str) -> bool {
    match part {
        "SERVICE_HOST" | "SERVICE_PORT" | "PORT" => return true,
        _ => {}
    }
    if let Some(port_name) = part.strip_prefix("SERVICE_PORT_") {
        return !port_name.is_empty() && is_port(value);
    }
    let mut words = part.split('_');
    let begins = words.next() == Some("PORT")
        && words.next().is_some_and(is_port)
        && words.next().is_some_and(is_protocol);
    let ends = match (words.next(), words.next()) {
        (None, _) => is_url(value),
        (Some("PROTO"), None) => is_protocol(value),
        (Some("PORT"), None) => is_port(value),
        (Some("ADDR"), None) => value.parse::<IpAddr>().is_ok(),
        _ => false,
    };
    begins && ends
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

fn is_protocol(text: &str) -> bool {
    ["TCP", "UDP", "SCTP"]
        .iter()
        .any(|protocol| text.eq_ignore_ascii_case(protocol))
}

/// As in `tcp://10.96.0.12:80`.
fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(protocol, address)| {
        is_protocol(protocol)
            && address
                .rsplit_once(':')
                .is_some_and(|(_, port)| is_port(port))
    })
}
