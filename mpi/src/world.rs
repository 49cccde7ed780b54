//! The processes of an MPI program as ranks.

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use mpi::datatype::Equivalence;
use mpi::point_to_point::{Destination, Source, Status};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::Tag;
use onward::comm::{Comm, Exchanged, Message};
use onward::{Error, Result};

/// The most messages that wait to be sent to one rank.
const WAITING: usize = 4;

/// The messages from a stage that wait for this rank; one more may be in the hands of the
/// thread that receives. MPI sends a long message only once its receiver asks, and a rank
/// that learns does not ask.
const AHEAD: usize = 1;

/// The longest piece of a message, since MPI counts bytes in 32 bits. A shorter piece
/// is the last one.
const PIECE: usize = 1 << 30;

/// The longest piece of what two ranks exchange. MPI sends a longer one only when the
/// receiver has agreed, and over TCP that answer waits behind all the bytes that go the
/// same way: the two directions take turns. Open MPI and MPICH ask from 64 KiB on.
const UNASKED: usize = 60 << 10;

/// The tags of messages, and of what two ranks exchange. Neither waits for the other.
const MESSAGE: Tag = 0;
const EXCHANGED: Tag = 1;

/// The time between two looks for a message. Waiting inside MPI would keep a core busy.
const PAUSE: Duration = Duration::from_micros(50);

/// The time between two looks of a thread that receives ahead, while its rank still
/// learns from the batch before.
const LONG_PAUSE: Duration = Duration::from_millis(1);

/// The looks before the first pause.
const LOOKS: usize = 200;

/// The processes that `mpirun` has started.
pub(crate) struct World {
    rank: usize,
    /// The thread that sends to each rank, started by the first message.
    senders: Vec<OnceLock<SyncSender<Vec<u8>>>>,
    /// The number of messages that are not sent yet.
    unsent: Arc<AtomicUsize>,
    /// What was received ahead from each rank, once [`Comm::receive_tensors`] has
    /// started a thread for it.
    received: Vec<OnceLock<Mutex<Receiver<Vec<u8>>>>>,
    listening: Arc<Listening>,
}

/// What the threads that receive ahead share with the rank.
#[derive(Default)]
struct Listening {
    /// The number of these threads.
    threads: AtomicUsize,
    /// How many threads of the rank wait for a message at the moment.
    waiting: AtomicUsize,
    has_ended: AtomicBool,
}

impl World {
    /// The processes of a communicator that has all of them.
    pub fn of(communicator: &SimpleCommunicator) -> Self {
        let ranks = communicator.size().max(1) as usize;
        Self {
            rank: communicator.rank().max(0) as usize,
            senders: (0..ranks).map(|_| OnceLock::new()).collect(),
            unsent: Arc::default(),
            received: (0..ranks).map(|_| OnceLock::new()).collect(),
            listening: Arc::default(),
        }
    }

    /// Waits until everything is sent, and no thread uses MPI any more.
    pub fn finish(&self) {
        while self.unsent.load(Ordering::Acquire) > 0 {
            thread::sleep(PAUSE);
        }
        self.listening.has_ended.store(true, Ordering::Release);
        while self.listening.threads.load(Ordering::Acquire) > 0 {
            thread::sleep(PAUSE);
        }
    }

    /// Starts the thread that receives ahead from a rank.
    fn receiver(&self, from: usize) -> Mutex<Receiver<Vec<u8>>> {
        let (sender, received) = sync_channel(AHEAD);
        let listening = self.listening.clone();
        listening.threads.fetch_add(1, Ordering::Release);
        thread::spawn(move || {
            let received = catch_unwind(AssertUnwindSafe(|| {
                receive_all(from, &sender, &listening);
            }));
            if received.is_err() {
                // This rank would wait for messages that never come.
                SimpleCommunicator::world().abort(1);
            }
            listening.threads.fetch_sub(1, Ordering::Release);
        });
        Mutex::new(received)
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
                let mut unfinished = Some(process.immediate_send_with_tag(scope, piece, MESSAGE));
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
        let Some(received) = self.received[from].get() else {
            let message = next(from, None);
            return message.ok_or(Error::Rank { rank: from });
        };
        let received = received.lock().unwrap_or_else(PoisonError::into_inner);
        self.listening.waiting.fetch_add(1, Ordering::Relaxed);
        let message = received.recv();
        self.listening.waiting.fetch_sub(1, Ordering::Relaxed);
        // Its thread ends with the process only.
        message.map_err(|_| Error::Rank { rank: from })
    }

    /// Sends and receives in the memory of the tensors, on the thread that waits anyway.
    fn exchange(&self, other: usize, pieces: &mut [Exchanged<'_>]) -> Result<()> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(other as i32);
        let mut missing = 0;
        mpi::request::scope(|scope| {
            let mut unfinished = VecDeque::new();
            for Exchanged { sent, received } in pieces {
                missing += received.len();
                for piece in received.chunks_mut(UNASKED) {
                    // A longer piece would end the program.
                    let begun = process.immediate_receive_into_with_tag(scope, piece, EXCHANGED);
                    unfinished.push_back((begun, true));
                }
                for piece in sent.chunks(UNASKED) {
                    let begun = process.immediate_send_with_tag(scope, piece, EXCHANGED);
                    unfinished.push_back((begun, false));
                }
            }
            patiently(|| {
                while let Some((request, is_received)) = unfinished.pop_front() {
                    match request.test() {
                        Err(request) => {
                            unfinished.push_front((request, is_received));
                            return None;
                        }
                        Ok(status) if is_received => missing -= length(&status),
                        Ok(_) => (),
                    }
                }
                Some(())
            });
        });
        match missing {
            0 => Ok(()),
            _ => Err(Error::apart(other)),
        }
    }

    /// Receives all further messages of this rank, a stage below, ahead.
    fn receive_tensors(&self, from: usize) -> Result<Message> {
        self.received[from].get_or_init(|| self.receiver(from));
        Message::from_bytes(&self.receive(from)?)
    }
}

/// The next message of a rank; for a thread that receives ahead, `None` once all ranks
/// have ended.
fn next(from: usize, ahead: Option<&Listening>) -> Option<Vec<u8>> {
    let world = SimpleCommunicator::world();
    let process = world.process_at_rank(from as i32);
    let mut message = Vec::new();
    loop {
        let look = || process.immediate_matched_probe_with_tag(MESSAGE);
        let (found, status) = match ahead {
            Some(listening) => listening.look(look)?,
            None => patiently(look),
        };
        let (begin, length) = (message.len(), length(&status));
        message.resize(begin + length, 0);
        mpi::request::scope(|scope| {
            let piece = &mut message[begin..];
            let mut unfinished = Some(found.immediate_matched_receive_into(scope, piece));
            patiently(|| {
                unfinished = unfinished.take()?.test().err();
                unfinished.is_none().then_some(())
            });
        });
        if length < PIECE {
            return Some(message);
        }
    }
}

/// The number of bytes of a received piece.
fn length(status: &Status) -> usize {
    status.count(u8::equivalent_datatype()) as usize
}

/// Receives the messages of a rank, in their order, until all ranks have ended.
fn receive_all(from: usize, messages: &SyncSender<Vec<u8>>, listening: &Listening) {
    while let Some(message) = next(from, Some(listening)) {
        let mut message = Some(message);
        let put = || match messages.try_send(message.take()?) {
            Err(TrySendError::Full(unread)) => {
                message = Some(unread);
                None
            }
            // The rank has ended, and asks no more.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Some(()),
        };
        if listening.look(put).is_none() {
            return;
        }
    }
}

impl Listening {
    /// Looks until there is something, or all ranks have ended.
    fn look<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let mut looks = 0;
        loop {
            if let Some(found) = look() {
                return Some(found);
            }
            if self.has_ended.load(Ordering::Acquire) {
                return None;
            }
            looks += 1;
            match (self.waiting.load(Ordering::Relaxed) > 0, looks < LOOKS) {
                (true, true) => std::hint::spin_loop(),
                (true, false) => thread::sleep(PAUSE),
                (false, _) => thread::sleep(LONG_PAUSE),
            }
        }
    }
}

/// Looks until there is something, less and less often: each look makes MPI go through
/// all connections, which takes time of the core that learns.
fn patiently<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let (mut looks, mut pause) = (0, PAUSE);
    loop {
        if let Some(found) = look() {
            return found;
        }
        looks += 1;
        if looks < LOOKS {
            std::hint::spin_loop();
        } else {
            thread::sleep(pause);
            pause = (2 * pause).min(4 * PAUSE);
        }
    }
}
