//! The open connections. Their number is limited, in all and for one address, so that one client leaves room
//! for others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graviton_core::Code;

use crate::client::network;
use crate::problem::Problem;

/// The limits on connections, and the open connections.
pub(crate) struct ConnectionSlots {
    most: usize,
    most_each: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    each: HashMap<IpAddr, usize>,
}

/// An open connection, counted until this is dropped.
pub(crate) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    client: Option<IpAddr>,
}

impl ConnectionSlots {
    pub(crate) fn new(most: usize, most_each: usize) -> Arc<ConnectionSlots> {
        Arc::new(ConnectionSlots { most, most_each, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of open connections.
    pub(crate) fn taken(&self) -> usize {
        self.open().all
    }

    /// A slot for a connection from this address, or the reason for refusing it. Connections of a trusted
    /// proxy have no address, because they belong to many clients.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<ConnectionSlot, Problem> {
        let client = address.map(network);
        let mut open = self.open();
        if open.all >= self.most {
            return Err(Problem::new(Code::Overloaded, "too many open connections; try again in a moment"));
        }
        if let Some(client) = client {
            let own = open.each.entry(client).or_default();
            if *own >= self.most_each {
                let why = "too many open connections from this address; close some, or try again in a moment";
                return Err(Problem::new(Code::Overloaded, why));
            }
            *own += 1;
        }
        open.all += 1;
        Ok(ConnectionSlot { slots: Arc::clone(self), client })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.slots.open();
        open.all -= 1;
        if let Some(client) = self.client
            && let Some(own) = open.each.get_mut(&client)
        {
            *own -= 1;
            if *own == 0 {
                open.each.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_room_for_the_others() {
        let slots = ConnectionSlots::new(3, 2);
        let take = |address: &str| slots.take(Some(address.parse().unwrap()));
        let first = take("2001:db8::1").unwrap();
        let second = take("2001:db8::2").unwrap();
        assert!(take("2001:db8::3").is_err());
        let other = take("127.0.0.1").unwrap();
        assert!(take("127.0.0.2").is_err());
        drop(other);
        let others = (take("::ffff:127.0.0.1").unwrap(), take("127.0.0.1").is_err());
        assert!(others.1);
        drop((first, second, others));
        assert_eq!((slots.taken(), slots.open().each.len()), (0, 0));
        let of_a_proxy = [(); 3].map(|()| slots.take(None).unwrap());
        assert!(slots.take(None).is_err());
        drop(of_a_proxy);
        assert_eq!(slots.taken(), 0);
    }
}
