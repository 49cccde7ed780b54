//! What replicas exchange, on a thread of its own while the rank learns.

use std::ops::Range;
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender};
use std::sync::Mutex;
use std::thread;

use candle_core::Tensor;

use super::mean::Received;
use super::Team;
use crate::error::{Error, Result};
use crate::kernels::with_values_mut;

/// A thread that averages over the replicas of a team, in the order in which it is asked
/// to. All replicas have to ask for the same in the same order.
#[derive(Clone)]
pub(crate) struct Averager(Sender<Request>);

/// Exchanges a tensor with the other replicas, and sends on what comes of it. Gets the
/// room for what is received, and the number of threads.
type Request = Box<dyn FnOnce(&Team, (&mut Received, usize)) + Send>;

/// A tensor that is being exchanged. Until it is there, its memory must neither be read
/// nor changed; it may then hold the result.
pub(crate) struct Awaited(Mutex<Receiver<Result<Tensor>>>);

impl Averager {
    /// Starts the thread, which ends with the last copy of this. It divides a large tensor
    /// among as many threads as the rank learns with.
    pub fn start(team: Team) -> Self {
        let (sender, requests) = channel::<Request>();
        let threads = rayon::current_num_threads();
        thread::spawn(move || {
            let mut room = Received::new();
            requests
                .iter()
                .for_each(|request| request(&team, (&mut room, threads)));
        });
        Self(sender)
    }

    /// The mean of a tensor, as [`Team::mean`].
    pub fn mean(&self, tensor: &Tensor, rows: usize) -> Awaited {
        self.begin(tensor, move |tensor, team, room| {
            team.mean_in_place(tensor, rows, room)
        })
    }

    /// What `make` makes of the mean of a tensor of `f32` on the CPU. Each replica makes a
    /// part of it: `make` gets the place of some numbers, room for them, and their means.
    pub fn made_of_mean(
        &self,
        tensor: &Tensor,
        rows: usize,
        make: impl Fn(Range<usize>, &mut [f32], &[f32]) -> Result<()> + Send + Sync + 'static,
    ) -> Awaited {
        self.begin(tensor, move |tensor, team, room| {
            with_values_mut(&tensor, |numbers| team.average(numbers, rows, room, make))??;
            Ok(tensor)
        })
    }

    /// A tensor of `f32` on the CPU with the parts that each replica has made.
    pub fn whole(&self, tensor: &Tensor) -> Awaited {
        self.begin(tensor, |tensor, team, _| {
            with_values_mut(&tensor, |numbers| team.spread(numbers))??;
            Ok(tensor)
        })
    }

    fn begin(
        &self,
        tensor: &Tensor,
        exchange: impl FnOnce(Tensor, &Team, (&mut Received, usize)) -> Result<Tensor> + Send + 'static,
    ) -> Awaited {
        let (reply, awaited) = sync_channel(1);
        let tensor = tensor.detach();
        // If the thread has ended, waiting says so.
        let _ = self.0.send(Box::new(move |team, room| {
            // A rank that has failed waits for nothing any more.
            let _ = reply.send(exchange(tensor, team, room));
        }));
        Awaited(Mutex::new(awaited))
    }
}

impl Awaited {
    /// Waits for the tensor.
    ///
    /// # Errors
    /// As [`Team::mean`].
    pub fn wait(self) -> Result<Tensor> {
        let awaited = self.0.into_inner();
        let awaited = awaited.unwrap_or_else(|poisoned| poisoned.into_inner());
        let ended = |_| {
            Error::usage(
                "replicas",
                "the thread that exchanges with other replicas has ended",
            )
        };
        awaited.recv().map_err(ended)?
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::comm::channels;

    #[test]
    fn several_means_may_be_on_their_way() -> Result<()> {
        let mut ranks = channels(2)
            .into_iter()
            .map(|comm| Team::new(comm, vec![0, 1]));
        let of_rank = |team: Result<Team>, factor: f64| -> Result<Vec<f64>> {
            let averager = Averager::start(team?);
            let begun: Vec<Awaited> = (1..=9)
                .map(|value| {
                    let tensor = Tensor::new(&[f64::from(value) * factor, 1.], &Device::Cpu)?;
                    Ok(averager.mean(&tensor, 3))
                })
                .collect::<Result<_>>()?;
            let means = begun
                .into_iter()
                .map(|mean| Ok(mean.wait()?.to_vec1::<f64>()?[0]));
            means.collect()
        };
        let (first, second) = (ranks.next().unwrap(), ranks.next().unwrap());
        let other = thread::spawn(move || of_rank(second, 3.));
        let wanted: Vec<f64> = (1..=9).map(|value| 2. * f64::from(value)).collect();
        assert_eq!(of_rank(first, 1.)?, wanted);
        assert_eq!(other.join().unwrap()?, wanted);
        Ok(())
    }

    #[test]
    fn a_replica_that_has_ended_is_named() -> Result<()> {
        let mut ranks = channels(2);
        drop(ranks.pop());
        let averager = Averager::start(Team::new(ranks.remove(0), vec![0, 1])?);
        let error = averager
            .mean(&Tensor::new(&[1f64], &Device::Cpu)?, 1)
            .wait();
        assert!(error.unwrap_err().to_string().contains("rank 1"));
        Ok(())
    }
}
