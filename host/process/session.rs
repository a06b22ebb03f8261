//! The processes of a child: itself, what it started, and what these started, whatever groups or sessions they made.

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

use super::mark::Mark;

/// Programs that install others before they run them: a start that runs one takes its time.
const INSTALLERS: [&str; 12] =
    ["npm", "npx", "pnpm", "yarn", "bunx", "corepack", "uv", "uvx", "pip", "pip3", "pipx", "cargo"];

/// A process as the system shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub pid: i32,
    pub name: String,
    pub parent: i32,
    pub session: i32,
    pub is_zombie: bool,
    /// In clock ticks since the system started.
    pub started: u64,
}

impl Seen {
    /// Reads a line of `/proc/PID/stat`, see proc_pid_stat(5).
    pub(super) fn parse(stat: &str) -> Option<Self> {
        // A name may contain anything, parentheses and blanks too.
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let rest: Vec<&str> = stat.get(close + 1..)?.split_ascii_whitespace().collect();
        Some(Self {
            pid: stat.get(..open)?.trim().parse().ok()?,
            name: stat.get(open + 1..close)?.to_owned(),
            is_zombie: matches!(*rest.first()?, "Z" | "X"),
            parent: rest.get(1)?.parse().ok()?,
            session: rest.get(3)?.parse().ok()?,
            started: rest.get(19)?.parse().ok()?,
        })
    }
}

/// All processes; none where the system has no `/proc`.
pub(super) fn all() -> Vec<Seen> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(Result::ok).filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    });
    // One that has just ended is not there any more.
    let stats = numbers.filter_map(|entry| std::fs::read(entry.path().join("stat")).ok());
    stats.filter_map(|stat| Seen::parse(&String::from_utf8_lossy(&stat))).collect()
}

/// A session that a child leads, or led, with those who left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// `None` when its number may be another's by now.
    leader: Option<Pid>,
    mark: Option<Mark>,
}

impl Session {
    pub(super) fn of(leader: Option<u32>, mark: Option<Mark>) -> Self {
        let leader = leader.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Self { leader, mark }
    }

    /// Sends a signal to the child's group, and to those who left it.
    pub fn signal(self, signal: Signal) {
        // Who is gone already needs no signal.
        self.leader.map(|leader| kill_process_group(leader, signal).ok());
        for member in self.members() {
            if let Some(pid) = Pid::from_raw(member.pid) {
                kill_process(pid, signal).ok();
            }
        }
    }

    /// Whether nobody is left.
    pub fn is_empty(self) -> bool {
        let members = self.members();
        let has_group = || self.leader.is_some_and(|leader| test_kill_process_group(leader).is_ok());
        members.is_empty() && (cfg!(target_os = "linux") || !has_group())
    }

    fn number(self) -> Option<i32> {
        self.leader.map(|leader| leader.as_raw_nonzero().get())
    }

    fn members(self) -> Vec<Seen> {
        let is_member = |seen: &Seen| {
            Some(seen.session) == self.number()
                || self.mark.is_some_and(|mark| Mark::of(seen.pid) == Some(mark))
        };
        all().into_iter().filter(|seen| !seen.is_zombie && is_member(seen)).collect()
    }
}

/// Of these sessions, those in which something is being installed.
pub fn installing(sessions: &[Session]) -> Vec<Session> {
    let all = all();
    let installs = |session: &&Session| session.number().is_some_and(|number| has_installer(&all, number));
    sessions.iter().filter(installs).copied().collect()
}

/// What an `npx` runs in the end is a child of it, so one that has a child is done.
fn has_installer(all: &[Seen], session: i32) -> bool {
    let is_at_work = |seen: &Seen| {
        INSTALLERS.iter().any(|installer| is_called(&seen.name, installer))
            && !all.iter().any(|other| other.parent == seen.pid && !other.is_zombie)
    };
    all.iter().any(|seen| seen.session == session && is_at_work(seen))
}

/// `npm install x` calls itself just so; others are called by their name alone.
fn is_called(name: &str, program: &str) -> bool {
    name.split_ascii_whitespace().next() == Some(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_blanks_are_read() {
        let rest = "S 1 42 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 100 200";
        let seen = Seen::parse(&format!("43 (a) b (c) {rest}\n")).expect("it is well formed");
        assert_eq!((seen.pid, seen.parent, seen.session, seen.started), (43, 1, 40, 987_654));
        assert_eq!((seen.name.as_str(), seen.is_zombie), ("a) b (c", false));
        assert_eq!(Seen::parse("43 (x"), None);
        assert_eq!(Seen::parse("43 (x) S 1"), None);
    }

    #[test]
    fn an_installer_is_at_work_until_it_runs_something() {
        let seen = |pid, parent, name: &str| Seen {
            pid,
            name: name.to_owned(),
            parent,
            session: 40,
            is_zombie: false,
            started: 1,
        };
        assert!(has_installer(&[seen(40, 1, "npm exec @some")], 40));
        assert!(!has_installer(&[seen(40, 1, "npm exec @some"), seen(41, 40, "node")], 40));
        assert!(has_installer(&[seen(40, 1, "sh"), seen(41, 40, "uvx")], 40));
        assert!(!has_installer(&[seen(40, 1, "npmish"), seen(41, 40, "node")], 40));
        assert!(!has_installer(&[seen(40, 1, "npm")], 39), "of another session");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(all().iter().any(|seen| seen.pid == own && seen.started > 0));
    }
}
