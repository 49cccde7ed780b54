//! The losses of a goodness: a fixed list, chosen by name. A rule with another loss
//! overrides [`GoodnessFn::grade`](crate::GoodnessFn::grade).

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::flow::reading::Reading;
use crate::flow::sampled_classes::SampledClasses;
use crate::flow::views::{Role, Targets};
use crate::kernels;
use crate::settings::{Finite, Idle, Positive};

crate::choices! {
    /// What a block minimises; `g` is its goodness, `θ` its threshold, `T` its
    /// temperature, `z = (g − θ) / T`.
    ///
    /// Means are taken over the examples. Every contrastive loss carries a factor `T /
    /// 2`: the ½ cancels the 2 that the derivative of a square brings, and with `T` the
    /// size of the gradient does not depend on the temperature. With [`Loss::Logistic`]
    /// and the sum of squares the gradient of the activity `a` is then `−(1 − p)·a` for
    /// positive views and `p·a` for negative ones, `p = σ(z)`, as in Hinton's program.
    pub enum Loss {
        /// `T/2·[log(1 + e^−z⁺) + log(1 + e^z⁻)]` (Hinton 2022, section 2).
        Logistic = "logistic",
        /// `T/2·[−log σ(z⁺) + log σ(z⁻)]`: has no lower bound for negative views.
        LogSigmoid = "log_sigmoid",
        /// `½·[−(g⁺ − θ) + (g⁻ − θ)]`: has no lower bound.
        Unbounded = "unbounded",
        /// `T/2·log(1 + e^−(g⁺ − g⁻)/T)`: the views of one example against each other
        /// (SymBa, arXiv 2303.08418).
        Symmetric = "symmetric",
        /// `−T·log softmax(g/T)[label]`, for a goodness with a column per class; needs
        /// labels and no negatives.
        CrossEntropy = "cross_entropy",
        /// No loss: the layer has an update rule of its own, and its block computes no
        /// goodness while it learns.
        None = "none",
    }
}

impl Loss {
    /// Whether the loss needs labels.
    pub fn uses_labels(self) -> bool {
        self == Self::CrossEntropy
    }
}

crate::settings! {
    /// What a block minimises: a loss, its threshold and its temperature.
    pub struct Objective {
        /// What a layer minimises.
        loss: Loss = Loss::Logistic;
        /// The goodness above which a view counts as positive. With `positive = "low"`
        /// give it as for high activity; its sign is changed. Default: the threshold of
        /// the goodness function.
        theta: Option<f64> = None, in Finite;
        /// The softness of the decision between positive and negative views:
        /// (goodness − theta) is divided by it; in `nlp`, by it times the number of units.
        temperature: f64 = 1., in Positive;
    }
}

impl Objective {
    /// The settings without an effect beside the loss.
    pub fn idle(&self) -> Vec<Idle> {
        let because = format!("the loss is {}", self.loss.word());
        match self.loss {
            Loss::Logistic | Loss::LogSigmoid => Vec::new(),
            Loss::Symmetric | Loss::CrossEntropy => Idle::all(&["theta"], because),
            Loss::Unbounded | Loss::None => Idle::all(&["theta", "temperature"], because),
        }
    }

    /// The loss of all views together, and its gradient with respect to their goodness.
    ///
    /// | tensor | shape |
    /// |---|---|
    /// | goodness | `(V·B,)`, view by view; for the cross-entropy `(V·B, C)`, or `(V·B, P, C)` with positions |
    ///
    /// `theta` is the threshold in force. The offset of the targets is added to the
    /// goodness first.
    ///
    /// ```
    /// use onward_core::candle_core::{Device, Tensor};
    /// use onward_core::{Loss, Objective, Role, Targets};
    ///
    /// let goodness = Tensor::new(&[3f64, 1.], &Device::Cpu)?; // one example, two views
    /// let targets = Targets::new(vec![Role::Positive, Role::Negative])?;
    /// let (loss, gradient) = Objective::default().grade(&goodness, 2., &targets)?;
    /// assert!((loss.value()? - (1. + (-1f64).exp()).ln()).abs() < 1e-12); // ½·2·log(1 + e⁻¹)
    /// let slope = 0.5 / (1. + 1f64.exp()); // ½·σ(−1)
    /// for (found, expected) in gradient.to_vec1::<f64>()?.into_iter().zip([-slope, slope]) {
    ///     assert!((found - expected).abs() < 1e-12);
    /// }
    /// # Ok::<(), onward_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unfit`] if the loss cannot be taken of this goodness or these targets.
    pub fn grade(
        &self,
        goodness: &Tensor,
        theta: f64,
        targets: &Targets,
    ) -> Result<(Reading, Tensor)> {
        self.check(goodness)?;
        self.check_roles(targets.roles())?;
        self.check_label(targets)?;
        if let Some(offset) = targets.offset() {
            // The kernels of a GPU read as many numbers as the goodness has.
            if offset.dims() != goodness.dims() || offset.dtype() != goodness.dtype() {
                let expected = format!("{:?} of {:?}", goodness.dims(), goodness.dtype());
                return Err(Error::shape("offset", offset.dims(), expected));
            }
        }
        #[cfg(feature = "cuda")]
        if let Some(graded) = self.grade_on_gpu(goodness, theta, targets)? {
            return Ok(graded);
        }
        let goodness = match targets.offset() {
            Some(offset) => (goodness + offset)?,
            None => goodness.clone(),
        };
        let roles = targets.roles();
        let batch = goodness.dim(0)? / roles.len().max(1);
        let views = (0..roles.len()).map(|view| goodness.narrow(0, view * batch, batch));
        let views = views.collect::<Result<Vec<_>, _>>()?;
        match self.loss {
            Loss::Logistic | Loss::LogSigmoid | Loss::Unbounded => {
                self.contrast(&views, theta, roles)
            }
            Loss::Symmetric => self.symmetric(&views, roles),
            Loss::CrossEntropy => self.cross_entropy(&views, targets),
            Loss::None => Err(self.unfit("there is none to take")),
        }
    }

    /// A loss of one value per row on a GPU, in one kernel; `None` for other losses.
    #[cfg(feature = "cuda")]
    fn grade_on_gpu(
        &self,
        goodness: &Tensor,
        theta: f64,
        targets: &Targets,
    ) -> Result<Option<(Reading, Tensor)>> {
        let roles = targets.roles();
        let kind = match self.loss {
            Loss::Logistic => 0,
            Loss::LogSigmoid => 1,
            Loss::Unbounded => 2,
            Loss::Symmetric if roles == [Role::Positive, Role::Negative] => 3,
            _ => return Ok(None),
        };
        if !kernels::cuda::is_fast(goodness) {
            return Ok(None);
        }
        let of = kernels::cuda::Contrast {
            kind,
            theta,
            temperature: self.temperature,
            views: roles.len(),
            positive: targets.positive(),
            offset: targets.offset(),
        };
        let (loss, gradient) = kernels::cuda::contrast(goodness, &of)?;
        Ok(Some((Reading::of(&loss)?, gradient)))
    }

    fn check(&self, goodness: &Tensor) -> Result<()> {
        let (fits, expected) = match self.loss {
            Loss::CrossEntropy => (goodness.rank() >= 2, "a column per class, (B, C)"),
            _ => (goodness.rank() == 1, "one value per example, (B,)"),
        };
        if fits {
            return Ok(());
        }
        let found = goodness.dims();
        Err(self.unfit(format!(
            "expected a goodness with {expected}, found {found:?}; choose another goodness (see: \
             onward list goodness), or another loss (see: onward show loss)"
        )))
    }

    /// Positive views alone would only make the goodness of everything larger, and a
    /// classifier learns nothing from negative ones.
    fn check_roles(&self, roles: &[Role]) -> Result<()> {
        let has_negatives = roles.contains(&Role::Negative);
        match self.loss {
            Loss::CrossEntropy if has_negatives => Err(self.unfit(
                "expected positive views alone, found negative ones, from which it learns \
                 nothing; choose a sampler without them: --set sampler=plain",
            )),
            Loss::CrossEntropy | Loss::None => Ok(()),
            _ if has_negatives => Ok(()),
            _ => Err(self.unfit(
                "expected positive and negative views, found positive ones alone; choose \
                 a sampler that makes negative views (see: onward list sampler), or a \
                 goodness for each class (see: onward list goodness)",
            )),
        }
    }

    /// A classifier would read the label off such views.
    fn check_label(&self, targets: &Targets) -> Result<()> {
        if !(self.loss.uses_labels() && targets.tell_label()) {
            return Ok(());
        }
        Err(self.unfit(
            "the error of the network is in the input, so that the label can be read off it; \
             choose a sampler of the examples as they are (--set sampler=plain), or the goodness \
             that belongs to this one (see: onward list goodness)",
        ))
    }

    /// The sum over the views, each against the threshold.
    fn contrast(&self, views: &[Tensor], theta: f64, roles: &[Role]) -> Result<(Reading, Tensor)> {
        let temperature = self.temperature;
        let mut loss = Reading::default();
        let mut gradients = Vec::with_capacity(views.len());
        for (view, role) in views.iter().zip(roles) {
            let z = ((view - theta)? / temperature)?;
            let (value, slope) = self.contrast_view(&z, *role)?;
            loss.add(&Reading::of(&value.mean_all()?)?, 0.5 * temperature)?;
            gradients.push((slope * (0.5 * mean_factor(view)))?);
        }
        Ok((loss, Tensor::cat(&gradients, 0)?))
    }

    /// The terms of one view and their derivatives by `g`, without the factors `T/2`
    /// and `½`.
    fn contrast_view(&self, z: &Tensor, role: Role) -> Result<(Tensor, Tensor)> {
        let positive = role == Role::Positive;
        let down = z.neg()?;
        Ok(match self.loss {
            Loss::Unbounded if positive => (down, z.ones_like()?.neg()?),
            Loss::Unbounded => (z.clone(), z.ones_like()?),
            _ if positive => (kernels::softplus(&down)?, kernels::sigmoid(&down)?.neg()?),
            Loss::LogSigmoid => (kernels::softplus(&down)?.neg()?, kernels::sigmoid(&down)?),
            _ => (kernels::softplus(z)?, kernels::sigmoid(z)?),
        })
    }

    fn symmetric(&self, views: &[Tensor], roles: &[Role]) -> Result<(Reading, Tensor)> {
        let ([positive, negative], [Role::Positive, Role::Negative]) = (views, roles) else {
            return Err(self.unfit("expected one positive and one negative view of each example"));
        };
        let down = ((positive - negative)? / self.temperature)?.neg()?;
        let loss = Reading::of(&kernels::softplus(&down)?.mean_all()?)?;
        let loss = loss.times(0.5 * self.temperature);
        let slope = (kernels::sigmoid(&down)? * (-0.5 * mean_factor(positive)))?;
        Ok((loss, Tensor::cat(&[slope.clone(), slope.neg()?], 0)?))
    }

    fn cross_entropy(&self, views: &[Tensor], targets: &Targets) -> Result<(Reading, Tensor)> {
        let labels = targets
            .labels()
            .map_err(|_| self.unfit("needs the labels of the examples"))?;
        let mut loss = Reading::default();
        let mut gradients = Vec::with_capacity(views.len());
        for view in views {
            // (B, C) or (B, P, C): a row per label.
            let rows = view.flatten_to(view.rank() - 2)?;
            let log = kernels::log_softmax(&(rows / self.temperature)?)?;
            let (value, gradient) = cross_entropy(&log, labels)?;
            loss.add(&value, self.temperature)?;
            gradients.push(gradient.reshape(view.shape())?);
        }
        Ok((loss, Tensor::cat(&gradients, 0)?))
    }

    /// The cross-entropy of the goodness of some classes, `(B, K)`, of one view, and its
    /// gradient with respect to it: a sampled softmax.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the loss is not the cross-entropy; [`Error::Usage`] if there are no
    /// labels, or one is not among the classes.
    pub fn grade_sampled(
        &self,
        goodness: &Tensor,
        sampled: &SampledClasses,
        targets: &Targets,
    ) -> Result<(Reading, Tensor)> {
        if self.loss != Loss::CrossEntropy {
            return Err(self.unfit("expected cross_entropy, where some classes are compared alone"));
        }
        let log = sampled.log_softmax(&(goodness / self.temperature)?)?;
        let places = sampled.places(targets.labels()?)?;
        let (value, gradient) = cross_entropy(&log, &places)?;
        Ok((value.times(self.temperature), gradient))
    }

    fn unfit(&self, problem: impl Into<String>) -> Error {
        Error::unfit(format!("loss {}", self.loss.word()), problem)
    }
}

/// 1 / B.
fn mean_factor(view: &Tensor) -> f64 {
    1. / view.dims()[0].max(1) as f64
}

/// The mean cross-entropy of log-probabilities `(B, C)`, and its gradient with respect
/// to the logits.
pub(crate) fn cross_entropy(log: &Tensor, labels: &[u32]) -> Result<(Reading, Tensor)> {
    let (rows, classes) = log.dims2()?;
    if labels.len() != rows || labels.iter().any(|&label| label as usize >= classes) {
        let problem = format!(
            "expected {rows} labels below {classes}, found {} labels up to {:?}",
            labels.len(),
            labels.iter().max()
        );
        return Err(Error::unfit("cross-entropy", problem));
    }
    #[cfg(feature = "cuda")]
    if kernels::cuda::is_fast(log) {
        let labels = kernels::index(labels, log.device())?;
        let (loss, gradient) = kernels::cuda::cross_entropy(log, &labels)?;
        return Ok((Reading::of(&loss)?, gradient));
    }
    let mean = 1. / labels.len().max(1) as f64;
    let loss = Reading::of(&kernels::entries(log, labels)?.mean_all()?)?.times(-1.);
    let gradient = kernels::off_label(log, labels, mean)?;
    Ok((loss, gradient))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const CONTRASTS: [Loss; 4] = [
        Loss::Logistic,
        Loss::LogSigmoid,
        Loss::Unbounded,
        Loss::Symmetric,
    ];

    fn targets(labels: &[u32]) -> Targets {
        of_roles([Role::Positive, Role::Negative], labels)
    }

    fn of_roles(roles: [Role; 2], labels: &[u32]) -> Targets {
        let targets = Targets::new(roles.to_vec()).unwrap();
        targets.with_labels(Some(labels.to_vec()))
    }

    fn objective(loss: Loss, temperature: f64) -> Objective {
        Objective {
            loss,
            temperature,
            ..Objective::default()
        }
    }

    /// Every gradient against central differences.
    fn assert_gradient(loss: Loss, shape: &[usize], targets: &Targets) -> Result<()> {
        let count: usize = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|i| (i * 5 % 7) as f64 / 2.).collect();
        let grade = |values: Vec<f64>| -> Result<(f64, Tensor)> {
            let goodness = Tensor::from_vec(values, shape, &Device::Cpu)?;
            let (loss, gradient) = objective(loss, 0.7).grade(&goodness, 1.5, targets)?;
            Ok((loss.value()?, gradient))
        };
        let gradient = grade(values.clone())?.1.flatten_all()?.to_vec1::<f64>()?;
        for (i, found) in gradient.into_iter().enumerate() {
            let (mut up, mut down) = (values.clone(), values.clone());
            up[i] += 1e-5;
            down[i] -= 1e-5;
            let slope = (grade(up)?.0 - grade(down)?.0) / 2e-5;
            assert!(
                (slope - found).abs() < 1e-8,
                "{loss:?} {i}: {slope} {found}"
            );
        }
        Ok(())
    }

    #[test]
    fn gradients_are_those_of_the_loss() -> Result<()> {
        for loss in CONTRASTS {
            assert_gradient(loss, &[4], &targets(&[2, 0]))?;
        }
        let two = |labels: &[u32]| of_roles([Role::Positive; 2], labels);
        assert_gradient(Loss::CrossEntropy, &[4, 3], &two(&[2, 0]))?;
        // Two positions in each of two examples.
        assert_gradient(Loss::CrossEntropy, &[4, 2, 3], &two(&[2, 0, 1, 1]))
    }

    #[test]
    fn an_offset_is_added_to_the_goodness() -> Result<()> {
        let goodness = Tensor::new(&[1f64, 2., 0.5, 3.], &Device::Cpu)?;
        let offset = Tensor::new(&[0.5f64, -1., 2., 0.], &Device::Cpu)?;
        for loss in [Loss::Logistic, Loss::Symmetric] {
            let objective = objective(loss, 1.);
            let with = targets(&[0, 0]).with_offset(&offset);
            let found = objective.grade(&goodness, 1., &with)?;
            let expected = objective.grade(&(&goodness + &offset)?, 1., &targets(&[0, 0]))?;
            assert_eq!(found.0.value()?, expected.0.value()?);
            assert_eq!(found.1.to_vec1::<f64>()?, expected.1.to_vec1::<f64>()?);
            let without = objective.grade(&goodness, 1., &targets(&[0, 0]))?;
            assert_ne!(found.0.value()?, without.0.value()?);
        }
        Ok(())
    }

    #[test]
    fn extreme_goodness_gives_finite_losses() -> Result<()> {
        let goodness = Tensor::new(&[-1e30f32, 1e30, 1e30, -1e30], &Device::Cpu)?;
        for loss in [Loss::Logistic, Loss::LogSigmoid, Loss::Symmetric] {
            let (value, gradient) =
                objective(loss, 1.).grade(&goodness, 1000., &targets(&[0, 0]))?;
            assert!(value.value()?.is_finite(), "{loss:?}");
            let gradient = gradient.to_vec1::<f32>()?;
            assert!(
                gradient.iter().all(|g| g.abs() <= 0.5),
                "{loss:?} {gradient:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_loss_says_what_it_needs() -> Result<()> {
        let goodness = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
        let one_view = Targets::new(vec![Role::Positive])?;
        for (loss, expected) in [
            (Loss::CrossEntropy, "column per class"),
            (Loss::Symmetric, "positive ones alone"),
            (Loss::Logistic, "positive ones alone"),
        ] {
            let error = objective(loss, 1.)
                .grade(&goodness, 0., &one_view)
                .unwrap_err();
            assert!(
                error.is_unfit() && error.to_string().contains(expected),
                "{error}"
            );
        }
        let three = Targets::new(vec![Role::Positive, Role::Negative, Role::Negative])?;
        let goodness = Tensor::new(&[1f32, 2., 3.], &Device::Cpu)?;
        let error = objective(Loss::Symmetric, 1.).grade(&goodness, 0., &three);
        assert!(error.unwrap_err().to_string().contains("one negative view"));
        let columns = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
        let error = objective(Loss::CrossEntropy, 1.)
            .grade(&columns, 0., &one_view)
            .unwrap_err();
        assert!(error.to_string().contains("needs the labels"), "{error}");
        let columns = Tensor::new(&[[1f32, 2.], [0., 1.]], &Device::Cpu)?;
        let error = objective(Loss::CrossEntropy, 1.)
            .grade(&columns, 0., &targets(&[1]))
            .unwrap_err();
        let advice = "--set sampler=plain";
        assert!(
            error.is_unfit() && error.to_string().contains(advice),
            "{error}"
        );
        Ok(())
    }

    #[test]
    fn no_gradient_of_the_cross_entropy_is_subnormal() -> Result<()> {
        let log = Tensor::new(&[[0f32, -50., -70., -90., -100.]], &Device::Cpu)?;
        let gradient = cross_entropy(&log, &[0])?
            .1
            .flatten_all()?
            .to_vec1::<f32>()?;
        assert!(
            gradient[1] > 1e-22 && gradient[2..] == [0.; 3],
            "{gradient:?}"
        );
        Ok(())
    }
}
