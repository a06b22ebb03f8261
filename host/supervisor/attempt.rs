//! One life of a child: started, met, and waited for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::mesh::child::INSTALLING_MAX;
use crate::mesh::ids::Name;
use crate::upstream::{Exit, Peer, Process, SendError, Spoken, Times, chain};

/// How long one who closed its output has to end before that counts as another failure.
const ENDS_SOON: Duration = Duration::from_secs(1);

/// How long what it started may take to end before others hear of its end.
const LINGERS: Duration = Duration::from_millis(100);

/// What happened to a child in one of its lives.
pub(super) enum Happening {
    Launched(Arc<Process>),
    NotLaunched(SendError),
    Met(Arc<Spoken>),
    /// It lives and does not answer as it should.
    Unfit(String),
    /// It ended, and what it started has not yet.
    Lingers,
    /// Nothing of it is left.
    Ended(Exit),
    /// It rests, and somebody waits for it.
    Wanted,
}

/// A report, of a child and one of its lives.
pub(super) type Report = (Name, u64, Happening);

/// Whose life it is, and whom it is told to.
pub(super) struct Attempt {
    pub instance: Name,
    pub number: u64,
    pub peer: Arc<Peer>,
    pub reports: mpsc::Sender<Report>,
}

impl Attempt {
    pub(super) async fn run(self) {
        let process = match self.peer.launch().await {
            Ok(process) => process,
            Err(error) => return self.tell(Happening::NotLaunched(error)).await,
        };
        self.tell(Happening::Launched(Arc::clone(&process))).await;
        // Whoever supervises it knows how long it may take, and ends it when that is over.
        let limit = 2 * INSTALLING_MAX;
        let deadline = tokio::time::Instant::now() + limit;
        let times = Times { connect: limit, first_byte: limit, deadline, wakes: false, stated: false };
        let met = tokio::select! {
            met = self.peer.meet(&process, &times) => Some(met),
            _ = process.ended() => None,
        };
        match met {
            Some(Ok(spoken)) => self.tell(Happening::Met(spoken)).await,
            Some(Err(_)) if process.is_gone() => {}
            Some(Err(error)) => {
                let why = format!("does not answer as an MCP server: {}", chain(&error));
                self.tell(Happening::Unfit(why)).await;
            }
            None => {}
        }
        process.gone().await;
        if tokio::time::timeout(ENDS_SOON, process.ended()).await.is_err() {
            self.tell(Happening::Unfit("it closed its standard output and went on".to_owned())).await;
        }
        let exit = process.ended().await;
        if tokio::time::timeout(LINGERS, process.over()).await.is_err() {
            self.tell(Happening::Lingers).await;
            process.over().await;
        }
        self.tell(Happening::Ended(exit)).await;
    }

    async fn tell(&self, happening: Happening) {
        // Without a supervisor nobody needs to know.
        self.reports.send((self.instance.clone(), self.number, happening)).await.ok();
    }
}
