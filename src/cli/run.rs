//! `run`: the service with everything that it needs, ready to try.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use hushnet_devdb::Cluster;
use hushnet_realtime::config::{AuthMode, Config, DatabaseUrl};
use hushnet_realtime::store::{demo, hushnet, migrate};
use hushnet_realtime::{app, edge, output};
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::{database, descriptors, logging, signals, tail};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the private PostgreSQL lives; kept between runs
    #[arg(long, value_name = "DIRECTORY", default_value = ".hushnet")]
    directory: PathBuf,
    #[command(flatten)]
    config: Config,
}

pub(super) async fn run(
    Arguments {
        directory,
        mut config,
    }: Arguments,
) -> anyhow::Result<()> {
    if config.database_url.is_none() {
        database::without_variables()?;
    }
    // The page is for trying. Where clients prove an identity, its operator asks for it.
    let is_tried = config.identity.auth == AuthMode::None;
    config.edge.console.get_or_insert(is_tried);
    app::check(&config)?;
    logging::start(&config)?;
    config.database_url.iter().for_each(database::log);
    descriptors::raise_limit(&config)?;
    signals::stopping_on_signal(async move |stop| {
        let listener = edge::bind(config.listen).with_context(|| {
            format!("cannot listen on {}; --listen takes another", config.listen)
        })?;
        let (mut cluster, mut private) = (None, None);
        if config.database_url.is_none() {
            if std::env::var_os("DATABASE_URL").is_some() {
                tracing::warn!(
                    event = "database_url_not_used",
                    advice = "`run` uses a database of its own; --database-url names another"
                );
            }
            let started = Cluster::start(&directory).await?;
            started.create_database(database::OF_RUN).await?;
            let url = started.url(database::OF_RUN);
            config.database_url = Some(url.parse().map_err(anyhow::Error::msg)?);
            private = Some(url);
            cluster = Some(started);
        }
        let served = async {
            config.edge.demo = prepare(config.database()?, cluster.is_some()).await?;
            print_invitation(&config, listener.local_addr()?).await?;
            if let Some(url) = private {
                output::announce(format_args!("  export DATABASE_URL='{url}'"))?;
            }
            // The sender is dropped only when the process exits.
            Ok(app::run(config, listener, async { drop(stop.await) }).await?)
        }
        .await;
        if let Some(cluster) = cluster {
            cluster.stop().await?;
        }
        served
    })
    .await
}

/// Puts the schemas in place. Adds the demo users to a database that has no real ones; returns whether the demo
/// users are there.
async fn prepare(url: &DatabaseUrl, private: bool) -> anyhow::Result<bool> {
    let mut connection = connect(url).await?;
    let present = hushnet::ensure_schema(&mut connection).await?;
    migrate::up(url).await?;
    let demo = private || !present;
    if demo {
        demo::add_users(&mut connection).await?;
    }
    connection.close().await?;
    Ok(demo)
}

/// Prints what to try, for the demo users only: the service does not know any other user's name.
async fn print_invitation(config: &Config, address: std::net::SocketAddr) -> anyhow::Result<()> {
    let mut connection = connect(config.database()?).await?;
    let user = demo::user_id(&mut connection, demo::RECIPIENT).await?;
    connection.close().await?;
    output::announce(format_args!("serving on http://{address}"))?;
    let (Some(user), AuthMode::None) = (user, config.identity.auth) else {
        return Ok(());
    };
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "hushnet-realtime".to_owned());
    let url = format!("ws://{address}");
    let elsewhere = if url == tail::DEFAULT_URL {
        String::new()
    } else {
        format!(" --url {url}")
    };
    output::announce(format_args!("  {url}/ws?user_id={user}"))?;
    output::announce(format_args!("  {program} tail --user {user}{elsewhere}"))?;
    output::announce(format_args!(
        "  {program} demo send --from {} --to {} hello",
        demo::SENDER,
        demo::RECIPIENT
    ))?;
    if config.edge.console == Some(true) {
        let scheme = config.edge.scheme();
        output::announce(format_args!("  {scheme}://{address}/console"))?;
    }
    Ok(())
}

async fn connect(url: &DatabaseUrl) -> anyhow::Result<PgConnection> {
    url.options()
        .connect()
        .await
        .with_context(|| format!("cannot connect to {}", url.masked()))
}
