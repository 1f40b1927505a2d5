//! The servers of a pool: which there are, and which are let go.

use super::{Act, NodeId, Pool, Server, ServerId, State};

impl Pool {
    /// Close what no longer is what it was opened to be; mark what has been promoted.
    pub(super) fn close_void(&mut self, acts: &mut Vec<Act>) {
        let (term, writable) = (self.topology.term, self.topology.writable());
        let topology = &self.topology;
        let mut void = Vec::new();
        for (id, server) in &mut self.servers {
            let is_primarys = writable == Some(server.node);
            let stays = match server.primary_in {
                Some(born) => is_primarys && born == term,
                None => is_primarys || topology.is_standby(server.node),
            };
            if !stays {
                void.push(*id);
            } else if is_primarys {
                server.primary_in = Some(term);
            }
        }
        void.sort_unstable();
        for server in void {
            self.drop_server(server, acts);
        }
    }

    pub(super) fn close_unused(&mut self, now_s: f64, acts: &mut Vec<Act>) {
        let idle_s = self.limits.idle_s;
        let is_unused =
            |found: &Server| found.state == State::Idle && found.idle_since_s + idle_s <= now_s;
        for server in self.sorted(is_unused) {
            let node = self.servers[&server].node;
            if self.count(node) > self.limits.warm {
                self.drop_server(server, acts);
            }
        }
    }

    pub(super) fn drop_server(&mut self, server: ServerId, acts: &mut Vec<Act>) {
        if let Some(gone) = self.forget(server) {
            acts.push(Act::Close { server });
            if let State::Busy(client) = gone.state {
                acts.push(Act::Lost { client, server });
            }
        }
    }

    pub(super) fn forget(&mut self, server: ServerId) -> Option<Server> {
        let gone = self.servers.remove(&server)?;
        if let Some(count) = self.counts.get_mut(&gone.node) {
            *count -= 1;
        }
        if let Some(idle) = self.idle.get_mut(&gone.node) {
            idle.retain(|other| *other != server);
        }
        Some(gone)
    }

    pub(super) fn sorted(&self, wanted: impl Fn(&Server) -> bool) -> Vec<ServerId> {
        let mut found: Vec<_> = self
            .servers
            .iter()
            .filter(|(_, server)| wanted(server))
            .map(|(id, _)| *id)
            .collect();
        found.sort_unstable();
        found
    }

    pub(super) fn count(&self, node: NodeId) -> usize {
        self.counts.get(&node).copied().unwrap_or(0)
    }

    pub(super) fn connecting(&self, node: NodeId) -> usize {
        let is = |server: &&Server| server.node == node && server.state == State::Connecting;
        self.servers.values().filter(is).count()
    }
}
