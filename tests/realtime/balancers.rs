//! Two nodes behind nginx and HAProxy, as Debian has them, with the files of `examples/balancers`.

mod address;
mod nodes;
mod program;
mod readiness;
mod restart;
