//! Schedules of reading, made up at random.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Whatever the client reads, and when: it gets every event once and in order, and no cursor that has seen an event
/// which the client has not.
#[tokio::test(start_paused = true)]
async fn no_schedule_of_reading_loses_repeats_or_reorders_an_event() {
    let seeds = match std::env::var("PAIR_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..60,
    };
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut server = Server::with_write_timeout(rng.random_range(200..4_000), DEADLINE);
        let stream_bytes = rng.random_range(16..2_000);
        let mut client = server.connect(Encoding::V1, None, None, stream_bytes);
        let mut seen = 0;
        for _ in 0..rng.random_range(20..150) {
            match rng.random_range(0..10) {
                0..4 => {
                    for _ in 0..rng.random_range(1..8) {
                        server.route();
                    }
                }
                4 => server.complete_barrier(),
                5 => {
                    let pause = Duration::from_millis(rng.random_range(0..3_000));
                    tokio::time::sleep(pause).await;
                }
                6 => client.send(PONG, &[]).await,
                7 => tokio::task::yield_now().await,
                _ => {
                    let most = rng.random_range(1..600);
                    let read = client.read(most);
                    let _ = tokio::time::timeout(Duration::from_millis(1), read).await;
                }
            }
            take_all(&mut client, &mut seen, seed);
        }
        server.complete_barrier();
        while seen < server.routed {
            assert!(client.read(4_096).await, "seed {seed}: closed after {seen}");
            take_all(&mut client, &mut seen, seed);
        }
    }
}

/// Checks the frames that have been read whole.
fn take_all(client: &mut Client, seen: &mut i64, schedule: u64) {
    while let Some(frame) = client.take_frame() {
        if frame.opcode != TEXT {
            assert_eq!(
                frame.opcode, PING,
                "seed {schedule}: {frame:?} after {seen}"
            );
            continue;
        }
        let json = frame.json();
        if json["type"] == "device" {
            *seen += 1;
            assert_eq!(json["id"], *seen, "seed {schedule}");
        }
        if json["cursor"].is_string() {
            let covered = unseen(&json["cursor"]) - 1;
            assert!(covered <= *seen, "seed {schedule}: {json} after {seen}");
        }
    }
}

/// The client's heartbeat is due while its replay waits for room, after a barrier that covers the replay.
#[tokio::test(start_paused = true)]
async fn a_cursor_that_passes_during_a_replay_is_given_after_it() {
    let mut server = Server::with_write_timeout(256, DEADLINE);
    for _ in 0..40 {
        server.route();
    }
    let mut client = server.connect(Encoding::V1, Some("1-1.1:1:"), None, 64);
    // The socket is full, and the client has come.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.complete_barrier();
    tokio::time::sleep(PING_INTERVAL).await;
    let mut seen = 0;
    while seen < server.routed {
        assert!(client.read(4_096).await, "closed after {seen}");
        take_all(&mut client, &mut seen, 0);
    }
}
