//! The mean of tensors over replicas.

use candle_core::{DType, Tensor};

use super::Team;
use crate::error::{Error, Result};

impl Team {
    /// The mean of a tensor over the replicas of this stage, in which a replica counts as
    /// often as it has `rows`. All of them have to call it with the same shape.
    ///
    /// Every replica adds up one part of the numbers, in the order of the replicas, and
    /// sends it to the others. So all of them have the same bits, and so has every run.
    ///
    /// # Errors
    /// [`Error::Rank`] if another rank has ended; errors of candle.
    pub fn mean(&self, tensor: &Tensor, rows: usize) -> Result<Tensor> {
        let (flat, device) = (tensor.flatten_all()?, tensor.device());
        let mean = match tensor.dtype() {
            DType::F64 => {
                let mean = self.mean_of(&flat.to_vec1::<f64>()?, rows as f64)?;
                Tensor::from_vec(mean, tensor.dims(), device)?
            }
            _ => {
                let flat = flat.to_dtype(DType::F32)?;
                let mean = self.mean_of(&flat.to_vec1::<f32>()?, rows as f32)?;
                Tensor::from_vec(mean, tensor.dims(), device)?.to_dtype(tensor.dtype())?
            }
        };
        Ok(mean)
    }

    fn mean_of<T: Number>(&self, values: &[T], weight: T) -> Result<Vec<T>> {
        let (replicas, own) = (self.replicas(), self.replica());
        let part = |replica: usize| {
            let [first, end] = [replica, replica + 1].map(|at| values.len() * at / replicas);
            first..end
        };
        let others = || (0..replicas).filter(|replica| *replica != own);
        for replica in others() {
            let mut message = T::to_bytes(&[weight]);
            message.extend(T::to_bytes(&values[part(replica)]));
            self.send_to(replica, message)?;
        }
        let mut sum = vec![T::default(); part(own).len()];
        let mut weights = T::default();
        for replica in 0..replicas {
            let received;
            let (weight, values) = if replica == own {
                (weight, &values[part(own)])
            } else {
                received = T::from_bytes(&self.receive_from(replica)?);
                match received.split_first() {
                    Some((weight, values)) if values.len() == sum.len() => (*weight, values),
                    _ => return Err(self.apart(replica)),
                }
            };
            weights = weights + weight;
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum = *sum + weight * *value;
            }
        }
        for sum in &mut sum {
            *sum = *sum / weights;
        }
        for replica in others() {
            self.send_to(replica, T::to_bytes(&sum))?;
        }
        let mut mean = Vec::with_capacity(values.len());
        for replica in 0..replicas {
            let received;
            let of_part = if replica == own {
                &sum
            } else {
                received = T::from_bytes(&self.receive_from(replica)?);
                &received
            };
            if of_part.len() != part(replica).len() {
                return Err(self.apart(replica));
            }
            mean.extend_from_slice(of_part);
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

/// A number with its bytes.
trait Number:
    Copy
    + Default
    + std::ops::Add<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
{
    fn to_bytes(values: &[Self]) -> Vec<u8>;

    fn from_bytes(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! number {
    ($type:ty) => {
        impl Number for $type {
            fn to_bytes(values: &[Self]) -> Vec<u8> {
                const SIZE: usize = size_of::<$type>();
                let mut bytes = vec![0; SIZE * values.len()];
                for (bytes, value) in bytes.chunks_exact_mut(SIZE).zip(values) {
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
                bytes
            }

            fn from_bytes(bytes: &[u8]) -> Vec<Self> {
                let values = bytes.as_chunks().0.iter();
                values.map(|bytes| Self::from_le_bytes(*bytes)).collect()
            }
        }
    };
}

number!(f32);
number!(f64);

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::comm::channels;

    #[test]
    fn all_replicas_have_the_weighted_mean() -> Result<()> {
        // (1·x + 2·10·x + 3·100·x) / 6
        let rows = [1, 2, 3];
        let means: Vec<Vec<f64>> = std::thread::scope(|scope| {
            let of_rank = channels(3).into_iter().map(|comm| {
                scope.spawn(move || -> Result<Vec<f64>> {
                    let team = Team::new(comm, vec![0, 1])?;
                    let values = Tensor::arange(0f64, 7., &Device::Cpu)?;
                    let values = (values * 10f64.powi(team.rank() as i32))?;
                    Ok(team.mean(&values, rows[team.rank()])?.to_vec1()?)
                })
            });
            let threads: Vec<_> = of_rank.collect();
            let means = threads.into_iter().map(|thread| thread.join().unwrap());
            means.collect::<Result<_>>()
        })?;
        for mean in &means {
            let wanted: Vec<f64> = (0..7).map(|x| f64::from(x) * 321. / 6.).collect();
            assert_eq!(mean, &wanted);
        }
        Ok(())
    }
}
