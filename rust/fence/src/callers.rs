//! Who is connected, what each one asks, and who is told.

use serde_json::{json, Value};

use crate::client::{say, Client, Heard};
use crate::log;
use crate::protocol::{self, Refused};
use crate::supervisor::{Supervisor, Token, CLIENTS_MAX};

impl Supervisor {
    pub fn admit(&mut self) {
        while let Some((uid, fd)) = self.fittings.listener.accept() {
            let own = nix::unistd::geteuid().as_raw();
            let known = [0, own, self.fittings.user.uid].contains(&uid);
            let token = self.next_client;
            if !known || self.clients.len() >= CLIENTS_MAX || self.watch(&fd, token).is_err() {
                log::warning(format_args!("refused a caller of uid {uid}"));
                let message = format!("uid {uid} may not speak to this fence, or too many do");
                let error = json!({"code": "peer_refused", "message": message});
                say(&fd, &json!({"id": null, "error": error}));
                continue;
            }
            self.next_client += 1;
            self.clients.insert(token, Client::new(fd));
        }
    }

    pub fn hear(&mut self, from: Token) {
        let Some(client) = self.clients.get(&from) else {
            return;
        };
        let reply = match client.hear() {
            Heard::Nothing => return,
            Heard::Gone => return self.forget(from),
            Heard::TooLong => {
                let refused = Refused::new("bad_request", "the packet is too long");
                Some(protocol::reply(0, Err(refused)))
            }
            Heard::Packet(packet) => match protocol::parse(&packet) {
                Ok(request) => self.carry_out(from, request),
                Err(reply) => Some(reply),
            },
        };
        if let Some(reply) = reply {
            self.answer(from, &reply);
        }
    }

    /// Who does not read is dropped: it can come back and ask.
    pub fn answer(&mut self, to: Token, reply: &Value) {
        if self.clients.get(&to).is_some_and(|client| !client.say(reply)) {
            self.forget(to);
        }
    }

    pub fn tell(&mut self, event: &Value) {
        let deaf = |(token, client): (&Token, &Client)| {
            (client.subscribed && !client.say(event)).then_some(*token)
        };
        for token in self.clients.iter().filter_map(deaf).collect::<Vec<_>>() {
            self.forget(token);
        }
    }

    pub fn forget(&mut self, client: Token) {
        if let Some(gone) = self.clients.remove(&client) {
            // Closing is not enough: a child that has not executed yet holds it open too.
            self.unwatch(&gone.fd);
        }
    }
}
