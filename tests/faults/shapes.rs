//! No shape of a tensor makes a function panic.

use std::panic::{catch_unwind, AssertUnwindSafe};

use onward::candle_core::{DType, Device, Tensor};
use onward::candle_nn::Init;
use onward::kernels::{self, ChannelStats, Deviations, Directions};
use onward::modules::cells::Cells;
use onward::modules::class_rows::ClassRows;
use onward::modules::conv::Conv;
use onward::modules::least_squares::LeastSquares;
use onward::modules::pooled_linear::PooledLinear;
use onward::modules::running_moments::RunningMoments;
use onward::{Result, Step, Vars};

type Call = (&'static str, fn(&Tensor, &Tensor) -> Result<()>);

/// Every function with what it takes for two tensors.
const CALLS: &[Call] = &[
    ("backward", |a, b| kernels::backward(a, b).map(drop)),
    ("cell_means", |a, _| {
        kernels::cell_means(a, [2, 2]).map(drop)
    }),
    ("cell_means of nothing", |a, _| {
        kernels::cell_means(a, [0, 1]).map(drop)
    }),
    ("cell_means_gradient", |a, _| {
        kernels::cell_means_gradient(a, [2, 2]).map(drop)
    }),
    ("centred", |a, _| kernels::centred(a).map(drop)),
    ("channel stats", |a, _| ChannelStats::of(a, false).map(drop)),
    ("channel stats by row", |a, _| {
        ChannelStats::of(a, true).map(drop)
    }),
    ("gradient of channel stats", |a, b| {
        ChannelStats::of(a, false)?.gradient(a, b, false).map(drop)
    }),
    ("channel stats of another", |a, b| {
        ChannelStats::of(a, false)?.gradient(b, b, false).map(drop)
    }),
    ("standardised_relu", |a, b| {
        let stats = ChannelStats::of(a, false)?;
        kernels::standardised_relu(b, Some(&stats), b, 0.).map(drop)
    }),
    ("standardised_relu with a bias", |a, b| {
        kernels::standardised_relu(a, None, b, 0.).map(drop)
    }),
    ("channel_sums", |a, _| kernels::channel_sums(a).map(drop)),
    ("add_scaled_rows", |a, b| {
        kernels::add_scaled_rows(a, a, b).map(drop)
    }),
    ("add_scaled_rows of another", |a, b| {
        kernels::add_scaled_rows(a, b, b).map(drop)
    }),
    ("channel_dots", |a, b| kernels::channel_dots(a, b).map(drop)),
    ("largest", |a, _| kernels::largest(a).map(drop)),
    ("signed_softmax", |a, _| {
        kernels::signed_softmax(a, 1.).map(drop)
    }),
    ("deviations", |a, b| {
        Deviations::of(a)?.gradient(a, b).map(drop)
    }),
    ("deviations of another", |a, b| {
        Deviations::of(a)?.gradient(b, b).map(drop)
    }),
    ("directions", |a, b| {
        Directions::of(a)?.gradient(b).map(drop)
    }),
    ("one_hot", |a, _| kernels::one_hot(&[0, 3], 3, a).map(drop)),
    ("leaky_relu", |a, _| kernels::leaky_relu(a, 0.1).map(drop)),
    ("matmul", |a, b| kernels::matmul(a, b).map(drop)),
    ("matmul_transposed", |a, b| {
        kernels::matmul_transposed(a, b).map(drop)
    }),
    ("pixel_energies", |a, _| {
        kernels::pixel_energies(a).map(drop)
    }),
    ("pixel_energies_gradient", |a, b| {
        kernels::pixel_energies_gradient(a, b).map(drop)
    }),
    ("sigmoid", |a, _| kernels::sigmoid(a).map(drop)),
    ("softplus", |a, _| kernels::softplus(a).map(drop)),
    ("log_softmax", |a, _| kernels::log_softmax(a).map(drop)),
    ("sum_squares", |a, _| kernels::sum_squares(a).map(drop)),
    ("scale_rows", |a, b| kernels::scale_rows(a, b).map(drop)),
    ("scale_rows_by", |a, b| {
        kernels::scale_rows_by(a, b, 2.).map(drop)
    }),
    ("sum_views", |a, b| {
        kernels::sum_views(a, Some(b), 2).map(drop)
    }),
    ("sum_views of none", |a, b| {
        kernels::sum_views(a, Some(b), 0).map(drop)
    }),
    ("column_means", |a, _| kernels::column_means(a, 0).map(drop)),
    ("column_sums", |a, _| kernels::column_sums(a).map(drop)),
    ("damp", |a, b| kernels::damp(a, b, 0.3).map(drop)),
    ("weighted", |a, b| {
        kernels::weighted(a, 0.3, b, 0.7).map(drop)
    }),
    ("cells", |a, b| {
        let cells = Cells::new(&[3, 4, 4], Some(2));
        cells.means(a)?;
        cells.gradient(a, b).map(drop)
    }),
    ("uneven cells", |a, b| {
        let cells = Cells::new(&[3, 4, 4], Some(3));
        cells.means(a)?;
        cells.gradient(a, b).map(drop)
    }),
    ("cells of rows", |a, b| {
        Cells::new(&[12], None).gradient(a, b).map(drop)
    }),
    ("least squares", |a, b| {
        let vars = Vars::new(1, a.dtype(), &Device::Cpu);
        let mut squares = LeastSquares::new(&vars, [3, 2], 0.1, Init::Const(0.))?;
        let _ = squares.forward(a);
        let _ = squares.add(a, b);
        let _ = squares.add_labels(a, &[0, 5]);
        let _ = squares.add_labels(a, &[0, 1]);
        squares.solve()
    }),
    ("class rows", |a, b| {
        let vars = Vars::new(1, a.dtype(), &Device::Cpu);
        let rows = ClassRows::new(&vars, 3, 2)?;
        let _ = rows.forward(a, None);
        rows.gradient(b, None).map(drop)
    }),
    ("pooled linear", |a, b| {
        let vars = Vars::new(1, a.dtype(), &Device::Cpu);
        let cells = Cells::new(&[3, 4, 4], Some(2));
        let linear = PooledLinear::new(&vars, cells, 2, Init::Const(0.), true)?;
        let _ = linear.forward(a);
        linear.gradient(a, b).map(drop)
    }),
    ("running moments", |a, b| {
        let vars = Vars::new(1, a.dtype(), &Device::Cpu);
        let moments = RunningMoments::new(&vars, 3, 0.9)?;
        let now = moments.of(a, &Step::first(1))?;
        let _ = moments.fixed().gradient(b, b, true);
        moments.average(&now)
    }),
    ("conv", |a, b| {
        let vars = Vars::new(1, a.dtype(), &Device::Cpu);
        let conv = Conv::new(&vars, 3, 2, 3, 2, Init::Const(0.1))?;
        let made = conv.forward(a)?;
        let _ = conv.gradient(a, &made, b);
        let _ = conv.gradient(b, &made, b);
        let _ = conv.gradient(b, &made, &made.output);
        let _ = conv.input_gradient(b, &made, &made.output);
        let _ = conv.input_gradient(b, &conv.forward(b)?, &made.output);
        let _ = conv.gradient(b, &conv.forward(b)?, &made.output);
        conv.input_gradient(a, &made, b).map(drop)
    }),
];

#[test]
fn no_shape_of_a_tensor_makes_a_function_panic() -> Result<()> {
    let shapes: [&[usize]; 16] = [
        &[],
        &[0],
        &[1],
        &[3],
        &[0, 3],
        &[3, 0],
        &[2, 3],
        &[4, 3],
        &[3, 4],
        &[2, 3, 4],
        &[2, 3, 4, 4],
        &[2, 3, 5, 7],
        &[2, 1, 1, 1],
        &[0, 3, 4, 4],
        &[2, 0, 4, 4],
        &[2, 3, 0, 4],
    ];
    let mut tensors = Vec::new();
    for dtype in [DType::F32, DType::F64] {
        for shape in shapes {
            tensors.push(Tensor::ones(shape, dtype, &Device::Cpu)?);
        }
    }
    let mut panicked = Vec::new();
    for (name, call) in CALLS {
        for (a, b) in tensors
            .iter()
            .flat_map(|a| tensors.iter().map(move |b| (a, b)))
        {
            if catch_unwind(AssertUnwindSafe(|| call(a, b))).is_err() {
                panicked.push(format!("{name}: {:?} {:?}", a, b));
            }
        }
    }
    assert!(
        panicked.is_empty(),
        "{} panics: {panicked:#?}",
        panicked.len()
    );
    Ok(())
}
