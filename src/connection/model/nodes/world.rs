//! The world: the database, two nodes that read, one that follows, the bus between them, and clients.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::super::database::{Database, Notified};
use super::bus::{Bus, Publishing};
use super::client::Client;
use super::following::Following;
use super::scenario::{Action, Broken, Budget, Node, Scenario, Step};
use super::server::Server;
use crate::nodes::Run;
use crate::protocol::Shard;

/// The first and the second node, and the follower.
const NODES: usize = 3;
/// So many barriers must be enough, when all is quiet, for one that sees everything.
const QUIET_BARRIERS: usize = 4;
/// Steps of reads that must be enough for a repair when all is quiet.
const QUIET_READS_MAX: usize = 200;

pub(super) struct World {
    steps: Vec<Step>,
    next_step: usize,
    budget: Budget,
    homes: Vec<Node>,
    broken: Broken,
    users: Vec<Uuid>,
    shards: Vec<Shard>,
    database: Database,
    /// The run that the database names.
    named: Run,
    /// The node that the database names.
    leader: Node,
    /// The last run of each node.
    runs: [u64; NODES],
    /// Whether the second node takes part.
    has_second: bool,
    /// The numbers of the scenario's transactions.
    transactions: Vec<u64>,
    servers: Vec<Server>,
    /// `None` while the follower reads the log itself.
    following: Option<Following>,
    bus: Bus,
    clients: Vec<Client>,
    now: Instant,
    history: Vec<Action>,
}

fn run(number: u64) -> Run {
    Run {
        history: 1,
        timeline: 1,
        number,
    }
}

impl World {
    /// The first node leads, the follower follows it, and the clients that are present have come.
    pub(super) fn new(scenario: &Scenario) -> Self {
        let now = Instant::now();
        let users: Vec<_> = (1..=scenario.users as u128).map(Uuid::from_u128).collect();
        let shards: Vec<_> = users.iter().map(|id| Shard::of((*id).into())).collect();
        let mut database = Database::new(NODES);
        database.begin();
        database.roll_back(0);
        let server = |_| Server::new(database.snapshot(), now);
        let servers: Vec<_> = (0..NODES).map(server).collect();
        let bus = Bus::new(shards.iter().copied().collect());
        let clients = users.iter().enumerate();
        let clients = clients.map(|(user, id)| Client::new(user, *id)).collect();
        let mut world = Self {
            steps: scenario.steps.clone(),
            next_step: 0,
            budget: scenario.budget,
            homes: scenario.homes.clone(),
            broken: scenario.broken,
            users,
            shards,
            database,
            named: run(0),
            leader: Node::First,
            runs: [0; NODES],
            has_second: scenario.has_second(),
            transactions: Vec::new(),
            servers,
            following: None,
            bus,
            clients,
            now,
            history: Vec::new(),
        };
        for step in [
            Step::Barrier(Node::First),
            Step::Barrier(Node::Second),
            Step::Publish(Node::First),
            Step::Name(Node::First),
        ] {
            world.step(step);
        }
        for client in 0..scenario.present {
            world.act(Action::Come(client, world.homes[0]));
        }
        if !scenario.begins_degraded {
            world.act(Action::Follow);
        }
        world.repair();
        for step in &scenario.before {
            world.tick();
            world.step(*step);
            world.deliver_all();
        }
        world.history.clear();
        world
    }

    fn server(&mut self, node: Node) -> &mut Server {
        &mut self.servers[node.index()]
    }

    /// What can happen next. Nothing: the schedule has come to its end.
    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut can = |is_possible: bool, action| {
            if is_possible {
                actions.push(action);
            }
        };
        can(self.next_step < self.steps.len(), Action::Step);
        let messages = self.bus.messages().len();
        if self.following.is_some() {
            can(messages > 0, Action::Deliver(0));
            can(
                messages > 1 && self.budget.overtakings > 0,
                Action::Deliver(1),
            );
            can(messages > 0 && self.budget.losses > 0, Action::Lose);
            can(messages > 0 && self.budget.repeats > 0, Action::Repeat);
        }
        self.follower_actions(&mut actions);
        for (number, client) in self.clients.iter().enumerate() {
            match client.home() {
                Some(_) if self.budget.departures > 0 => actions.push(Action::Leave(number)),
                Some(_) => {}
                None => {
                    let homes = self.homes.iter();
                    actions.extend(homes.map(|home| Action::Come(number, *home)));
                }
            }
        }
        actions
    }

    fn follower_actions(&self, actions: &mut Vec<Action>) {
        let budget = &self.budget;
        let Some(following) = &self.following else {
            if budget.own_barriers > 0 {
                actions.push(Action::OwnBarrier);
            }
            return actions.push(Action::Follow);
        };
        actions.extend(following.unconfirmed().iter().map(Action::Confirm));
        if *following.follower.run() != self.named || budget.looks > 0 {
            actions.push(Action::Look);
        }
        actions.extend(following.next_read().map(Action::Read));
        if following.is_reading() && budget.failures > 0 {
            actions.push(Action::FailRead);
        }
        if budget.degradations > 0 {
            actions.push(Action::Degrade);
        }
        if budget.let_gos > 0 {
            let unwanted = following.unwanted(&self.servers[Node::Follower.index()]);
            actions.extend(unwanted.iter().map(Action::LetGo));
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.history.push(action);
        self.tick();
        match action {
            Action::Step => {
                let step = self.steps[self.next_step];
                self.next_step += 1;
                self.step(step);
            }
            Action::Come(client, home) => {
                let server = &mut self.servers[home.index()];
                server.trace(self.next_step);
                self.clients[client].come(home, server);
                if let Some(following) = &mut self.following {
                    // A user that has come counts before the next barrier is passed.
                    following.take_wanted(&self.servers[Node::Follower.index()]);
                }
            }
            Action::Leave(client) => {
                self.budget.departures -= 1;
                let home = self.clients[client].home().unwrap();
                let server = &mut self.servers[home.index()];
                server.trace(self.next_step);
                self.clients[client].leave(server);
            }
            Action::Degrade => self.degrade(),
            Action::OwnBarrier => {
                self.budget.own_barriers -= 1;
                self.own_barrier();
            }
            Action::Follow => self.follow(),
            _ => self.act_following(action),
        }
        self.go_on();
    }

    fn act_following(&mut self, action: Action) {
        let Some(following) = &mut self.following else {
            return;
        };
        let server = &mut self.servers[Node::Follower.index()];
        match action {
            Action::Deliver(place) => {
                self.budget.overtakings -= usize::from(place > 0);
                let message = self.bus.messages().remove(place).unwrap();
                following.message(&message, server);
            }
            Action::Lose => {
                self.budget.losses -= 1;
                self.bus.messages().pop_front();
            }
            Action::Repeat => {
                self.budget.repeats -= 1;
                let message = self.bus.messages().pop_front().unwrap();
                following.message(&message, server);
                self.bus.messages().push_back(message);
            }
            Action::Confirm(shard) => following.confirm(shard),
            Action::Look => {
                self.budget.looks = self.budget.looks.saturating_sub(1);
                following.found(self.named, self.database.snapshot(), server);
            }
            Action::Read(step) => following.read(step, server, &self.database),
            Action::FailRead => {
                self.budget.failures -= 1;
                following.fail_repair();
            }
            Action::LetGo(shard) => {
                self.budget.let_gos -= 1;
                following.let_go(shard, server);
            }
            _ => {}
        }
    }

    /// No two things happen at the same time.
    fn tick(&mut self) {
        let latest = self.servers.iter().map(|server| server.now).max();
        self.now = latest.map_or(self.now, |latest| latest.max(self.now)) + Duration::from_secs(1);
        for server in &mut self.servers {
            server.now = self.now;
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin => self.begin(),
            Step::Open(user) | Step::Event(user) => {
                self.begin();
                let transaction = self.transactions.len() - 1;
                let place = self.running(transaction);
                self.database.write(place, user, &self.users);
                if matches!(step, Step::Event(_)) {
                    self.database.commit(place);
                }
            }
            Step::Write(transaction, user) => {
                let place = self.running(transaction);
                self.database.write(place, user, &self.users);
            }
            Step::Flush(transaction) => {
                if self.broken == Broken::RoutedBeforeVisible {
                    let place = self.running(transaction);
                    let rows = self.database.running[place].1.clone();
                    for row in &rows {
                        self.server(Node::First).route_row(row);
                    }
                    self.server(Node::First).flush();
                }
            }
            Step::Commit(transaction) => {
                let place = self.running(transaction);
                self.database.commit(place);
            }
            Step::Barrier(node) => self.database.barrier(node.index(), self.now),
            Step::Marks(node) => {
                if let Some(publishing) = &self.server(node).publishing {
                    publishing.marks();
                }
            }
            Step::Publish(node) => {
                let last = self.runs.iter().max().copied().unwrap_or_default();
                self.runs[node.index()] = last + 1;
                if self.broken == Broken::NamedBeforePublishing && last > 0 {
                    self.name(node);
                } else {
                    self.publish(node);
                }
            }
            Step::Name(node) => {
                self.name(node);
                if self.broken == Broken::NamedBeforePublishing {
                    self.publish(node);
                }
            }
            Step::Stop(node) => {
                let server = self.server(node);
                server.router.set_relay(None);
                server.publishing = None;
            }
            Step::All(steps) => {
                for step in steps {
                    self.step(*step);
                }
            }
            Step::Lead(node) => {
                self.step(Step::Publish(node));
                self.step(Step::Name(node));
            }
        }
        self.listen(Node::First);
        if self.has_second {
            self.listen(Node::Second);
        }
    }

    /// The node begins to publish what it routes.
    fn publish(&mut self, node: Node) {
        let run = run(self.runs[node.index()]);
        let publishing = Publishing::new(run, &self.bus);
        self.server(node).publish(publishing);
    }

    /// The database names the node's run.
    fn name(&mut self, node: Node) {
        self.named = run(self.runs[node.index()]);
        self.leader = node;
    }

    fn begin(&mut self) {
        self.database.begin();
        self.transactions.push(self.database.next_xid);
    }

    /// The place of a transaction among those that run.
    fn running(&self, transaction: usize) -> usize {
        let xid = self.transactions[transaction];
        let mut running = self.database.running.iter();
        running.position(|(running, _)| *running == xid).unwrap()
    }

    /// A node takes what was notified.
    fn listen(&mut self, node: Node) {
        let server = &mut self.servers[node.index()];
        let notified = mem::take(&mut self.database.channels[node.index()].notified);
        for notified in notified {
            match notified {
                Notified::Row(row) => server.route_row(&row),
                Notified::Barrier(barrier) => server.complete_barrier(barrier),
            }
        }
        server.flush();
    }

    /// The follower hears nothing of the bus any more, and reads the log itself from the last barrier on.
    fn degrade(&mut self) {
        self.budget.degradations -= 1;
        self.following = None;
        // What comes meanwhile is not for it.
        self.bus.messages().clear();
        self.database.channels[Node::Follower.index()].lose();
        let until = self.database.snapshot();
        let server = &mut self.servers[Node::Follower.index()];
        server.trace(self.next_step);
        let rows = self.database.read(&server.durable(), &until);
        server.read_log(&rows, until);
    }

    fn own_barrier(&mut self) {
        let next_step = self.next_step;
        self.server(Node::Follower)
            .trace(("own barrier", next_step));
        self.database.barrier(Node::Follower.index(), self.now);
    }

    fn follow(&mut self) {
        self.database.channels[Node::Follower.index()].lose();
        let (run, broken) = (self.named, self.broken);
        let server = &mut self.servers[Node::Follower.index()];
        server.trace(self.next_step);
        self.following = Some(Following::new(run, &self.shards, broken, server));
    }

    /// What nothing has to be waited for.
    fn go_on(&mut self) {
        let node = Node::Follower;
        match &mut self.following {
            None => {
                self.bus.messages().clear();
                self.listen(node);
            }
            Some(following) => following.pass(&mut self.servers[node.index()]),
        }
        for client in &mut self.clients {
            let Some(home) = client.home() else {
                continue;
            };
            let server = &mut self.servers[home.index()];
            if let Err(error) = client.go_on(server, &self.database) {
                self.fail(&error);
            }
        }
    }

    fn fail(&self, error: &str) -> ! {
        let steps = &self.steps[..self.next_step];
        panic!("{error}\n{:?}\n{steps:?}\n{:?}", self.budget, self.history)
    }

    /// A number for everything that the future depends on.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.next_step, self.budget).hash(&mut hasher);
        self.bus.messages().hash(&mut hasher);
        self.following.hash(&mut hasher);
        for server in &self.servers {
            server.traced().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The follower confirms, looks and reads until nothing is left to do.
    fn repair(&mut self) {
        for _ in 0..QUIET_READS_MAX {
            let Some(following) = &self.following else {
                return;
            };
            let confirm = following.unconfirmed().iter().next().map(Action::Confirm);
            let is_behind = *following.follower.run() != self.named;
            let look = is_behind.then_some(Action::Look);
            let read = following.next_read().map(Action::Read);
            match confirm.or(look).or(read) {
                Some(action) => self.act(action),
                None => return,
            }
        }
        self.fail("repairs do not end");
    }

    fn deliver_all(&mut self) {
        while !self.bus.messages().is_empty() {
            self.act(Action::Deliver(0));
            self.repair();
        }
    }

    /// Everything commits and arrives, every client is there, and all is well.
    pub(super) fn settle(&mut self) {
        for client in 0..self.clients.len() {
            if self.clients[client].home().is_none() {
                self.act(Action::Come(client, self.homes[0]));
            }
        }
        self.repair();
        let leader = self.leader;
        for _ in 0..QUIET_BARRIERS {
            self.act(Action::Look);
            for step in [
                Step::Barrier(Node::First),
                Step::Barrier(Node::Second),
                Step::Marks(leader),
            ] {
                self.tick();
                self.step(step);
            }
            if self.following.is_none() {
                self.tick();
                self.own_barrier();
                self.go_on();
            }
            self.deliver_all();
        }
        for client in &self.clients {
            if let Err(error) = client.check_end(&self.database) {
                self.fail(&error);
            }
        }
    }
}
