//! The ranks that train one run together, and what they send each other.
//!
//! A rank is a process, or a thread of one. Each holds some of the blocks, a *stage*,
//! and learns from some of the examples, as a *replica*. Stage `k` sends the input of
//! the next block to stage `k + 1`. Then it begins the next batch, without an answer:
//! nothing is sent to the stages below.

mod averager;
mod channels;
mod mean;
mod message;
mod team;

pub(crate) use self::averager::{Averager, Awaited};
pub use self::channels::channels;
pub use self::message::Message;
pub use self::team::Team;
use crate::error::{Error, Result};

/// A piece of an [`exchange`](Comm::exchange).
pub struct Exchanged<'a> {
    /// What goes to the other rank.
    pub sent: &'a [u8],
    /// The place for what comes from it.
    pub received: &'a mut [u8],
}

/// The connection of a rank to the others, such as MPI. Two threads may use it at the
/// same time, each for other ranks.
///
/// ```
/// use onward_core::comm::{channels, Comm};
///
/// let ranks = channels(2);
/// ranks[0].send(1, b"a batch".to_vec())?;
/// assert_eq!(ranks[1].receive(0)?, b"a batch");
/// # Ok::<(), onward_core::Error>(())
/// ```
pub trait Comm: Send + Sync {
    /// The number of this rank, counted from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn ranks(&self) -> usize;

    /// Sends a message. It returns before the message is received, unless several are
    /// still on their way to that rank: a rank cannot run ahead without limit.
    ///
    /// # Errors
    /// [`Error::Rank`] if that rank has ended.
    fn send(&self, to: usize, message: Vec<u8>) -> Result<()>;

    /// The next message from a rank, in the order in which they were sent; waits for it.
    ///
    /// # Errors
    /// [`Error::Rank`] if that rank has ended.
    fn receive(&self, from: usize) -> Result<Vec<u8>>;

    /// Sends what each piece has for another rank, and fills the places for what comes
    /// from it. The other rank has to call this too, with pieces of those lengths. By
    /// default the bytes go as one message, so no other message may be on its way
    /// between the two.
    ///
    /// # Errors
    /// As [`receive`](Self::receive); [`Error::Usage`] if the other rank
    /// sends another number of bytes.
    fn exchange(&self, other: usize, pieces: &mut [Exchanged<'_>]) -> Result<()> {
        let sent: Vec<&[u8]> = pieces.iter().map(|piece| piece.sent).collect();
        self.send(other, sent.concat())?;
        let message = self.receive(other)?;
        let mut rest = &message[..];
        for Exchanged { received, .. } in pieces {
            let piece = rest.split_off(..received.len());
            received.copy_from_slice(piece.ok_or_else(|| Error::apart(other))?);
        }
        match rest {
            [] => Ok(()),
            _ => Err(Error::apart(other)),
        }
    }

    /// Sends tensors, which are not changed afterwards. By default it sends their bytes;
    /// ranks that share their memory need not copy them.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn send_tensors(&self, to: usize, message: Message) -> Result<()> {
        self.send(to, message.to_bytes()?)
    }

    /// The next message from a rank, sent by [`send_tensors`](Self::send_tensors).
    ///
    /// # Errors
    /// As [`receive`](Self::receive); [`Error::Usage`] for other
    /// bytes.
    fn receive_tensors(&self, from: usize) -> Result<Message> {
        Message::from_bytes(&self.receive(from)?)
    }
}
