//! Means over replicas, computed on a thread of their own while the rank learns.

use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender};
use std::sync::Mutex;
use std::thread;

use candle_core::Tensor;

use super::mean::Received;
use super::Team;
use crate::error::{Error, Result};

/// A thread that computes means over the replicas of a team, in the order in which they
/// are asked for. While one is on its way, no other message may go between replicas.
#[derive(Clone)]
pub(crate) struct Averager(Sender<Request>);

struct Request {
    tensor: Tensor,
    rows: usize,
    reply: SyncSender<Result<Tensor>>,
}

/// A mean that is being computed.
pub(crate) struct Mean(Mutex<Receiver<Result<Tensor>>>);

impl Averager {
    /// Starts the thread, which ends with the last copy of this.
    pub fn start(team: Team) -> Self {
        let (sender, requests) = channel::<Request>();
        thread::spawn(move || {
            let mut room = Received::new();
            for request in requests {
                let mean = team.mean_in_place(request.tensor, request.rows, &mut room);
                // A rank that has failed waits for nothing any more.
                let _ = request.reply.send(mean);
            }
        });
        Self(sender)
    }

    /// Begins a mean, as [`Team::mean`]. Until it is there, the tensor must neither be
    /// read nor changed; its memory may then hold the mean.
    pub fn begin(&self, tensor: &Tensor, rows: usize) -> Mean {
        let (reply, mean) = sync_channel(1);
        let tensor = tensor.detach();
        // If the thread has ended, waiting says so.
        let _ = self.0.send(Request {
            tensor,
            rows,
            reply,
        });
        Mean(Mutex::new(mean))
    }
}

impl Mean {
    /// Waits for the mean.
    ///
    /// # Errors
    /// As [`Team::mean`].
    pub fn wait(self) -> Result<Tensor> {
        let mean = self.0.into_inner();
        let mean = mean.unwrap_or_else(|poisoned| poisoned.into_inner());
        let ended = |_| Error::usage("replicas", "the thread that averages gradients has ended");
        mean.recv().map_err(ended)?
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
            let begun: Vec<Mean> = (1..=9)
                .map(|value| {
                    let tensor = Tensor::new(&[f64::from(value) * factor, 1.], &Device::Cpu)?;
                    Ok(averager.begin(&tensor, 3))
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
            .begin(&Tensor::new(&[1f64], &Device::Cpu)?, 1)
            .wait();
        assert!(error.unwrap_err().to_string().contains("rank 1"));
        Ok(())
    }
}
