//! One look at a console: what is asked, in which order, and what is known after it.
//!
//! The pools must be told, all else may be absent: a command that this pooler or this user has not
//! is noted and not asked again in this session. What was asked earlier stays known until it is
//! asked again. Called by [`super`] at each tick.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use plimsoll_core::reading::pooler::{
    Counters, Database, Limits, Observation, Pool, Sockets, User,
};

use super::answer::{Answer, Unusable};
use super::console::Console;
use super::failure::AskError;
use super::kind::Kind;
use super::rhythm::{Command, Rhythm};
use super::{parts, sockets};
use crate::clock;

/// A thousand clients cost the pooler 0.8 ms, so these would cost 16 ms: more than anybody's
/// statements should wait for us. Above that only the numbers of `SHOW POOLS` are read.
const MAX_CLIENTS_LISTED: u32 = 20_000;

/// Where this part of `max_client_conn` is taken, it is looked at more closely.
const FILLS_UP_FROM: f64 = 0.7;

/// All that one session has told.
#[derive(Debug)]
pub(super) struct Known {
    kind: Kind,
    version: String,
    /// The name of the console's own database, which is none.
    console: String,
    databases: Vec<Database>,
    users: Vec<User>,
    limits: Limits,
    clients: Option<u32>,
    counters: Vec<Counters>,
    paused: Option<bool>,
    sockets: Option<(Sockets, Instant)>,
    /// Nobody is left there but at the console, and it would wait for us if it were told to stop.
    only_console: bool,
    /// Commands that were refused, or answered with what cannot be used.
    refused: Vec<Command>,
    rhythms: BTreeMap<Command, Rhythm>,
    /// When each of the parts was read that are not read at each look.
    read_at: BTreeMap<Command, Instant>,
}

/// A look under way.
struct Look<'a> {
    console: &'a mut Console,
    known: &'a mut Known,
    deadline: Instant,
    timeout: Duration,
    /// Somebody waits or soon will, or a pool has come of which not all is known.
    matters: bool,
}

/// What ends a look: the command at which it ended, and why.
pub(super) type Ended = (Command, AskError);

impl Known {
    /// Of a new session: which pooler it is. Some commands are left out.
    pub(super) async fn begin(
        console: &mut Console,
        name: &str,
        without: &[Command],
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Self, Ended> {
        let command = Command::Version;
        let said = match console.ask(command, &["version"], deadline, timeout).await {
            Ok(answer) => {
                let mut rows = answer.rows();
                rows.next().and_then(|row| row.some_text("version")).map(str::to_owned)
            }
            // What ended the session with it is no answer.
            Err(error @ AskError::Unusable(_)) if console.client.is_closed() => {
                return Err((command, error));
            }
            // Older ones of the look-alikes do not know it. Whether they are one, the pools tell.
            Err(AskError::Refused { .. } | AskError::Unusable(_)) => None,
            Err(error) => return Err((command, error)),
        };
        let kind = Kind::of(said.as_deref(), &console.server_version);
        Ok(Self {
            kind,
            version: kind.version(said.as_deref(), &console.server_version),
            console: name.to_owned(),
            databases: Vec::new(),
            users: Vec::new(),
            limits: Limits::default(),
            clients: None,
            counters: Vec::new(),
            paused: None,
            sockets: None,
            only_console: false,
            refused: without.to_vec(),
            rhythms: BTreeMap::new(),
            read_at: BTreeMap::new(),
        })
    }

    /// What it says that it is.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Whether a pooler that is told to stop would wait for nobody but us and our like.
    pub(super) fn holds_it_up(&self) -> bool {
        self.only_console
    }

    /// The time between two looks, as far as the pools' price lets it be the tick.
    pub(super) fn rest(&self, tick: Duration) -> Duration {
        let pools = self.rhythms.get(&Command::Pools);
        pools.map_or(tick, |rhythm| rhythm.look(tick, self.way()))
    }

    /// What the quickest command takes: the way there and back, and hardly more.
    fn way(&self) -> Duration {
        self.rhythms.values().filter_map(Rhythm::quickest).min().unwrap_or_default()
    }

    /// Asks what is due.
    pub(super) async fn look(
        &mut self,
        console: &mut Console,
        began: Instant,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Observation, Ended> {
        let mut look = Look { console, known: self, deadline, timeout, matters: false };
        let (pools, at_console) = look.pools().await?;
        let someone_waits = pools.iter().any(|pool| pool.cl_waiting.is_some_and(|n| n > 0));
        look.matters =
            someone_waits || look.known.lacks_databases(&pools) || look.known.fills_up(&pools);
        look.parts().await?;
        look.sockets(someone_waits).await?;
        let kind = self.kind;
        self.only_console = kind.waits_for_its_console()
            && self.clients.zip(at_console).is_some_and(|(all, at_console)| all <= at_console);
        Ok(self.observation(pools, began))
    }

    /// Whether a pool is of a database that nothing is known of yet, such as its size.
    fn lacks_databases(&self, pools: &[Pool]) -> bool {
        let known: HashSet<&str> = self.databases.iter().map(|it| it.name.as_str()).collect();
        pools.iter().any(|pool| !known.contains(pool.database.as_str()))
    }

    /// Whether so many clients are in pools that the places for them may run out.
    fn fills_up(&self, pools: &[Pool]) -> bool {
        let counts = pools.iter().flat_map(|pool| [pool.cl_active, pool.cl_waiting]);
        let clients = counts.flatten().fold(0, u32::saturating_add);
        let max = self.limits.max_client_conn;
        max.is_some_and(|max| f64::from(max) * FILLS_UP_FROM <= f64::from(clients))
    }

    fn observation(&self, pools: Vec<Pool>, began: Instant) -> Observation {
        let now = clock::monotonic();
        let since = |at: Instant| now.saturating_duration_since(at);
        let sockets = self
            .sockets
            .as_ref()
            .map(|(sockets, at)| Sockets { age: since(*at), ..sockets.clone() });
        Observation {
            version: self.version.clone(),
            pools,
            databases: self.databases.clone(),
            users: self.users.clone(),
            limits: self.limits.clone(),
            clients: self.clients,
            counters: self.counters.clone(),
            paused: self.paused,
            sockets,
            seconds: since(began).as_secs_f64(),
            rest_age: self.read_at.values().map(|at| since(*at)).max().unwrap_or_default(),
            refused: self.refused.iter().map(|command| command.sql().to_owned()).collect(),
        }
    }
}

impl Look<'_> {
    /// The pools, and how many clients are at the console.
    async fn pools(&mut self) -> Result<(Vec<Pool>, Option<u32>), Ended> {
        let command = Command::Pools;
        let answer = self.ask(command, parts::POOLS).await.map_err(|error| (command, error))?;
        let pools = parts::pools(&answer, self.known.kind, &self.known.console);
        let pools = pools.map_err(|why| (command, AskError::Unusable(why)))?;
        Ok((pools, parts::at_console(&answer, &self.known.console)))
    }

    /// All but single clients and servers.
    async fn parts(&mut self) -> Result<(), Ended> {
        let (kind, console) = (self.known.kind, self.known.console.clone());
        let read = |answer: &Answer| parts::clients(answer, kind);
        if let Some(clients) = self.part(Command::Lists, parts::LISTS, read).await? {
            self.known.clients = clients;
        }
        let read = |answer: &Answer| parts::databases(answer, kind, &console);
        if let Some(databases) = self.part(Command::Databases, parts::DATABASES, read).await? {
            self.known.databases = databases;
        }
        let read = |answer: &Answer| parts::users(answer, kind);
        if let Some(users) = self.part(Command::Users, parts::USERS, read).await? {
            self.known.users = users;
        }
        let read = |answer: &Answer| Ok(parts::limits(answer));
        if let Some(limits) = self.part(Command::Config, parts::CONFIG, read).await? {
            self.known.limits = limits;
        }
        let read = |answer: &Answer| Ok(parts::paused(answer));
        if let Some(paused) = self.part(Command::State, parts::STATE, read).await? {
            self.known.paused = paused;
        }
        let read = |answer: &Answer| parts::counters(answer, kind, &console);
        let totals = self.part(Command::StatsTotals, parts::STATS_TOTALS, read).await?;
        let counters = match totals {
            None if self.known.refused.contains(&Command::StatsTotals) => {
                self.part(Command::Stats, parts::STATS, read).await?
            }
            totals => totals,
        };
        if let Some(counters) = counters {
            self.known.counters = counters;
        }
        Ok(())
    }

    /// Single clients and servers, if they are due and not too many.
    async fn sockets(&mut self, someone_waits: bool) -> Result<(), Ended> {
        if self.known.clients.is_some_and(|clients| clients > MAX_CLIENTS_LISTED)
            || !self.is_due(Command::Clients, someone_waits)
        {
            return Ok(());
        }
        let checked = |answer: &Answer| -> Result<Answer, Unusable> {
            sockets::check_clients(answer)?;
            Ok(answer.clone())
        };
        let clients = self.part_now(Command::Clients, sockets::CLIENTS, checked).await?;
        let Some(clients) = clients else { return Ok(()) };
        let at = clock::monotonic();
        let servers = if self.known.refused.contains(&Command::Servers) {
            None
        } else {
            let read = |answer: &Answer| Ok(answer.clone());
            self.part_now(Command::Servers, sockets::SERVERS, read).await?
        };
        let sockets = sockets::sockets(&clients, servers.as_ref(), &self.known.console);
        self.known.sockets = Some((sockets, at));
        Ok(())
    }

    fn is_due(&self, command: Command, matters: bool) -> bool {
        let rhythm = self.known.rhythms.get(&command);
        let (way, now) = (self.known.way(), clock::monotonic());
        // A pooler that is slow has told its pools; a late answer to more would cost the session.
        if self.deadline.saturating_duration_since(now) < self.timeout / 2 {
            return false;
        }
        let due = |rhythm: &Rhythm| rhythm.is_due(command, matters, way, now);
        !self.known.refused.contains(&command) && rhythm.is_none_or(due)
    }

    /// A part, if it is due and this pooler has it.
    async fn part<T>(
        &mut self,
        command: Command,
        wanted: &[&'static str],
        read: impl Fn(&Answer) -> Result<T, Unusable>,
    ) -> Result<Option<T>, Ended> {
        if !self.is_due(command, self.matters) {
            return Ok(None);
        }
        let part = self.part_now(command, wanted, read).await?;
        if part.is_some() {
            self.known.read_at.insert(command, clock::monotonic());
        }
        Ok(part)
    }

    async fn part_now<T>(
        &mut self,
        command: Command,
        wanted: &[&'static str],
        read: impl Fn(&Answer) -> Result<T, Unusable>,
    ) -> Result<Option<T>, Ended> {
        let (sqlstate, said) = match self.ask(command, wanted).await {
            Ok(answer) => match read(&answer) {
                Ok(part) => return Ok(Some(part)),
                Err(Unusable(why)) => (String::new(), why),
            },
            Err(AskError::Refused { sqlstate, said }) => (sqlstate, said),
            Err(error) => return Err((command, error)),
        };
        tracing::debug!(command = command.sql(), sqlstate, said, "not to be had here");
        self.known.refused.push(command);
        Ok(None)
    }

    async fn ask(&mut self, command: Command, wanted: &[&'static str]) -> Result<Answer, AskError> {
        let began = clock::monotonic();
        let answer = self.console.ask(command, wanted, self.deadline, self.timeout).await;
        let cost = clock::monotonic().saturating_duration_since(began);
        self.known.rhythms.entry(command).or_default().note(began, cost);
        answer
    }
}
