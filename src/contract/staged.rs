//! Networks whose levels can be on several ranks.

use std::time::Duration;

use crate::comm::Team;
use crate::contract::sampler::NegativeSampler;
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::step::Step;

/// A network of levels one above the other, each of which learns from what the level
/// below passes on and from nothing else. Its levels can be on several ranks: see
/// [`comm`](crate::comm).
///
/// An architecture that holds a [`Stack`](crate::wiring::stack::Stack), and whose
/// `learn` is that of the stack, returns it in
/// [`Architecture::staged`](crate::Architecture::staged).
pub trait Staged {
    /// The number of levels.
    fn levels(&self) -> usize;

    /// Gives the network its place among the ranks. From then on, `learn` teaches the
    /// levels of this rank: it receives from the stage below and sends to the stage
    /// above. Only the first stage looks at the batch.
    ///
    /// # Errors
    /// [`Error::Unfit`](crate::Error::Unfit) if the levels cannot be divided so.
    fn join(&mut self, team: Team) -> Result<()>;

    /// As [`Architecture::epoch_ended`](crate::Architecture::epoch_ended), for the
    /// levels of this rank.
    ///
    /// # Errors
    /// Errors of the parts.
    fn epoch_ended(&mut self, step: &Step) -> Result<()>;

    /// Brings together the state of the optimisers, of which each replica has a part. All
    /// replicas have to call it at the same point, before the state is saved.
    ///
    /// # Errors
    /// Errors of the connection.
    fn settle(&mut self) -> Result<()>;

    /// Refuses replicas where the mean of their gradients is not all that they learn
    /// from.
    ///
    /// # Errors
    /// [`Error::Unfit`](crate::Error::Unfit) with the reason.
    fn check_replicas(&self) -> Result<()>;

    /// One step of all levels, one after the other, with what each has cost. A sampler
    /// that asks for the network's prediction gets one in which all classes are alike.
    ///
    /// # Errors
    /// As [`Architecture::learn`](crate::Architecture::learn).
    fn measure(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Measured>;
}

/// What a step costs, level by level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The levels, from the input on.
    pub levels: Vec<Cost>,
    /// Whether the sampler asks for the network's prediction. There can be one stage only
    /// then: the last one would have to send the prediction back.
    pub needs_prediction: bool,
}

/// What a step of one level costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// The time of the level in a step: forward passes, update, its part of the head.
    pub time: Duration,
    /// The bytes of the message to a stage that begins above it; 0 for the last level.
    pub bytes: u64,
    /// The numbers of its variables that can learn.
    pub parameters: u64,
    /// Whether the level learns in this step, or only passes on.
    pub learns: bool,
}
