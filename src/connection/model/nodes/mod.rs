//! Many nodes, in every schedule of small worlds and in random ones of larger worlds.
//!
//! A made-up database commits transactions out of the order of their ids. Two nodes read it, of which one leads and
//! publishes; a third follows; a made-up bus loses, repeats and reorders. Router, replay buffer, publisher, follower and
//! a connection's position are those of the service. After each action of a schedule:
//! - a connection is sent no id twice;
//! - a client that keeps its newest cursor, and the ids that came under it and under the one before, hands on no
//!   id twice, also where it moves between nodes;
//! - what its cursor sees, it has been sent;
//! - no event comes before one that its writer had seen.
//!
//! And at the end, when all is quiet: nothing is missing, and barriers pass.

mod bus;
mod client;
mod explore;
mod following;
mod scenario;
mod server;
mod tests;
mod world;
