//! What a person sees during a run: a bar for each running step on a
//! terminal, a line now and then elsewhere.

use crate::{
    base::text,
    cli::{plan::span, talk::Talk},
    plan::{Plan, freshness::Reason},
    runner::event::{Event, Observer},
    stages::work::Progress,
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Pause between two lines about the same step where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows the events of a run.
pub(crate) struct Console<'a> {
    plan: &'a Plan,
    talk: Talk,
    default: &'a (dyn Fn(&str, &str) -> Option<String> + Sync),
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    bars: Option<(MultiProgress, ProgressBar)>,
    running: BTreeMap<usize, Running>,
    reasons: BTreeMap<usize, Reason>,
    settled: BTreeSet<usize>,
}

struct Running {
    bar: Option<ProgressBar>,
    since: Instant,
    first: Option<(Instant, u64)>,
    told: Instant,
}

impl<'a> Console<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        talk: Talk,
        default: &'a (dyn Fn(&str, &str) -> Option<String> + Sync),
    ) -> Console<'a> {
        Console { plan, talk, default, seen: Mutex::default() }
    }

    /// Clears the bars.
    pub(crate) fn close(&self) {
        if let Some((all, total)) = self.seen().bars.take() {
            total.finish_and_clear();
            // What cannot be cleared stays on the screen; no harm.
            let _ = all.clear();
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn title(&self, step: usize) -> &str {
        &self.plan.steps[step].title
    }

    fn line(&self, seen: &Seen, line: &str) {
        match &seen.bars {
            // Bars and lines share the terminal through the same hands.
            Some((all, _)) => all.println(line).unwrap_or_else(|_| self.talk.say(line)),
            None => self.talk.say(line),
        }
    }

    fn start(&self, seen: &mut Seen, step: usize, cards: &[String]) {
        let kind = &self.plan.steps[step].shape.kind;
        let why = seen
            .reasons
            .remove(&step)
            .map(|reason| reason.phrase(&|path| (self.default)(kind, path)));
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        let on = match cards {
            [] => String::new(),
            [one] => format!(" on card {one}"),
            several => format!(" on cards {}", several.join(",")),
        };
        self.line(seen, &format!("{} starts{on}{why}", self.title(step)));
        let bar = self.bars(seen).map(|(all, total)| {
            let bar = all.insert_before(total, ProgressBar::no_length());
            bar.set_style(style("  {spinner} {prefix} {elapsed} {wide_msg}"));
            bar.set_prefix(self.title(step).to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let now = Instant::now();
        seen.running.insert(step, Running { bar, since: now, first: None, told: now });
    }

    fn bars<'s>(&self, seen: &'s mut Seen) -> Option<&'s (MultiProgress, ProgressBar)> {
        if !self.talk.terminal || self.talk.quiet {
            return None;
        }
        let settled = seen.settled.len() as u64;
        Some(seen.bars.get_or_insert_with(|| {
            let all = MultiProgress::new();
            let total = all.add(ProgressBar::new(self.plan.steps.len() as u64));
            total.set_style(style("  [{bar:30}] {pos} of {len} steps, {elapsed}"));
            total.set_position(settled);
            (all, total)
        }))
    }

    fn progress(&self, seen: &mut Seen, step: usize, progress: &Progress) {
        let title = self.title(step);
        let Some(running) = seen.running.get_mut(&step) else { return };
        let first = *running.first.get_or_insert((Instant::now(), progress.done));
        let words = words(progress, first);
        match &running.bar {
            Some(bar) => {
                if progress.total > 0 && bar.length() != Some(progress.total) {
                    bar.set_length(progress.total);
                    bar.set_style(style("  {spinner} {prefix} [{bar:20}] {elapsed} {wide_msg}"));
                }
                bar.set_position(progress.done);
                bar.set_message(words);
            }
            None if running.told.elapsed() >= PAUSE => {
                running.told = Instant::now();
                let since = running.since.elapsed();
                self.talk.say(&format!("{title}: {words}, {} so far", text::duration(since)));
            }
            None => {}
        }
    }

    fn end(&self, seen: &mut Seen, step: usize) {
        if let Some(Running { bar: Some(bar), .. }) = seen.running.remove(&step) {
            bar.finish_and_clear();
        }
    }

    fn settle(&self, seen: &mut Seen, step: usize) -> String {
        seen.settled.insert(step);
        if let Some((_, total)) = &seen.bars {
            total.set_position(seen.settled.len() as u64);
        }
        format!("[{}/{}]", seen.settled.len(), self.plan.steps.len())
    }
}

impl Observer for Console<'_> {
    fn hear(&self, event: &Event) {
        let seen = &mut *self.seen();
        match event {
            Event::Fresh { step } => drop(self.settle(seen, *step)),
            Event::Stale { step, reason } => drop(seen.reasons.insert(*step, reason.clone())),
            Event::Started { step, cards } => self.start(seen, *step, cards),
            Event::Progress { step, progress } => self.progress(seen, *step, progress),
            Event::Waiting { step, holder } => {
                self.line(seen, &format!("{} waits: {holder} is doing it", self.title(*step)));
            }
            Event::Done { step, seconds, elsewhere } => {
                self.end(seen, *step);
                let count = self.settle(seen, *step);
                let how = if *elsewhere { "was done elsewhere" } else { "done" };
                self.line(
                    seen,
                    &format!("{count} {} {how} in {}", self.title(*step), span(*seconds)),
                );
            }
            Event::Failed { step, why, hints } => {
                self.end(seen, *step);
                let mut chain = why.clone();
                chain[0] = format!("step `{}`: {}", self.title(*step), chain[0]);
                for line in self.talk.trouble(&chain, hints) {
                    match &seen.bars {
                        Some(_) => self.line(seen, &line),
                        None => self.talk.must_say(&line),
                    }
                }
            }
            Event::Retried { step, why, tries, of, pause } => {
                self.end(seen, *step);
                let warning = self.talk.paint("warning:", "1;33");
                let (title, why) = (self.title(*step), why.join(": "));
                let next = format!("tried again in {}", span(*pause));
                self.line(
                    seen,
                    &format!("{warning} {title}: try {tries} of {of} failed, {next}: {why}"),
                );
            }
            Event::Silent { step, seconds } => {
                let warning = self.talk.paint("warning:", "1;33");
                let (title, span) = (self.title(*step), span(*seconds));
                let remark = "it may be stuck; a `timeout` would end it";
                self.line(
                    seen,
                    &format!("{warning} {title}: nothing heard of it for {span}; {remark}"),
                );
            }
            Event::Stopped { step } => {
                self.end(seen, *step);
                self.line(seen, &format!("{} stopped", self.title(*step)));
            }
            Event::Skipped { step, because } => {
                self.line(
                    seen,
                    &format!(
                        "{} cannot run, because {} failed",
                        self.title(*step),
                        self.title(*because)
                    ),
                );
            }
            Event::Warned { step, text } => {
                let warning = self.talk.paint("warning:", "1;33");
                self.line(seen, &format!("{warning} {}: {text}", self.title(*step)));
            }
            Event::Healed { step, why } => {
                self.end(seen, *step);
                seen.settled.remove(step);
                let warning = self.talk.paint("warning:", "1;33");
                self.line(seen, &format!("{warning} {} is made again: {why}", self.title(*step)));
            }
        }
    }
}

/// `12,000 of 50,000 tokens (24 %), 1,234 tokens/s, 31 s left, reading`.
fn words(progress: &Progress, (start, first): (Instant, u64)) -> String {
    let mut words = match progress.total {
        0 => format!("{} {}", text::count(progress.done), progress.unit),
        total => format!(
            "{} of {} {} ({} %)",
            text::count(progress.done),
            text::count(total),
            progress.unit,
            100 * progress.done.min(total) / total
        ),
    };
    let (seconds, moved) = (start.elapsed().as_secs_f64(), progress.done.saturating_sub(first));
    if seconds > 0.5 && moved > 0 {
        let rate = moved as f64 / seconds;
        let figure =
            if rate >= 10.0 { text::count(rate.round() as u64) } else { format!("{rate:.2}") };
        words += &format!(", {figure} {}/s", progress.unit);
        if progress.total > progress.done {
            words += &format!(", {} left", span((progress.total - progress.done) as f64 / rate));
        }
    }
    if !progress.note.is_empty() {
        words += &format!(", {}", progress.note);
    }
    words
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("templates are tested by every run")
        .progress_chars("=> ")
}
