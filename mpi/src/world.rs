//! The processes of an MPI program as ranks.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use mpi::point_to_point::{Destination, MatchedReceiveVec, Source};
use mpi::topology::{Communicator, SimpleCommunicator};
use onward::comm::Comm;
use onward::{Error, Result};

/// The most messages that wait to be sent to one rank.
const WAITING: usize = 4;

/// The longest piece of a message, since MPI counts bytes in 32 bits. A shorter piece
/// is the last one.
const PIECE: usize = 1 << 30;

/// The time between two looks for a message. Waiting inside MPI would keep a core busy.
const PAUSE: Duration = Duration::from_micros(50);

/// The looks before the first pause.
const LOOKS: usize = 200;

/// The processes that `mpirun` has started.
pub(crate) struct World {
    rank: usize,
    /// The thread that sends to each rank, started by the first message.
    senders: Vec<OnceLock<SyncSender<Vec<u8>>>>,
    /// The number of messages that are not sent yet.
    unsent: Arc<AtomicUsize>,
}

impl World {
    /// The processes of a communicator that has all of them.
    pub fn of(communicator: &SimpleCommunicator) -> Self {
        let ranks = communicator.size().max(1) as usize;
        Self {
            rank: communicator.rank().max(0) as usize,
            senders: (0..ranks).map(|_| OnceLock::new()).collect(),
            unsent: Arc::default(),
        }
    }

    /// Waits until everything is sent.
    pub fn finish(&self) {
        while self.unsent.load(Ordering::Acquire) > 0 {
            thread::sleep(PAUSE);
        }
    }

    /// Starts the thread that sends to a rank.
    fn sender(&self, to: usize) -> SyncSender<Vec<u8>> {
        let (sender, messages) = sync_channel(WAITING);
        let unsent = self.unsent.clone();
        thread::spawn(move || {
            let sent = catch_unwind(AssertUnwindSafe(|| send_all(to, &messages, &unsent)));
            if sent.is_err() {
                // The others would wait for the messages that are not sent.
                SimpleCommunicator::world().abort(1);
            }
        });
        sender
    }
}

/// Sends messages to a rank as they come.
fn send_all(to: usize, messages: &Receiver<Vec<u8>>, unsent: &AtomicUsize) {
    let world = SimpleCommunicator::world();
    let process = world.process_at_rank(to as i32);
    for message in messages {
        let end = message.len() / PIECE * PIECE;
        let whole = message[..end].chunks_exact(PIECE);
        for piece in whole.chain([&message[end..]]) {
            mpi::request::scope(|scope| {
                let mut unfinished = Some(process.immediate_send(scope, piece));
                patiently(|| {
                    unfinished = unfinished.take()?.test().err();
                    unfinished.is_none().then_some(())
                });
            });
        }
        unsent.fetch_sub(1, Ordering::Release);
    }
}

impl Comm for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.senders.len()
    }

    fn send(&self, to: usize, message: Vec<u8>) -> Result<()> {
        let sender = self.senders[to].get_or_init(|| self.sender(to));
        self.unsent.fetch_add(1, Ordering::Release);
        // Its thread ends with the process only.
        let sent = sender.send(message);
        sent.map_err(|_| Error::Rank { rank: to })
    }

    /// Where a process has ended, `mpirun` ends all others.
    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(from as i32);
        let mut message = Vec::new();
        loop {
            let found = patiently(|| process.immediate_matched_probe());
            let (piece, _) = found.matched_receive_vec();
            let length = piece.len();
            match message.is_empty() {
                true => message = piece,
                false => message.extend(piece),
            }
            if length < PIECE {
                return Ok(message);
            }
        }
    }
}

/// Looks until there is something.
fn patiently<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let mut looks = 0;
    loop {
        if let Some(found) = look() {
            return found;
        }
        looks += 1;
        match looks < LOOKS {
            true => std::hint::spin_loop(),
            false => thread::sleep(PAUSE),
        }
    }
}
