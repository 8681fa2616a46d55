//! Ctrl-C and SIGTERM: noted here, acted upon where something is under way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::error::{Failure, Kind};

static SIGNALS: AtomicUsize = AtomicUsize::new(0);
static AT_PROMPT: AtomicBool = AtomicBool::new(false);
static LEFT_TO_CHILD: AtomicBool = AtomicBool::new(false);
static ON_SIGNAL: Mutex<Option<Arc<Action>>> = Mutex::new(None);

/// How long the server may take to hear that something is to be cancelled. Where the network is frozen,
/// whatever waits for it would wait for the kernel's patience to end; a supervisor's ends sooner.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// The command that says where things stand.
static LOOK_WITH: OnceLock<String> = OnceLock::new();

/// What is done at the first signal.
type Action = dyn Fn() + Send + Sync;

/// Installs the handler. The first signal is noted, for the run to cancel what is under way on the
/// server; at a prompt, or the second time, the program ends at once, and where the server does not
/// answer it ends soon.
pub(crate) fn install() {
    // Failing to install leaves the default: the signal ends the program, the server's state is
    // what the next command reads.
    let _ = ctrlc::set_handler(|| {
        if LEFT_TO_CHILD.load(Ordering::SeqCst) {
            return;
        }
        let earlier = SIGNALS.fetch_add(1, Ordering::SeqCst);
        if AT_PROMPT.load(Ordering::SeqCst) {
            leave("\ninterrupted: nothing was changed", false);
        }
        if earlier > 0 {
            leave(
                "interrupted twice: leaving at once; what was under way may still run on the server",
                true,
            );
        }
        if let Ok(action) = ON_SIGNAL.lock()
            && let Some(action) = action.clone()
        {
            // It connects to the server, which may not answer: the second signal must find us free.
            let (answered, answer) = channel();
            std::thread::spawn(move || {
                action();
                let _ = answered.send(());
            });
            std::thread::spawn(move || {
                if answer.recv_timeout(ANSWERS_WITHIN) == Err(RecvTimeoutError::Timeout) {
                    leave(
                        "interrupted, and the server does not answer: leaving; what was under way may still run on the server",
                        true,
                    );
                }
            });
        }
    });
}

/// The command to name where something may go on on the server.
pub(crate) fn look_with(command: String) {
    let _ = LOOK_WITH.set(command);
}

/// What to do at the first signal, beside noting it: cancel what the server does for us now.
pub(crate) fn on_signal(action: impl Fn() + Send + Sync + 'static) {
    if let Ok(mut slot) = ON_SIGNAL.lock() {
        *slot = Some(Arc::new(action));
    }
}

/// Whether somebody wants this to stop.
pub(crate) fn requested() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}

/// An error if somebody wants this to stop; for the places between two steps.
///
/// # Errors
/// [`Kind::Interrupted`].
pub(crate) fn check() -> crate::error::Result {
    if requested() {
        return Err(Failure::interrupted("stopped before the next step").into());
    }
    Ok(())
}

/// While the guard lives, a signal ends the program at once: a blocking read cannot be woken.
pub(crate) fn at_prompt() -> impl Drop {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            AT_PROMPT.store(false, Ordering::SeqCst);
        }
    }
    AT_PROMPT.store(true, Ordering::SeqCst);
    Guard
}

/// From here on a signal is none of our business: a person's psql has the terminal, and takes Ctrl-C
/// for "leave this line". For good, as a signal may be noted only after psql has ended.
pub(crate) fn leave_to_child() {
    LEFT_TO_CHILD.store(true, Ordering::SeqCst);
}

#[expect(clippy::disallowed_methods, clippy::print_stderr)]
fn leave(message: &str, may_go_on: bool) -> ! {
    eprintln!("{message}");
    if may_go_on && let Some(command) = LOOK_WITH.get() {
        eprintln!("hint: {command}");
    }
    std::process::exit(i32::from(Kind::Interrupted.exit_code()))
}
