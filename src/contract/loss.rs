//! The losses: a closed set, as data. What they are taken of is open: see [`crate::GoodnessFn`].

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::flow::views::Role;
use crate::kernels;

crate::choices! {
    /// What a block minimises; `g` is its goodness, `θ` its threshold, `T` its temperature, `z = (g − θ) / T`.
    ///
    /// Means are taken over the examples. Every contrastive loss carries a factor `T / 2`: the ½ cancels the 2 that
    /// the derivative of a square brings, and with `T` the size of the gradient does not depend on the temperature.
    /// With [`Loss::Logistic`] and the sum of squares the gradient of the activity `a` is then `−(1 − p)·a` for
    /// positive views and `p·a` for negative ones, `p = σ(z)`, as in Hinton's program.
    pub enum Loss {
        /// `T/2·[log(1 + e^−z⁺) + log(1 + e^z⁻)]` (Hinton 2022, section 2).
        Logistic = "logistic",
        /// `T/2·[−log σ(z⁺) + log σ(z⁻)]`: pushes negative views down without end.
        LogSigmoid = "log_sigmoid",
        /// `½·[−(g⁺ − θ) + (g⁻ − θ)]`: has no lower bound at all.
        Unbounded = "unbounded",
        /// `T/2·log(1 + e^−(g⁺ − g⁻)/T)`: the views of one example against each other (SymBa, arXiv 2303.08418).
        Symmetric = "symmetric",
        /// `−T·log softmax(g/T)[label]`, for a goodness with a column per class; needs labels and no negatives.
        CrossEntropy = "cross_entropy",
        /// None: the layer has an update of its own, and what it passes on is all that the block does.
        None = "none",
    }
}

/// What a loss says of the goodness of all views.
#[derive(Clone, Debug)]
pub struct Grade {
    /// The loss itself.
    pub loss: f64,
    /// Its gradient with respect to the goodness, of the same shape.
    pub gradient: Tensor,
}

impl Loss {
    /// The loss of all views together, and its gradient with respect to their goodness.
    ///
    /// | tensor   | shape                                                              |
    /// |----------|--------------------------------------------------------------------|
    /// | goodness | `(V·B,)`, view by view; `(V·B, C)` for a loss that needs the class |
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the loss cannot be taken of this goodness or these views.
    pub fn grade(
        self,
        goodness: &Tensor,
        theta: f64,
        temperature: f64,
        roles: &[Role],
        labels: Option<&[u32]>,
    ) -> Result<Grade> {
        let expected_rank = if self == Self::CrossEntropy { 2 } else { 1 };
        if goodness.rank() != expected_rank {
            let problem = match self {
                Self::CrossEntropy => "needs a goodness with a column per class, (B, C)",
                _ => "needs a goodness with one value per example, (B,)",
            };
            return Err(self.fault(format!("{problem}; found {:?}", goodness.dims())));
        }
        let batch = goodness.dim(0)? / roles.len().max(1);
        let mean = 1. / batch.max(1) as f64;
        let view = |index: usize| goodness.narrow(0, index * batch, batch);
        match self {
            Self::Logistic | Self::LogSigmoid | Self::Unbounded => {
                let mut loss = 0.;
                let mut gradients = Vec::with_capacity(roles.len());
                for (index, role) in roles.iter().enumerate() {
                    let z = ((view(index)? - theta)? / temperature)?;
                    let (value, slope) = self.contrast(&z, *role)?;
                    loss += 0.5 * temperature * scalar(&value.mean_all()?)?;
                    gradients.push((slope * (0.5 * mean))?);
                }
                Ok(Grade {
                    loss,
                    gradient: Tensor::cat(&gradients, 0)?,
                })
            }
            Self::Symmetric => {
                if roles != [Role::Positive, Role::Negative] {
                    return Err(self
                        .fault("needs one positive and one negative view of each example".into()));
                }
                let difference = ((view(0)? - view(1)?)? / temperature)?;
                let loss = 0.5
                    * temperature
                    * scalar(&kernels::softplus(&difference.neg()?)?.mean_all()?)?;
                let slope = (kernels::sigmoid(&difference.neg()?)? * (-0.5 * mean))?;
                Ok(Grade {
                    loss,
                    gradient: Tensor::cat(&[slope.clone(), slope.neg()?], 0)?,
                })
            }
            Self::CrossEntropy => {
                let labels =
                    labels.ok_or_else(|| self.fault("needs the labels of the examples".into()))?;
                let classes = goodness.dim(1)?;
                let mut loss = 0.;
                let mut gradients = Vec::with_capacity(roles.len());
                for (index, role) in roles.iter().enumerate() {
                    let log = kernels::log_softmax(&(view(index)? / temperature)?)?;
                    if *role == Role::Positive {
                        let (value, gradient) = cross_entropy(&log, labels, classes)?;
                        loss += temperature * value;
                        gradients.push(gradient);
                    } else {
                        gradients.push(log.zeros_like()?);
                    }
                }
                Ok(Grade {
                    loss,
                    gradient: Tensor::cat(&gradients, 0)?,
                })
            }
            Self::None => Err(self.fault("there is none to take".into())),
        }
    }

    /// The terms of one view and their derivatives by `g`, without the factors `T/2` and `½`.
    fn contrast(self, z: &Tensor, role: Role) -> Result<(Tensor, Tensor)> {
        let positive = role == Role::Positive;
        Ok(match self {
            Self::Unbounded if positive => (z.neg()?, z.ones_like()?.neg()?),
            Self::Unbounded => (z.clone(), z.ones_like()?),
            _ if positive => (
                kernels::softplus(&z.neg()?)?,
                kernels::sigmoid(&z.neg()?)?.neg()?,
            ),
            Self::LogSigmoid => (
                kernels::softplus(&z.neg()?)?.neg()?,
                kernels::sigmoid(&z.neg()?)?,
            ),
            _ => (kernels::softplus(z)?, kernels::sigmoid(z)?),
        })
    }

    fn fault(self, problem: String) -> Error {
        Error::Mismatch {
            place: format!("loss {self:?}"),
            problem,
        }
    }
}

/// The mean cross-entropy of log-probabilities `(B, C)`, and its gradient with respect to what they were made from.
pub(crate) fn cross_entropy(log: &Tensor, labels: &[u32], classes: usize) -> Result<(f64, Tensor)> {
    if labels.len() != log.dim(0)? || labels.iter().any(|&label| label as usize >= classes) {
        let problem = format!(
            "{} labels below {classes} for {} examples",
            labels.len(),
            log.dim(0)?
        );
        return Err(Error::Mismatch {
            place: "cross-entropy".into(),
            problem,
        });
    }
    let mean = 1. / labels.len().max(1) as f64;
    let loss = -scalar(&kernels::entries(log, labels)?.mean_all()?)?;
    let gradient = ((log.exp()? - kernels::one_hot(labels, classes, log)?)? * mean)?;
    Ok((loss, gradient))
}

pub(crate) fn scalar(x: &Tensor) -> Result<f64> {
    Ok(x.to_device(&candle_core::Device::Cpu)?
        .to_dtype(candle_core::DType::F64)?
        .to_scalar()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    const ROLES: [Role; 2] = [Role::Positive, Role::Negative];

    fn grade(loss: Loss, goodness: &Tensor) -> Grade {
        loss.grade(goodness, 1.5, 0.7, &ROLES, Some(&[2, 0]))
            .unwrap()
    }

    /// Every gradient against central differences.
    #[test]
    fn gradients_are_those_of_the_loss() -> Result<()> {
        for loss in [
            Loss::Logistic,
            Loss::LogSigmoid,
            Loss::Unbounded,
            Loss::Symmetric,
            Loss::CrossEntropy,
        ] {
            let shape = if loss == Loss::CrossEntropy {
                vec![4, 3]
            } else {
                vec![4]
            };
            let count: usize = shape.iter().product();
            let values: Vec<f64> = (0..count).map(|i| (i * 5 % 7) as f64 / 2.).collect();
            let at = |values: Vec<f64>| Tensor::from_vec(values, &shape[..], &Device::Cpu).unwrap();
            let gradient = grade(loss, &at(values.clone()))
                .gradient
                .flatten_all()?
                .to_vec1::<f64>()?;
            for i in 0..count {
                let (mut up, mut down) = (values.clone(), values.clone());
                up[i] += 1e-5;
                down[i] -= 1e-5;
                let slope = (grade(loss, &at(up)).loss - grade(loss, &at(down)).loss) / 2e-5;
                assert!(
                    (slope - gradient[i]).abs() < 1e-8,
                    "{loss:?} {i}: {slope} {}",
                    gradient[i]
                );
            }
        }
        Ok(())
    }

    #[test]
    fn extreme_goodness_gives_finite_losses() -> Result<()> {
        let goodness = Tensor::new(&[-1e30f32, 1e30, 1e30, -1e30], &Device::Cpu)?;
        for loss in [Loss::Logistic, Loss::LogSigmoid, Loss::Symmetric] {
            let grade = loss.grade(&goodness, 1000., 1., &ROLES, None)?;
            assert!(grade.loss.is_finite(), "{loss:?}");
            assert!(
                grade
                    .gradient
                    .to_vec1::<f32>()?
                    .iter()
                    .all(|g| g.abs() <= 0.5),
                "{loss:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_loss_says_what_it_needs() -> Result<()> {
        let goodness = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
        let error = Loss::CrossEntropy
            .grade(&goodness, 0., 1., &[Role::Positive], Some(&[0, 1]))
            .unwrap_err();
        assert!(error.to_string().contains("column per class"), "{error}");
        let error = Loss::Symmetric
            .grade(&goodness, 0., 1., &[Role::Positive], None)
            .unwrap_err();
        assert!(error.to_string().contains("one negative view"), "{error}");
        Ok(())
    }
}
