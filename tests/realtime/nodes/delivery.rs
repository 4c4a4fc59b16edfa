//! What clients of a follower are sent.

use serde_json::json;

use super::team::{Team, follows, ids, next, sum, v1};
use crate::over_both;
use crate::support::{add_user, execute, insert_message, until};

over_both! {
    /// Of both nodes, in the order of commits, without a read of the log for each.
    async fn events_reach_clients_of_every_node(team: Team) {
        let (leader, follower) = team.pair().await;
        let db = leader.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let (mut of_leader, _) = v1(&leader, bob.id, None).await;
        let (mut of_follower, _) = v1(&follower, bob.id, None).await;
        let mut plain = follower.connect(bob.id).await;
        for _ in 0..50 {
            insert_message(&db, None, &alice, &bob).await;
        }
        let sent = ids(&mut of_leader, 50).await;
        assert!(sent.is_sorted());
        assert_eq!(ids(&mut of_follower, 50).await, sent);
        let first = plain.next_json().await;
        assert_eq!((&first["type"], &first["id"]), (&json!("message"), &json!(sent[0])));
        assert!(follower.metric("hushnet_events_received_total{kind=\"message\"}").await >= 50.0);
        assert_eq!(sum(&[&follower], "hushnet_listener_connected").await, 0);
    }

    /// The cursor of one node is good on another, in both directions.
    async fn a_client_changes_nodes_and_misses_nothing(team: Team) {
        let (leader, follower) = team.pair().await;
        let db = leader.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let (_, hello) = v1(&follower, bob.id, None).await;
        let mut cursor = hello["cursor"].as_str().unwrap().to_owned();
        let mut seen = Vec::new();
        for server in [&leader, &follower, &leader, &follower] {
            insert_message(&db, None, &alice, &bob).await;
            let (mut client, hello) = v1(server, bob.id, Some(&cursor)).await;
            assert_eq!(hello["resumed"], true, "{hello}");
            // The cursor of the client moves when a barrier covers what it has been sent.
            loop {
                let frame = client.next_json().await;
                let id = frame["id"].as_i64().filter(|_| frame["type"] == "message");
                if let Some(id) = id && !seen.contains(&id) {
                    seen.push(id);
                }
                let newer = frame["cursor"].as_str().filter(|newer| **newer != *cursor);
                if let Some(newer) = newer {
                    newer.clone_into(&mut cursor);
                    break;
                }
            }
        }
        assert!(seen.is_sorted() && seen.len() == 4, "{seen:?}");
    }

    async fn a_follower_serves_a_cursor_from_memory(team: Team) {
        let (leader, follower) = team.pair().await;
        let db = leader.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let (mut stays, hello) = v1(&follower, bob.id, None).await;
        let mut cursor = hello["cursor"].as_str().unwrap().to_owned();
        let from_memory = "hushnet_replays_total{cause=\"resume\",source=\"memory\"}";
        until("a cursor that the follower serves from memory", async || {
            insert_message(&db, None, &alice, &bob).await;
            let newer = next(&mut stays).await["cursor"].as_str().map(str::to_owned);
            let (mut client, _) = v1(&follower, bob.id, Some(&cursor)).await;
            next(&mut client).await;
            cursor = newer.unwrap();
            follower.metric(from_memory).await > 0.0
        })
        .await;
    }

    async fn a_large_event_is_read_from_the_log(team: Team) {
        let (leader, follower) = team.pair().await;
        let db = leader.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let mut owner = team.database.connect().await;
        execute(
            &mut owner,
            "CREATE TABLE letters (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), reader uuid, body text);
             SELECT realtime.add_source('letter', 'public.letters', 'reader', fields => '{body}')",
        )
        .await;
        let (mut client, _) = v1(&follower, bob.id, None).await;
        insert_message(&db, None, &alice, &bob).await;
        let letter = format!(
            "INSERT INTO letters (reader, body) SELECT '{}', string_agg(md5(n::text), '') FROM generate_series(1, 6250) AS n",
            bob.id
        );
        execute(&mut owner, &letter).await;
        insert_message(&db, None, &alice, &bob).await;
        let kinds = [next(&mut client).await, next(&mut client).await, next(&mut client).await];
        assert_eq!(kinds[0]["type"], "message");
        assert_eq!(kinds[1]["type"], "letter", "{:.200}", kinds[1].to_string());
        assert_eq!(kinds[1]["row"]["body"].as_str().unwrap().len(), 200_000);
        assert_eq!(kinds[2]["type"], "message");
        assert!(follower.metric("hushnet_node_repairs_total{cause=\"in_log\"}").await >= 1.0);
    }

    async fn clients_of_every_node_are_reset_by_a_truncate(team: Team) {
        let (leader, follower) = team.pair().await;
        let db = leader.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let (mut of_leader, _) = v1(&leader, bob.id, None).await;
        let (mut of_follower, _) = v1(&follower, alice.id, None).await;
        let (mut of_another, _) = v1(&follower, bob.id, None).await;
        execute(&mut team.database.connect().await, "TRUNCATE messages CASCADE").await;
        for client in [&mut of_leader, &mut of_follower, &mut of_another] {
            let reset = next(client).await;
            assert_eq!((&reset["type"], &reset["reason"]), (&json!("reset"), &json!("truncated")));
        }
        insert_message(&db, None, &alice, &bob).await;
        assert_eq!(ids(&mut of_another, 1).await, ids(&mut of_leader, 1).await);
    }

    /// The old leader gives up the lock before its clients leave.
    async fn a_leader_that_is_stopped_is_followed_by_another(team: Team) {
        let (leader, follower) = team.pair().await;
        let third = team.node("third").await;
        follows(&third).await;
        let db = team.database.pool().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let (mut client, _) = v1(&follower, bob.id, None).await;
        let (mut other, _) = v1(&third, bob.id, None).await;
        let writing = tokio::spawn({
            let db = db.clone();
            async move {
                for _ in 0..300 {
                    insert_message(&db, None, &alice, &bob).await;
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        });
        leader.stopped_now().await;
        writing.await.unwrap();
        let events = ids(&mut client, 300).await;
        let mut distinct = events.clone();
        distinct.dedup();
        assert!(events.is_sorted() && distinct.len() == 300, "{events:?}");
        assert_eq!(ids(&mut other, 300).await, events);
        until("one of the two to lead", async || {
            sum(&[&follower, &third], "hushnet_node_leading").await == 1
        })
        .await;
    }
}
