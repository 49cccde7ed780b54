//! The mean of tensors over replicas.

use std::ops::{Add, Div, Mul, Range};
use std::thread;

use bytemuck::Pod;
use candle_core::{DType, Device, Tensor};

use super::{Exchanged, Team};
use crate::error::Result;
use crate::kernels::{is_fast, wide, with_values, with_values_mut};

/// The numbers that are added up at a time, so that they stay in the cache.
const AT_ONCE: usize = 1 << 12;

/// The least numbers of a piece that has its own thread.
const WORTH_A_THREAD: usize = 1 << 18;

/// The numbers that a mean has received from the other replicas, kept for the next mean.
pub(super) type Received = Vec<u8>;

impl Team {
    /// The mean of a tensor over the replicas of this stage, in which a replica counts
    /// as often as it has `rows`; 0 if none has any. All of them have to call it with
    /// the same shape.
    ///
    /// Every replica adds up one part of the numbers, in the order of the replicas, and
    /// sends it to the others. So all of them have the same bits, and so has every run.
    ///
    /// # Errors
    /// [`Error::Rank`](crate::Error::Rank) if another rank has ended; errors of candle.
    pub fn mean(&self, tensor: &Tensor, rows: usize) -> Result<Tensor> {
        let (dims, device) = (tensor.dims(), tensor.device());
        let room = &mut Received::new();
        if tensor.dtype() == DType::F64 {
            let mut numbers = tensor.flatten_all()?.to_vec1::<f64>()?;
            self.average(&mut numbers, rows, (room, 1), take_mean)?;
            return Ok(Tensor::from_vec(numbers, dims, device)?);
        }
        let numbers = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        let mut numbers = with_values(&numbers, <[f32]>::to_vec)?;
        self.average(&mut numbers, rows, (room, 1), take_mean)?;
        Ok(Tensor::from_vec(numbers, dims, device)?.to_dtype(tensor.dtype())?)
    }

    /// The same, in the memory of the tensor where that is possible.
    ///
    /// # Errors
    /// As [`mean`](Self::mean).
    pub(super) fn mean_in_place(
        &self,
        tensor: Tensor,
        rows: usize,
        (room, threads): (&mut Received, usize),
    ) -> Result<Tensor> {
        if !is_fast(&tensor) {
            return self.mean(&tensor, rows);
        }
        with_values_mut(&tensor, |numbers| {
            self.average(numbers, rows, (room, threads), take_mean)
        })??;
        Ok(tensor)
    }

    /// Replaces the values by what `make` makes of their means, on the replica that adds
    /// them up: it gets the place of some values, room for the new ones, and the means.
    /// A large part is divided among `threads`.
    ///
    /// # Errors
    /// As [`mean`](Self::mean); errors of `make`.
    pub(super) fn average<T: Number>(
        &self,
        values: &mut [T],
        rows: usize,
        (room, threads): (&mut Received, usize),
        make: impl Fn(Range<usize>, &mut [T], &[T]) -> Result<()> + Sync,
    ) -> Result<()> {
        let (own, count, size) = (self.replica(), values.len(), size_of::<T>());
        let part = |replica: usize| self.part(count, replica);
        let bytes = size * part(own).len();
        // The bytes of each replica, but for its own.
        let place = |replica: usize| bytes * (replica - usize::from(replica > own));
        if room.len() < place(self.replicas()) {
            room.resize(place(self.replicas()), 0);
        }
        let mut weights = vec![T::of(rows); self.replicas()];
        for other in self.other_replicas() {
            let mut rows_of_other = 0;
            let rows = Exchanged {
                sent: bytemuck::bytes_of(&rows),
                received: bytemuck::bytes_of_mut(&mut rows_of_other),
            };
            let values = Exchanged {
                sent: bytemuck::cast_slice(&values[part(other)]),
                received: &mut room[place(other)..][..bytes],
            };
            self.exchange(other, &mut [rows, values])?;
            weights[other] = T::of(rows_of_other);
        }
        let all = weights
            .iter()
            .fold(T::zeroed(), |all, weight| all + *weight);
        let (weights, room) = (&weights[..], &room[..]);
        let make_piece = |begin: usize, values: &mut [T]| -> Result<()> {
            let mut means = [T::zeroed(); AT_ONCE];
            for (chunk, values) in values.chunks_mut(AT_ONCE).enumerate() {
                let (first, length) = (begin + chunk * AT_ONCE, values.len());
                let of_other =
                    |replica: usize| &room[place(replica) + size * first..][..size * length];
                let means = &mut means[..length];
                wide(|| mean_of((values, own), &of_other, weights, all, means));
                let first = part(own).start + first;
                make(first..first + length, values, means)?;
            }
            Ok(())
        };
        let made = in_pieces(&mut values[part(own)], threads, &make_piece);
        // After an error too, since the others wait for the values.
        self.spread(values).and(made)
    }

    /// The values that a replica adds up, or changes for all.
    fn part(&self, count: usize, replica: usize) -> Range<usize> {
        let [first, end] = [replica, replica + 1].map(|at| count * at / self.replicas());
        first..end
    }

    /// Gives every replica the values that the others have in their parts.
    ///
    /// # Errors
    /// As [`mean`](Self::mean).
    pub(super) fn spread<T: Pod>(&self, values: &mut [T]) -> Result<()> {
        let count = values.len();
        let part = |replica: usize| self.part(count, replica);
        for other in self.other_replicas() {
            let parts = values.get_disjoint_mut([part(self.replica()), part(other)]);
            let [values, of_other] = parts.expect("parts are side by side");
            let values = Exchanged {
                sent: bytemuck::cast_slice(values),
                received: bytemuck::cast_slice_mut(of_other),
            };
            self.exchange(other, &mut [values])?;
        }
        Ok(())
    }
}

pub(super) trait Number:
    Pod + Send + Sync + PartialEq + Add<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    fn of(rows: usize) -> Self;
}

impl Number for f32 {
    fn of(rows: usize) -> Self {
        rows as f32
    }
}

impl Number for f64 {
    fn of(rows: usize) -> Self {
        rows as f64
    }
}

/// Calls `f` with the place of each piece of the values, and the piece: one piece for each
/// thread, fewer if the pieces would be small.
fn in_pieces<T: Send>(
    values: &mut [T],
    threads: usize,
    f: &(impl Fn(usize, &mut [T]) -> Result<()> + Sync),
) -> Result<()> {
    let each = values.len().div_ceil(threads.max(1)).max(WORTH_A_THREAD);
    if values.len() <= each {
        return f(0, values);
    }
    thread::scope(|scope| {
        let pieces = values.chunks_mut(each).enumerate();
        let threads: Vec<_> = pieces
            .map(|(index, piece)| scope.spawn(move || f(index * each, piece)))
            .collect();
        let made = threads.into_iter().map(|thread| {
            let made = thread.join();
            made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        made.collect()
    })
}

/// The new values are the means.
fn take_mean<T: Number>(_: Range<usize>, values: &mut [T], means: &[T]) -> Result<()> {
    values.copy_from_slice(means);
    Ok(())
}

/// Computes the means of some values. `own` are those of the replica of that number,
/// `of_other` has the bytes of another one; `all` is the sum of the weights.
#[inline(always)]
fn mean_of<'a, T: Number>(
    (values, own): (&[T], usize),
    of_other: &impl Fn(usize) -> &'a [u8],
    weights: &[T],
    all: T,
    means: &mut [T],
) {
    means.fill(T::zeroed());
    for (replica, weight) in weights.iter().enumerate() {
        if replica == own {
            add(means, values.iter().copied(), *weight);
        } else {
            // They may begin anywhere, and have the order of this processor.
            let numbers = of_other(replica)
                .chunks_exact(size_of::<T>())
                .map(bytemuck::pod_read_unaligned);
            add(means, numbers, *weight);
        }
    }
    // The sum over replicas without rows is 0.
    if all != T::zeroed() {
        means.iter_mut().for_each(|mean| *mean = *mean / all);
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
        // Fewer numbers than replicas too, and enough for two threads.
        let many = (6 * WORTH_A_THREAD + 5) as u32;
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
                        let values: Vec<u32> = (0..2 * count).map(|x| x % 1000).collect();
                        let values = Tensor::new(values, &Device::Cpu)?;
                        let values = (values.to_dtype(dtype)? * 10f64.powi(team.rank() as i32))?;
                        // A column: its numbers do not lie side by side.
                        let values = values.reshape((count as usize, 2))?.narrow(1, 0, 1)?;
                        let mean = team.mean(&values, rows[team.rank()])?;
                        assert_eq!((mean.dtype(), mean.dims()), (dtype, values.dims()));
                        let room = &mut Received::new();
                        let (room, contiguous) = ((room, 2), values.contiguous()?);
                        let own = team.mean_in_place(contiguous, rows[team.rank()], room)?;
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
                let wanted: Vec<f64> = (0..count).map(|x| f64::from(x % 500) * 107.).collect();
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
        // The first message has the rows and the 3 numbers of rank 0, the second the 4 of
        // rank 1.
        for sizes in [
            &[2][..],
            &[12 + 8 - 2],
            &[12 + 9],
            &[12 + 8, 12],
            &[12 + 8, 17],
        ] {
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
