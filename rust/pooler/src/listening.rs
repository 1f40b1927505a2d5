//! What a client listens to by the listener that it shares, with the semantics of transactions.
//!
//! Intuition: LISTEN and UNLISTEN run at whichever server the client has, so that errors and
//! rollbacks are that server's own judgement.  Here it is only noted what they come to.
//!
//! Rules
//! - one counts from its `CommandComplete`, and takes effect when its transaction is committed;
//! - ROLLBACK takes them back, and ROLLBACK TO those that came after the savepoint;
//! - the channel of a LISTEN is asked for when the LISTEN is sent: the shared listener has it
//!   before the transaction can commit, so that nothing that comes after the commit is missed.
//!
//! Source: `async.c`, `AtCommit_Notify`, `AtSubAbort_Notify`.

use std::collections::BTreeSet;

use crate::lexer::Token;

/// The name of a channel, as servers have it.
pub type Channel = Vec<u8>;

/// What a server keeps of a name, in bytes (`NAMEDATALEN`).
const LONGEST_NAME: usize = 63;

/// What a LISTEN names, behind that word.  `None`: how letters beyond ASCII are folded, and where
/// they are cut, is the server's own affair; so is a text that it will refuse.
pub fn named(rest: &[Token]) -> Option<Channel> {
    match rest {
        [Token::Word(word)] if word.is_ascii() => Some(cut(word.to_ascii_lowercase())),
        [Token::Quoted(name)] if name.is_ascii() || name.len() <= LONGEST_NAME => {
            Some(cut(name.clone()))
        }
        _ => None,
    }
}

/// The same of an UNLISTEN: of one channel, or of all.
pub fn given_up(rest: &[Token]) -> Option<Option<Channel>> {
    match rest {
        [Token::Sign(b'*')] => Some(None),
        [name] => Some(Some(cut(name.name()?))),
        _ => None,
    }
}

fn cut(mut name: Channel) -> Channel {
    name.truncate(LONGEST_NAME);
    name
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Listen(Channel),
    Unlisten(Channel),
    UnlistenAll,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    channels: BTreeSet<Channel>,
    /// What the transaction has said, in its order.
    changes: Vec<Change>,
    /// Their names and how long `changes` was.  One that is not here was made before anything was
    /// said.
    savepoints: Vec<(Vec<u8>, usize)>,
    asked: Vec<Channel>,
    /// It may hear of what it says itself.
    notifies: bool,
    /// What was sent ends a transaction that has said LISTEN.
    commits: bool,
}

impl Listening {
    /// Whether what comes on the channel is for this client.
    pub fn hears(&self, channel: &[u8]) -> bool {
        self.channels.contains(channel)
    }

    /// Nothing is listened to and nothing is about to be.  Asked while nothing is under way.
    pub fn is_over(&self) -> bool {
        self.channels.is_empty() && self.changes.is_empty() && self.asked.is_empty()
    }

    /// The transaction has said something that is not committed yet.
    pub fn is_changing(&self) -> bool {
        !self.changes.is_empty()
    }

    /// A LISTEN goes to the server.
    pub fn on_sent(&mut self, channel: Channel) {
        self.asked.push(channel);
    }

    pub fn take_asked(&mut self) -> Vec<Channel> {
        std::mem::take(&mut self.asked)
    }

    /// A statement goes to the server that notifies.
    pub fn on_notify_sent(&mut self) {
        self.notifies = true;
    }

    pub fn take_notifies(&mut self) -> bool {
        std::mem::take(&mut self.notifies)
    }

    /// COMMIT goes to the server.
    pub fn on_commit_sent(&mut self) {
        self.commits = self.is_changing();
    }

    pub fn take_commits(&mut self) -> bool {
        std::mem::take(&mut self.commits)
    }

    pub fn listen(&mut self, channel: Channel) {
        self.changes.push(Change::Listen(channel));
    }

    pub fn unlisten(&mut self, channel: Channel) {
        self.changes.push(Change::Unlisten(channel));
    }

    /// UNLISTEN *, or DISCARD ALL.
    pub fn unlisten_all(&mut self) {
        self.changes.push(Change::UnlistenAll);
    }

    pub fn savepoint(&mut self, name: &[u8]) {
        self.savepoints.push((name.to_vec(), self.changes.len()));
    }

    /// The savepoint stays, those after it are gone.
    pub fn rollback_to(&mut self, name: &[u8]) {
        let at = self.find(name);
        let length = at.map_or(0, |at| self.savepoints[at].1);
        self.changes.truncate(length);
        self.savepoints.truncate(at.map_or(0, |at| at + 1));
    }

    pub fn release(&mut self, name: &[u8]) {
        let at = self.find(name).unwrap_or(0);
        self.savepoints.truncate(at);
    }

    pub fn commit(&mut self) {
        for change in self.changes.drain(..) {
            match change {
                Change::Listen(channel) => drop(self.channels.insert(channel)),
                Change::Unlisten(channel) => drop(self.channels.remove(&channel)),
                Change::UnlistenAll => self.channels.clear(),
            }
        }
        self.savepoints.clear();
    }

    pub fn rollback(&mut self) {
        self.changes.clear();
        self.savepoints.clear();
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        self.savepoints.iter().rposition(|(found, _)| found == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(channels: &[&str]) -> Listening {
        let mut listening = Listening::default();
        for channel in channels {
            listening.listen(channel.as_bytes().to_vec());
        }
        listening.commit();
        listening
    }

    fn heard(listening: &Listening) -> Vec<&str> {
        let names = listening.channels.iter();
        names
            .map(|name| std::str::from_utf8(name).unwrap())
            .collect()
    }

    #[test]
    fn pitfall_07_a_listen_counts_when_its_transaction_is_committed() {
        let mut client = listening(&["a"]);
        client.listen(b"b".to_vec());
        client.unlisten(b"a".to_vec());
        assert_eq!(heard(&client), ["a"]);
        client.rollback();
        client.commit();
        assert_eq!(heard(&client), ["a"]);
        client.listen(b"b".to_vec());
        client.unlisten(b"a".to_vec());
        client.commit();
        assert_eq!(heard(&client), ["b"]);
    }

    #[test]
    fn pitfall_07_what_is_said_last_counts_and_twice_is_once() {
        let mut client = listening(&["a", "a", "b"]);
        assert_eq!(heard(&client), ["a", "b"]);
        client.unlisten_all();
        client.listen(b"c".to_vec());
        client.commit();
        assert_eq!(heard(&client), ["c"]);
        client.unlisten_all();
        client.commit();
        assert!(client.is_over());
    }

    #[test]
    fn pitfall_07_a_rollback_to_a_savepoint_takes_back_what_came_after_it() {
        let mut client = listening(&[]);
        client.listen(b"a".to_vec());
        client.savepoint(b"s");
        client.listen(b"b".to_vec());
        client.savepoint(b"s");
        client.listen(b"c".to_vec());
        client.rollback_to(b"s");
        client.release(b"s");
        client.listen(b"d".to_vec());
        client.commit();
        assert_eq!(heard(&client), ["a", "b", "d"]);
        client.savepoint(b"s");
        client.unlisten_all();
        client.savepoint(b"t");
        client.rollback_to(b"s");
        client.commit();
        assert_eq!(heard(&client), ["a", "b", "d"]);
    }

    #[test]
    fn pitfall_07_a_savepoint_from_before_the_first_listen_is_before_all_of_it() {
        let mut client = Listening::default();
        client.listen(b"a".to_vec());
        client.savepoint(b"inner");
        client.rollback_to(b"outer");
        client.commit();
        assert!(client.is_over());
    }
}
