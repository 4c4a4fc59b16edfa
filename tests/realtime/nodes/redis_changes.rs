//! What an operator of Redis does while nodes run: a new password, and a failover by hand to a replica.

use hushnet_devbus::{BrokerKind, BrokerOptions, BrokerProxy, Direction, RedisPair};
use hushnet_testkit::wait::until;
use serde_json::Value;

use super::team::{Team, follows, ids, leads, reads, settled, sum, until_reason, v1};
use crate::support::{Server, add_user, insert_message};

const ACL: &str = "user hushnet on >old resetkeys resetchannels &hushnet.* -@all +ping +publish +subscribe +unsubscribe\n";

async fn pair(configuration: &str) -> RedisPair {
    let options = BrokerOptions {
        configuration: configuration.to_owned(),
        tls: None,
    };
    RedisPair::start(&options).await.unwrap()
}

/// A node's way to the primary, as a name that is looked up at each connection.
async fn link(pair: &RedisPair) -> BrokerProxy {
    BrokerProxy::start(BrokerKind::Redis, pair.primary().port(), 1)
        .await
        .unwrap()
}

fn url(login: &str, link: &BrokerProxy) -> String {
    format!("redis://{login}127.0.0.1:{}", link.port())
}

/// How many nodes are connected to a server, by its answer to `CLIENT LIST`.
fn nodes_in(list: &str) -> usize {
    list.matches("name=hushnet ").count()
}

async fn detail(server: &Server, code: &str) -> String {
    let answer = server.get("/readyz").await;
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    let reasons = answer["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|reason| reason["code"] == code);
    reason.map_or_else(String::new, |reason| reason["detail"].to_string())
}

/// Both passwords, the nodes one after another, the new one alone. A node that was forgotten lives on with its connection,
/// reads the log when that ends, says why, and goes on when it may.
#[tokio::test]
async fn a_password_is_changed_and_a_node_that_was_forgotten_loses_nothing() {
    let pair = pair(ACL).await;
    let (of_forgotten, of_other) = (link(&pair).await, link(&pair).await);
    let team = Team::at(&url("hushnet:old@", &of_forgotten)).await;
    let forgotten = team.node("forgotten").await;
    leads(&forgotten).await;
    let old = team.node_at("other", &url("hushnet:old@", &of_other)).await;
    follows(&old).await;
    pair.ask_both("ACL SETUSER hushnet >new").await.unwrap();
    old.stopped_now().await;
    let other = team.node_at("other", &url("hushnet:new@", &of_other)).await;
    follows(&other).await;
    pair.ask_both("ACL SETUSER hushnet <old").await.unwrap();
    let db = other.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let (mut of_first, _) = v1(&forgotten, bob.id, None).await;
    let (mut of_second, _) = v1(&other, bob.id, None).await;
    insert_message(&db, None, &alice, &bob).await;
    let mut all = ids(&mut of_first, 1).await;
    assert_eq!(ids(&mut of_second, 1).await, all);
    // The connection of before lives on.
    leads(&forgotten).await;
    of_forgotten.cut(Direction::Both);
    leads(&other).await;
    until("/readyz to name the login", async || {
        let detail = detail(&forgotten, "bus_disconnected").await;
        detail.contains("refuses the login")
    })
    .await;
    assert_eq!(forgotten.get("/readyz").await.status, 200);
    assert_eq!(sum(&[&forgotten], "hushnet_bus_connected").await, 0);
    let refused = "hushnet_bus_disconnects_total{cause=\"login_refused\"}";
    forgotten.until_metric(refused, 1.0).await;
    insert_message(&db, None, &alice, &bob).await;
    all.extend(ids(&mut of_first, 1).await);
    pair.ask_both("ACL SETUSER hushnet >old").await.unwrap();
    follows(&forgotten).await;
    until_reason(&forgotten, None).await;
    insert_message(&db, None, &alice, &bob).await;
    all.extend(ids(&mut of_first, 1).await);
    assert_eq!(ids(&mut of_second, 2).await, all[1..]);
    assert!(all.is_sorted(), "{all:?}");
}

/// `FAILOVER`, the name that leads to the new primary, and then the end of the connections to the former one: in whatever
/// order the nodes change, nothing is lost.
#[tokio::test]
async fn a_failover_by_hand_loses_nothing() {
    let mut pair = pair("").await;
    let links = [link(&pair).await, link(&pair).await];
    let team = Team::at(&url("", &links[0])).await;
    let leader = team.node("leader").await;
    leads(&leader).await;
    let follower = team.node_at("follower", &url("", &links[1])).await;
    follows(&follower).await;
    let db = leader.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let (mut client, _) = v1(&follower, bob.id, None).await;
    let mut all = Vec::new();
    for of_first in [&links[0], &links[1]] {
        pair.fail_over().await.unwrap();
        for link in &links {
            link.lead_to(pair.primary().port());
        }
        // The nodes are connected to the former primary, which is a replica now.
        insert_message(&db, None, &alice, &bob).await;
        all.extend(ids(&mut client, 1).await);
        // One of them finds the new primary before the other.
        of_first.cut(Direction::Both);
        insert_message(&db, None, &alice, &bob).await;
        all.extend(ids(&mut client, 1).await);
        pair.ask_replica("CLIENT KILL TYPE pubsub").await.unwrap();
        insert_message(&db, None, &alice, &bob).await;
        all.extend(ids(&mut client, 1).await);
        settled(&[&leader, &follower]).await;
        let list = pair.ask_primary("CLIENT LIST").await.unwrap();
        assert_eq!(nodes_in(&list), 2, "{list}");
    }
    insert_message(&db, None, &alice, &bob).await;
    all.extend(ids(&mut client, 1).await);
    assert!(all.is_sorted() && all.len() == 7, "{all:?}");
    for node in [&leader, &follower] {
        until_reason(node, None).await;
    }
}

/// Both take what is published, and neither hands it to the other. The node that was left behind finds the others by itself.
#[tokio::test]
async fn a_node_on_a_former_primary_that_still_works_goes_to_the_new_one() {
    let mut pair = pair("").await;
    let (of_most, of_third) = (link(&pair).await, link(&pair).await);
    let team = Team::at(&url("", &of_most)).await;
    let (leader, second) = team.pair().await;
    let third = team.node_at("third", &url("", &of_third)).await;
    follows(&third).await;
    let db = leader.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let (mut client, _) = v1(&third, bob.id, None).await;
    pair.promote().await.unwrap();
    for link in [&of_most, &of_third] {
        link.lead_to(pair.primary().port());
    }
    of_most.cut(Direction::Both);
    insert_message(&db, None, &alice, &bob).await;
    let mut all = ids(&mut client, 1).await;
    reads(&third).await;
    settled(&[&leader, &second, &third]).await;
    until_reason(&third, None).await;
    let list = pair.ask_primary("CLIENT LIST").await.unwrap();
    assert_eq!(nodes_in(&list), 3, "{list}");
    insert_message(&db, None, &alice, &bob).await;
    all.extend(ids(&mut client, 1).await);
    assert!(all.is_sorted() && all.len() == 2, "{all:?}");
}
