//! Which children were started, in a file that outlives the proxy: what of them is still there at the next start is
//! ended before anything else is started.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::mark::Mark;
use super::session::{Seen, Session, all};

/// How long survivors have to end when they are asked to, and when they are killed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Size from which on the file is written anew, with those alone that are still there.
const LARGE_BYTES: u64 = 256 << 10;

/// The file `children` in the data folder: the system's boot id, then a mark and a line of `/proc/PID/stat` for each child,
/// as that child wrote it down before its program ran.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Arc<File>,
}

impl Ledger {
    /// # Errors
    /// The file cannot be opened.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("children");
        let file = File::options().create(true).append(true).open(&path)?;
        Ok(Self { path, file: Arc::new(file) })
    }

    /// Where children write themselves down.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Ends what is left of all children that are written down, and begins a new page. Takes a moment when something is
    /// left. Answers what was there.
    pub(super) fn reap(&mut self) -> Vec<String> {
        let sessions = self.living();
        let mut names = Vec::new();
        for (session, members) in &sessions {
            names.extend(members.iter().map(|seen| format!("{} ({})", seen.name, seen.pid)));
            session.signal(Signal::TERM);
        }
        let asked = Instant::now();
        let is_left = |sessions: &[(Session, Vec<Seen>)]| sessions.iter().any(|(one, _)| !one.is_empty());
        while asked.elapsed() < PATIENCE && is_left(&sessions) {
            std::thread::sleep(Duration::from_millis(20));
        }
        sessions.iter().filter(|(one, _)| !one.is_empty()).for_each(|(one, _)| one.signal(Signal::KILL));
        self.begin_page(&[]);
        names
    }

    /// Kills what is left of all children that are written down, unasked; what one of them starts meanwhile, too.
    pub(super) fn kill(&self) {
        let began = Instant::now();
        loop {
            let sessions = self.living();
            sessions.iter().for_each(|(session, _)| session.signal(Signal::KILL));
            if sessions.is_empty() || began.elapsed() >= PATIENCE {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Lets go of what has ended, once there is much of it.
    pub(super) fn tidy(&mut self) {
        if self.file.metadata().is_ok_and(|about| about.len() < LARGE_BYTES) {
            return;
        }
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let now = all();
        let marks = Mark::of_all(&now);
        let stays = |line: &&str| entry(line).is_some_and(|entry| left_of(&entry, &now, &marks).is_some());
        let lines: Vec<&str> = text.lines().skip(1).filter(stays).collect();
        self.begin_page(&lines);
    }

    /// Sessions that are written down and have members, with these.
    fn living(&self) -> Vec<(Session, Vec<Seen>)> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let mut lines = text.lines();
        if lines.next() != Some(boot_id().as_str()) {
            // Nothing survives the system, and numbers begin anew.
            return Vec::new();
        }
        let now = all();
        let marks = Mark::of_all(&now);
        lines.filter_map(entry).filter_map(|entry| left_of(&entry, &now, &marks)).collect()
    }

    fn begin_page(&mut self, lines: &[&str]) {
        if let Err(error) = self.try_begin_page(lines) {
            // The old page stays, and is read again: what it names is gone or is ours.
            tracing::warn!(error = %error, "cannot write down which children run");
        }
    }

    fn try_begin_page(&mut self, lines: &[&str]) -> io::Result<()> {
        let fresh = self.path.with_extension("tmp");
        let mut page = format!("{}\n", boot_id());
        lines.iter().for_each(|line| page.extend([line, "\n"]));
        let mut file = File::create(&fresh)?;
        file.write_all(page.as_bytes())?;
        std::fs::rename(&fresh, &self.path)?;
        self.file = Arc::new(File::options().append(true).open(&self.path)?);
        Ok(())
    }
}

/// A child as it wrote itself down.
type Entry = (Option<Mark>, Seen);

fn entry(line: &str) -> Option<Entry> {
    let marked = line.split_once(' ').and_then(|(mark, rest)| Some((Mark::parse(mark.as_bytes())?, rest)));
    match marked {
        Some((mark, stat)) => Some((Some(mark), Seen::parse(stat)?)),
        None => Some((None, Seen::parse(line)?)),
    }
}

/// What is left of a child, if anything is: of its session, or with its mark.
fn left_of((mark, child): &Entry, now: &[Seen], marks: &HashMap<i32, Mark>) -> Option<(Session, Vec<Seen>)> {
    let mut members = survivors(child, now);
    let leader = Some(child.pid).filter(|_| !members.is_empty()).and_then(|pid| u32::try_from(pid).ok());
    let is_marked = |seen: &&Seen| mark.is_some() && marks.get(&seen.pid) == mark.as_ref();
    let strays: Vec<&Seen> = now.iter().filter(is_marked).filter(|seen| !members.contains(seen)).collect();
    members.extend(strays.into_iter().cloned());
    (!members.is_empty()).then(|| (Session::of(leader, *mark), members))
}

/// Those of `now` that are of the session which `child` led. The number of a session is not given out again while
/// one of its members lives, so it is another session only if its leader is another process, or if somebody in it is
/// older than the child.
fn survivors(child: &Seen, now: &[Seen]) -> Vec<Seen> {
    let members: Vec<Seen> =
        now.iter().filter(|seen| seen.session == child.pid && !seen.is_zombie).cloned().collect();
    let is_other =
        |seen: &Seen| seen.started < child.started || seen.pid == child.pid && seen.started != child.started;
    if now.iter().any(|seen| seen.session == child.pid && is_other(seen)) { Vec::new() } else { members }
}

/// Another one after each start of the system; empty where there is none.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pid: i32, session: i32, started: u64) -> Seen {
        Seen { pid, name: "x".to_owned(), parent: 1, session, is_zombie: false, started }
    }

    #[test]
    fn only_what_cannot_be_anybody_elses_is_a_survivor() {
        let child = seen(40, 40, 1000);
        let of = |now: &[Seen]| survivors(&child, now).iter().map(|seen| seen.pid).collect::<Vec<_>>();
        assert_eq!(of(&[seen(40, 40, 1000), seen(41, 40, 1001), seen(42, 1, 1002)]), [40, 41]);
        assert_eq!(of(&[seen(41, 40, 1001)]), [41], "the child is gone, what it started is not");
        assert_eq!(of(&[seen(40, 40, 2000), seen(41, 40, 2001)]), [0; 0], "the number is another's");
        assert_eq!(of(&[seen(41, 40, 999)]), [0; 0]);
    }

    #[test]
    fn who_left_the_session_is_known_by_the_mark_and_nobody_else_is() {
        let (mark, other) = (Mark::fresh(), Mark::fresh());
        let stat = "40 (x) S 1 40 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 1000 100 200";
        let entry = entry(&format!("{} {stat}", mark.text())).expect("it is well formed");
        assert_eq!((entry.0, &entry.1), (Some(mark), &seen(40, 40, 1000)));
        let marks = HashMap::from([(50, mark), (51, other)]);
        let of = |now: &[Seen]| {
            let left = left_of(&entry, now, &marks)?;
            Some((left.0, left.1.iter().map(|seen| seen.pid).collect::<Vec<_>>()))
        };
        let strays = [seen(50, 50, 2000), seen(51, 51, 2000)];
        assert_eq!(of(&strays), Some((Session::of(None, Some(mark)), vec![50])));
        let both = [seen(40, 40, 1000), seen(50, 50, 2000)];
        assert_eq!(of(&both), Some((Session::of(Some(40), Some(mark)), vec![40, 50])));
        let another = [seen(40, 40, 3000), seen(50, 50, 2000)];
        assert_eq!(of(&another), Some((Session::of(None, Some(mark)), vec![50])), "its number is another's");
        assert_eq!(of(&[seen(51, 51, 2000)]), None);
        assert_eq!(super::entry(stat), Some((None, seen(40, 40, 1000))), "as it was written before");
    }

    #[test]
    fn a_ledger_of_another_boot_names_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        std::fs::write(folder.path().join("children"), format!("another boot\n{own}")).expect("write");
        let mut ledger = Ledger::open(folder.path()).expect("it can be opened");
        assert_eq!(ledger.reap(), [""; 0]);
        let page = std::fs::read_to_string(folder.path().join("children")).expect("read");
        assert_eq!(page, format!("{}\n", boot_id()));
    }
}
