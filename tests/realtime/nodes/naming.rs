//! When the database names a run.

use std::sync::Arc;

use hushnet_bus::TlsSettings;
use hushnet_realtime::metrics::Metrics;
use hushnet_realtime::nodes::{Election, Orders, Publishing, Run, Status, StepDown, VERSION};
use tokio::sync::watch;

use crate::support::{Database, until};

/// What a follower reads when it finds the run has then been routed before, or is published.
#[tokio::test]
async fn a_run_is_named_only_when_its_leader_publishes() {
    let database = Database::migrated().await;
    let log = database.log(1);
    let (bus, ..) = hushnet_bus::open(
        "redis://127.0.0.1:1".parse().unwrap(),
        TlsSettings::default(),
    );
    let metrics = Arc::new(Metrics::new());
    let publishing = Publishing::new(bus, Arc::clone(&metrics));
    let (orders, mut ordered) = Orders::channel();
    let (_may_lead, may_lead) = watch::channel(true);
    let election = Election {
        log: log.clone(),
        status: Status::new("a".to_owned(), VERSION),
        publishing: publishing.clone(),
        orders,
        may_lead,
        step_down: StepDown::default(),
        metrics,
        said: None,
    };
    let election = tokio::spawn(election.run());
    let named = async || log.leader().await.unwrap().map(|leader| leader.run);
    let order = ordered.next().await;
    assert_eq!(named().await, None, "named before its leader publishes");
    let epoch = log.present().await.unwrap().epoch;
    publishing.begin(Run {
        history: epoch.history,
        timeline: epoch.timeline,
        number: order.run,
    });
    order.ready.send(()).unwrap();
    until("the run to be named", async || {
        named().await == Some(order.run)
    })
    .await;
    election.abort();
}
