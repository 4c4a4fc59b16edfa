//! Load for WebSocket servers.

fn main() {}
