//! `/console`: a web page that shows a user's events, and what it asks the service for.
//!
//! The page and its script are public. Answers about a user or about the service need the same proof of identity
//! as the reads of state. The page loads nothing from elsewhere and evaluates no text as a script: its policy
//! forbids both. In `run` the page may also send messages for the demo users, as rows of the database.

mod answer;
mod demo;
mod facts;
mod nodes;
mod page;
mod routes;
mod stats;
mod times;

pub(super) use self::routes::routes;
