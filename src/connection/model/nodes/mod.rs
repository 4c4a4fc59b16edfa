//! Many nodes, in every schedule of small worlds and in random ones of larger worlds.
//!
//! A made-up database commits transactions out of the order of their ids. Two nodes read it, of which one leads and
//! publishes; a third follows, and may come to lead, so that the node that has led follows it; a made-up bus loses, repeats
//! and reorders. A table may be emptied, the log may forget, and a standby may be promoted that has not got the last rows.
//! Intake, router, replay buffer, publisher, follower and a connection's position are those of the service. After each
//! action of a schedule:
//! - a connection is sent no id twice;
//! - a client that keeps its newest cursor, and the ids that came under it and under the one before, hands on no
//!   id twice, also where it moves between nodes;
//! - what its cursor sees, it has been sent, or it has been reset for it;
//! - no event comes before one that its writer had seen;
//! - where the client and its node have the database's history, no event comes of another.
//!
//! A client that is reset reads its state anew, and what it had counts no longer.
//!
//! And at the end, when all is quiet: nothing is missing, and barriers pass.

mod bus;
mod client;
mod explore;
mod following;
mod member;
mod scenario;
mod server;
mod tests;
mod world;
mod writers;
