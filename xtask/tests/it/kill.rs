//! Kill it anywhere: at a random instant of migrate and of rollback something is killed, and the same
//! command again ends in the state of an undisturbed run, every row and value of `users` included.
//!
//! `XTASK_KILL_ROUNDS` says how many times (30; with `XTASK_LONG=1` 300), `XTASK_KILL_SEED` repeats
//! the instants of an earlier run, which prints its seed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use private_server::{Stop, ThrowawayServer};

use crate::common::{
    BASELINE, Project, READER, Running, SNAPSHOT, WRITER, blocker, children_of, installation, long,
    own_server, setting, signal, until,
};
use crate::proxy::Proxy;

/// What is killed.
const KINDS: [&str; 5] = [
    "the tool",
    "psql",
    "a backend",
    "the server",
    "the connection",
];
/// How often a command is tried again where the server itself is coming back.
const TRIES: usize = 5;

/// A small generator of pseudo-random numbers (SplitMix64), so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

const BACKENDS: &str = "SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'xtask %' ORDER BY pid";

/// Tries something until it is done or the run has ended.
fn while_it_runs(run: &mut Running, mut done: impl FnMut(&Running) -> bool) {
    while !done(run) && run.child.try_wait().expect("can be asked").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// One server, one project on it, and what a round needs.
struct Harness {
    server: &'static ThrowawayServer,
    project: Project,
    proxy: Proxy,
}

impl Harness {
    fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.project.command(arguments);
        Running::of(command.env("DATABASE_URL", self.proxy.url(&self.project.url)))
    }

    /// Kills one of these now; one that is not there yet, as soon as it is.
    fn kill(&self, kind: &str, run: &mut Running, random: &mut Random) {
        match kind {
            "the tool" => run.signal("KILL"),
            "psql" => while_it_runs(run, |run| {
                let children = children_of(run.child.id());
                for &child in &children {
                    signal("KILL", child);
                }
                !children.is_empty()
            }),
            "a backend" => {
                let mut client = self.project.client();
                while_it_runs(run, |_| {
                    let rows = client.query(BACKENDS, &[]).expect("the query runs");
                    if rows.is_empty() {
                        return false;
                    }
                    let pid: i32 = rows[random.below(rows.len())].get(0);
                    let end = "SELECT pg_terminate_backend($1)";
                    client.query(end, &[&pid]).expect("the query runs");
                    true
                });
            }
            "the server" => {
                let cluster = self.server.cluster();
                cluster.stop(Stop::Immediate).expect("stops");
                let port = cluster.start(&[installation()]).expect("starts");
                assert_eq!(port, self.server.port(), "comes back where it was");
            }
            _ => self.proxy.cut(),
        }
    }
}

#[test]
fn killed_at_any_instant_the_same_command_again_ends_as_an_undisturbed_run() {
    let rounds = setting("XTASK_KILL_ROUNDS").and_then(|rounds| rounds.parse().ok());
    let rounds: usize = rounds.unwrap_or(if long() { 300 } else { 30 });
    let seed = setting("XTASK_KILL_SEED").and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.expect("after 1970").as_nanos() as u64
    });
    println!("XTASK_KILL_SEED={seed} XTASK_KILL_ROUNDS={rounds}");
    let mut random = Random(seed);
    let server = own_server(&[]);
    let harness = Harness {
        server,
        project: Project::seeded_on(server),
        proxy: Proxy::before(server.port()),
    };
    let project = &harness.project;

    // Two undisturbed runs: what each leaves, and how long it takes.
    let up = ["db-migrate"];
    let down = ["db-rollback", "--to", BASELINE, "--yes"];
    let undisturbed = |arguments: &[&str]| {
        let at = Instant::now();
        harness.start(arguments).ends().succeeds();
        let takes = at.elapsed();
        (project.state(), takes)
    };
    let (migrated, up_takes) = undisturbed(&up);
    let (rolled_back, down_takes) = undisturbed(&down);

    let mut met = BTreeMap::<&str, (usize, usize)>::new();
    for round in 0..rounds {
        let (arguments, end, takes) = match round % 2 {
            0 => (&up[..], &migrated, up_takes),
            _ => (&down[..], &rolled_back, down_takes),
        };
        let kind = KINDS[random.below(KINDS.len())];
        // A third of them anywhere, a third while something changes, which takes but a moment here, and
        // a third in the midst of the index's build, which somebody holds up.
        let (after, instant) = match random.below(3) {
            0 => ("Database", takes.mul_f64(random.share())),
            1 => ("Backed up", takes.mul_f64(random.share() / 3.0)),
            _ => ("Waiting", takes.mul_f64(random.share() / 3.0)),
        };
        let in_the_way = (after == "Waiting").then(|| {
            let holding = if round % 2 == 0 { SNAPSHOT } else { READER };
            blocker(project, holding)
        });
        let what = format!(
            "round {round} with XTASK_KILL_SEED={seed}: {kind} killed {instant:.0?} after `{after}` of {arguments:?}"
        );
        println!("{what}");
        let mut run = harness.start(arguments);
        while_it_runs(&mut run, |run| run.said().contains(after));
        std::thread::sleep(instant);
        harness.kill(kind, &mut run, &mut random);
        // After the restart of a server it is gone, too.
        drop(in_the_way);
        let killed = run.ends();
        let (rounds, hit) = met.entry(kind).or_default();
        *rounds += 1;
        *hit += usize::from(killed.status != 0);
        assert!(
            !killed.stderr.contains("panicked at"),
            "{what}\n{}",
            killed.stderr
        );

        // The first that ends well; a server that is coming back may refuse some.
        let mut said = Vec::new();
        let done = (0..TRIES).any(|_| {
            let again = harness.start(arguments).ends();
            said.push(again.stderr);
            again.status == 0
        });
        assert!(done, "{what}\n{}\n{}", killed.stderr, said.join("\n---\n"));
        assert!(
            said.len() == 1,
            "{what}: took {} more runs\n{}\n{}",
            said.len(),
            killed.stderr,
            said.join("\n---\n")
        );
        assert!(
            project.state() == *end,
            "{what}\nis\n{}\nexpected\n{end}\n{}\n{}",
            project.state(),
            killed.stderr,
            said.join("\n---\n")
        );
    }
    for (kind, (rounds, hit)) in met {
        println!(
            "{kind} killed: {rounds} rounds, in {hit} of them the run had not ended well by then"
        );
    }
}

#[test]
fn killed_between_two_statements_it_says_which_took_effect_and_goes_on() {
    let project = Project::seeded();
    project.xtask(&["db-migrate"]).succeeds();
    project.write(
        "migrations/20260101000000_two.up.sql",
        "-- no-transaction\n\
         CREATE INDEX CONCURRENTLY IF NOT EXISTS first_of_two ON sessions (expires_at);\n\
         CREATE INDEX CONCURRENTLY IF NOT EXISTS second_of_two ON users (role);\n",
    );
    let (holder, pid) = blocker(&project, WRITER);
    let mut run = project.start(&["db-migrate"]);
    run.says(&format!("pid {pid},"));
    run.signal("KILL");
    run.ends();
    project.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE 'xtask %'",
    );
    until("no session of ours is left", || project.backends() == 0);
    let status = project.xtask(&["db-status"]).succeeds();
    status.says("second_of_two").says("INVALID");
    drop(holder);
    project
        .xtask(&["db-migrate"])
        .succeeds()
        .says("first_of_two\" already exists, skipping")
        .says("second_of_two` is INVALID, left by an interrupted build");
    project.xtask(&["db-status", "--check"]).succeeds();
    assert_eq!(project.value("SELECT count(*) FROM pg_index WHERE indexrelid IN ('first_of_two'::regclass, 'second_of_two'::regclass) AND indisvalid"), "2");
}
