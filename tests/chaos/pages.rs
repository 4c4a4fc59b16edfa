//! The order of events across the pages of one replay.

use futures_util::StreamExt;
use hushnet_testkit::wait::deadline;
use sqlx::PgConnection;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use uuid::Uuid;

use crate::lab::{Lab, execute};
use crate::ledger::{Ledger, Outcome};
use crate::library::Library;
use crate::service::Service;
use crate::writers::insert_messages;

/// More than one page of the log, and long enough to fill every buffer on the way to the client.
const BACKLOG: usize = 1_500;
/// So many that their numbers alone are longer than the text of a cursor may be.
const OPEN_TRANSACTIONS: usize = 75;
const PADDING_BYTES: i32 = 4_000;

/// A transaction with an early id commits after the first page has been read. An event that is written
/// after that is on the second page, and must not come first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_commit_keeps_its_place_in_a_long_replay() {
    let lab = Lab::open().await;
    let service = Service::start(&lab.url(), |config| config.recent_bytes_max = 65_536).await;
    let (ledger, user_id) = (Ledger::new(rand::random()), Uuid::new_v4());
    let mut library = Library::new(0, user_id);
    let mut database = lab.database().await;
    execute(
        &mut database,
        &format!("INSERT INTO users VALUES ('{user_id}', 'one')"),
    )
    .await;

    let mut first = connect(&service, &library).await;
    take(&mut first, &mut library, &ledger).await;
    drop(first);

    let mut late = lab.database().await;
    execute(&mut late, "BEGIN").await;
    let early = ledger.begin(&[0]);
    insert(&mut late, &ledger, &early, user_id).await;
    pad(&mut database, user_id).await;

    let mut second = connect(&service, &library).await;
    // The first page has been read when `hello` arrives, and most of it waits for this client.
    take(&mut second, &mut library, &ledger).await;
    execute(&mut late, "COMMIT").await;
    ledger.end(&early, Outcome::Committed);
    let after = ledger.begin(&[0]);
    insert(&mut database, &ledger, &after, user_id).await;
    ledger.end(&after, Outcome::Committed);

    while !(library.has(early[0]) && library.has(after[0])) {
        take(&mut second, &mut library, &ledger).await;
    }
    // No writer of the ledger wrote the padding.
    library.strange.clear();
    let order: Vec<usize> = library
        .arrivals
        .iter()
        .map(|arrival| arrival.message)
        .collect();
    service.stop().await;
    lab.close().await;
    assert_eq!(order, [early[0], after[0]]);
}

/// With so many open transactions the cursor is in its short form and covers less than was read.
/// The pages must not depend on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_replay_is_whole_while_many_transactions_are_open() {
    let lab = Lab::open().await;
    let service = Service::start(&lab.url(), |config| config.recent_bytes_max = 65_536).await;
    let (ledger, user_id) = (Ledger::new(rand::random()), Uuid::new_v4());
    let mut library = Library::new(0, user_id);
    let mut database = lab.database().await;
    let insert_user = format!("INSERT INTO users VALUES ('{user_id}', 'one')");
    execute(&mut database, &insert_user).await;

    let mut first = connect(&service, &library).await;
    take(&mut first, &mut library, &ledger).await;
    drop(first);

    let mut open = Vec::new();
    for _ in 0..OPEN_TRANSACTIONS {
        let mut transaction = lab.database().await;
        execute(&mut transaction, "BEGIN; SELECT pg_current_xact_id()").await;
        open.push(transaction);
        // So that the numbers of the open transactions are not a range.
        execute(&mut database, "SELECT pg_current_xact_id()").await;
    }
    let mut witness_library = Library::new(0, user_id);
    let mut witness = connect(&service, &witness_library).await;
    take(&mut witness, &mut witness_library, &ledger).await;
    let messages = ledger.begin(&[0; BACKLOG]);
    insert(&mut database, &ledger, &messages, user_id).await;
    let last = ledger.begin(&[0]);
    insert(&mut database, &ledger, &last, user_id).await;
    // Everything has been routed before the client comes back: the replay can only be from the log.
    while !witness_library.has(last[0]) {
        take(&mut witness, &mut witness_library, &ledger).await;
    }

    let mut second = connect(&service, &library).await;
    let all = async {
        while !library.has(last[0]) {
            take(&mut second, &mut library, &ledger).await;
        }
    };
    // `take` gives up first. Then the number of missing events says more than its panic.
    let _ = tokio::time::timeout(deadline() / 3, all).await;
    let missing = messages.iter().filter(|m| !library.has(**m)).count();
    assert_eq!(missing, 0);
    service.stop().await;
    drop(open);
    lab.close().await;
}

async fn connect(service: &Service, library: &Library) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let stream = socket.connect(service.address).await.unwrap();
    client_async(library.request(service.address, true), stream)
        .await
        .unwrap()
        .0
}

async fn take(socket: &mut WebSocketStream<TcpStream>, library: &mut Library, ledger: &Ledger) {
    let frame = tokio::time::timeout(deadline(), socket.next())
        .await
        .unwrap();
    if let Message::Text(text) = frame.unwrap().unwrap() {
        library.take(&text, ledger);
    }
}

async fn insert(connection: &mut PgConnection, ledger: &Ledger, messages: &[usize], user: Uuid) {
    let names: Vec<Uuid> = messages.iter().map(|m| ledger.name(*m)).collect();
    let recipients = vec![user; names.len()];
    insert_messages(connection, &names, &recipients)
        .await
        .unwrap();
}

async fn pad(connection: &mut PgConnection, user: Uuid) {
    sqlx::query(
        "SELECT realtime.emit('messages_channel', $1, 'message', json_build_object(
            'type', 'message', 'chat_id', gen_random_uuid(), 'user_id', $1::uuid,
            'padding', repeat('x', $2)))
         FROM generate_series(1, $3)",
    )
    .bind(user)
    .bind(PADDING_BYTES)
    .bind(i32::try_from(BACKLOG).unwrap())
    .execute(connection)
    .await
    .unwrap();
}
