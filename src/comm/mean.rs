//! The mean of tensors over replicas.

use std::ops::{Add, Div, Mul};

use bytemuck::Pod;
use candle_core::{DType, Device, Tensor};

use super::Team;
use crate::error::{Error, Result};
use crate::kernels::{is_fast, wide, with_values, with_values_mut};

/// The numbers that are added up at a time, so that they stay in the cache.
const AT_ONCE: usize = 1 << 12;

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
            let mut numbers = tensor.flatten_all()?.to_vec1::<f64>()?;
            self.average(&mut numbers, rows as f64)?;
            return Ok(Tensor::from_vec(numbers, dims, device)?);
        }
        let numbers = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        let mut numbers = with_values(&numbers, <[f32]>::to_vec)?;
        self.average(&mut numbers, rows as f32)?;
        Ok(Tensor::from_vec(numbers, dims, device)?.to_dtype(tensor.dtype())?)
    }

    /// The same, in the memory of the tensor where that is possible.
    ///
    /// # Errors
    /// As [`mean`](Self::mean).
    pub(super) fn mean_in_place(&self, tensor: Tensor, rows: usize) -> Result<Tensor> {
        if !is_fast(&tensor) {
            return self.mean(&tensor, rows);
        }
        with_values_mut(&tensor, |numbers| self.average(numbers, rows as f32))??;
        Ok(tensor)
    }

    /// Replaces the values by their means.
    fn average<T: Number>(&self, values: &mut [T], weight: T) -> Result<()> {
        let (replicas, own, count) = (self.replicas(), self.replica(), values.len());
        let part = |replica: usize| {
            let [first, end] = [replica, replica + 1].map(|at| count * at / replicas);
            first..end
        };
        let others = || (0..replicas).filter(|replica| *replica != own);
        for replica in others() {
            let values: &[u8] = bytemuck::cast_slice(&values[part(replica)]);
            self.send_to(replica, [values, bytemuck::bytes_of(&weight)].concat())?;
        }
        // The bytes of each replica, but for its own, and its weight.
        let mut parts = Vec::with_capacity(replicas);
        for replica in 0..replicas {
            if replica == own {
                parts.push((Vec::new(), weight));
                continue;
            }
            let mut bytes = self.receive_from(replica)?;
            if bytes.len() != size_of::<T>() * (part(own).len() + 1) {
                return Err(self.apart(replica));
            }
            let weight = bytes.split_off(size_of::<T>() * part(own).len());
            parts.push((bytes, bytemuck::pod_read_unaligned(&weight)));
        }
        let all = parts
            .iter()
            .fold(T::zeroed(), |all, (_, weight)| all + *weight);
        for (chunk, values) in values[part(own)].chunks_mut(AT_ONCE).enumerate() {
            let begin = size_of::<T>() * chunk * AT_ONCE;
            wide(|| add_up(values, own, &parts, begin, all));
        }
        for replica in others() {
            self.send_to(replica, bytemuck::cast_slice(&values[part(own)]).to_vec())?;
        }
        for replica in others() {
            let received = self.receive_from(replica)?;
            let values: &mut [u8] = bytemuck::cast_slice_mut(&mut values[part(replica)]);
            if received.len() != values.len() {
                return Err(self.apart(replica));
            }
            values.copy_from_slice(&received);
        }
        Ok(())
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

/// Replaces some values of the replica `own` by their means: those whose bytes begin at
/// `begin` in the parts of the other replicas, each with its weight. `all` is the sum of
/// the weights.
#[inline(always)]
fn add_up<T: Number>(values: &mut [T], own: usize, parts: &[(Vec<u8>, T)], begin: usize, all: T) {
    let mut sums = [T::zeroed(); AT_ONCE];
    let sums = &mut sums[..values.len()];
    for (replica, (bytes, weight)) in parts.iter().enumerate() {
        if replica == own {
            add(sums, values.iter().copied(), *weight);
        } else {
            let bytes = &bytes[begin..][..size_of_val(values)];
            // They may begin anywhere, and have the order of this processor.
            let numbers = bytes
                .chunks_exact(size_of::<T>())
                .map(bytemuck::pod_read_unaligned);
            add(sums, numbers, *weight);
        }
    }
    for (value, sum) in values.iter_mut().zip(&*sums) {
        // The sum over replicas without rows is 0.
        *value = if all == T::zeroed() { *sum } else { *sum / all };
    }
}

#[inline(always)]
fn add<T: Number>(sums: &mut [T], numbers: impl Iterator<Item = T>, weight: T) {
    for (sum, number) in sums.iter_mut().zip(numbers) {
        *sum = *sum + weight * number;
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
        // Fewer numbers than replicas too, and more than are added up at a time.
        let many = (3 * AT_ONCE + 5) as u32;
        for (dtype, count) in [
            (DType::F64, 7),
            (DType::F32, 7),
            (DType::F32, 2),
            (DType::F32, many),
        ] {
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
                        let own = team.mean_in_place(values.contiguous()?, rows[team.rank()])?;
                        let differ = (own - &mean)?.abs()?.sum_all()?.to_dtype(DType::F64)?;
                        assert_eq!(differ.to_scalar::<f64>()?, 0.);
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
        // The first message has the 3 numbers of rank 0 and a weight, the second the 4 of
        // rank 1.
        for sizes in [&[2][..], &[6 + 4], &[12 + 4, 12], &[12 + 4, 0]] {
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
