//! Ranks as threads of one process.

use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex};

use super::{Comm, Message};
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
    to: Vec<SyncSender<Sent>>,
    /// By rank.
    from: Vec<Mutex<Receiver<Sent>>>,
}

/// What goes from one thread to another.
enum Sent {
    Bytes(Vec<u8>),
    Tensors(Message),
}

impl Channels {
    fn put(&self, to: usize, sent: Sent) -> Result<()> {
        self.to[to].send(sent).map_err(|_| Error::gone(to))
    }

    fn take(&self, from: usize) -> Result<Sent> {
        let receiver = self.from[from].lock();
        let receiver = receiver.unwrap_or_else(|poisoned| poisoned.into_inner());
        receiver.recv().map_err(|_| Error::gone(from))
    }
}

impl Comm for Channels {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.to.len()
    }

    fn send(&self, to: usize, message: Vec<u8>) -> Result<()> {
        self.put(to, Sent::Bytes(message))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        match self.take(from)? {
            Sent::Bytes(bytes) => Ok(bytes),
            Sent::Tensors(message) => message.to_bytes(),
        }
    }

    fn send_tensors(&self, to: usize, mut message: Message) -> Result<()> {
        // Else they would keep what they were computed from.
        let tensors = message.tensors.values_mut();
        tensors.for_each(|tensor| *tensor = tensor.detach());
        self.put(to, Sent::Tensors(message))
    }

    fn receive_tensors(&self, from: usize) -> Result<Message> {
        match self.take(from)? {
            Sent::Bytes(bytes) => Message::from_bytes(&bytes),
            Sent::Tensors(message) => Ok(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

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
    fn tensors_are_passed_on_without_a_copy_or_as_bytes() -> Result<()> {
        let ranks = channels(2);
        let tensor = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
        let message = || {
            let mut message = Message::default();
            message.tensors.insert("x".into(), tensor.clone());
            message
        };
        ranks[0].send_tensors(1, message())?;
        assert_eq!(ranks[1].receive_tensors(0)?.tensors["x"].id(), tensor.id());
        ranks[0].send_tensors(1, message())?;
        let copied = Message::from_bytes(&ranks[1].receive(0)?)?;
        ranks[0].send(1, message().to_bytes()?)?;
        for received in [copied, ranks[1].receive_tensors(0)?] {
            assert_eq!(received.tensors["x"].to_vec1::<f32>()?, [1., 2.]);
        }
        Ok(())
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
