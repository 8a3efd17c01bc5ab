//! From a path to a plan: the way all commands share.

use crate::{
    base::{
        diag::Diagnostics,
        failure::{Class, Failure, Outcome},
        node::Sources,
        text,
    },
    cli::{
        Program, Stop,
        arguments::{ManifestArgument, Options},
        behind, exit, machine,
        talk::Talk,
    },
    host::fs,
    manifest::{Arm, Findings, Manifest},
    plan::{Plan, Step, contrast},
    runner::resources::{Capacity, Claim},
    stages::kind::{Numerics, Ready, resolve},
    store::{Store, history::History},
};
use std::{cell::RefCell, collections::BTreeMap, path::Path};

/// An experiment, ready to be run.
pub(crate) struct Loaded {
    pub(crate) sources: Sources,
    pub(crate) arms: Vec<Arm>,
    pub(crate) plan: Plan,
    /// What runs for each step of the plan.
    pub(crate) stages: Vec<Ready>,
    /// What steps may take of the machine.
    pub(crate) capacity: Capacity,
    /// What each step wants of it.
    pub(crate) claims: Vec<Claim>,
    pub(crate) device: String,
    pub(crate) manifest: String,
    /// The class of arithmetic of each device that a step uses.
    pub(crate) classes: BTreeMap<String, String>,
    /// Whether a step takes something from outside the store.
    pub(crate) looked_outside: bool,
    /// Whether anything was said of the manifest.
    pub(crate) remarked: bool,
}

impl Loaded {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.plan.experiment
    }

    /// Where its report goes.
    pub(crate) fn results(&self) -> String {
        let head = self.arms.first().map(|arm| &arm.head);
        let named = head.and_then(|head| head.results.clone());
        named.unwrap_or_else(|| format!("results/{}", self.name()))
    }
}

/// Reads a manifest and plans it; its mistakes are told. Devices are asked
/// only when `probe` says so.
pub(crate) fn load(
    program: &Program,
    options: &Options,
    manifest: &Path,
    probe: bool,
    talk: &Talk,
) -> Result<&'static Loaded, Stop> {
    load_behind(program, options, manifest, (probe, None), talk)
}

/// [`load`] of no more than a step and what is behind it, where the manifest is
/// large and nothing else can matter.
pub(crate) fn load_behind(
    program: &Program,
    options: &Options,
    manifest: &Path,
    (probe, only): (bool, Option<&str>),
    talk: &Talk,
) -> Result<&'static Loaded, Stop> {
    let (loaded, sources, found) = try_load(program, options, manifest, probe, only)?;
    talk.diagnostics(&found, &sources)?;
    match loaded {
        // A command has one experiment and ends with it: to take a large one
        // apart would take longer than many an answer.
        Some(loaded) if !found.has_errors() => {
            Ok(Box::leak(Box::new(Loaded { sources, ..loaded })))
        }
        _ => {
            let count = found.errors() as u64;
            talk.say(&format!("{} in `{}`", text::plural(count, "mistake"), manifest.display()));
            Err(Stop::Manifest)
        }
    }
}

fn try_load(
    program: &Program,
    options: &Options,
    path: &Path,
    probe: bool,
    only: Option<&str>,
) -> Result<(Option<Loaded>, Sources, Diagnostics), Stop> {
    let Some(entry) = path.to_str() else {
        return Err(Stop::Arguments(Failure::input("the manifest's path is not UTF-8")));
    };
    let language = program.language();
    let trouble = RefCell::new(None);
    let loader = |name: &str| {
        read_text(Path::new(name)).map_err(|failure| {
            let text = failure.chain().join(": ");
            trouble.borrow_mut().get_or_insert(failure);
            text
        })
    };
    let (manifest, sources, mut found) = Manifest::read(&loader, entry, &options.sets, &language);
    let Some(manifest) = manifest else {
        return match trouble.into_inner() {
            Some(failure) if !path.exists() => Err(Stop::Arguments(failure)),
            Some(failure) if failure.class == Class::Input => Err(Stop::Unreadable(failure)),
            Some(failure) => Err(Stop::Failed(failure)),
            _ => Ok((None, sources, found)),
        };
    };
    let (mut arms, mistakes) = manifest.expand(&language);
    found.extend(mistakes);
    let mut is_whole = true;
    if let (Some(text), [arm], true) = (only, &mut arms[..], found.is_empty())
        && let Some(places) = behind::places(program.kinds, arm, text)
    {
        arm.keep(&places);
        is_whole = false;
    }
    let device = options.device.clone();
    let device = device.or_else(|| arms.first().and_then(|arm| arm.head.device.clone()));
    let device = device.unwrap_or_else(|| "auto".to_owned());
    let device = arms.first().map_or(device.clone(), |arm| arm.head.on(&device));
    let numerics = |device: &str| (program.numerics)(device);
    let world = probe.then_some(&numerics as Numerics);
    let (resolved, mistakes) = resolve(program.kinds, &arms, options.device.as_deref(), world)?;
    found.extend(mistakes);
    // Steps with mistakes are missing: references to them would seem wrong too.
    let whole =
        resolved.arms.iter().zip(&arms).all(|(shape, arm)| shape.steps.len() == arm.steps.len());
    if !whole {
        return Ok((None, sources, found));
    }
    let name = arms.first().map_or(String::new(), |arm| arm.head.name.clone());
    let (plan, mistakes) = Plan::build(&name, resolved.arms);
    found.extend(mistakes);
    if is_whole && !found.has_errors() {
        let findings: Vec<Findings> =
            arms.iter().map(|arm| arm.findings(&mut arm.reading())).collect();
        found.extend(contrast::check(&plan, &arms, &findings));
    }
    let ready = |step: &Step| resolved.stages[step.source.0][step.source.1].clone();
    let stages: Vec<Ready> = plan.steps.iter().map(ready).collect();
    let said = arms.first().and_then(|arm| arm.machine(&mut arm.reading()));
    let capacity = machine::capacity(options, said);
    let claims: Vec<Claim> = stages.iter().map(|ready| Claim::of(ready, &capacity)).collect();
    machine::warn(&plan, &arms, &claims, &capacity, &mut found);
    let manifest = entry.to_owned();
    let loaded = Loaded {
        sources: Sources::default(),
        arms,
        plan,
        stages,
        capacity,
        claims,
        device,
        manifest,
        classes: resolved.classes,
        looked_outside: resolved.looked_outside,
        remarked: !found.is_empty(),
    };
    Ok((Some(loaded), sources, found))
}

/// The text of a manifest.
fn read_text(path: &Path) -> Outcome<String> {
    let bytes = fs::read(path)?
        .ok_or_else(|| Failure::input(format!("there is no file `{}`", path.display())))?;
    String::from_utf8(bytes).map_err(|error| {
        Failure::input(format!(
            "`{}` is not UTF-8: the byte at offset {} cannot be read",
            path.display(),
            error.utf8_error().valid_up_to()
        ))
        .hint("save the file as UTF-8")
    })
}

/// The store if there is one, and what it remembers.
pub(crate) fn open_store(options: &Options) -> Outcome<(Option<Store>, History)> {
    let store = Store::open_existing(&options.store)?;
    let history = store.as_ref().map(History::read).transpose()?.unwrap_or_default();
    Ok((store, history))
}

/// What `read` gives, and what [`open_store`] does, which goes on beside it.
/// `many` says that most records will be looked at.
pub(crate) fn beside_store<T>(
    options: &Options,
    many: bool,
    read: impl FnOnce() -> Result<T, Stop>,
) -> Result<(T, Option<Store>, History), Stop> {
    std::thread::scope(|scope| {
        let ahead = scope.spawn(|| {
            let (store, history) = open_store(options)?;
            if let Some(store) = store.as_ref().filter(|_| many) {
                store.look_ahead();
            }
            Outcome::Ok((store, history))
        });
        let read = read()?;
        let known = ahead.join().map_err(|_| Failure::bug("reading the store ended in a panic"))?;
        let (store, history) = known?;
        Ok((read, store, history))
    })
}

/// `check`: tells all mistakes.
pub(crate) fn check(
    program: &Program,
    options: &Options,
    argument: &ManifestArgument,
    talk: &Talk,
) -> Result<u8, Stop> {
    let loaded = load(program, options, &argument.manifest, false, talk)?;
    if talk.json {
        talk.json_data(&serde_json::json!({
            "diagnostics": [], "arms": loaded.arms.len(), "steps": loaded.plan.steps.len(),
        }))?;
    } else {
        talk.say(&format!(
            "`{}` is well-formed: {} in {}",
            argument.manifest.display(),
            text::plural(loaded.plan.steps.len() as u64, "step"),
            text::plural(loaded.arms.len() as u64, "arm"),
        ));
    }
    Ok(exit::OK)
}
