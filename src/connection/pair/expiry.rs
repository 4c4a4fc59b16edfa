//! A proof expires as the wall clock has it, whatever the process's own time does meanwhile.

use super::*;

/// How long a change of the wall clock may go unnoticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);
/// The proof is good for so long, by the wall clock at the beginning.
const GOOD_FOR: Duration = Duration::from_hours(1);

impl Server {
    /// A client whose proof expires.
    fn connect_for_a_while(&self, stream_bytes: usize) -> Client {
        let expires = Duration::from_secs(WALL_BEGUN_S) + GOOD_FOR;
        let identity = Identity {
            user: self.user_id.into(),
            device_id: None,
            expires: Some(SystemTime::UNIX_EPOCH + expires),
        };
        self.connect(Encoding::V1, None, Some(identity), stream_bytes)
    }

    /// The wall clock jumps, and the runtime's does not: the machine was suspended, or the clock was set.
    fn jump(&self, seconds: i64) {
        let ahead = self.wall_s.load(Ordering::Relaxed);
        let ahead = ahead.checked_add_signed(seconds).unwrap();
        self.wall_s.store(ahead, Ordering::Relaxed);
    }
}

/// Reads until the close frame, and answers pings.
async fn closed(client: &mut Client) -> u16 {
    loop {
        let frame = client.frame().await;
        match frame.opcode {
            CLOSE => return frame.close_code(),
            PING => client.send(PONG, &frame.payload).await,
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_proof_expires_within_a_second_of_waking_from_a_suspend() {
    let server = Server::start(65_536);
    let mut client = server.connect_for_a_while(65_536);
    assert_eq!(client.message().await.json()["type"], "hello");
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.jump(3_600);
    let woken = Instant::now();
    let code = closed(&mut client).await;
    assert_eq!(code, CloseCode::TokenExpired.code());
    assert!(woken.elapsed() <= NOTICED_WITHIN, "{:?}", woken.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_proof_is_good_for_longer_when_the_wall_clock_was_set_back() {
    let server = Server::start(65_536);
    let mut client = server.connect_for_a_while(65_536);
    let begun = Instant::now();
    server.jump(-600);
    assert_eq!(closed(&mut client).await, CloseCode::TokenExpired.code());
    let (earliest, took) = (GOOD_FOR + Duration::from_mins(10), begun.elapsed());
    assert!(
        took >= earliest && took <= earliest + NOTICED_WITHIN,
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_jump_that_leaves_time_ends_no_connection_before_its_time() {
    let server = Server::start(65_536);
    let mut client = server.connect_for_a_while(65_536);
    let begun = Instant::now();
    for _ in 0..5 {
        server.jump(600);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(closed(&mut client).await, CloseCode::TokenExpired.code());
    let (earliest, took) = (Duration::from_mins(10), begun.elapsed());
    assert!(
        took >= earliest && took <= earliest + NOTICED_WITHIN,
        "{took:?}"
    );
}

/// A blocked connection takes no signal: it sees the wall clock by itself.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_expires_as_soon() {
    let mut server = Server::with_write_timeout(65_536, DEADLINE);
    let client = server.connect_for_a_while(64);
    for _ in 0..20 {
        server.route();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.jump(3_600);
    let woken = Instant::now();
    // It leaves the hub before it closes the socket, which nobody reads.
    while server.shared.hub.users_connected() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(woken.elapsed() <= NOTICED_WITHIN, "{:?}", woken.elapsed());
    let ending = client.connection.await.unwrap();
    assert_eq!(ending, Closed::ByServer(CloseCode::TokenExpired));
}
