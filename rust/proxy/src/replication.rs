//! A client that replicates: it has a server of its own, and bytes go both ways unread.
//!
//! It ends with the term, for a primary of an old term must not be replicated from.

use std::rc::Rc;
use std::time::Duration;

use flightmode_wire::server::{Authentication, FromServer, TxStatus};
use tokio::io::{copy_bidirectional, AsyncWriteExt};

use crate::config::Config;
use crate::hub::Hub;
use crate::login::Guest;
use crate::moving::{Bound, Entering};
use crate::server::{connect, Identity, Server};
use crate::shard::refuse;

/// Until either side closes, or the term ends.
pub async fn replicate(
    mut guest: Guest,
    entering: Entering,
    hub: &Rc<Hub>,
    config: &Config,
    who: &str,
) {
    let mut server = match own_server(&guest, hub, config).await {
        Ok(server) => server,
        Err(words) => return refuse(guest.stream, hub, "57P03", &words, who).await,
    };
    let _bound = Bound::new(hub);
    drop(entering);
    let mut terms = hub.term.subscribe();
    terms.mark_unchanged();
    let mut bytes = Vec::new();
    FromServer::Authentication(Authentication::Ok).write(&mut bytes);
    for (name, value) in &*server.reported {
        FromServer::ParameterStatus { name, value }.write(&mut bytes);
    }
    if let Some(key) = server.key.clone() {
        FromServer::BackendKeyData(key).write(&mut bytes);
    }
    FromServer::ReadyForQuery(TxStatus::Idle).write(&mut bytes);
    let relayed = async {
        guest.stream.write_all(&bytes).await?;
        guest.stream.flush().await?;
        server.stream.write_all(&guest.unread).await?;
        copy_bidirectional(&mut guest.stream, &mut server.stream).await
    };
    tokio::select! {
        ended = relayed => {
            if let Err(wrong) = ended {
                tracing::debug!(client = who, "a replication connection ended: {wrong}");
            }
        }
        _ = terms.changed() => tracing::info!(client = who, "replication ends with the term"),
    }
}

async fn own_server(guest: &Guest, hub: &Rc<Hub>, config: &Config) -> Result<Server, String> {
    let primary = hub.topology.borrow().writable();
    let target = primary.and_then(|node| hub.targets.borrow().get(&node).cloned());
    let target = target.ok_or("there is no primary to replicate from")?;
    let database = config.database(&guest.database).unwrap_or_default();
    let name = database.dbname.unwrap_or_else(|| guest.database.clone());
    let mut startup = guest.settings.clone();
    startup.push((
        b"replication".to_vec(),
        guest.replication.clone().unwrap_or_default(),
    ));
    let identity = Identity {
        user: guest.user.clone().into_bytes(),
        database: name.into_bytes(),
        credential: guest.credential.clone(),
        startup,
    };
    let within = Duration::from_secs_f64(config.times.server_connect_s.max(0.1));
    connect(&target, &identity, within, 1)
        .await
        .map_err(|wrong| wrong.to_string())
}
