//! CaFo: a predictor for each layer, solved in closed form at the end of an epoch.

use onward::candle_core::{DType, Device, Tensor, Var};
use onward::candle_nn::Init;
use onward::optim::Optimiser;
use onward::settings::Positive;
use onward::{BuildContext, Error, GoodnessFn, Grade, Objective, Result, Step, Targets};

use super::{batch, error_on_digits, numbers, step, Subject};

onward::settings! {
    /// Goodness of each class by ridge regression, solved at the end of every epoch.
    ///
    /// The layer does not learn.
    ///
    /// `g = h·M` with `h = (a | 1)`, `(B, …)` to `(B, C)`; `M = (HᵀH + λ·I)⁻¹·HᵀY` with
    /// the activities `H` of the epoch and the one-hot labels `Y`, and `λ =
    /// ridge·trace(HᵀH) / (N + 1)`.
    ///
    /// # Reference
    /// Zhao et al., "The Cascaded Forward Algorithm for Neural Network Training", 2023
    /// (<https://arxiv.org/abs/2303.09728>), without a ridge.
    pub struct Ridge {
        /// The ridge, relative to the mean of the diagonal of `HᵀH`.
        ridge: f64 = 0.01, in Positive;
    }
}

struct Goodness {
    ridge: f64,
    classes: usize,
    map: Var,
    /// `HᵀH` of the epoch so far, `(N + 1, N + 1)`.
    squares: Var,
    /// `HᵀY` of the epoch so far, `(N + 1, C)`.
    products: Var,
}

impl Goodness {
    fn new(settings: &Ridge, context: &BuildContext) -> Result<Self> {
        let (rows, classes) = (context.inputs() + 1, context.classes);
        Ok(Self {
            ridge: settings.ridge,
            classes,
            map: context
                .vars
                .buffer("map", (rows, classes), Init::Const(0.))?,
            squares: context.vars.state("squares", (rows, rows), DType::F64)?,
            products: context
                .vars
                .state("products", (rows, classes), DType::F64)?,
        })
    }
}

fn with_ones(activity: &Tensor) -> Result<Tensor> {
    let activity = activity.flatten_from(1)?;
    let ones = activity.narrow(1, 0, 1)?.ones_like()?;
    Ok(Tensor::cat(&[activity, ones], 1)?)
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(with_ones(activity)?.matmul(&self.map)?)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn uses_labels(&self, _: &Objective) -> bool {
        true
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, objective: &Objective) -> Result<Grade> {
        if targets.roles().len() != 1 {
            let problem = "expected one positive view, without negatives";
            return Err(Error::unfit("ridge", problem));
        }
        let goodness = self.goodness(activity)?;
        let (loss, _) = objective.grade(&goodness, 0., targets)?;
        let goodness = Some(goodness);
        Ok(Grade {
            loss,
            gradient: None,
            goodness,
            upstream: None,
            own: None,
        })
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        _: &Grade,
        targets: &Targets,
        _: &mut Optimiser,
        _: &Step,
    ) -> Result<()> {
        let rows = with_ones(activity)?.to_dtype(DType::F64)?;
        let labels = Tensor::new(targets.labels()?, rows.device())?;
        let one_hot = onward::candle_nn::encoding::one_hot(labels, self.classes, 1f64, 0.)?;
        let sum = |sum: &Var, right: &Tensor| -> Result<()> {
            Ok(sum.set(&(sum.as_tensor() + rows.t()?.matmul(right)?)?.detach())?)
        };
        sum(&self.squares, &rows)?;
        sum(&self.products, &one_hot)
    }

    fn epoch_ended(&mut self, _: &Step) -> Result<()> {
        let mut squares = self.squares.to_vec2::<f64>()?;
        let mean = (0..squares.len()).map(|i| squares[i][i]).sum::<f64>() / squares.len() as f64;
        for (index, row) in squares.iter_mut().enumerate() {
            row[index] += self.ridge * mean;
        }
        let map = Tensor::new(solved(squares, self.products.to_vec2()?)?, &Device::Cpu)?;
        self.map.set(
            &map.to_dtype(self.map.dtype())?
                .to_device(self.map.device())?,
        )?;
        for sum in [&self.squares, &self.products] {
            sum.set(&sum.zeros_like()?.detach())?;
        }
        Ok(())
    }
}

/// The solution of `A·X = B` for a positive definite `A`, by elimination.
fn solved(mut a: Vec<Vec<f64>>, mut b: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
    let size = a.len();
    for pivot in 0..size {
        if a[pivot][pivot] <= 0. {
            return Err(Error::unfit(
                "ridge",
                "expected activities of at least one example",
            ));
        }
        for row in (0..size).filter(|row| *row != pivot) {
            let factor = a[row][pivot] / a[pivot][pivot];
            for matrix in [&mut a, &mut b] {
                let of_pivot = matrix[pivot].clone();
                let pairs = matrix[row].iter_mut().zip(of_pivot);
                pairs.for_each(|(value, of_pivot)| *value -= factor * of_pivot);
            }
        }
    }
    for (index, row) in b.iter_mut().enumerate() {
        row.iter_mut().for_each(|value| *value /= a[index][index]);
    }
    Ok(b)
}

onward::register! {
    dyn GoodnessFn, "ridge", "a predictor solved at the end of an epoch (CaFo 2023, arXiv 2303.09728)",
    |settings: Ridge, context| Ok(Box::new(Goodness::new(&settings, context)?))
}

// batches = [(numbers(1, 4, 3), [0, 1, 1, 2]), (numbers(5, 4, 3), [0, 1, 1, 2])]
// W, b = numbers(2, 3, 5), np.zeros(5)                     # random, and they stay so
// H = [np.hstack([layer(x, W, b), np.ones((4, 1))]) for x, _ in batches]
// Y = [np.eye(3)[labels] for _, labels in batches]
// XX, XY = sum(h.T @ h for h in H), sum(h.T @ y for h, y in zip(H, Y))
// M = np.linalg.solve(XX + .01 * np.trace(XX) / 6 * np.eye(6), XY)
// print(M)
const MAP: [f64; 18] = [
    -1.000754269,
    0.597132684,
    0.445256620,
    0.448369556,
    -1.078985786,
    0.700973124,
    0.477524150,
    0.755938967,
    -1.107622646,
    1.258608194,
    -1.913552412,
    0.747201709,
    -0.456147510,
    0.755305477,
    -0.222155978,
    0.119626351,
    0.701511603,
    0.134460989,
];

const SETTINGS: &str = r#"
    goodness = "ridge"
    loss = "cross_entropy"
    hidden = [5]
    normalise = "none"
    head = false
"#;

#[test]
fn the_map_at_the_end_of_an_epoch_matches_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "plain", SETTINGS)?;
    let weight = numbers(2., (3, 5))?;
    subject.set("blocks.0.layer.weight", &weight);
    subject.learn(2, |index| batch([1., 5.][index as usize]))?;
    subject.assert_close("blocks.0.goodness.map", &[0.; 18]);
    subject.net.epoch_ended(&step(1))?;
    subject.assert_close("blocks.0.goodness.map", &MAP);
    let weight = weight.flatten_all()?.to_vec1::<f64>()?;
    subject.assert_close("blocks.0.layer.weight", &weight);
    Ok(())
}

#[test]
fn a_readout_of_random_layers_works() -> Result<()> {
    let settings = [
        ("sampler", r#""plain""#),
        ("goodness", r#""ridge""#),
        ("loss", r#""cross_entropy""#),
        ("hidden", "[300]"),
        ("head", "false"),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.3, "{error}");
    Ok(())
}
