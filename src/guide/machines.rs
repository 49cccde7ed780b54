//! Several machines: layers on ranks, and batches divided among replicas.
//!
//! Nothing comes back to a layer from the layers above it. So the layers of a stack can
//! be on several *ranks*, threads or processes or machines: while stage 2 learns from a
//! batch, stage 1 is at the next one. No stage ever waits for a gradient, and the
//! result has **the bits of one rank**: each layer sees the same batches, from the same
//! weights, in the same order.
//!
//! ```sh
//! onward train progressive --preset predsim --data mnist --stages 2       # two groups of threads
//! mpirun -n 2 onward-mpi train progressive --preset predsim --data mnist  # two processes
//! ```
//!
//! Under `mpirun` the processes are the stages: `-n 4` gives four stages, or with
//! `--replicas 2` two replicas of two stages. [`RunBuilder::team`](crate::RunBuilder::team) and
//! [`run::ranks`](crate::run::ranks) do the same from Rust.
//!
//! # What can be divided
//!
//! Architectures of stacked layers, with any layer, goodness and loss: `progressive`,
//! `nlp`, and their presets. Those whose layers need each other within a step are
//! refused: `recurrent` (each layer sees the one above), `layer_collaboration`,
//! `trifecta`, `sigprop`, and `backprop`. A sampler that draws from the network's own
//! prediction is refused with several stages, since the last stage would have to send
//! the prediction back; `--set sampler.negatives=uniform` draws without it, and local
//! classifiers
//! (`--set sampler=plain --set goodness=projection --set loss=cross_entropy`) need no
//! negatives. An architecture of your own can be divided if its `learn` is that of a
//! [`Stack`](crate::wiring::stack::Stack) and it returns the stack in
//! [`Architecture::staged`](crate::Architecture::staged).
//!
//! # Replicas
//!
//! `--replicas P` divides every batch into `P` parts. Each replica learns from its
//! part, and all of them make the same update from the mean gradient, weighted by
//! examples. While the mean of one layer is on its way, the next layer learns. Running
//! means are averaged after every step; batch normalisation normalises each part by
//! itself. Where the loss is a mean over examples, the gradient is that of the whole
//! batch up to rounding; what compares the examples of a batch (`predsim`, `pairs`, peer
//! and batch normalisation) sees its part alone. Each replica draws random numbers of
//! its own, so the bits differ from those of one replica. They are the same in every
//! run, and for any number of stages. `replicas` is a setting of the run. Rules without a
//! gradient and heads in closed form are refused.
//!
//! # Starting it
//!
//! `onward-mpi` is a package of its own, since it needs MPI to build:
//!
//! ```sh
//! sudo apt install libopenmpi-dev openmpi-bin libclang-dev        # or MPICH: libmpich-dev, mpich
//! cargo install --locked --path mpi
//! mpirun -n 2 --bind-to core onward-mpi train … --threads 1       # two cores of one machine
//! mpirun -n 4 --hostfile hosts onward-mpi train …                 # four machines
//! srun --mpi=pmix --kill-on-bad-exit=1 -n 4 onward-mpi train …    # Slurm
//! ```
//!
//! All machines need the program, of one version, and the data; a rank with other data,
//! settings or another version is named before the training begins. Rank 0 writes the
//! run: one folder, as from one rank. It gathers the state of the others after every
//! epoch and at `checkpoint_every`, evaluates, and saves. To resume, all ranks read
//! this folder, so it has to be on a shared disk, or copied. The number of stages may
//! be another one.
//!
//! If a process is killed or fails, MPI ends all others within seconds and says which
//! one it was. Continue with `onward resume` or `mpirun … onward-mpi resume`: the run
//! then ends with the bytes of an undisturbed one. After Ctrl-C the run is saved first;
//! Open MPI gives it one second for that, more with `--mca odls_base_sigkill_timeout
//! 60`. With `srun`, `--kill-on-bad-exit=1` is needed: without it, the others wait for
//! ever.
//!
//! # When it pays
//!
//! `onward plan` measures the time of each layer on this machine, and says what to
//! expect:
//!
//! ```sh
//! onward plan progressive --set 'hidden=[2000,2000,2000,2000]' --set batch=500 \
//!     --set sampler.negatives=uniform --data mnist --ranks 2 --threads 1 --link 10Gbit
//! ```
//!
//! A stage takes the time of its layers, `T`. Meanwhile it sends what it passes on: for
//! `V` views of `B` examples and `N` units, `4·B·(V + 1)·N` bytes, the neutral view for
//! the head included, and `4·B·N` more for each lower layer that the head reads. A step
//! takes as long as the slowest stage or message. With `P` replicas, `T` and the
//! message are divided by `P`, and then each rank sends `2·(P − 1)/P` of the bytes of
//! its parameters.
//!
//! - Layers are not divided: a net gains at most the sum of the times of its layers over
//!   the time of the slowest stage. The first layer often costs less than the others.
//! - A message grows with `B·N`, the work with `B·N²`: wide layers pay over slow
//!   networks.
//! - Replicas exchange as many bytes as there are parameters, whatever the batch. They
//!   pay with large batches and fast networks; stages pay before that.
//! - On one machine, one rank that uses all cores is usually as fast: layers learn side
//!   by side there as well.
//! - In greedy order only one layer learns at a time, so stages are mostly idle. The
//!   plan measures each part of the training, and its figures are means over the epochs.
//!
//! Evaluation is done by rank 0 alone while the others wait; `--set evaluate_every=5`
//! makes it rare. Threads share one copy of the data. Of several processes, those of the
//! first stage have their own. The others read the data once, for their checksum, and hold
//! none in memory, unless the files of images are packed; pictures of a folder and the
//! tokens of a text go to a temporary file. Every rank holds the weights of all layers, and
//! the optimisers of its own.
