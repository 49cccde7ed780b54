//! Ranks as threads of one process.

use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex};

use super::Comm;
use crate::error::{Error, Result};

/// The most messages on their way from one rank to another.
const ON_THEIR_WAY: usize = 4;

/// The connections of `ranks` threads of this process, one for each.
pub fn channels(ranks: usize) -> Vec<Arc<dyn Comm>> {
    let mut connections: Vec<Channels> = (0..ranks)
        .map(|rank| Channels {
            rank,
            to: Vec::new(),
            from: Vec::new(),
        })
        .collect();
    for from in 0..ranks {
        for to in 0..ranks {
            let (sender, receiver) = sync_channel(ON_THEIR_WAY);
            connections[from].to.push(sender);
            connections[to].from.push(Mutex::new(receiver));
        }
    }
    let shared = |connection| Arc::new(connection) as Arc<dyn Comm>;
    connections.into_iter().map(shared).collect()
}

struct Channels {
    rank: usize,
    /// By rank.
    to: Vec<SyncSender<Vec<u8>>>,
    /// By rank.
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Comm for Channels {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.to.len()
    }

    fn send(&self, to: usize, message: Vec<u8>) -> Result<()> {
        self.to[to].send(message).map_err(|_| Error::gone(to))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let receiver = self.from[from].lock();
        let receiver = receiver.unwrap_or_else(|poisoned| poisoned.into_inner());
        receiver.recv().map_err(|_| Error::gone(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_that_ended_is_named() {
        let mut ranks = channels(3);
        drop(ranks.remove(1)); // rank 1
        let error = ranks[0].receive(1).unwrap_err().to_string();
        assert!(error.contains("rank 1"), "{error}");
        let error = ranks[1].send(1, vec![1]).unwrap_err().to_string();
        assert!(error.contains("rank 1"), "{error}");
    }

    #[test]
    fn messages_of_two_ranks_are_kept_apart() -> Result<()> {
        let ranks = channels(3);
        for number in 0..3 {
            ranks[0].send(2, vec![number])?;
            ranks[1].send(2, vec![10 + number])?;
        }
        for number in 0..3 {
            assert_eq!(ranks[2].receive(1)?, [10 + number]);
        }
        for number in 0..3 {
            assert_eq!(ranks[2].receive(0)?, [number]);
        }
        Ok(())
    }
}
