//! Payments: an order that is paid by the bank waits in a task of its own until the bank has confirmed it. `pending` lives
//! here: where the bank forgets one, it waits for ever.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::errand::Errand;

pub(crate) struct Payments {
    confirmation: Errand,
    /// What the bank has been asked to confirm.
    asked: Mutex<Vec<oneshot::Sender<()>>>,
}

impl Payments {
    /// Inside a runtime.
    pub(crate) fn open() -> Self {
        Self { confirmation: Errand::none(), asked: Mutex::default() }
    }

    /// A payment that the bank does not confirm for now.
    pub(crate) fn ask_the_bank(&self) {
        let (confirm, confirmed) = oneshot::channel();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(confirm);
        self.confirmation
            .begin(|| taskscope_probe::spawn_detached("payment-confirmation", confirmation(confirmed)));
    }

    /// The bank confirms whatever it was asked.
    pub(crate) fn confirm(&self) {
        for confirm in self.asked.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Without its task there is no order to confirm.
            let _ = confirm.send(());
        }
    }
}

/// Nothing says how long the bank may take: that is the bug.
async fn confirmation(confirmed: oneshot::Receiver<()>) -> bool {
    confirmed.await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, runtime};

    #[test]
    fn a_payment_waits_until_the_bank_confirms_it() {
        let (runtime, _probe) = runtime();
        let entered = runtime.enter();
        let payments = Payments::open();
        drop(entered);
        payments.ask_the_bank();
        assert_eq!(runtime.metrics().num_alive_tasks(), 1);
        payments.confirm();
        eventually("it is confirmed", || runtime.metrics().num_alive_tasks() == 0);
    }
}
