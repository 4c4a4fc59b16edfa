//! The world: the database, two nodes that read, one that follows, the bus between them, and clients. The follower may
//! come to lead, and then the node that has led may follow.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use uuid::Uuid;

use super::super::database::Database;
use super::bus::Bus;
use super::client::Client;
use super::following::{Following, Goes};
use super::member::{Members, Role};
use super::scenario::{Action, Broken, Budget, Node, Scenario, Step};
use super::server::Server;
use super::writers::Writers;
use crate::nodes::Run;
use crate::protocol::Shard;

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
    writers: Writers,
    /// The run that the database names.
    named: Run,
    /// The node that the database names.
    leader: Node,
    /// The last run of each node.
    runs: [u64; Node::ALL.len()],
    /// The node that follows, or is to follow.
    follower: Node,
    members: Members,
    bus: Bus,
    clients: Vec<Client>,
    now: Instant,
    history: Vec<Action>,
}

impl World {
    /// The first node leads, the follower follows it, and the clients that are present have come.
    pub(super) fn new(scenario: &Scenario) -> Self {
        let now = Instant::now();
        let users: Vec<_> = (1..=scenario.users as u128).map(Uuid::from_u128).collect();
        let shards = users.iter().map(|id| Shard::of((*id).into())).collect();
        let mut database = Database::new(Node::ALL.len());
        database.begin();
        database.roll_back(0);
        let clients = users.iter().enumerate();
        let clients = clients.map(|(user, id)| Client::new(user, *id)).collect();
        let takes_part = |node: &Node| *node != Node::Second || scenario.has_second();
        let nodes = Node::ALL.into_iter().filter(takes_part).collect();
        let members = Members::new(nodes, &database, now);
        let mut world = Self {
            steps: scenario.steps.clone(),
            next_step: 0,
            budget: scenario.budget,
            homes: scenario.homes.clone(),
            broken: scenario.broken,
            writers: Writers::new(database, users),
            named: Run {
                history: 1,
                timeline: 1,
                number: 0,
            },
            leader: Node::First,
            runs: [0; Node::ALL.len()],
            follower: Node::Follower,
            members,
            bus: Bus::new(shards),
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
        &mut self.members.get_mut(node).server
    }

    fn following(&self) -> Option<&Following> {
        self.members.get(self.follower).following()
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
        if self.following().is_some() {
            can(messages > 0, Action::Deliver(0));
            can(
                messages > 1 && self.budget.overtakings > 0,
                Action::Deliver(1),
            );
            can(messages > 0 && self.budget.losses > 0, Action::Lose);
            can(messages > 0 && self.budget.repeats > 0, Action::Repeat);
        }
        self.member_actions(&mut actions);
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

    fn member_actions(&self, actions: &mut Vec<Action>) {
        actions.extend(self.members.joining().into_iter().map(Action::Join));
        let member = self.members.get(self.follower);
        match &member.role {
            Role::Joins => {}
            Role::Reads => {
                if self.budget.own_barriers > 0 {
                    actions.push(Action::OwnBarrier);
                }
                if self.can_follow() {
                    actions.push(Action::Follow);
                }
            }
            Role::Follows(following) => self.following_actions(following, actions),
        }
    }

    fn following_actions(&self, following: &Following, actions: &mut Vec<Action>) {
        let budget = &self.budget;
        actions.extend(following.unconfirmed().iter().map(Action::Confirm));
        if self.is_behind(following) || budget.looks > 0 {
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
            let unwanted = following.unwanted(&self.members.get(self.follower).server);
            actions.extend(unwanted.iter().map(Action::LetGo));
        }
    }

    /// Whether a look would find another leader, or another history.
    fn is_behind(&self, following: &Following) -> bool {
        let run = following.follower.run();
        *run != self.named || run.epoch() != self.writers.database.epoch()
    }

    /// Whether the named leader publishes what the follower can follow.
    fn can_follow(&self) -> bool {
        let leader = &self.members.get(self.leader).server;
        self.leader != self.follower
            && leader.publishes() == Some(self.named)
            && self.members.get(self.follower).can_follow(self.named)
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
                let server = &mut self.members.get_mut(home).server;
                server.trace(self.next_step);
                self.clients[client].come(home, server);
                if let Some((following, server)) = self.members.get_mut(self.follower).follows() {
                    // A user that has come counts before the next barrier is passed.
                    following.take_wanted(server);
                }
            }
            Action::Leave(client) => {
                self.budget.departures -= 1;
                let home = self.clients[client].home().unwrap();
                let server = &mut self.members.get_mut(home).server;
                server.trace(self.next_step);
                self.clients[client].leave(server);
            }
            Action::Degrade => {
                self.budget.degradations -= 1;
                self.members.get_mut(self.follower).end_following();
                self.join(self.follower);
            }
            Action::Join(node) => self.join(node),
            Action::OwnBarrier => {
                self.budget.own_barriers -= 1;
                self.own_barrier();
            }
            Action::Follow => {
                let (run, next_step) = (self.named, self.next_step);
                let member = self.members.get_mut(self.follower);
                member.server.trace(next_step);
                member.follow(run, &mut self.writers.database);
            }
            _ => self.act_following(action),
        }
        self.go_on();
    }

    fn act_following(&mut self, action: Action) {
        let member = self.members.get_mut(self.follower);
        let Some((following, server)) = member.follows() else {
            return;
        };
        let database = &self.writers.database;
        let mut goes = Goes::On;
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
                goes = following.found(self.named.number, database.present(), server);
            }
            Action::Read(step) => goes = following.read(step, server, database),
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
        if goes == Goes::ToAnotherHistory {
            member.end_following();
        }
    }

    fn tick(&mut self) {
        self.now = self.members.tick(self.now);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin => {
                self.writers.begin();
            }
            Step::Open(user) | Step::Event(user) => {
                let transaction = self.writers.begin();
                self.writers.write(transaction, user);
                if matches!(step, Step::Event(_)) {
                    self.writers.commit(transaction);
                }
            }
            Step::Write(transaction, user) => self.writers.write(transaction, user),
            Step::Flush(transaction) => {
                if self.broken == Broken::RoutedBeforeVisible {
                    let server = &mut self.members.get_mut(Node::First).server;
                    for row in &self.writers.rows(transaction) {
                        server.route_row(row, &self.writers.database);
                    }
                    server.flush();
                }
            }
            Step::Commit(transaction) => self.writers.commit(transaction),
            Step::Truncate => self.writers.truncate(),
            Step::Forget => self.writers.database.forget(),
            Step::Promote(lost) => {
                self.writers.promote(lost);
                self.members.lose_connections();
            }
            Step::Barrier(node) => self.writers.database.barrier(node.index(), self.now),
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
            Step::Stop(node) => self.server(node).end_publishing(),
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
        self.listen();
    }

    /// The node begins to publish what it routes.
    fn publish(&mut self, node: Node) {
        let (number, bus) = (self.runs[node.index()], self.bus.clone());
        let is_away = matches!(self.members.get_mut(node).role, Role::Joins);
        if is_away && node != self.follower {
            // It may lead when it has a position.
            self.join(node);
        }
        self.members.get_mut(node).publish(number, &bus);
        if node == self.follower {
            // Who has led follows, when it publishes no more.
            self.follower = self.leader;
        }
    }

    /// The database names the node's run.
    fn name(&mut self, node: Node) {
        let epoch = self.server(node).intake.durable_position().epoch;
        self.named = Run {
            history: epoch.history,
            timeline: epoch.timeline,
            number: self.runs[node.index()],
        };
        self.leader = node;
    }

    fn join(&mut self, node: Node) {
        let next_step = self.next_step;
        let member = self.members.get_mut(node);
        member.server.trace(next_step);
        member.join(&mut self.writers.database);
    }

    fn listen(&mut self) {
        self.members.listen(&mut self.writers.database);
    }

    fn own_barrier(&mut self) {
        let (next_step, follower) = (self.next_step, self.follower);
        self.server(follower).trace(("own barrier", next_step));
        self.writers.database.barrier(follower.index(), self.now);
    }

    /// What nothing has to be waited for.
    fn go_on(&mut self) {
        self.listen();
        match self.members.get_mut(self.follower).follows() {
            // What comes meanwhile is not for it.
            None => self.bus.messages().clear(),
            Some((following, server)) => following.pass(server),
        }
        for client in &mut self.clients {
            let Some(home) = client.home() else {
                continue;
            };
            let server = &mut self.members.get_mut(home).server;
            if let Err(error) = client.go_on(server, &self.writers.database) {
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
        (self.next_step, self.budget, self.follower).hash(&mut hasher);
        self.bus.messages().hash(&mut hasher);
        self.members.hash(&mut hasher);
        hasher.finish()
    }

    /// The follower confirms, looks and reads until nothing is left to do.
    fn repair(&mut self) {
        for _ in 0..QUIET_READS_MAX {
            let Some(following) = self.following() else {
                return;
            };
            let confirm = following.unconfirmed().iter().next().map(Action::Confirm);
            let look = self.is_behind(following).then_some(Action::Look);
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

    /// Nodes that were away join the log, and one leads.
    fn elect(&mut self) {
        for node in self.members.joining() {
            self.act(Action::Join(node));
        }
        let (leader, named) = (self.leader, self.named);
        if self.server(leader).publishes() != Some(named) {
            self.tick();
            self.step(Step::Lead(leader));
        }
    }

    /// Everything commits and arrives, every client is there, and all is well.
    pub(super) fn settle(&mut self) {
        self.repair();
        self.elect();
        for client in 0..self.clients.len() {
            if self.clients[client].home().is_none() {
                self.act(Action::Come(client, self.homes[0]));
            }
        }
        for _ in 0..QUIET_BARRIERS {
            self.act(Action::Look);
            self.repair();
            self.elect();
            for node in self.members.nodes() {
                self.tick();
                self.step(Step::Barrier(node));
            }
            self.tick();
            self.step(Step::Marks(self.leader));
            self.go_on();
            self.deliver_all();
        }
        for client in &self.clients {
            if let Err(error) = client.check_end(&self.writers.database) {
                self.fail(&error);
            }
        }
    }
}
