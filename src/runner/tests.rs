//! Runs with stages made of closures, in a store that goes away.

use crate::{
    base::{
        artifact::ArtifactKind,
        failure::{Class, Failure, Outcome},
        node::{Node, Origin, Sources, Table, Value},
        seed::Seed,
        spec::InputRef,
    },
    host::signal::StopFlag,
    plan::{ArmShape, Plan, StepShape},
    runner::{
        drive::{Drive, Finished, Options, drive},
        event::{Event, Observer},
        executor::InProcess,
        resources::{Capacity, Claim},
        state::State,
    },
    stages::{
        kind::{Ready, Stage, Written},
        work::Work,
    },
    store::{Store, history::History, journal, journal::Note},
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

type Body = dyn Fn(&Work) -> Outcome<()> + Send + Sync;

struct Closure(Arc<Body>);

impl Written for Closure {
    fn written(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl Stage for Closure {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("out".to_owned(), ArtifactKind::Files)]
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        (self.0)(work)
    }
}

/// Name, what it reads, and what it does.
type Line = (&'static str, &'static [&'static str], Arc<Body>);

fn write(text: &'static str) -> Arc<Body> {
    Arc::new(move |work: &Work| work.output("out").write("text", text.as_bytes()))
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn hear(&self, event: &Event) {
        let word = match event {
            Event::Started { step, .. } => format!("start {step}"),
            Event::Done { step, .. } => format!("done {step}"),
            Event::Skipped { step, because } => format!("skip {step} because {because}"),
            Event::Progress { progress, .. } => format!("{} {}", progress.done, progress.unit),
            _ => return,
        };
        self.0.lock().unwrap().push(word);
    }
}

fn go(folder: &Path, lines: &[Line], keep_going: bool, stop: &StopFlag) -> (Finished, Vec<String>) {
    let mut sources = Sources::default();
    let origin = Origin::new(sources.add("m.toml", ""), 0..0);
    let shape = |(name, inputs, _): &Line| StepShape {
        name: (*name).to_owned(),
        base: (*name).to_owned(),
        round: None,
        section: "stage".to_owned(),
        kind: "closure".to_owned(),
        version: 1,
        inputs: inputs
            .iter()
            .map(|input| InputRef {
                role: (*input).to_owned(),
                reference: (*input).to_owned(),
                want: ArtifactKind::Files,
                origin: origin.clone(),
            })
            .collect(),
        outputs: vec![("out".to_owned(), ArtifactKind::Files)],
        parameters: format!("name = \"{name}\"\n"),
        seed: None,
        numerics: None,
        table: Node::new(origin.clone(), Value::Table(Table::default())),
    };
    let arm = ArmShape { coordinates: Vec::new(), steps: lines.iter().map(shape).collect() };
    let (plan, found) = Plan::build("test", vec![arm]);
    assert!(!found.has_errors());
    let ready = |(_, _, body): &Line| Ready {
        stage: Arc::new(Closure(body.clone())),
        seed: Seed(1),
        device: "cpu".into(),
        place: None,
        execution: Arc::default(),
    };
    let stages: Vec<Ready> = lines.iter().map(ready).collect();
    let capacity = Capacity { cpus: 1, memory: None, cards: Vec::new() };
    let claims: Vec<Claim> = stages.iter().map(|ready| Claim::of(ready, &capacity)).collect();
    let store = Store::open(folder).unwrap();
    let mut history = History::read(&store).unwrap();
    let log = Log::default();
    let finished = drive(Drive {
        plan: &plan,
        stages: &stages,
        claims: &claims,
        store: &store,
        history: &mut history,
        executor: &InProcess,
        observer: &log,
        stop: stop.clone(),
        before: &|| Ok(()),
        options: Options {
            jobs: 1,
            capacity,
            keep_going,
            verify: false,
            device: "cpu".to_owned(),
            manifest: "m.toml".to_owned(),
        },
    })
    .unwrap();
    (finished, log.0.into_inner().unwrap())
}

#[test]
fn the_longest_way_goes_first() {
    let folder = temp_dir::TempDir::new().unwrap();
    let lines: &[Line] =
        &[("short", &[], write("a")), ("long", &[], write("b")), ("longer", &["long"], write("c"))];
    let (finished, log) = go(folder.path(), lines, false, &StopFlag::default());
    assert_eq!(finished.states, [State::Done; 3]);
    // One is stored while the next one works, so only starts have an order.
    let starts: Vec<&String> = log.iter().filter(|word| word.starts_with("start")).collect();
    assert_eq!(starts, ["start 1", "start 0", "start 2"]);
}

#[test]
fn a_memo_and_a_checkpoint_outlive_a_failure() {
    let folder = temp_dir::TempDir::new().unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let body = |limit: usize, made: Arc<AtomicUsize>| -> Arc<Body> {
        Arc::new(move |work: &Work| {
            let mut memo = work.memo::<usize>("squares")?;
            for i in 0..10 {
                if memo.get(&i.to_string()).is_none() {
                    if made.fetch_add(1, Ordering::Relaxed) == limit {
                        work.save_checkpoint(&BTreeMap::from([("at".to_owned(), vec![i as u8])]))?;
                        return Err(Failure::transient("the line broke"));
                    }
                    memo.put(&i.to_string(), &(i * i))?;
                }
                work.progress(i as u64 + 1, 10, "records", "");
            }
            let at = work.load_checkpoint()?.expect("saved before the failure")["at"][0];
            let sum: usize = (0..10).filter_map(|i| memo.get(&i.to_string())).sum();
            work.output("out").write("sum", format!("{sum} {at}").as_bytes())
        })
    };
    let stop = StopFlag::default();
    let (first, _) = go(folder.path(), &[("s", &[], body(6, made.clone()))], false, &stop);
    assert_eq!(first.failures[0].1.class, Class::Transient);
    let (second, log) = go(folder.path(), &[("s", &[], body(100, made.clone()))], false, &stop);
    assert_eq!(second.states, [State::Done]);
    assert_eq!(made.load(Ordering::Relaxed), 11, "six records, the one that failed, and four");
    assert!(log.contains(&"10 records".to_owned()), "{log:?}");
    let store = Store::open(folder.path()).unwrap();
    let record = second.records[0].as_ref().unwrap();
    let path = store.file(&record.outputs[0], "sum").unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "285 6");
    assert!(!store.partial(&record.key).exists(), "nothing to go on from any more");
}

#[test]
fn a_panic_is_a_bug_that_names_the_step_and_stops_only_what_depends_on_it() {
    let folder = temp_dir::TempDir::new().unwrap();
    let lines: &[Line] = &[
        ("bad", &[], Arc::new(|_: &Work| panic!("oh no"))),
        ("behind", &["bad"], write("a")),
        ("last", &["behind"], write("a")),
        ("beside", &[], write("b")),
    ];
    let (finished, log) = go(folder.path(), lines, true, &StopFlag::default());
    let (step, failure) = &finished.failures[0];
    assert_eq!((*step, failure.class), (0, Class::Bug));
    assert_eq!(failure.what, "step `bad` panicked: oh no");
    assert_eq!(finished.states, [State::Failed, State::Skipped(0), State::Skipped(0), State::Done]);
    assert!(log.contains(&"skip 2 because 0".to_owned()), "{log:?}");
}

#[test]
fn by_default_nothing_new_starts_after_a_failure() {
    let folder = temp_dir::TempDir::new().unwrap();
    let lines: &[Line] = &[
        ("bad", &[], Arc::new(|_: &Work| Err(Failure::input("no")))),
        ("behind", &["bad"], write("a")),
        ("beside", &[], write("b")),
    ];
    let (finished, _) = go(folder.path(), lines, false, &StopFlag::default());
    assert_eq!(finished.states, [State::Failed, State::Skipped(0), State::Queued]);
}

#[test]
fn a_raised_flag_ends_the_run_and_the_journal_tells() {
    let folder = temp_dir::TempDir::new().unwrap();
    let stop = StopFlag::default();
    let flag = stop.clone();
    let body: Arc<Body> = Arc::new(move |work: &Work| {
        flag.raise();
        work.check()
    });
    let (finished, _) =
        go(folder.path(), &[("s", &[], body), ("t", &["s"], write("a"))], false, &stop);
    assert_eq!(finished.states, [State::Stopped, State::Waiting]);
    assert!(finished.stopped && finished.failures.is_empty());
    let store = Store::open(folder.path()).unwrap();
    let (_, notes) = journal::newest(&store, "test").unwrap().unwrap();
    assert!(notes.iter().any(|timed| matches!(timed.note, Note::StepStopped { .. })));
    assert!(matches!(notes.last().unwrap().note, Note::RunEnded { .. }));
}
