//! Ctrl-C, SIGTERM and a terminal that is closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::error::notify;

/// What the first signal during a training says.
pub(super) const STOPPING: &str = "stopping after this batch; repeat to stop immediately";

/// What the signals do: before the training they end the program at once, since nothing
/// would be lost; during the training the first one asks the run to save itself and stop,
/// and the second one ends the program.
pub(super) struct Stop {
    is_training: Arc<AtomicBool>,
    flag: Arc<AtomicBool>,
}

impl Stop {
    /// Listens to the signals. One that is ignored, as `nohup` does, stays ignored.
    pub fn on_signals() -> Self {
        let stop = Self {
            is_training: Arc::default(),
            flag: Arc::default(),
        };
        if let Err(error) = stop.listen() {
            notify(format_args!(
                "warning: Ctrl-C will not save the run: {error}"
            ));
        }
        stop
    }

    /// The flag that asks a run to stop.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }

    /// From now on there is something to save.
    pub fn training_begins(&self) {
        self.is_training.store(true, Ordering::Relaxed);
    }

    #[cfg(unix)]
    fn listen(&self) -> std::io::Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let wanted = [SIGHUP, SIGINT, SIGTERM].into_iter();
        let wanted = wanted.filter(|&signal| !is_ignored(signal));
        let mut signals = signal_hook::iterator::Signals::new(wanted)?;
        let (is_training, flag) = (self.is_training.clone(), self.flag.clone());
        let listen = move || {
            for signal in signals.forever() {
                if !is_training.load(Ordering::Relaxed) || flag.swap(true, Ordering::Relaxed) {
                    std::process::exit(128 + signal);
                }
                notify(STOPPING);
            }
        };
        let thread = std::thread::Builder::new().name("signals".into());
        thread.spawn(listen).map(|_| ())
    }

    #[cfg(not(unix))]
    fn listen(&self) -> std::io::Result<()> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        for signal in [SIGINT, SIGTERM] {
            let flag = self.flag.clone();
            signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone())?;
            signal_hook::flag::register(signal, flag)?;
        }
        Ok(())
    }
}

#[cfg(unix)]
#[allow(unsafe_code)] // the standard library cannot ask
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one, of plain data.
    let action = unsafe {
        if libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) != 0 {
            return false;
        }
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}
