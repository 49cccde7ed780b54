//! The mean of tensors over replicas.

use std::ops::{Add, Div, Mul};

use bytemuck::Pod;
use candle_core::{DType, Device, Tensor};

use super::Team;
use crate::error::{Error, Result};
use crate::kernels::{wide, with_values};

impl Team {
    /// The mean of a tensor over the replicas of this stage, in which a replica counts as
    /// often as it has `rows`; 0 if none has any. All of them have to call it with the same
    /// shape.
    ///
    /// Every replica adds up one part of the numbers, in the order of the replicas, and
    /// sends it to the others. So all of them have the same bits, and so has every run.
    ///
    /// # Errors
    /// [`Error::Rank`] if another rank has ended; errors of candle.
    pub fn mean(&self, tensor: &Tensor, rows: usize) -> Result<Tensor> {
        let (dims, device) = (tensor.dims(), tensor.device());
        if tensor.dtype() == DType::F64 {
            let numbers = tensor.flatten_all()?.to_vec1::<f64>()?;
            let mean = self.mean_of(&numbers, rows as f64)?;
            return Ok(Tensor::from_vec(mean, dims, device)?);
        }
        let numbers = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        let mean = with_values(&numbers, |numbers| self.mean_of(numbers, rows as f32))??;
        Ok(Tensor::from_vec(mean, dims, device)?.to_dtype(tensor.dtype())?)
    }

    fn mean_of<T: Number>(&self, values: &[T], weight: T) -> Result<Vec<T>> {
        let (replicas, own) = (self.replicas(), self.replica());
        let part = |replica: usize| {
            let [first, end] = [replica, replica + 1].map(|at| values.len() * at / replicas);
            first..end
        };
        let others = || (0..replicas).filter(|replica| *replica != own);
        for replica in others() {
            let values: &[u8] = bytemuck::cast_slice(&values[part(replica)]);
            self.send_to(replica, [bytemuck::bytes_of(&weight), values].concat())?;
        }
        let (mut sum, mut weights) = (Vec::new(), T::zeroed());
        for replica in 0..replicas {
            let received;
            let (weight, values) = if replica == own {
                (weight, bytemuck::cast_slice(&values[part(own)]))
            } else {
                received = self.receive_from(replica)?;
                match received.split_at_checked(size_of::<T>()) {
                    Some((weight, values)) => (bytemuck::pod_read_unaligned(weight), values),
                    None => return Err(self.apart(replica)),
                }
            };
            if values.len() != size_of::<T>() * part(own).len() {
                return Err(self.apart(replica));
            }
            weights = weights + weight;
            add(&mut sum, weight, numbers(values));
        }
        // The sum over replicas without rows is 0.
        if weights != T::zeroed() {
            wide(|| sum.iter_mut().for_each(|sum| *sum = *sum / weights));
        }
        for replica in others() {
            self.send_to(replica, bytemuck::cast_slice(&sum).to_vec())?;
        }
        let mut mean = Vec::with_capacity(values.len());
        for replica in 0..replicas {
            if replica == own {
                mean.extend_from_slice(&sum);
                continue;
            }
            let received = self.receive_from(replica)?;
            if received.len() != size_of::<T>() * part(replica).len() {
                return Err(self.apart(replica));
            }
            mean.extend(numbers::<T>(&received));
        }
        Ok(mean)
    }

    fn apart(&self, replica: usize) -> Error {
        let rank = self.rank_of(replica);
        Error::usage(
            format!("rank {rank}"),
            "sent another number of values than expected; start the same program on all ranks",
        )
    }
}

trait Number: Pod + PartialEq + Add<Output = Self> + Mul<Output = Self> + Div<Output = Self> {}

impl Number for f32 {}
impl Number for f64 {}

/// The numbers that these bytes are. Each has its bytes in the order of this processor, and
/// the first may begin anywhere.
fn numbers<T: Number>(bytes: &[u8]) -> impl ExactSizeIterator<Item = T> + '_ {
    let each = bytes.chunks_exact(size_of::<T>());
    each.map(bytemuck::pod_read_unaligned)
}

/// Adds `weight` times the numbers to the sum; an empty one is filled.
fn add<T: Number>(sum: &mut Vec<T>, weight: T, numbers: impl ExactSizeIterator<Item = T>) {
    let weighted = numbers.map(|number| weight * number);
    if sum.is_empty() {
        wide(|| sum.extend(weighted));
    } else {
        wide(|| {
            sum.iter_mut()
                .zip(weighted)
                .for_each(|(sum, number)| *sum = *sum + number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::channels;

    #[test]
    fn all_replicas_have_the_weighted_mean() -> Result<()> {
        // (1·x + 2·10·x + 3·100·x) / 6
        let rows = [1, 2, 3];
        // Fewer numbers than replicas too.
        for (dtype, count) in [(DType::F64, 7), (DType::F32, 7), (DType::F32, 2)] {
            let means: Vec<Vec<f64>> = std::thread::scope(|scope| {
                let of_rank = channels(3).into_iter().map(|comm| {
                    scope.spawn(move || -> Result<Vec<f64>> {
                        let team = Team::new(comm, vec![0, 1])?;
                        let values = Tensor::arange(0u32, 2 * count, &Device::Cpu)?;
                        let values = (values.to_dtype(dtype)? * 10f64.powi(team.rank() as i32))?;
                        // A column: its numbers do not lie side by side.
                        let values = values.reshape((count as usize, 2))?.narrow(1, 0, 1)?;
                        let mean = team.mean(&values, rows[team.rank()])?;
                        assert_eq!((mean.dtype(), mean.dims()), (dtype, values.dims()));
                        Ok(mean.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
                    })
                });
                let threads: Vec<_> = of_rank.collect();
                let means = threads.into_iter().map(|thread| thread.join().unwrap());
                means.collect::<Result<_>>()
            })?;
            for mean in &means {
                let wanted: Vec<f64> = (0..count).map(|x| f64::from(x) * 107.).collect();
                assert_eq!(mean, &wanted);
            }
        }
        Ok(())
    }

    #[test]
    fn the_mean_over_replicas_without_rows_is_0() -> Result<()> {
        let zeros = std::thread::scope(|scope| {
            let of_rank = channels(2).into_iter().map(|comm| {
                scope.spawn(move || -> Result<Vec<f32>> {
                    let team = Team::new(comm, vec![0, 1])?;
                    let ones = Tensor::ones(3, DType::F32, &Device::Cpu)?;
                    Ok(team.mean(&ones, 0)?.to_vec1()?)
                })
            });
            let threads: Vec<_> = of_rank.collect();
            let means = threads.into_iter().map(|thread| thread.join().unwrap());
            means.collect::<Result<Vec<_>>>()
        })?;
        assert_eq!(zeros, [[0.; 3]; 2]);
        Ok(())
    }

    #[test]
    fn a_replica_with_other_numbers_is_named() -> Result<()> {
        // The first message has a weight and the 3 numbers of rank 0, the second the 4 of
        // rank 1.
        for sizes in [&[2][..], &[4 + 6], &[4 + 12, 12], &[4 + 12, 0]] {
            let mut ranks = channels(2);
            let other = ranks.pop().expect("two ranks");
            for &size in sizes {
                other.send(0, vec![0; size])?;
            }
            let team = Team::new(ranks[0].clone(), vec![0, 1])?;
            let values = Tensor::arange(0f32, 7., &Device::Cpu)?;
            let error = team.mean(&values, 1).unwrap_err().to_string();
            assert!(error.contains("rank 1"), "{sizes:?}: {error}");
        }
        Ok(())
    }
}
