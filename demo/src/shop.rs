//! The photo shop: everything that its HTTP API works with.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use taskscope_probe::Probe;

use crate::audit::Audit;
use crate::database::Database;
use crate::fault::Fault;
use crate::gallery;
use crate::newsletter::Newsletter;
use crate::password::Passwords;
use crate::prices::Prices;
use crate::queue::Queue;
use crate::revocation::Revocations;
use crate::session::Sessions;
use crate::storage::Storage;

pub(crate) struct Shop {
    pub(crate) probe: Probe,
    pub(crate) audit: Audit,
    pub(crate) database: Arc<Database>,
    pub(crate) newsletter: Newsletter,
    pub(crate) passwords: Passwords,
    pub(crate) prices: Arc<Prices>,
    pub(crate) queue: Queue,
    pub(crate) sessions: Sessions,
    pub(crate) storage: Arc<Storage>,
    _revocations: Revocations,
}

impl Shop {
    /// Inside a runtime: most parts are tasks.
    pub(crate) fn open(probe: Probe) -> io::Result<Arc<Self>> {
        let storage = Arc::new(Storage::default());
        let (revocations, oldest_valid) = Revocations::start()?;
        gallery::open_all(probe);
        Ok(Arc::new(Self {
            probe,
            audit: Audit::open(probe, storage.clone()),
            database: Database::connect(probe),
            newsletter: Newsletter::open(),
            passwords: Passwords::default(),
            prices: Arc::default(),
            queue: Queue::open(probe, &storage),
            sessions: Sessions::open(probe, oldest_valid),
            storage,
            _revocations: revocations,
        }))
    }

    /// `until` is when the fault is meant to end; only what sleeps needs to know beforehand.
    pub(crate) fn break_with(&self, fault: Fault, until: Instant) {
        match fault {
            Fault::StuckPoll => self.storage.hang_lookups(Some(until)),
            Fault::SlowPoll => self.passwords.make_costly(true),
            Fault::Contention => self.prices.lock_first(true),
            Fault::PoolFull => self.storage.hang_writes(true),
            Fault::Panic => self.audit.expect_next_version(true),
            Fault::Leak => self.sessions.forget(true),
            Fault::IgnoresCancel => self.newsletter.stop(true),
        }
    }

    pub(crate) fn repair(&self, fault: Fault) {
        match fault {
            Fault::StuckPoll => self.storage.hang_lookups(None),
            Fault::SlowPoll => self.passwords.make_costly(false),
            Fault::Contention => self.prices.lock_first(false),
            Fault::PoolFull => self.storage.hang_writes(false),
            Fault::Panic => self.audit.expect_next_version(false),
            Fault::Leak => self.sessions.forget(false),
            Fault::IgnoresCancel => self.newsletter.start(),
        }
    }
}
