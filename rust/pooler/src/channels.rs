//! Which clients of a pool listen to what, and what their listener has been told of it.
//!
//! Intuition: one connection listens to everything that anybody listens to.  It is asked in an
//! order and answers in that order, so each channel is there, asked for, or not asked for.
//!
//! Rules
//! - a channel is there when the LISTEN for it is answered, and not before;
//! - it is given up when the last who listens has gone;
//! - when the connection is lost nothing is there, and who had a channel has a gap: what came
//!   meanwhile came to nobody.  Who still waits for its first has none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::listening::Channel;
use crate::pool::ClientId;

/// So many channels of one client and of one pool are shared; a LISTEN beyond is kept at the
/// client's own server.
const MOST_OF_CLIENT: usize = 1_000;
const MOST_OF_POOL: usize = 10_000;

/// Whether the listener has a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Has {
    Yes,
    /// It is on its way.
    NotYet,
    /// It is refused, or nobody of the kind asked for it.
    Never,
}

/// What is said to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Listen(Channel),
    Unlisten(Channel),
    /// Nothing: its answer comes behind all that was notified of before.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Asked(u64),
    There,
    Refused,
}

#[derive(Debug)]
struct Wanted {
    by: BTreeSet<ClientId>,
    state: State,
}

/// A question that is not answered yet.
#[derive(Debug)]
enum Asked {
    Listen(Channel, u64),
    Unlisten,
    /// Of nobody, if the client has gone.
    Fence(Option<ClientId>),
}

/// What an answer means to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// They have waited for it, or have to hear that it is refused.
    pub woken: Vec<ClientId>,
    /// All that was notified of before this client asked has come.
    pub fenced: Option<ClientId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Channels {
    wanted: BTreeMap<Channel, Wanted>,
    /// How many each client has.
    counts: BTreeMap<ClientId, usize>,
    /// Something changed that the server has not been told.
    changed: BTreeSet<Channel>,
    fences: Vec<Option<ClientId>>,
    asked: VecDeque<Asked>,
    number: u64,
}

impl Channels {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many channels anybody listens to, and how many clients do.
    pub fn counts(&self) -> (usize, usize) {
        let used = self.wanted.values().filter(|wanted| !wanted.by.is_empty());
        (used.count(), self.counts.len())
    }

    /// A client wants a channel; it may have it already.
    pub fn add(&mut self, client: ClientId, channel: &[u8]) -> Has {
        let has = self.has(channel);
        if self.is_by(client, channel) {
            return has;
        }
        let count = self.counts.get(&client).copied().unwrap_or(0);
        let is_new = !self.wanted.contains_key(channel);
        let is_full = count >= MOST_OF_CLIENT || (is_new && self.wanted.len() >= MOST_OF_POOL);
        if is_full || (!is_new && has == Has::Never) {
            return Has::Never;
        }
        *self.counts.entry(client).or_default() += 1;
        let wanted = self.wanted.entry(channel.to_vec()).or_insert(Wanted {
            by: BTreeSet::new(),
            state: State::New,
        });
        wanted.by.insert(client);
        if is_new {
            self.changed.insert(channel.to_vec());
        }
        self.has(channel)
    }

    /// A client wants it no more.
    pub fn remove(&mut self, client: ClientId, channel: &[u8]) {
        let Some(wanted) = self.wanted.get_mut(channel) else {
            return;
        };
        if !wanted.by.remove(&client) {
            return;
        }
        if wanted.by.is_empty() {
            self.changed.insert(channel.to_vec());
        }
        if let Some(count) = self.counts.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&client);
            }
        }
    }

    pub fn has(&self, channel: &[u8]) -> Has {
        match self.wanted.get(channel).map(|wanted| wanted.state) {
            Some(State::There) => Has::Yes,
            Some(State::New | State::Asked(_)) => Has::NotYet,
            Some(State::Refused) | None => Has::Never,
        }
    }

    /// Who listens to a channel.
    pub fn by(&self, channel: &[u8]) -> impl Iterator<Item = ClientId> + '_ {
        let wanted = self.wanted.get(channel).into_iter();
        wanted.flat_map(|wanted| wanted.by.iter().copied())
    }

    /// The client is to hear when all that was notified of up to now has come.
    pub fn fence(&mut self, client: ClientId) {
        self.fences.push(Some(client));
    }

    /// The client hears of its fences no more: they are not those of one that comes back.
    pub fn forget_fences(&mut self, client: ClientId) {
        let asked = self.asked.iter_mut().filter_map(|asked| match asked {
            Asked::Fence(of) => Some(of),
            Asked::Listen(..) | Asked::Unlisten => None,
        });
        for of in self.fences.iter_mut().chain(asked) {
            *of = of.filter(|known| *known != client);
        }
    }

    /// What the server has to be told now.  Each is answered, in this order.
    pub fn to_say(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        for channel in std::mem::take(&mut self.changed) {
            let Some(wanted) = self.wanted.get_mut(&channel) else {
                continue;
            };
            let is_told = !matches!(wanted.state, State::New | State::Refused);
            match (wanted.by.is_empty(), is_told) {
                (true, _) => {
                    self.wanted.remove(&channel);
                    if is_told {
                        self.asked.push_back(Asked::Unlisten);
                        commands.push(Command::Unlisten(channel));
                    }
                }
                (false, false) => {
                    self.number += 1;
                    wanted.state = State::Asked(self.number);
                    self.asked
                        .push_back(Asked::Listen(channel.clone(), self.number));
                    commands.push(Command::Listen(channel));
                }
                (false, true) => (),
            }
        }
        for client in self.fences.drain(..) {
            self.asked.push_back(Asked::Fence(client));
            commands.push(Command::Nothing);
        }
        commands
    }

    /// Whether an answer is owed.
    pub fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The oldest question is answered; `refused`: by an error.
    pub fn on_answer(&mut self, refused: bool) -> Answered {
        match self.asked.pop_front() {
            Some(Asked::Listen(channel, number)) => {
                // It may have been given up and asked for again since then.
                let wanted = self.wanted.get_mut(&channel);
                let Some(wanted) = wanted.filter(|found| found.state == State::Asked(number))
                else {
                    return Answered::default();
                };
                wanted.state = if refused {
                    State::Refused
                } else {
                    State::There
                };
                Answered {
                    woken: wanted.by.iter().copied().collect(),
                    fenced: None,
                }
            }
            Some(Asked::Fence(client)) => Answered {
                woken: Vec::new(),
                fenced: client,
            },
            Some(Asked::Unlisten) | None => Answered::default(),
        }
    }

    /// The connection is lost: everything is to be asked for again.  Who has a gap.
    pub fn on_lost(&mut self) -> BTreeSet<ClientId> {
        let mut gaps = BTreeSet::new();
        self.asked.clear();
        self.fences.clear();
        self.changed.clear();
        self.wanted.retain(|_, wanted| !wanted.by.is_empty());
        for (channel, wanted) in &mut self.wanted {
            if wanted.state == State::There {
                gaps.extend(&wanted.by);
            }
            wanted.state = State::New;
            self.changed.insert(channel.clone());
        }
        gaps
    }

    /// Who waits for a channel that is not there.
    pub fn waiting(&self) -> BTreeSet<ClientId> {
        let waits = |wanted: &&Wanted| matches!(wanted.state, State::New | State::Asked(_));
        let all = self.wanted.values().filter(waits);
        all.flat_map(|wanted| wanted.by.iter().copied()).collect()
    }

    fn is_by(&self, client: ClientId, channel: &[u8]) -> bool {
        let wanted = self.wanted.get(channel);
        wanted.is_some_and(|wanted| wanted.by.contains(&client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ClientId = ClientId(1);
    const TWO: ClientId = ClientId(2);

    fn listen(name: &str) -> Command {
        Command::Listen(name.as_bytes().to_vec())
    }

    fn unlisten(name: &str) -> Command {
        Command::Unlisten(name.as_bytes().to_vec())
    }

    #[test]
    fn pitfall_07_a_channel_is_asked_for_once_and_there_when_that_is_answered() {
        let mut channels = Channels::default();
        assert_eq!(channels.add(ONE, b"a"), Has::NotYet);
        assert_eq!(channels.add(TWO, b"a"), Has::NotYet);
        assert_eq!(channels.to_say(), [listen("a")]);
        assert_eq!(channels.to_say(), []);
        assert_eq!(channels.has(b"a"), Has::NotYet);
        assert_eq!(channels.on_answer(false).woken, [ONE, TWO]);
        assert_eq!(channels.add(ONE, b"a"), Has::Yes);
        assert_eq!(channels.by(b"a").collect::<Vec<_>>(), [ONE, TWO]);
    }

    #[test]
    fn pitfall_07_a_channel_is_given_up_with_the_last_who_listens() {
        let mut channels = Channels::default();
        channels.add(ONE, b"a");
        channels.add(TWO, b"a");
        channels.to_say();
        channels.remove(ONE, b"a");
        channels.remove(ONE, b"a");
        assert_eq!(channels.to_say(), []);
        channels.remove(TWO, b"a");
        assert_eq!(channels.to_say(), [unlisten("a")]);
        assert!(channels.is_empty());
        assert_eq!(channels.counts(), (0, 0));
    }

    #[test]
    fn pitfall_07_what_is_given_up_and_wanted_again_is_not_there_by_the_first_answer() {
        let mut channels = Channels::default();
        channels.add(ONE, b"a");
        channels.to_say();
        channels.remove(ONE, b"a");
        assert_eq!(channels.to_say(), [unlisten("a")]);
        assert_eq!(channels.add(TWO, b"a"), Has::NotYet);
        assert_eq!(channels.to_say(), [listen("a")]);
        assert_eq!(channels.on_answer(false), Answered::default());
        assert_eq!(channels.on_answer(false), Answered::default());
        assert_eq!(channels.has(b"a"), Has::NotYet);
        assert_eq!(channels.on_answer(false).woken, [TWO]);
        assert_eq!(channels.has(b"a"), Has::Yes);
    }

    #[test]
    fn pitfall_07_who_changes_its_mind_in_time_is_not_heard_of() {
        let mut channels = Channels::default();
        channels.add(ONE, b"a");
        channels.remove(ONE, b"a");
        assert_eq!(channels.to_say(), []);
        channels.add(ONE, b"a");
        channels.to_say();
        channels.on_answer(false);
        channels.remove(ONE, b"a");
        assert_eq!(channels.add(TWO, b"a"), Has::Yes);
        assert_eq!(channels.to_say(), []);
    }

    #[test]
    fn pitfall_07_a_lost_connection_is_a_gap_for_those_who_had_something_and_not_for_who_waits() {
        let mut channels = Channels::default();
        channels.add(ONE, b"a");
        channels.to_say();
        channels.on_answer(false);
        channels.add(TWO, b"b");
        channels.to_say();
        channels.remove(TWO, b"c");
        assert_eq!(channels.on_lost(), [ONE].into());
        assert_eq!(channels.waiting(), [ONE, TWO].into());
        assert_eq!(channels.to_say(), [listen("a"), listen("b")]);
        assert_eq!(channels.on_lost(), [].into(), "they have heard of it");
    }

    #[test]
    fn a_channel_that_the_server_refuses_is_never_there() {
        let mut channels = Channels::default();
        channels.add(ONE, b"a");
        channels.to_say();
        assert_eq!(channels.on_answer(true).woken, [ONE]);
        assert_eq!(channels.has(b"a"), Has::Never);
        assert_eq!(channels.add(TWO, b"a"), Has::Never);
        channels.remove(ONE, b"a");
        assert_eq!(channels.to_say(), []);
        assert_eq!(channels.add(TWO, b"a"), Has::NotYet);
    }

    #[test]
    fn a_fence_of_who_has_gone_is_nobodys() {
        let mut channels = Channels::default();
        channels.add(ONE, b"a");
        channels.fence(TWO);
        channels.to_say();
        channels.fence(TWO);
        channels.forget_fences(TWO);
        channels.to_say();
        channels.fence(TWO);
        channels.to_say();
        let fenced: Vec<_> = (0..4).map(|_| channels.on_answer(false).fenced).collect();
        assert_eq!(fenced, [None, None, None, Some(TWO)]);
    }

    #[test]
    fn a_fence_is_passed_when_what_was_asked_before_it_is_answered() {
        let mut channels = Channels::default();
        channels.add(ONE, b"a");
        channels.fence(TWO);
        assert_eq!(channels.to_say(), [listen("a"), Command::Nothing]);
        assert_eq!(channels.on_answer(false).fenced, None);
        assert_eq!(channels.on_answer(false).fenced, Some(TWO));
        assert!(!channels.is_asked());
    }

    #[test]
    fn a_client_shares_so_many_channels_and_no_more() {
        let mut channels = Channels::default();
        for number in 0..MOST_OF_CLIENT {
            let name = number.to_string();
            assert_eq!(channels.add(ONE, name.as_bytes()), Has::NotYet);
        }
        assert_eq!(channels.add(ONE, b"more"), Has::Never);
        assert_eq!(channels.add(TWO, b"more"), Has::NotYet);
    }
}
