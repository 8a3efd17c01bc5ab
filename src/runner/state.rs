//! The state of every step during a run, and which may follow which.

/// The state of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Something it reads is not settled.
    Waiting,
    /// All it reads is settled: it can be judged.
    Ready,
    /// Its result was stored already.
    Fresh,
    /// It must run and waits for a place.
    Queued,
    /// It runs.
    Running,
    /// It failed, and is to be tried again after a pause.
    Paused,
    /// It ran well.
    Done,
    /// It did not.
    Failed,
    /// It ended early because somebody asked.
    Stopped,
    /// It cannot run because this step failed.
    Skipped(usize),
}

impl State {
    /// Whether what it makes is stored.
    pub fn is_settled(self) -> bool {
        matches!(self, State::Fresh | State::Done)
    }

    fn may_become(self, next: State) -> bool {
        use State::{
            Done, Failed, Fresh, Paused, Queued, Ready, Running, Skipped, Stopped, Waiting,
        };
        match (self, next) {
            (Waiting, Ready | Skipped(_))
            | (Ready, Fresh | Queued | Failed)
            | (Queued, Running) => true,
            // What it reads turned out to be damaged, and is made again first.
            (Running, Done | Failed | Stopped | Waiting) => true,
            // It is to be tried again; then it is queued, or nobody wants it any more.
            (Running, Paused) | (Paused, Queued | Failed | Stopped) => true,
            // What it made turned out to be damaged.
            (Fresh | Done, Ready) => true,
            (Ready | Queued, Skipped(_)) => true,
            _ => false,
        }
    }
}

/// One state for each step.
#[derive(Clone, Debug)]
pub struct States(Vec<State>);

impl States {
    /// `n` steps that wait.
    pub fn new(n: usize) -> States {
        States(vec![State::Waiting; n])
    }

    /// The state of a step.
    pub fn get(&self, step: usize) -> State {
        self.0[step]
    }

    /// Changes the state of a step.
    ///
    /// # Panics
    /// When `next` cannot follow its present state.
    pub fn set(&mut self, step: usize, next: State) {
        let now = self.0[step];
        assert!(now.may_become(next), "BUG: step {step} cannot go from {now:?} to {next:?}");
        self.0[step] = next;
    }

    /// All states, by step.
    pub fn all(&self) -> &[State] {
        &self.0
    }

    /// How many steps are in a state that `test` accepts.
    pub fn count(&self, test: impl Fn(State) -> bool) -> usize {
        self.0.iter().filter(|&&state| test(state)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_goes_from_waiting_to_done_and_back_when_it_is_damaged() {
        let mut states = States::new(1);
        for next in
            [State::Ready, State::Queued, State::Running, State::Done, State::Ready, State::Fresh]
        {
            states.set(0, next);
        }
        assert!(states.get(0).is_settled());
        assert!(std::panic::catch_unwind(move || states.set(0, State::Running)).is_err());
    }
}
