//! A real Prometheus and its promtool, as `scripts/setup.sh test` fetches them.
//!
//! When the programs are missing, the tests fail and say how to install them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::support::deadline;

/// A Prometheus of its own, on a free port, with its data in a folder that goes with it.
pub(super) struct Prometheus {
    address: SocketAddr,
    _directory: tempfile::TempDir,
    _process: Child,
}

impl Prometheus {
    /// Starts one that scrapes `target` each second, and waits until it is ready.
    pub(super) async fn scraping(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let file = |name| directory.path().join(name);
        let configuration = format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs:\n\
             - job_name: hushnet-realtime\n  \
               static_configs: [{{targets: ['{target}']}}]\n"
        );
        std::fs::write(file("prometheus.yml"), configuration).expect("the configuration");
        let log = std::fs::File::create(file("log")).expect("the log");
        let mut process = Command::new(tool("prometheus"))
            .arg(format!(
                "--config.file={}",
                file("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", file("data").display()))
            // Port 0, and its log says which one it got: no port can be taken in between.
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus starts");
        let deadline = Instant::now() + deadline();
        loop {
            let log = std::fs::read_to_string(file("log")).expect("the log");
            if let Some(address) = listening_on(&log)
                && let Ok((200, _)) = http_get(address, "/-/ready").await
            {
                return Self {
                    address,
                    _directory: directory,
                    _process: process,
                };
            }
            let ended = process.try_wait().expect("prometheus can be waited for");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "prometheus is not ready: {ended:?}\n{log}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The values of an instant query, or why Prometheus refuses it.
    pub(super) async fn query(&self, query: &str) -> Result<Vec<f64>, String> {
        let encoded: Vec<_> = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let encoded = encoded.concat();
        let (_, body) = http_get(self.address, &format!("/api/v1/query?query={encoded}"))
            .await
            .expect("prometheus answers");
        let answer: Value = serde_json::from_str(&body).expect("the answer is JSON");
        if let Some(why) = answer["error"].as_str() {
            return Err(why.to_owned());
        }
        let result = answer["data"]["result"].as_array();
        let result = result.unwrap_or_else(|| panic!("{query} gives no vector: {answer}"));
        Ok(result
            .iter()
            .map(|sample| {
                let value = sample["value"][1].as_str().map(str::parse);
                value.expect("a value").expect("a number")
            })
            .collect())
    }

    /// What it says of its target: whether the scrapes succeed, and why not.
    pub(super) async fn targets(&self) -> String {
        let answer = http_get(self.address, "/api/v1/targets?state=active").await;
        answer.map_or_else(|error| error.to_string(), |(_, body)| body)
    }
}

/// The address in `msg="Listening on" address=127.0.0.1:…`.
fn listening_on(log: &str) -> Option<SocketAddr> {
    let line = log
        .lines()
        .find(|line| line.contains(r#"msg="Listening on""#))?;
    let (_, address) = line.split_once("address=")?;
    address.split_whitespace().next()?.parse().ok()
}

/// Status and body of a GET. HTTP/1.0: the body ends with the connection.
async fn http_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let (head, body) = response
        .split_once("\r\n\r\n")
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((
        status.ok_or(std::io::ErrorKind::InvalidData)?,
        body.to_owned(),
    ))
}

/// Runs promtool in this folder with this on its standard input.
pub(super) async fn promtool(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut process = Command::new(tool("promtool"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("promtool starts");
    let mut stdin = process.stdin.take().expect("it is piped");
    // One that does not read its input may be gone before it is written.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    process.wait_with_output().await.expect("promtool ends")
}

/// Where a program of the Prometheus package is: what `scripts/setup.sh` fetched, or in `PATH`.
fn tool(name: &str) -> PathBuf {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(".hushnet/tools/prometheus/usr/bin")
        .join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(fetched)
        .chain(std::env::split_paths(&path).map(|folder| folder.join(name)))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("no {name}: run scripts/setup.sh test"))
}
