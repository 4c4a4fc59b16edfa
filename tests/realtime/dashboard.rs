//! The dashboard and the alerts of `grafana/` against a real Prometheus that scrapes the service.
//!
//! A renamed series leaves an empty panel, which is found only when the panel is needed. So every query is
//! run, and must return a number while there is load.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tokio_tungstenite::connect_async;

use self::prometheus::{Prometheus, promtool};
use crate::support::{Client, Server, add_user, deadline, insert_message};

mod prometheus;

/// What Grafana puts for `$__rate_interval`, with a scrape each second.
const RATE_INTERVAL: &str = "5s";
/// Series that Prometheus itself adds to each scrape.
const OF_PROMETHEUS: &str = "up";

#[tokio::test]
async fn promtool_finds_nothing_to_improve_in_the_exposition() {
    let server = Server::start().await;
    let exposition = exposition(&server).await;
    let output = promtool(&folder(), &["check", "metrics"], &exposition).await;
    // promtool prints what it would improve, and nothing otherwise.
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "promtool check metrics: {}\n{}",
        output.status,
        String::from_utf8_lossy(&said)
    );
}

#[tokio::test]
async fn the_tests_of_the_alerts_pass() {
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let output = promtool(&folder(), &arguments, "").await;
        assert!(
            output.status.success(),
            "promtool {}: {}\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[tokio::test]
async fn every_query_of_the_dashboard_gives_a_number_under_load() {
    let server = Server::start().await;
    let mut load = load(&server).await;
    let prometheus = Prometheus::scraping(server.address()).await;
    let mut without_data: BTreeSet<String> = dashboard()
        .queries()
        .iter()
        .map(|query| as_run_by_grafana(query))
        .collect();
    assert!(!without_data.is_empty(), "the dashboard has no queries");
    let deadline = Instant::now() + deadline();
    let mut refused = Vec::new();
    while !without_data.is_empty() && Instant::now() < deadline {
        for query in without_data.clone() {
            match prometheus.query(&query).await {
                Ok(samples) if samples.iter().any(|sample| !sample.is_nan()) => {
                    without_data.remove(&query);
                }
                Ok(_) => {}
                // No load makes a wrong query right.
                Err(why) => {
                    without_data.remove(&query);
                    refused.push(format!("{query}\n    {why}"));
                }
            }
        }
        let ended = load.try_join_next();
        assert!(ended.is_none(), "the load ended: {ended:?}");
        sleep(Duration::from_millis(500)).await;
    }
    assert!(
        without_data.is_empty() && refused.is_empty(),
        "queries without data: {without_data:#?}\n\
         queries that Prometheus refuses: {refused:#?}\n\
         what it scrapes: {}",
        prometheus.targets().await
    );
}

#[tokio::test]
async fn dashboard_and_alerts_use_exactly_the_series_that_exist() {
    let server = Server::start().await;
    let exposition = exposition(&server).await;
    let exposed: BTreeSet<&str> = exposition
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let on_dashboard = series_of(&dashboard().queries());
    let mut used = series_of(&alert_expressions());
    assert!(!used.is_empty(), "no expr: line in alerts.yml");
    used.extend(on_dashboard.iter().cloned());
    used.remove(OF_PROMETHEUS);

    let unknown: Vec<_> = used
        .iter()
        .filter(|name| !exposed.contains(name.as_str()))
        .collect();
    assert!(
        unknown.is_empty(),
        "used, but not exposed: {unknown:#?}\nexposed: {exposed:#?}"
    );
    let unused: Vec<_> = exposed
        .iter()
        .filter(|name| name.starts_with("hushnet_") && !on_dashboard.contains(**name))
        .collect();
    assert!(unused.is_empty(), "exposed, but on no panel: {unused:#?}");
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let dashboard = dashboard();
    let mut described = 0;
    for panel in dashboard.panels() {
        let title = panel["title"].as_str().unwrap_or_default();
        assert!(!title.is_empty(), "a panel without title: {panel:#}");
        if panel["type"] == "row" {
            continue;
        }
        described += 1;
        for field in ["/description", "/fieldConfig/defaults/unit"] {
            let text = panel.pointer(field).and_then(Value::as_str);
            assert!(
                text.is_some_and(|text| !text.is_empty()),
                "panel {title}: no {field}"
            );
        }
        assert!(
            panel["targets"].as_array().is_some_and(|t| !t.is_empty()),
            "panel {title}: no query"
        );
    }
    assert!(described > 0, "the dashboard has no panels");
}

#[test]
fn the_panels_fill_the_grid_without_overlap_or_gap() {
    let dashboard = dashboard();
    let mut cells = BTreeSet::new();
    for panel in dashboard.panels() {
        let side = |name| {
            let side = panel["gridPos"][name].as_u64();
            side.unwrap_or_else(|| panic!("panel {}: no gridPos {name}", panel["title"]))
        };
        for y in side("y")..side("y") + side("h") {
            for x in side("x")..side("x") + side("w") {
                let title = &panel["title"];
                assert!(x < 24, "panel {title} is wider than the grid");
                assert!(cells.insert((y, x)), "panel {title} lies on another one");
            }
        }
    }
    let height = cells.last().map_or(0, |(y, _)| y + 1);
    let gap = (0..height)
        .flat_map(|y| (0..24).map(move |x| (y, x)))
        .find(|cell| !cells.contains(cell));
    assert_eq!(gap, None, "a gap at (y, x)");
}

#[test]
fn a_counter_is_never_shown_as_it_is() {
    let mut queries = dashboard().queries();
    queries.extend(alert_expressions());
    let mut counters = 0;
    for query in &queries {
        for (start, name) in series(query) {
            if ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .any(|suffix| name.ends_with(suffix))
            {
                counters += 1;
                let before = &query[..start];
                assert!(
                    before.ends_with("rate(") || before.ends_with("increase("),
                    "{name} grows for ever and stands outside rate() and increase(): {query}"
                );
            }
        }
    }
    assert!(counters > 0, "no query uses a counter");
}

#[test]
fn the_series_of_a_query_are_told_from_its_functions_and_labels() {
    let names = |query| series(query).into_iter().map(|(_, name)| name);
    assert!(
        names(r#"sum by (le, job) (rate(a_bucket{b="c d", e=~"f{2}"}[5m])) / on (g) group_left (h) (i_j - time()) > 1e3 or k:l offset 5m"#)
            .eq(["a_bucket", "i_j", "k:l"])
    );
    assert!(names("min(time() - $m{n=\"o\"}) and p unless bool").eq(["p"]));
}

/// `grafana/hushnet-realtime.json`.
struct Dashboard(Value);

fn dashboard() -> Dashboard {
    let path = folder().join("hushnet-realtime.json");
    Dashboard(serde_json::from_str(&read(&path)).expect("the dashboard is JSON"))
}

impl Dashboard {
    /// Every panel and every row's title. No row is collapsed: that would hide its panels here.
    fn panels(&self) -> &[Value] {
        let panels = self.0["panels"].as_array().expect("the dashboard's panels");
        let collapsed = panels.iter().find(|panel| panel["collapsed"] == true);
        assert_eq!(collapsed, None, "a collapsed row");
        panels
    }

    /// Every query of every panel and template variable, as it is written.
    fn queries(&self) -> Vec<String> {
        let of_panels = self
            .panels()
            .iter()
            .filter_map(|panel| panel["targets"].as_array())
            .flatten()
            .map(|target| target["expr"].as_str().expect("a target has expr"))
            .map(str::to_owned);
        let of_variables = self.0["templating"]["list"]
            .as_array()
            .expect("templating.list")
            .iter()
            .filter(|variable| variable["type"] == "query")
            .map(|variable| {
                let query = variable["query"]["query"].as_str();
                values_of_label(query.expect("a variable has query.query"))
            });
        of_panels.chain(of_variables).collect()
    }
}

/// `label_values(series, label)` is Grafana's own; this is the `PromQL` with the same values.
fn values_of_label(query: &str) -> String {
    let (series, label) = query
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'))
        .and_then(|arguments| arguments.rsplit_once(','))
        .unwrap_or_else(|| panic!("a variable's query is no label_values(series, label): {query}"));
    format!("group by ({}) ({series})", label.trim())
}

/// The query with Grafana's variables filled in, all of them chosen.
fn as_run_by_grafana(query: &str) -> String {
    let mut run = query.to_owned();
    for variable in ["__rate_interval", "__interval", "__range"] {
        run = run.replace(&format!("${variable}"), RATE_INTERVAL);
    }
    for variable in ["job", "instance"] {
        for written in [
            format!("${variable}"),
            format!("${{{variable}}}"),
            format!("${{{variable}:regex}}"),
        ] {
            run = run.replace(&written, ".*");
        }
    }
    assert!(
        !run.contains('$'),
        "a variable that nothing declares: {query}"
    );
    run
}

/// The expressions of `alerts.yml`, which stand on one line each.
fn alert_expressions() -> Vec<String> {
    read(&folder().join("alerts.yml"))
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .map(str::to_owned)
        .collect()
}

fn series_of(queries: &[String]) -> BTreeSet<String> {
    queries
        .iter()
        .flat_map(|query| series(query))
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// The names of series in a `PromQL` expression, and where they stand: every name that is no
/// function, keyword, number or duration, nor inside braces, brackets or a list of labels.
fn series(query: &str) -> Vec<(usize, &str)> {
    const BEFORE_LABELS: [&str; 6] = [
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
    ];
    const KEYWORDS: [&str; 5] = ["and", "or", "unless", "offset", "bool"];
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '$');
    let after = |at: usize, closing: char| {
        let end = query[at..].find(closing);
        at + end.unwrap_or_else(|| panic!("no {closing} after byte {at} of {query}")) + 1
    };
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = query[at..].chars().next() {
        at = match c {
            '{' => {
                // A brace inside a quoted value closes nothing.
                let mut end = at + 1;
                while !query[end..].starts_with('}') {
                    end = match query[end..].chars().next() {
                        Some('"') => after(end + 1, '"'),
                        Some(other) => end + other.len_utf8(),
                        None => panic!("no }} after byte {at} of {query}"),
                    };
                }
                end + 1
            }
            '[' => after(at, ']'),
            _ if in_name(c) => {
                let length = query[at..].find(|c| !in_name(c));
                let end = length.map_or(query.len(), |length| at + length);
                let name = &query[at..end];
                if BEFORE_LABELS.contains(&name) {
                    after(end, ')')
                } else {
                    let rest = query[end..].trim_start();
                    let function = ["(", "by (", "without ("]
                        .iter()
                        .any(|opening| rest.starts_with(opening));
                    let word = c.is_ascii_alphabetic() || c == '_';
                    if word && !function && !KEYWORDS.contains(&name) {
                        found.push((at, name));
                    }
                    end
                }
            }
            _ => at + c.len_utf8(),
        };
    }
    found
}

/// Users that are connected and read, one that comes back again and again, and messages between them
/// in a loop. Ends when dropped.
async fn load(server: &Server) -> JoinSet<()> {
    let pool = server.db().await;
    let (alice, bob) = (add_user(&pool).await, add_user(&pool).await);
    // No client connects as this user.
    let absent = add_user(&pool).await;
    let mut tasks = JoinSet::new();
    for user in [alice.id, bob.id, bob.id] {
        let mut client = server.connect(user).await;
        tasks.spawn(async move {
            loop {
                client.next_json().await;
            }
        });
    }
    let url = format!("ws://{}/ws?user_id={}", server.address(), bob.id);
    tasks.spawn(async move {
        // No cursor yet: the first answer is a reset, which brings one.
        let mut cursor = "none".to_owned();
        let mut pace = interval(Duration::from_millis(50));
        loop {
            let connected = connect_async(format!("{url}&since={cursor}")).await;
            let (socket, _) = connected.expect("a connection");
            cursor = end_of_replay(crate::support::client_on(socket)).await;
            pace.tick().await;
        }
    });
    tasks.spawn(async move {
        let mut pace = interval(Duration::from_millis(5));
        loop {
            for (from, to) in [(&alice, &bob), (&bob, &alice), (&alice, &absent)] {
                insert_message(&pool, None, from, to).await;
            }
            pace.tick().await;
        }
    });
    tasks
}

/// The cursor with which the client can come back, after what it is sent at its start.
async fn end_of_replay(mut client: Client) -> String {
    loop {
        let frame = client.next_json().await;
        if frame["type"] == "cursor" || frame["type"] == "reset" {
            return frame["cursor"].as_str().expect("a cursor").to_owned();
        }
    }
}

async fn exposition(server: &Server) -> String {
    let response = server.get("/metrics").await;
    assert_eq!(response.status, 200, "{response:?}");
    response.body
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
