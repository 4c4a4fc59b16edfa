//! The address of the next attempt.

use crate::url::{BusUrl, Host};

/// The hosts of a URL, one after another. The first is chosen at random, so that nodes spread over a cluster.
#[derive(Debug)]
pub(crate) struct Servers {
    hosts: Vec<Host>,
    next: usize,
}

impl Servers {
    /// `random` chooses the first host.
    pub(crate) fn new(url: &BusUrl, random: usize) -> Self {
        let hosts = url.hosts().to_vec();
        let next = random % hosts.len().max(1);
        Self { hosts, next }
    }

    /// The host of the next attempt.
    pub(crate) fn next(&mut self) -> &Host {
        let index = self.next % self.hosts.len();
        self.next = index + 1;
        &self.hosts[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_is_tried_in_its_order() {
        let url: BusUrl = "nats://a,b,c".parse().unwrap();
        let mut servers = Servers::new(&url, 7);
        let names: Vec<_> = (0..4).map(|_| servers.next().name.clone()).collect();
        assert_eq!(names, ["b", "c", "a", "b"]);
    }
}
