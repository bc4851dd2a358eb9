//! The photo shop: everything that its HTTP API works with.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use taskscope_probe::Probe;

use crate::archive::Archive;
use crate::audit::Audit;
use crate::backup::Backup;
use crate::camera::Cameras;
use crate::courier::Courier;
use crate::database::Database;
use crate::fault::Fault;
use crate::gallery;
use crate::newsletter::Newsletter;
use crate::panorama::Panoramas;
use crate::password::Passwords;
use crate::payment::Payments;
use crate::prices::Prices;
use crate::printer::Printer;
use crate::queue::Queue;
use crate::report::Report;
use crate::revocation::Revocations;
use crate::session::Sessions;
use crate::stock::Stock;
use crate::storage::Storage;

pub(crate) struct Shop {
    pub(crate) probe: Probe,
    archive: Archive,
    pub(crate) audit: Audit,
    backup: Backup,
    cameras: Cameras,
    courier: Courier,
    pub(crate) database: Arc<Database>,
    pub(crate) newsletter: Newsletter,
    panoramas: Panoramas,
    pub(crate) passwords: Passwords,
    payments: Payments,
    pub(crate) prices: Arc<Prices>,
    printer: Printer,
    pub(crate) queue: Queue,
    report: Report,
    pub(crate) sessions: Sessions,
    stock: Stock,
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
            archive: Archive::open(),
            audit: Audit::open(probe, storage.clone()),
            backup: Backup::open(),
            cameras: Cameras::open(),
            courier: Courier::open(),
            database: Database::connect(probe),
            newsletter: Newsletter::open(),
            panoramas: Panoramas::open(),
            passwords: Passwords::default(),
            payments: Payments::open(),
            prices: Arc::default(),
            printer: Printer::open(),
            queue: Queue::open(probe, &storage),
            report: Report::open(),
            sessions: Sessions::open(probe, oldest_valid),
            stock: Stock::open(),
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
            Fault::Error => self.stock.read_new_list(),
            Fault::Pending => self.payments.ask_the_bank(),
            Fault::NeverYields => self.report.begin(),
            Fault::HotLoop => self.printer.print_without_paper(),
            Fault::LostWaker => self.courier.send_while_engaged(),
            Fault::LongJob => self.backup.begin_without_share(),
            Fault::Files => {
                self.archive.lower_limit();
                self.archive.download_album();
            }
            Fault::Queue => self.cameras.stream(),
            Fault::Busy => self.panoramas.begin(),
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
            Fault::Error => self.stock.read_list(),
            Fault::Pending => self.payments.confirm(),
            Fault::NeverYields => self.report.end(),
            Fault::HotLoop => self.printer.add_paper(),
            Fault::LostWaker => self.courier.arrive(),
            Fault::LongJob => self.backup.share_is_back(),
            Fault::Files => self.archive.close(),
            Fault::Queue => self.cameras.stop(),
            Fault::Busy => self.panoramas.end(),
        }
    }
}
