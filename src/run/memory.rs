//! Whether a training fits into memory.

use candle_core::Tensor;

use super::Run;
use crate::error::{Error, Result};
use crate::kernels;

/// The bytes that the buffers of files take, whatever the network.
const BUFFERS: u64 = 16 << 20;

/// The bytes that each thread takes for products, and for small pieces that its part of the
/// allocator keeps. Measured: 10 million with 2 to 8 threads.
const OF_THREAD: u64 = 12 << 20;

/// The most freed memory that a thread keeps without using it, since the next step takes
/// other sizes.
const LARGEST_KEPT: u64 = 32 << 20;

/// The threads that keep as much: a task moves among few of them.
const KEEPING: usize = 4;

/// The bytes that a training takes beside those that it has already.
struct Needs {
    optimisers: u64,
    activities: u64,
    buffers: u64,
}

impl Run {
    /// Refuses a training that does not fit into memory: the system would kill the
    /// process without a message.
    pub(super) fn check_memory(&self) -> Result<()> {
        let Needs {
            optimisers,
            activities,
            buffers,
        } = self.needs();
        let all = optimisers + activities + buffers;
        let free = kernels::free_memory(&self.device);
        let Some(free) = free.filter(|free| all > *free) else {
            return Ok(());
        };
        let [all, optimisers, activities, buffers, free] =
            [all, optimisers, activities, buffers, free].map(|bytes| bytes >> 20);
        let problem = format!(
            "training needs {all} MB more memory ({optimisers} for the optimisers, \
             {activities} for activities, {buffers} for buffers), and {free} MB are \
             free; use fewer units, a smaller `batch`, fewer threads, or `optimiser = \"sgd\"`"
        );
        Err(Error::usage("the network", problem))
    }

    fn needs(&self) -> Needs {
        let net = self.architecture.net();
        let of_blocks = net.blocks.iter().map(|block| block.optimiser());
        let of_heads = net.heads.iter().map(|head| head.optimiser());
        let optimisers = of_blocks.chain(of_heads);

        let size = self.dtype.size_in_bytes();
        // A layer's activity, what the next one makes of it, and a copy.
        let bytes = |numbers: usize| 3 * numbers.saturating_mul(size) as u64;
        let batch = self.config.run.batch.min(self.data.train.len()) * 2;
        let input: usize = self.data.spec.shape.iter().product();
        let of_input = batch.saturating_mul(input);
        let widest = self.widest();
        let of_training = batch.saturating_mul(widest.max(self.learning_at_once()));
        let of_training = bytes(of_training.max(of_input));
        // The next batch, and what it is made from.
        let of_next = of_input.saturating_mul(size) as u64;
        // A search does not repeat the input for every class.
        let rows = self.evaluation_batch();
        let of_search = rows
            .saturating_mul(self.candidates())
            .saturating_mul(widest);
        let of_evaluation = bytes(of_search.max(rows.saturating_mul(input)));
        let variables = self.vars.all().into_iter();
        let largest = variables.map(|(_, var)| var.elem_count()).max();
        let of_saving = 2 * (largest.unwrap_or(0) * size) as u64;

        let threads = match self.device.is_cpu() {
            true => rayon::current_num_threads(),
            false => 0,
        };
        let kept = threads.min(KEEPING) as u64 * (of_training + of_next).min(LARGEST_KEPT);
        Needs {
            optimisers: optimisers.map(|optimiser| optimiser.needs()).sum(),
            activities: of_training.max(of_evaluation).max(of_saving) + of_next,
            buffers: BUFFERS + threads as u64 * OF_THREAD + kept,
        }
    }

    /// The most numbers that the layers that learn at the same time have together for an
    /// example.
    fn learning_at_once(&self) -> usize {
        let shown = self.shown().unwrap_or_default();
        let mut widths: Vec<usize> = shown.iter().map(Tensor::elem_count).collect();
        widths.sort_unstable_by(|a, b| b.cmp(a));
        let count = kernels::blocks_at_once(&self.device);
        widths.into_iter().take(count).sum()
    }
}
