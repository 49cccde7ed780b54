//! The place of a rank among the others.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{Comm, Exchanged, Message};
use crate::error::{Error, Result};

/// The place of a rank among those that train a run together: which levels it holds, and
/// which of them it sends to.
///
/// Rank `r` of `S` stages is stage `r mod S` of replica `r / S`. Rank 0 has the folder of
/// the run: it gathers the state of the others, evaluates, and writes.
#[derive(Clone)]
pub struct Team {
    comm: Arc<dyn Comm>,
    /// The first level of each stage, and the number of levels.
    cuts: Vec<usize>,
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rank, ranks) = (self.rank(), self.ranks());
        write!(f, "rank {rank} of {ranks}, levels from {:?}", self.cuts)
    }
}

impl Team {
    /// The place of the rank of a connection. `cuts` are the first level of each stage,
    /// counted from 0, and the number of levels: `[0, 2, 3]` has levels 0 and 1 in the
    /// first stage and level 2 in the second.
    ///
    /// # Errors
    /// [`Error::Usage`] if the ranks are not a multiple of the stages, or a stage has no
    /// level.
    pub fn new(comm: Arc<dyn Comm>, cuts: Vec<usize>) -> Result<Self> {
        let (ranks, stages) = (comm.ranks(), cuts.len().saturating_sub(1));
        let rises = cuts.windows(2).all(|pair| pair[0] < pair[1]);
        if stages == 0 || cuts[0] != 0 || !rises {
            let problem = format!("expected a level or more for each stage, found cuts {cuts:?}");
            return Err(Error::usage("stages", problem));
        }
        if ranks == 0 || ranks % stages != 0 {
            let problem =
                format!("{ranks} ranks cannot be {stages} stages each; expected a multiple");
            return Err(Error::usage("stages", problem));
        }
        Ok(Self { comm, cuts })
    }

    /// The number of this rank.
    pub fn rank(&self) -> usize {
        self.comm.rank()
    }

    /// The number of ranks.
    pub fn ranks(&self) -> usize {
        self.comm.ranks()
    }

    /// Whether this is rank 0, which has the folder of the run.
    pub fn is_lead(&self) -> bool {
        self.rank() == 0
    }

    /// The number of stages.
    pub fn stages(&self) -> usize {
        self.cuts.len() - 1
    }

    /// The stage of this rank.
    pub fn stage(&self) -> usize {
        self.rank() % self.stages()
    }

    /// The number of replicas.
    pub fn replicas(&self) -> usize {
        self.ranks() / self.stages()
    }

    /// The replica of this rank.
    pub fn replica(&self) -> usize {
        self.rank() / self.stages()
    }

    /// The examples of a batch that this replica learns from: the part of `0..examples`.
    pub fn share(&self, examples: usize) -> Range<usize> {
        let [first, end] = [0, 1].map(|more| {
            // The first ones get what cannot be divided.
            let replica = self.replica() + more;
            let (each, rest) = (examples / self.replicas(), examples % self.replicas());
            replica * each + replica.min(rest)
        });
        first..end
    }

    /// Whether this rank has the first levels, and reads the examples.
    pub fn is_first(&self) -> bool {
        self.stage() == 0
    }

    /// Whether this rank has the last levels, and the heads.
    pub fn is_last(&self) -> bool {
        self.stage() + 1 == self.stages()
    }

    /// The levels of this rank, counted from 0.
    pub fn levels(&self) -> Range<usize> {
        self.levels_of(self.stage())
    }

    /// The levels of a stage.
    pub fn levels_of(&self, stage: usize) -> Range<usize> {
        self.cuts[stage]..self.cuts[stage + 1]
    }

    /// Sends to the stage above, as [`Comm::send_tensors`].
    ///
    /// # Errors
    /// As [`Comm::send`].
    pub fn send_up(&self, message: Message) -> Result<()> {
        self.comm.send_tensors(self.rank() + 1, message)
    }

    /// Receives from the stage below.
    ///
    /// # Errors
    /// As [`Comm::receive`].
    pub fn receive_from_below(&self) -> Result<Message> {
        self.comm.receive_tensors(self.rank() - 1)
    }

    /// The other replicas of this stage, in an order in which all of them can
    /// [`exchange`](Self::exchange): in each turn two meet.
    pub(super) fn other_replicas(&self) -> impl Iterator<Item = usize> {
        let (own, replicas) = (self.replica(), self.replicas());
        let met = (0..replicas).map(move |turn| (turn + replicas - own) % replicas);
        met.filter(move |other| *other != own)
    }

    /// Exchanges bytes with another replica of this stage, as [`Comm::exchange`].
    pub(super) fn exchange(&self, replica: usize, pieces: &mut [Exchanged<'_>]) -> Result<()> {
        self.comm.exchange(self.rank_of(replica), pieces)
    }

    /// The rank of another replica of this stage.
    fn rank_of(&self, replica: usize) -> usize {
        replica * self.stages() + self.stage()
    }

    /// Sends to rank 0.
    ///
    /// # Errors
    /// As [`Comm::send`].
    pub fn send_to_lead(&self, message: &Message) -> Result<()> {
        self.comm.send(0, message.to_bytes()?)
    }

    /// Receives from every other rank, in their order; only rank 0 may call it.
    ///
    /// # Errors
    /// As [`Comm::receive`].
    pub fn receive_from_all(&self) -> Result<Vec<Message>> {
        let others = 1..self.ranks();
        others
            .map(|rank| Message::from_bytes(&self.comm.receive(rank)?))
            .collect()
    }

    /// What rank 0 decides; the argument of the other ranks is not used. All ranks have
    /// to call it at the same point.
    ///
    /// Each stage passes the decision on to the next one, after its message of the last
    /// step. So rank 0 does not wait for the stages above.
    ///
    /// # Errors
    /// As [`Comm::send`] and [`Comm::receive`].
    pub fn decided(&self, decision: Message) -> Result<Message> {
        let from = match (self.is_first(), self.is_lead()) {
            (_, true) => None,
            (true, false) => Some(0),
            (false, false) => Some(self.rank() - 1),
        };
        let bytes = match from {
            None => decision.to_bytes()?,
            Some(from) => self.comm.receive(from)?,
        };
        if self.is_lead() {
            for replica in 1..self.replicas() {
                self.comm.send(replica * self.stages(), bytes.clone())?;
            }
        }
        if !self.is_last() {
            self.comm.send(self.rank() + 1, bytes.clone())?;
        }
        Message::from_bytes(&bytes)
    }
}
